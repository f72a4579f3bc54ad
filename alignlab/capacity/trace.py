"""What one micro-batch allocates besides weights and optimizer, found without weights.

The model's own forward and backward run on PyTorch's fake tensors, which have a shape, a type and a
device but no memory, while every allocation and release is counted. So the count holds for every
architecture, attention kernel and set of adapters that PyTorch can run.
"""

import weakref
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alignlab.functional import token_logps
from alignlab.functional.logps import Chunks
from alignlab.models.attention import Branches, packed_inputs
from alignlab.models.heads import language_logits, output_layer

Tag = Literal["gradients", "activations", "logits"]  # logits: as wide as a vocabulary
Bytes = dict[str, float]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a transformer, on ``rows`` of ``columns`` tokens.

    ``branches`` are those of a packed row; without them attention is causal.
    """

    rows: int
    columns: int
    branches: Branches | None = None

    @property
    def cells(self) -> float:
        """Scores that attention computes; of a causal square it is half."""
        return self.branches.cells if self.branches else self.rows * self.columns**2 / 2


@dataclass(frozen=True, slots=True)
class Pass:
    """A forward: calls of a model's transformer, then its head on ``selected`` states.

    Args:
        model: The model's place among those that are traced.
        calls: How its rows are cut.
        selected: States that the head reads.
        chunk: Positions whose logits are made at once, and kept.
        logits: Precision of the matmul that makes them; ``None`` for a scorer.
        trained: Whether its graph is kept for the backward pass.
    """

    model: int
    calls: tuple[Call, ...]
    selected: int
    chunk: int | Chunks = 4096
    logits: torch.dtype | None = torch.float32
    trained: bool = True


class Allocations(TorchDispatchMode):
    """Counts the bytes that are alive, by tag, and keeps what they were at two peaks.

    ``whole`` is the peak of everything, ``besides`` that of everything but gradients: where these
    are sharded, the second may count.
    """

    def __init__(self, model: nn.Module, vocabularies: Collection[int]) -> None:
        super().__init__()
        self.tag: Tag = "activations"
        self.vocabularies = vocabularies
        self.live: Counter[str] = Counter()
        self.whole: Bytes = {}
        self.besides: Bytes = {}
        self._tags: dict[int, list[str]] = {}  # of each storage that is alive; a cell to change it
        self._kept = [t.untyped_storage() for t in (*model.parameters(), *model.buffers())]
        self._tags |= {id(storage): ["weights"] for storage in self._kept}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` and count what it returns, unless it is a view of what is counted."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                logits = leaf.dim() > 1 and leaf.shape[-1] in self.vocabularies
                self._count(leaf.untyped_storage(), "logits" if logits else self.tag)
        return out

    @contextmanager
    def tagged(self, tag: Tag) -> Any:
        """Count what is allocated inside as ``tag``."""
        before, self.tag = self.tag, tag
        yield
        self.tag = before

    def is_gradient(self, parameter: Tensor) -> None:
        """Count the gradient of ``parameter`` as one from now on."""
        assert parameter.grad is not None
        storage = parameter.grad.untyped_storage()
        cell = self._tags[id(storage)]
        self.live[cell[0]] -= storage.nbytes()
        self.live["gradients"] += storage.nbytes()
        cell[0] = "gradients"

    def _count(self, storage: torch.UntypedStorage, tag: Tag) -> None:
        if id(storage) in self._tags:
            return
        cell: list[str] = [tag]
        self._tags[id(storage)] = cell
        self.live[tag] += storage.nbytes()
        weakref.finalize(storage, self._release, id(storage), storage.nbytes(), cell)
        total = sum(self.live.values())
        if total > sum(self.whole.values()):
            self.whole = dict(self.live)
        if total - self.live["gradients"] > sum(
            n for tag, n in self.besides.items() if tag != "gradients"
        ):
            self.besides = dict(self.live)

    def _release(self, key: int, size: int, cell: list[str]) -> None:
        del self._tags[key]
        self.live[cell[0]] -= size


def traced(
    models: Sequence[Any],
    passes: Sequence[Pass],
    *,
    accumulates: bool = False,
    autocast: torch.dtype | None = None,
) -> tuple[Bytes, Bytes]:
    """The two peaks (``Allocations``) of a micro-batch: its forwards, and a backward if any trains.

    Args:
        models: Hugging Face models, with weights of the fake mode that is active.
        passes: One after the other.
        accumulates: Whether gradients are kept through the backward pass.
        autocast: Precision of mixed precision.
    """
    together = nn.ModuleList(models)
    trained = [p for p in together.parameters() if p.requires_grad]
    learns = any(each.trained for each in passes)
    mixed = nullcontext() if autocast is None else torch.autocast("cpu", dtype=autocast)
    scored = [models[each.model] for each in passes if each.logits]
    heads = {model.config.get_text_config(decoder=True).vocab_size for model in scored}
    with Allocations(together, heads) as seen:
        if learns:
            _make_gradients(trained, seen)
        with mixed:
            losses = [_forward(models[each.model], each, seen) for each in passes]
        if learns:
            if not accumulates:
                together.zero_grad()
            hooks = [p.register_post_accumulate_grad_hook(seen.is_gradient) for p in trained]
            torch.stack([loss for loss in losses if loss.requires_grad]).sum().backward()
            for hook in hooks:
                hook.remove()
            together.zero_grad()
    return seen.whole, seen.besides


def _make_gradients(trained: Sequence[nn.Parameter], seen: Allocations) -> None:
    """The step before has left them: they are dropped only after the forward."""
    with seen.tagged("gradients"):
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)


def _forward(model: Any, part: Pass, seen: Allocations) -> Tensor:
    """The sum of what the head gives."""
    with torch.set_grad_enabled(part.trained):
        inner = model.get_base_model() if hasattr(model, "peft_config") else model
        states, left = [], part.selected
        for call in part.calls:
            columns = torch.zeros(call.rows, call.columns, dtype=torch.long)
            packed = {}
            if call.branches:  # a copy, whose masks are as fake as all else
                packed = packed_inputs(Branches(call.branches.pieces), columns.device)
            out = inner.base_model(
                input_ids=columns,
                position_ids=columns if packed else None,
                use_cache=False,
                **packed,
            )[0]
            n = min(left, call.rows * call.columns)
            left -= n
            states.append(out[torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)])
        hidden = states[0] if len(states) == 1 else torch.cat(states)
        return _head(model, part, hidden).sum()


def _head(model: Any, part: Pass, hidden: Tensor) -> Tensor:
    if part.logits is None:
        weight = output_layer(model).weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        return hidden.to(wide) @ weight.to(wide).T
    output, config, dtype = output_layer(model), model.config, part.logits

    def head(states: Tensor) -> Tensor:
        return language_logits(output, config, states, dtype)

    targets = torch.zeros(len(hidden), dtype=torch.long)
    return token_logps(hidden, head, targets, chunk=part.chunk)
