"""A loss or a gradient that is not finite: find where it comes from, keep the batch, stop or skip.

The step is judged as a whole, before its update: all micro-batches of all processes together. So
either all processes stop or none does, and no weight has changed.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from alignlab.callbacks.resume import run_folder
from alignlab.data.rollouts import RolloutBatch
from alignlab.data.trees import PromptTrees, StepTotals
from alignlab.distributed import from_all
from alignlab.errors import DataError
from alignlab.files import atomic_write
from alignlab.models.sharding import local, whole

FOLDER = "non_finite"  # in the run's folder
WEIGHTS = ".weights.safetensors"  # behind the name of a saved step
SHOWN = 5  # row ids in a message
Then = Literal["stop", "skip"]


@dataclass(slots=True)
class Part:
    """A micro-batch of a step and what was found when it was run again.

    Attributes:
        rank: The process that had it.
        number: Which of the step's micro-batches of that process it is, from 1.
        ids: Names of its rows.
        loss: Its share of the step's loss.
        rows: The message about rows whose loss is not finite; empty where none is.
        bad: The first tensor that is not finite, in the order of the computation; empty: none.
        facts: The parts of the batch that are not tensors.
    """

    rank: int
    number: int
    ids: list[str]
    loss: float
    rows: str
    bad: str
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        ids = f"{self.ids[:SHOWN]}{' ...' if len(self.ids) > SHOWN else ''}"
        of = f"micro-batch {self.number} of process {self.rank}, rows {ids}"
        return f"{of}: {self.rows or f'loss {self.loss:.6g}'}; first bad tensor: {self.bad}"


class NonFinite(Callback):
    """Stops or skips a step whose loss or gradient is not finite.

    The first such step of a run is kept in ``non_finite/`` of its folder: all micro-batches, and
    the weights before the step, for ``alignlab replay``. A skipped step counts as a step, for the
    schedule and in the logs; weights, optimizer and the objective's running statistics stay as they
    were. Weights that are not finite themselves end the run in any case. With scaled gradients
    (``16-mixed``) the scaler handles overflows, and only losses are checked.

    Args:
        then: What to do.
    """

    def __init__(self, then: Then = "stop") -> None:
        self.then = then
        self._batches: list[Any] = []
        self._loss: Tensor | float = 0.0  # sum over the micro-batches, so that nothing waits for it
        self._statistics = dict[str, Tensor]()  # the objective's, before the step

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the check of losses over from the objective, which would stop one process alone."""
        pl_module.checks_losses = False  # type: ignore[assignment]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the micro-batch until the step is done, and the statistics before its first one."""
        if not self._batches:
            self._statistics = statistics_of(pl_module)
        self._batches.append(batch)

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Add its loss."""
        self._loss = self._loss + loss.detach()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Judge the step; its gradients are not clipped yet.

        Raises:
            FloatingPointError: ``then`` is ``stop``, or the weights are not finite.
        """
        fine = torch.isfinite(torch.as_tensor(self._loss, device=pl_module.device))
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            fine &= torch.isfinite(whole(torch.nn.utils.get_total_norm(gradients))).to(fine.device)
        bad = not bool(fine)
        if trainer.world_size > 1:
            bad = trainer.strategy.reduce_boolean_decision(bad, all=False)
        batches, self._batches, self._loss = self._batches, [], 0.0
        if bad:
            self._handle(trainer, pl_module, batches)

    def _handle(self, trainer: Trainer, module: Any, batches: list[Any]) -> None:
        gradient = bad_gradient(module)
        put_back(module, self._statistics)
        module.zero_grad(set_to_none=True)  # makes room, and leaves the optimizer nothing to do
        sharded = any(local(p) is not p for p in module.parameters())
        mine = []
        for number, batch in enumerate(batches, 1):
            part = examined(module, batch, trainer.global_rank, number, backward=not sharded)
            mine.append((part, to_tensors(batch, part.facts)))
        every = [each for some in from_all(mine) for each in some]
        parts = [part for part, _ in every]
        state = trainer.strategy.lightning_module_state_dict()
        path = run_folder(trainer) / FOLDER / f"{trainer.global_step + 1:06d}.json"
        first = trainer.strategy.broadcast(not path.parent.exists())
        if first and trainer.is_global_zero:
            kept = {name: state[name] for name in state if name in module.kept_names()}
            write(path, type(module).__name__, trainer.global_step + 1, every, kept)
        said = summary(trainer.global_step + 1, parts, gradient)
        if first:
            said += f" Run it again with: alignlab replay {path}"
        if self.then == "stop" or any(part.bad.startswith("weight ") for part in parts):
            raise FloatingPointError(
                f"{said}. Unless these rows are odd, the weights have diverged: lower the learning "
                "rate, or set trainer.gradient_clip_val. --non_finite skip leaves such steps out."
            )
        if trainer.is_global_zero:
            print(f"skipped: {said}", file=sys.stderr, flush=True)


