"""On-policy training as a data loader: an epoch is one rollout phase.

The loader collects fresh rollouts when a phase begins and yields them as minibatches, so PPO and
its relatives run under the same automatic optimisation as everything else: clipping, accumulation,
schedules, checkpoints and ``global_step`` keep their ordinary meaning.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from alignlab.clock import CLOCK
from alignlab.data.loader import rank_and_world_size, recut_position
from alignlab.data.trees import PromptTree, PromptTrees, StepTotals, collate, totals_of
from alignlab.errors import ConfigError
from alignlab.functional.noise import permutation

PER_TOKEN = ("old_token_logps", "advantages", "returns", "old_values", "ref_token_logps")


@dataclass(slots=True)
class RolloutBatch:
    """Sampled completions, and what the policy update needs about them.

    Args:
        trees: P prompts with the same number of completions each, M in all.
        old_token_logps: ``[M, T]`` log-probs under the policy that sampled.
        advantages: ``[M, T]``.
        returns: ``[M, T]``, targets of the value function, or ``None`` without one.
        old_values: ``[M, T]``, values at the time of sampling, or ``None``.
        ref_token_logps: ``[M, T]`` log-probs under the reference, or ``None``.
        pretraining: Texts of a pretraining mix for this batch, or ``None``.
        first: Whether no update has happened since sampling, so that all ratios are 1.
    """

    trees: PromptTrees
    old_token_logps: Tensor
    advantages: Tensor
    returns: Tensor | None = None
    old_values: Tensor | None = None
    ref_token_logps: Tensor | None = None
    pretraining: PromptTrees | None = None
    first: bool = False

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "RolloutBatch":
        """The same batch on ``device`` (Lightning calls this)."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in values.items()
            if isinstance(value, Tensor | PromptTrees)
        }
        return replace(self, **moved)

    def select(self, prompts: Tensor) -> "RolloutBatch":
        """The sub-batch of these prompt rows ``[Q]``, trimmed to its own longest row."""
        part, rows = select_prompts(self.trees, prompts)
        width = part.completion_ids.shape[1]
        cut = {name: value[rows, :width] for name, value in self._per_token().items()}
        return replace(self, trees=part, **cut)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, so that checkpoints load with ``weights_only``."""
        trees = {
            name: value
            for name in self.trees.__slots__
            if isinstance(value := getattr(self.trees, name), Tensor)
        }
        return {"trees": trees, "ids": list(self.trees.ids), "per_token": self._per_token()}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "RolloutBatch":
        """The batch that ``state_dict`` described."""
        return cls(trees=PromptTrees(ids=state["ids"], **state["trees"]), **state["per_token"])

    def _per_token(self) -> dict[str, Tensor]:
        return {n: value for n in PER_TOKEN if (value := getattr(self, n)) is not None}


def select_prompts(trees: PromptTrees, prompts: Tensor) -> tuple[PromptTrees, Tensor]:
    """The sub-batch of these prompt rows ``[Q]``, trimmed, and its completions' rows.

    Every prompt must have the same number of completions.
    """
    each = len(trees.group) // len(trees.prompt_lengths)
    rows = (prompts[:, None] * each + torch.arange(each, device=prompts.device)).flatten()
    width = int(trees.completion_lengths[rows].max())
    prompt_width = int(trees.prompt_lengths[prompts].max())
    part = replace(
        trees,
        prompt_ids=trees.prompt_ids[prompts, :prompt_width],
        prompt_lengths=trees.prompt_lengths[prompts],
        completion_ids=trees.completion_ids[rows, :width],
        completion_lengths=trees.completion_lengths[rows],
        loss_mask=trees.loss_mask[rows, :width],
        group=torch.arange(len(prompts), device=prompts.device).repeat_interleave(each),
        index=trees.index[prompts],
        ids=[trees.ids[p] for p in prompts.tolist()],
    )
    part.totals = StepTotals(len(prompts), len(rows), int(part.loss_mask.sum()))
    return part, rows


class Pretraining:
    """Texts for each optimizer step beside the rollouts: a pure function of (seed, step).

    Every text is used once before any is used again, except for those left over when
    ``batch_size`` does not divide their number; which ones changes from pass to pass.

    Args:
        trees: The texts.
        batch_size: Texts of an optimizer step.
        seed: Seed of the shuffles.

    Raises:
        ConfigError: Fewer texts than a step takes.
    """

    def __init__(self, trees: Sequence[PromptTree], batch_size: int, seed: int) -> None:
        if not 0 < batch_size <= len(trees):
            raise ConfigError(
                f"the pretraining mix has {len(trees)} texts for steps of {batch_size}. Set "
                "data.init_args.pretraining.init_args.batch_size between 1 and that number."
            )
        self.trees, self.batch_size, self.seed = trees, batch_size, seed
        self._epoch, self._order = -1, list[int]()

    def batch(self, step: int, part: int, parts: int) -> PromptTrees:
        """Micro-batch ``part`` of ``parts`` of an optimizer step, with the step's totals.

        Raises:
            ConfigError: A step's texts do not divide by ``parts``.
        """
        if self.batch_size % parts:
            raise ConfigError(
                f"{self.batch_size} texts of a step cannot be cut into {parts} micro-batches as "
                "its rollouts are. Change data.init_args.pretraining.init_args.batch_size."
            )
        epoch, place = divmod(step, len(self.trees) // self.batch_size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = permutation(self.seed, epoch, len(self.trees)).tolist()
        chosen = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        texts, each = [self.trees[i] for i in chosen], self.batch_size // parts
        return collate(texts[part * each : (part + 1) * each], totals=totals_of(texts))


@dataclass(eq=False)
class RolloutLoader:
    """Yields each rollout phase as minibatches, over several inner epochs.

    It has a length, so that Lightning does not fetch a batch ahead (which a stale policy would have
    sampled), and a state that includes the rollouts in use, so that a run that was stopped anywhere
    continues with exactly the batches that were left.

    Args:
        collect: Samples rollout phase ``r``; called when the phase's first batch is asked for.
        prompts: Prompts of a phase.
        minibatches: Optimizer steps of one inner epoch; divides ``prompts``.
        micro_batches: Forwards per optimizer step; divides a minibatch's prompts.
        inner_epochs: Passes over the rollouts of a phase.
        seed: Shuffles are a function of it, the phase and the inner epoch.
        pretraining: Texts for every optimizer step.
        rank: This process; asked of ``torch.distributed`` when ``None``. ``collect`` gives every
            rank the whole phase, and it trains on its share of each step.
        world_size: How many processes there are; asked likewise.

    Raises:
        ConfigError: Numbers that do not divide.
    """

    collect: Callable[[int], RolloutBatch]
    _: KW_ONLY
    prompts: int
    minibatches: int
    micro_batches: int
    inner_epochs: int
    seed: int
    pretraining: Pretraining | None = None
    rank: int | None = None
    world_size: int | None = None

    def __post_init__(self) -> None:
        self._rank, world = rank_and_world_size(self.rank, self.world_size)
        self.parts = self.micro_batches * world
        if self.prompts % (self.minibatches * self.parts):
            raise ConfigError(
                f"{self.prompts} prompts a rollout cannot be cut into {self.minibatches} "
                f"minibatches of {self.parts} micro-batches (over all processes). Choose numbers "
                "that divide it in data.init_args."
            )
        self.rollout = 0
        self.position = 0
        self.buffer: RolloutBatch | None = None

    def __len__(self) -> int:
        """Micro-batches of a phase."""
        return self.inner_epochs * self.minibatches * self.micro_batches

    def __iter__(self) -> Iterator[RolloutBatch]:
        """What is left of the phase in progress, or a new phase."""
        if self.buffer is None:
            with CLOCK.part("rollout"):
                self.buffer = self.collect(self.rollout)
        phase, rollout = self.buffer, self.rollout
        for position in range(self.position, len(self)):
            with CLOCK.part("data"):
                batch = self._batch(phase, rollout, position)
            self.position = position + 1
            if self.position == len(self):  # the next state is "between two phases"
                self.buffer, self.position, self.rollout = None, 0, rollout + 1
            yield batch

    def _batch(self, phase: RolloutBatch, rollout: int, position: int) -> RolloutBatch:
        """This rank's micro-batch at a position of a phase.

        A phase's prompts are shuffled anew in each inner epoch, and cut into minibatches, of which
        each is an optimizer step. The step's totals count what is left after groups were dropped.
        """
        step, micro = divmod(position, self.micro_batches)
        epoch, minibatch = divmod(step, self.minibatches)
        order = permutation(self.seed, rollout * self.inner_epochs + epoch, self.prompts)
        rows = order.view(self.minibatches, self.parts, -1)[minibatch]
        part = micro * (self.parts // self.micro_batches) + self._rank
        mask = phase.trees.loss_mask
        counted = mask.view(self.prompts, -1, mask.shape[1])[rows.flatten()]
        completions = counted.any(-1)  # not those of groups that were dropped
        batch = phase.select(rows[part])
        batch.first = step == 0
        batch.trees.totals = StepTotals(
            int(completions.any(-1).sum()), int(completions.sum()), int(counted.sum())
        )
        if self.pretraining is not None:
            number = rollout * self.inner_epochs * self.minibatches + step
            batch.pretraining = self.pretraining.batch(number, part, self.parts)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """The position of the loader and the rollouts in use."""
        buffer = None if self.buffer is None else self.buffer.state_dict()
        return {
            "rollout": self.rollout,
            "position": self.position,
            "micro_batches": self.micro_batches,
            "buffer": buffer,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, even if steps are now cut into other micro-batches.

        Raises:
            ConfigError: They are, and it was taken inside of a step.
        """
        before = state.get("micro_batches", self.micro_batches)
        self.position = recut_position(state["position"], before, self.micro_batches)
        self.rollout = state["rollout"]
        buffer = state["buffer"]
        self.buffer = None if buffer is None else RolloutBatch.from_state_dict(buffer)
