"""What the checks look at: a constructed stage, a few of its rows, and a few samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lightning.pytorch import Trainer

from alignlab.callbacks.probe import FrontierProbe
from alignlab.data.modules import TreeData
from alignlab.data.rows import RowReport
from alignlab.data.trees import PromptTree, PromptTrees, collate
from alignlab.evaluation.scoring import evaluating
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import Policy
from alignlab.models.modes import reading
from alignlab.models.sharding import gathered
from alignlab.objectives.base import Objective
from alignlab.objectives.on_policy import OnPolicyObjective
from alignlab.rollouts.sampler import sample
from alignlab.rollouts.samples import Samples

LOOKED_AT = 2048  # rows that facts about the data are counted on
CANDIDATES, ROWS = 64, 4  # rows that forwards are chosen from, and how many are read
NEW = 16  # tokens of a sample
SECONDS, PASSES = 2.0, 12  # time that forwards may take, and how often a token is read
RATE = {"cpu": 3e10}  # FLOP/s that are reached at least; 1e13 on other devices


@dataclass
class Patient:
    """A stage whose data are read and whose models are on their device.

    Args:
        objective: As it starts.
        trainer: Its trainer.
        data: Its data module, if it is one of prompt trees.
        probe: Its ``FrontierProbe``, if it has one.
    """

    objective: Objective
    trainer: Trainer
    data: TreeData[Any] | None
    probe: FrontierProbe | None

    @property
    def policy(self) -> Policy | None:
        """The language model that is trained; ``None`` for a scorer."""
        model = self.objective.trained
        return model if isinstance(model, Policy) else None

    @property
    def report(self) -> RowReport | None:
        """The counts of the training rows."""
        return None if self.data is None else self.data.reports.get("train")

    @cached_property
    def rows(self) -> list[PromptTree]:
        """Training rows to count facts on, evenly over the data."""
        return [] if self.data is None else some_of(self.data.train_trees, LOOKED_AT)

    @cached_property
    def tokens(self) -> int:
        """Tokens that fit into the time of the checks."""
        model = self.objective.trained
        size = sum(weight.numel() for weight in model.parameters())
        rate = RATE.get(model.device.type, 1e13)
        return int(min(2048, SECONDS * rate / (2 * PASSES * max(1, size))))

    @cached_property
    def few(self) -> list[PromptTree]:
        """Rows of different lengths whose forwards are short; at least one."""
        trees = sorted(some_of(self.rows, CANDIDATES), key=lambda tree: tree.longest)
        chosen, left = trees[:1], self.tokens
        for tree in reversed(trees[1:]):
            if (cost := tree.longest * max(1, len(tree.completions))) <= left:
                chosen, left = [*chosen, tree], left - cost
            if len(chosen) == max(ROWS, self.trainer.world_size):
                break
        return chosen

    @property
    def batch(self) -> PromptTrees:
        """The few rows as one batch; for an objective that samples, its samples for them."""
        samples = isinstance(self.objective, OnPolicyObjective)
        trees = self.drawn.trees if samples else self.few
        return collate(trees).to(self.objective.trained.device)

    @property
    def spec(self) -> SamplingSpec:
        """The distribution that is sampled in training, or in evaluations."""
        own = getattr(self.objective, "sampling", None)
        return own.spec if own is not None else SamplingSpec()

    @cached_property
    def drawn(self) -> Samples:
        """A completion of each of the few prompts, sampled as training or its evaluation does."""
        policy, objective = self.policy, self.objective
        assert policy is not None
        longest = NEW if self.probe is None else min(NEW, self.probe.max_new_tokens)
        if isinstance(objective, OnPolicyObjective):
            longest, how = min(NEW, objective.sampling.max_new_tokens), objective.own_precision()
        else:
            how = evaluating(policy)
        prompts = [tree for tree in self.few if policy.room is None or
                   len(tree.prompt) + longest <= policy.room]  # fmt: skip
        with gathered(policy), how, reading(policy):
            return sample(
                policy,
                prompts or self.few,
                samples=1,
                max_new_tokens=max(2, min(longest, self.tokens // 64)),
                spec=self.spec,
                seed=0,
                stop_ids=policy.stop_ids,
            )


def some_of(trees: Sequence[PromptTree], most: int) -> list[PromptTree]:
    """Up to ``most`` trees, evenly over all."""
    return [trees[k] for k in range(0, len(trees), max(1, -(-len(trees) // most)))]