def summary(step: int, parts: list[Part], gradient: str) -> str:
    """What happened in ``step``, in one sentence."""
    bad = [part for part in parts if part.bad]
    if not bad:  # a sum overflowed, or dropout fell differently
        what = gradient or "the loss, or the norm of all gradients,"
        return f"step {step}: {what} is not finite, but each micro-batch is when run again."
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    lost = any(part.rows or not math.isfinite(part.loss) for part in bad)
    return f"step {step}: {'loss' if lost else 'gradient'} is not finite: {bad[0]}{more}."


def bad_gradient(module: nn.Module) -> str:
    """The last weight whose gradient is not finite, which had its gradient before the others."""
    names = [
        name
        for name, weight in module.named_parameters()
        if weight.grad is not None and not bool(torch.isfinite(local(weight.grad)).all())
    ]
    return f"gradient of {names[-1]}" if names else ""


def examined(module: Any, batch: Any, rank: int, number: int, *, backward: bool = True) -> Part:
    """Run a micro-batch again, forward and backward, and see where a number is lost.

    Weights, their gradients, metrics, statistics and the state of random generators stay as they
    are.

    Args:
        module: The objective.
        batch: The micro-batch.
        rank: Of the process that has it.
        number: Of the micro-batch.
        backward: Whether gradients are computed, which a strategy with shards does not allow.
    """
    before, trainer, rows = module._step, module.trainer, ""
    parts = trainer.accumulate_grad_batches * trainer.world_size
    with torch.random.fork_rng(), module.own_precision():
        try:
            module.checks_losses = True
            with torch.no_grad(), same_statistics(module):
                module.training_step(batch, 0)
        except FloatingPointError as error:
            rows = str(error).partition(". Unless")[0]
        finally:
            module.checks_losses = False
        with same_statistics(module):
            step = lambda: module.training_step(batch, 0)  # noqa: E731
            found, loss = first_bad(module, step, backward=backward)
    module._step = before
    trees = batch.trees if isinstance(batch, RolloutBatch) else batch
    return Part(rank, number, list(trees.ids), float(loss) / parts, rows, found)


def statistics_of(module: nn.Module) -> dict[str, Tensor]:
    """Copies of an objective's own buffers, such as running means of margins; not its models'."""
    return {name: value.clone() for name, value in module.named_buffers(recurse=False)}


def put_back(module: nn.Module, statistics: Mapping[str, Tensor]) -> None:
    """Set an objective's own buffers to what ``statistics_of`` found."""
    for name, value in statistics.items():
        module.get_buffer(name).copy_(value)


@contextmanager
def same_statistics(module: nn.Module) -> Iterator[None]:
    """Run training steps inside that leave no trace in the objective's statistics."""
    before = statistics_of(module)
    try:
        yield
    finally:
        put_back(module, before)


class _Watch:
    """Notes the names of tensors that are not finite, in the order in which they are made."""

    def __init__(self, *, backward: bool) -> None:
        self.found: list[str] = []
        self.backward = backward

    def note(self, value: Tensor, name: str) -> None:
        if not bool(torch.isfinite(local(value.detach())).all()):
            self.found.append(name)

    def hook(self, name: str) -> Callable[..., None]:
        """A forward hook for the module of this name."""

        def look(_: nn.Module, __: Any, out: Any) -> None:
            for value in tensors_in(out):
                self.note(value, f"output of {name}")
                if self.backward and value.requires_grad:
                    value.register_hook(lambda grad: self.note(grad, f"gradient at {name}"))

        return look


