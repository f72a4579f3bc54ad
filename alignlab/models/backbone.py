"""The forward of prompt trees through a transformer, and the check that it is the model's own."""

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from alignlab.data.trees import PromptTree, PromptTrees, bounds_of, collate
from alignlab.errors import ConfigError
from alignlab.models.attention import packed_inputs
from alignlab.models.layouts import Layout, Rows, flat_rows, length_groups, packed_row
from alignlab.models.limits import check_batch, check_rows, context_of
from alignlab.models.loading import PACKAGES, default_device
from alignlab.models.modes import reading
from alignlab.models.prompt_tuning import PromptedTransformer, virtual_tokens
from alignlab.models.quantised import coarsest

MAX_GROUPS = 4  # of flat rows on a CPU; a GPU makes one call, and all sharded ranks the same number


class TreeBackbone(nn.Module):
    """Base of every model that reads prompt trees: it turns trees into hidden states.

    Subclasses set ``self.model`` (a Hugging Face model) and call ``hidden_states``.

    Attributes:
        meter: Called with the arguments of each ``hidden_states``, to count what is computed.
    """

    ENTRIES: ClassVar[tuple[str, ...]] = ()  # methods that read weights, beside ``forward``

    model: Any  # a Hugging Face model: its attributes vary by architecture
    tokenizer: Any
    layout: Layout
    meter: Callable[[PromptTrees, Tensor], None] | None = None

    @classmethod
    def load(cls, path: str | Path, **settings: Any) -> Self:
        """The model saved in folder ``path`` (``settings`` as in the constructor)."""
        return cls(source=str(path), **settings)

    @classmethod
    def load_for_eval(
        cls, path: str | Path, device: str | torch.device | None = None, **settings: Any
    ) -> Self:
        """The model in ``path``, in eval mode, on ``device`` or on a GPU where there is one."""
        return cls.load(path, **settings).eval().to(device or default_device())

    @property
    def backbone(self) -> Any:
        """The transformer without its head (adapters, if any, live inside it)."""
        if self.virtual_tokens and not self.model._adapters_disabled:
            return PromptedTransformer(self.model)
        return self.whole_model.base_model

    @property
    def whole_model(self) -> Any:
        """The Hugging Face model below adapters."""
        return self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model

    @property
    def virtual_tokens(self) -> int:
        """Number of trained vectors before every prompt (prompt tuning)."""
        return virtual_tokens(self.model)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    @property
    def room(self) -> int | None:
        """The most tokens of prompt + completion that the model has positions for."""
        bound = context_of(self.model.config.get_text_config(decoder=True))
        return None if bound is None else bound - self.virtual_tokens

    def check_rows(self, trees: Iterable[PromptTree], more: int = 0) -> None:
        """Refuse rows that the model cannot read, with ``more`` tokens behind each.

        Raises:
            DataError: A row is too long, or has a token without an embedding.
            ConfigError: Sparse attention does not keep all tokens of a row.
        """
        room, trees = self.room, trees if isinstance(trees, Sequence) else list(trees)
        left = None if room is None else room - more
        longest = max(1, bounds_of(trees).longest)
        check_sparse(self.model, longest - 1 + more)  # nothing reads the last
        check_rows(self.model, self.tokenizer, trees, left)

    def hidden_states(self, trees: PromptTrees, select: Tensor, *, after: bool) -> Tensor:
        """Last hidden states ``[N, H]`` at the N True cells of ``select`` ``[M, T]``, row by row.

        ``after`` False gives the state that predicts completion token t (before it is read),
        True the state once it has been read. With one column more than there are tokens,
        ``[M, T + 1]``, the state "before" the column after a completion's last token can be asked
        for too.
        """
        check_batch(self.model, self.tokenizer, trees, self.room)
        if self.meter is not None:
            self.meter(trees, select)
        keep_last = after or select.shape[1] > trees.completion_ids.shape[1]
        if self.layout != "flat":
            return self._run(packed_row(trees, keep_last=keep_last), select, after=after)
        alone = self.device.type == "cpu" and not isinstance(self, FSDPModule)
        groups = length_groups(trees, MAX_GROUPS if alone else 1)
        if len(groups) == 1:
            return self._run(flat_rows(trees, keep_last=keep_last), select, after=after)
        parts = [
            self._run(flat_rows(trees, keep_last=keep_last, which=g), select[g], after=after)
            for g in groups
        ]
        # Cells come out group by group; number them to put them back row by row.
        number = (select.flatten().cumsum(0) - 1).view_as(select)
        order = torch.cat([number[g][select[g]] for g in groups])
        return torch.cat(parts)[order.argsort()]

    def _run(self, rows: Rows, select: Tensor, *, after: bool) -> Tensor:
        if rows.branches is None:
            check_sparse(self.model, rows.input_ids.shape[1])
        ids, branches = rows.input_ids, rows.branches
        out = self.backbone(
            input_ids=ids,
            position_ids=rows.position_ids,
            use_cache=False,  # a cache would let packed completions see each other
            **({} if branches is None else packed_inputs(branches, ids.device)),
        )[0]
        m, t = select.nonzero().unbind(1)
        return out[rows.row[m], rows.columns(select.shape[1], after=after)[m, t]]

    def settle_layout(self) -> str:
        """Compare flat rows with the model's own forward, and the packed row with flat ones.

        The rows are random trees of different lengths, the longest longer than the attention
        windows in the config. If the packed row differs, or may differ when it is longer, the
        layout stays flat: the model uses an attention window, or a token's position in its row.

        Returns:
            The layout that is kept, and why.

        Raises:
            ConfigError: Flat rows differ from the model's own forward, too, so no layout is right;
                or there is no such layout.
        """
        if self.layout not in get_args(Layout):
            raise ConfigError(f"layout {self.layout!r} is unknown. Set auto, packed or flat.")
        if self.model.config._attn_implementation in PACKAGES:  # kernels that need a GPU
            self.to(default_device())
        try:
            with reading(self):
                return self._settle(self.layout)
        except ConfigError:
            raise
        except UNREADABLE as problem:
            first = (str(problem).strip() or "no message").split("\n")[0]
            raise ConfigError(
                f"{type(self.model).__name__} cannot read rows of tokens as a decoder: "
                f"{type(problem).__name__}: {first} {UNSUPPORTED}"
            ) from problem

    def _settle(self, wanted: Layout) -> str:
        if getattr(self.model.config, "rescale_every", 0):
            # RWKV divides its weights by powers of 2 in eval mode, and would be saved like that.
            self.model.config.rescale_every = 0
        trees = probe_trees(self.model.config, self.virtual_tokens).to(self.device)
        flat = self._probed("flat", trees)
        self._check_causal(trees, flat)
        error = self._own_error(trees, flat)
        if error > (1e-4 if _exact(coarsest(self.model, flat.dtype)) else 0.1):
            raise ConfigError(
                f"{type(self.model).__name__}: what its transformer and head give differs by "
                f"{error:.1e} (relative) from its own forward. {UNSUPPORTED}"
            )
        self.layout, report = self._shared_if_equal(wanted, trees, flat)
        return report

    def _probed(self, layout: Layout, trees: PromptTrees) -> Tensor:
        """States before every completion token and after the last one, row by row."""
        self.layout = layout
        return self.hidden_states(trees, probe_cells(trees), after=False)

    def _check_causal(self, trees: PromptTrees, states: Tensor) -> None:
        """Check that a prompt's last state does not depend on the completion after it.

        Raises:
            ConfigError: It does: the model sees the tokens that it has to predict.
        """
        cells = trees.completion_lengths + 1
        at_prompt = states[cells.cumsum(0) - cells]
        first = torch.searchsorted(trees.group, trees.group)  # of the same prompt
        dtype = coarsest(self.model, states.dtype)
        gap = relative_error(at_prompt, at_prompt[first], dtype)
        if gap > (1e-4 if _exact(dtype) else 0.1):
            raise ConfigError(
                f"{type(self.model).__name__} sees tokens before it predicts them: states "
                f"differ by {gap:.1e} (relative) with what follows. Only a decoder has log-probs; "
                "where the config has is_decoder, set it."
            )

    def _shared_if_equal(
        self, wanted: Layout, trees: PromptTrees, flat: Tensor
    ) -> tuple[Layout, str]:
        """The layout to keep and why: ``wanted`` if its rows give the states that flat ones do."""
        if wanted == "flat":
            return "flat", "flat: asked for"
        if reason := needs_flat(self.model):
            return "flat", f"flat: {reason}"
        dtype = coarsest(self.model, flat.dtype)
        try:
            error = relative_error(self._probed("packed", trees), flat, dtype)
        except UNREADABLE as problem:
            return "flat", f"flat: packed rows raise {type(problem).__name__}: {problem}"
        tolerance = 1e-9 if dtype == torch.float64 else 1e-5 if _exact(dtype) else 3e-2
        if error <= tolerance:
            return "packed", f"packed: agrees with flat rows to {error:.1e}"
        return "flat", f"flat: packed rows differ by {error:.1e} of the largest state"

    @abstractmethod
    def _own_error(self, trees: PromptTrees, states: Tensor) -> float:
        """Relative difference between what the head makes of ``states`` and the own forward.

        Args:
            trees: The probe.
            states: ``[N, H]`` at its ``probe_cells``.
        """

    def _own_logits(self, trees: PromptTrees) -> Iterator[Tensor]:
        """What the model's own forward gives for each completion, read alone: ``[1, L, V]``."""
        for m, p in enumerate(trees.group.tolist()):
            n, k = int(trees.prompt_lengths[p]), int(trees.completion_lengths[m])
            ids = torch.cat([trees.prompt_ids[p, :n], trees.completion_ids[m, :k]])
            yield self.model(ids[None], use_cache=False).logits


