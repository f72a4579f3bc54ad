"""The one way prompt trees go through a transformer, and the check that it is the right one."""

from typing import Any

import torch
from torch import Tensor, nn

from alignlab.data.trees import PromptTree, PromptTrees, collate
from alignlab.models.layouts import (
    DENSE_COST,
    Layout,
    Rows,
    flat_rows,
    length_groups,
    packed_rows,
    plan,
    tree_rows,
)
from alignlab.models.prompt_tuning import PromptedTransformer, virtual_tokens

MAX_TREE_COLUMNS = 4096
MAX_GROUPS = 4  # of flat rows on a CPU; a GPU is better off with one call


class TreeBackbone(nn.Module):
    """Base of every model that reads prompt trees: it turns trees into hidden states.

    Subclasses set ``self.model`` (a Hugging Face model) and call ``hidden_states``.
    """

    model: Any  # a Hugging Face model: its attributes vary by architecture
    layout: Layout

    @property
    def backbone(self) -> Any:
        """The transformer without its head (adapters, if any, live inside it)."""
        if self.virtual_tokens and not self.model._adapters_disabled:
            return PromptedTransformer(self.model)
        model = self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model
        return model.base_model

    @property
    def virtual_tokens(self) -> int:
        """Trained vectors that stand in front of every prompt (prompt tuning)."""
        return virtual_tokens(self.model)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.model.parameters()).device

    def hidden_states(self, trees: PromptTrees, select: Tensor, *, after: bool) -> Tensor:
        """Last hidden states ``[N, H]`` at the N True cells of ``select`` ``[M, T]``, row by row.

        ``after`` False gives the state that predicts completion token t (before it is read),
        True the state once it has been read. With one column more than there are tokens,
        ``[M, T + 1]``, the state "before" the column after a completion's last token can be asked
        for too.
        """
        keep_last = after or select.shape[1] > trees.completion_ids.shape[1]
        if self.layout == "packed":
            packed = packed_rows(trees, self._mask_dtype(trees), keep_last=keep_last)
            return self._run(packed, select, after=after)
        groups = length_groups(trees, MAX_GROUPS if self.device.type == "cpu" else 1)
        per_row = self._completions_per_row(trees, groups)
        if per_row > 1:
            rows = tree_rows(trees, per_row, self._mask_dtype(trees))
            return self._run(rows, select, after=after)
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
        out = self.backbone(
            input_ids=rows.input_ids,
            position_ids=rows.position_ids,
            attention_mask=rows.attention_mask,
            use_cache=False,  # a cache would let packed completions see each other
        )[0]
        m, t = select.nonzero().unbind(1)
        return out[rows.row[m], rows.columns(select.shape[1], after=after)[m, t]]

    def _completions_per_row(self, trees: PromptTrees, groups: list[Tensor]) -> int:
        if self.layout == "flat":
            return 1
        if self.layout == "tree":
            return int(torch.bincount(trees.group).max())
        return plan(
            trees,
            width=self.model.config.hidden_size,
            dense_cost=DENSE_COST,
            max_tokens=MAX_TREE_COLUMNS,
            groups=groups,
        )

    def _mask_dtype(self, trees: PromptTrees) -> torch.dtype:
        device = trees.prompt_ids.device.type
        if torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        return _dtype(self)

    @torch.no_grad()
    def settle_layout(self) -> str:
        """Keep a layout only if it gives what the flat one gives; return what was found.

        Compares hidden states on random ragged trees. Models that look at a window of tokens, or
        at where a token stands in its row, see something else in a shared row: they stay flat.
        """
        if self.layout == "flat":
            return "flat: asked for"
        if reason := _needs_flat(self.model):
            self.layout = "flat"
            return f"flat: {reason}"
        wanted, was_training = self.layout, self.training
        shared: Layout = "packed" if wanted == "packed" else "tree"
        both: tuple[Layout, ...] = ("flat", shared)
        self.eval()
        trees = probe_trees(self.model.config.vocab_size).to(self.device)
        found: list[Tensor] = []
        error = float("inf")
        try:
            for layout in both:
                self.layout = layout
                found.append(self.hidden_states(trees, trees.token_mask, after=False).double())
            error = float((found[0] - found[1]).abs().max() / found[0].abs().max())
            reason = f"{shared} rows differ by {error:.1e} of the largest state"
        except (RuntimeError, ValueError, TypeError) as problem:
            reason = f"{shared} rows raise {type(problem).__name__}: {problem}"
        finally:
            self.train(was_training)
        tolerance = 1e-9 if found and _dtype(self) == torch.float64 else _tolerance(_dtype(self))
        if error > tolerance:
            self.layout = "flat"
            return f"flat: {reason}"
        self.layout = wanted
        return f"{wanted}: {shared} rows agree with flat ones to {error:.1e}"


def probe_trees(vocabulary: int) -> PromptTrees:
    """Ragged random trees, a one-token prompt and one-token completions among them."""
    generator = torch.Generator().manual_seed(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (n,), generator=generator).tolist())

    shapes = [(1, (1, 3, 2)), (7, (9, 1)), (4, (5,)), (3, (2, 6, 11))]
    return collate(
        [
            PromptTree(i, f"probe {i}", ids(p), tuple(ids(n) for n in completions))
            for i, (p, completions) in enumerate(shapes)
        ]
    )


def _dtype(module: TreeBackbone) -> torch.dtype:
    return next(module.model.parameters()).dtype


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-5 if dtype == torch.float32 else 3e-2


def _needs_flat(model: Any) -> str | None:
    """Why a model cannot take shared rows however they are probed, or ``None``."""
    if virtual_tokens(model):
        return "virtual tokens stand before every row"
    config = model.config
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "attention looks at a sliding window"
    if getattr(config, "attention_chunk_size", None):
        return "attention is chunked"
    return None