def first_bad(
    module: nn.Module, compute: Callable[[], Tensor], *, backward: bool = True
) -> tuple[str, Tensor]:
    """Name the first tensor that is not finite while ``compute`` makes a loss and its gradients.

    In order: weights, outputs of modules in the forward pass, the loss, gradients with respect to
    these outputs in the backward pass, gradients of weights.

    Returns:
        The name, empty if all is finite, and the loss.
    """
    watch, weights = _Watch(backward=backward), dict(module.named_parameters())
    for name, weight in weights.items():
        watch.note(weight, f"weight {name}")
    named = [(name, each) for name, each in module.named_modules() if name]
    handles = [each.register_forward_hook(watch.hook(name)) for name, each in named]
    try:
        loss = compute()
        watch.note(loss, "the loss, of finite outputs")
        if backward and not watch.found:
            learning = {name: weight for name, weight in weights.items() if weight.requires_grad}
            for name, gradient in reversed(gradients_of(loss, learning).items()):
                watch.note(gradient, f"gradient of {name}")
    finally:
        for handle in handles:
            handle.remove()
    return next(iter(watch.found), ""), loss.detach()


def gradients_of(loss: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradients of a loss by the names of its weights, which keep their own ``grad``."""
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {name: g for name, g in zip(weights, found, strict=True) if g is not None}


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The floating-point tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)


def to_tensors(batch: Any, facts: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a micro-batch; what is none of them goes into ``facts``."""
    trees = batch.trees if isinstance(batch, RolloutBatch) else batch
    facts |= {"totals": astuple(trees.totals), "rollout": isinstance(batch, RolloutBatch)}
    found = _tensors_of(trees, "trees.")
    if isinstance(batch, RolloutBatch):
        facts["first"] = batch.first
        found |= {f"per_token.{k}": v for k, v in batch.state_dict()["per_token"].items()}
        if batch.pretraining is not None:
            facts["pretraining"] = [batch.pretraining.ids, astuple(batch.pretraining.totals)]
            found |= _tensors_of(batch.pretraining, "pretraining.")
    return {name: value.detach().cpu().contiguous() for name, value in found.items()}


def _tensors_of(trees: PromptTrees, prefix: str) -> dict[str, Tensor]:
    values = {name: getattr(trees, name) for name in trees.__slots__}
    return {f"{prefix}{k}": value for k, value in values.items() if isinstance(value, Tensor)}


def from_tensors(part: Part, tensors: dict[str, Tensor]) -> Any:
    """The micro-batch of ``to_tensors``."""
    facts = part.facts

    def group(prefix: str) -> dict[str, Any]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    totals = StepTotals(*facts["totals"])
    trees = PromptTrees(ids=part.ids, totals=totals, **group("trees."))
    if not facts["rollout"]:
        return trees
    mix = None
    if "pretraining" in facts:
        ids, counts = facts["pretraining"]
        mix = PromptTrees(ids=ids, totals=StepTotals(*counts), **group("pretraining."))
    return RolloutBatch(trees, first=facts["first"], pretraining=mix, **group("per_token."))


def write(
    path: Path,
    objective: str,
    step: int,
    parts: list[tuple[Part, dict[str, Tensor]]],
    weights: Mapping[str, Tensor],
) -> None:
    """Write a step: ``path`` in JSON, its tensors and the weights beside it in safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"{i}.{k}": v for i, (_, some) in enumerate(parts) for k, v in some.items()}
    save_file(tensors, path.with_suffix(".safetensors"))
    whole_weights = {name: w.detach().cpu().contiguous() for name, w in weights.items()}
    # Tied weights share memory, which safetensors refuses.
    save_file({name: w.clone() for name, w in whole_weights.items()}, path.with_suffix(WEIGHTS))
    record = {"objective": objective, "step": step, "parts": [asdict(part) for part, _ in parts]}
    atomic_write(path, json.dumps(record, indent=1, ensure_ascii=False).encode())


def read(path: Path) -> tuple[dict[str, Any], list[tuple[Part, Any]]]:
    """A step that ``write`` wrote: objective and step, and its parts with their micro-batches.

    Raises:
        DataError: It is not a saved step.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        tensors = load_file(path.with_suffix(".safetensors"))
        parts = [Part(**part) for part in record.pop("parts")]
    except Exception as error:  # safetensors has no error of its own that it promises
        raise DataError(
            f"{path} is no saved step ({type(error).__name__}: {error}). Name the .json file in "
            f"the folder {FOLDER} of a run."
        ) from error
    own = [
        {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(f"{i}.")}
        for i in range(len(parts))
    ]
    return record, [(part, from_tensors(part, some)) for part, some in zip(parts, own, strict=True)]