UNSUPPORTED = "This architecture is not supported."
# Errors that architectures raise which are not decoders of rows of tokens.
UNREADABLE = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
)
LONGEST_WINDOW = 512  # windows up to here are probed beyond: longer rows take seconds on a CPU


def probe_trees(config: Any, virtual: int = 0) -> PromptTrees:
    """Ragged random trees for a model of this config, one-token prompts and completions among them.

    The longest branch has 64 tokens, or 8 more than the longest attention window that the config
    names (up to ``LONGEST_WINDOW``), as far as the model's context reaches.

    Args:
        config: Of the model.
        virtual: Places of the context that virtual tokens take.
    """
    text = config.get_text_config(decoder=True)
    contexts = (context_of(text), getattr(text, "index_topk", None), LONGEST_WINDOW + 8)
    room = min(n for n in contexts if n is not None) - virtual
    generator = torch.Generator().manual_seed(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(text.vocab_size, (n,), generator=generator).tolist())

    shapes = [(1, (1, 3, 2)), (24, (40, 1))]
    windows = [w for w in attention_windows(config).values() if 56 < w <= LONGEST_WINDOW]
    if windows:
        shapes.append((max(windows) // 2, (max(windows) - max(windows) // 2 + 8,)))
    trees = []
    for i, (p, completions) in enumerate(shapes):
        prompt = min(p, max(1, room // 2))
        rows = tuple(ids(min(n, max(1, room - prompt))) for n in completions)
        trees.append(PromptTree(i, f"probe {i}", ids(prompt), rows))
    return collate(trees)


def relative_error(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> float:
    """How far apart two computations in ``dtype`` of the same states or logits are.

    In float32 and finer it is the largest difference over the largest value. In coarser types some
    tokens are off by far more than most (a router that takes another expert), so it is the root
    mean square of the difference over that of the values.
    """
    gap, scale = (found - wanted).double(), wanted.double()
    if _exact(dtype):
        return float(gap.abs().max() / scale.abs().max().clamp(min=1e-6))
    return float((gap.square().mean() / scale.square().mean().clamp(min=1e-12)).sqrt())


def probe_cells(trees: PromptTrees) -> Tensor:
    """``[M, T + 1]`` bool: the states before every completion token and after the last one."""
    steps = torch.arange(trees.completion_ids.shape[1] + 1, device=trees.completion_ids.device)
    return steps <= trees.completion_lengths[:, None]


def _exact(dtype: torch.dtype) -> bool:
    return dtype in (torch.float32, torch.float64)


def attention_windows(config: Any) -> dict[str, int]:
    """Settings of a config that bound how far a token sees, in tokens, by name."""
    values = config.get_text_config(decoder=True).to_dict()
    if values.get("use_sliding_window") is False:
        values = {name: value for name, value in values.items() if "sliding" not in name}
    return {
        name: value
        for name, value in values.items()
        if type(value) is int and value > 0 and _WINDOW.search(name) and not _OTHER.search(name)
    }


_WINDOW = re.compile("window|chunk|local|stride|block_size|index_topk")
_OTHER = re.compile("expert|layer|pattern|feed_forward|lm_head")  # what the words stand for besides
_LAYERS = re.compile("^(layer_types|layers_block_type|block_types|att.*_(layers|types))$")
_FULL = {"full_attention", "full", "global", "attention", "mlp", "moe"}


def check_sparse(model: Any, columns: int) -> None:
    """Check that sparse attention keeps all tokens of rows of ``columns`` tokens.

    Raises:
        ConfigError: It does not: which ones it keeps depends on how the row is padded.
    """
    config = model.config.get_text_config(decoder=True)
    kept = getattr(config, "index_topk", None)
    if kept is None:
        return
    rates = getattr(config, "compress_rates", None) or {}
    most = kept * rates.get("compressed_sparse_attention", 1)
    if columns > most:
        raise ConfigError(
            f"{type(model).__name__} attends to {kept} of a row's tokens (index_topk) and a row "
            f"has {columns}: which ones are kept depends on its padding, so its log-probs are not "
            f"defined. Bound prompt + completion by {most} tokens."
        )


def needs_flat(model: Any) -> str | None:
    """Why packed rows may differ from flat ones although the probe's do not, or ``None``."""
    if virtual_tokens(model):
        return "virtual tokens stand before every row"
    text = model.config.get_text_config(decoder=True)
    for name, value in text.to_dict().items():
        if _LAYERS.search(name) and (others := _words(value) - _FULL):
            return f"{name} has {', '.join(sorted(others))}, which may not see a whole row"
    for name, width in attention_windows(model.config).items():
        return f"{name} {width} bounds what a token sees"
    if text._attn_implementation != "sdpa":
        return f"the attention function is {text._attn_implementation}, packed rows need sdpa"
    return None


def _words(value: Any) -> set[str]:
    """All strings in a nested list."""
    if isinstance(value, str):
        return {value}
    return set().union(*map(_words, value)) if isinstance(value, list | tuple) else set()
