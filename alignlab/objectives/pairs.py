"""The step shared by objectives that eat preference pairs: rows 2i chosen, 2i + 1 rejected."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab.data.rows import PreferencePair
from alignlab.data.trees import PromptTrees
from alignlab.errors import DataError
from alignlab.models import Scores
from alignlab.objectives.base import PolicyObjective


class PairLoss(NamedTuple):
    """Loss and implicit rewards of B pairs, each ``[B]``; the rewards carry no gradient."""

    losses: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor


class PairObjective(PolicyObjective):
    """Scores both completions of each pair in one forward and asks a subclass for their loss."""

    rows = (PreferencePair,)
    unit = "prompts"

    @abstractmethod
    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """The loss of each pair, from the policy's scores of all completions."""

    def losses(self, trees: PromptTrees) -> tuple[Tensor, dict[str, Tensor]]:
        """One loss per pair."""
        require_pairs(trees)
        scores = self.policy(trees)
        loss = self.pair_loss(trees, scores)
        chosen, rejected = both(scores.logps.detach())
        margins = loss.chosen_rewards - loss.rejected_rewards
        return loss.losses, {
            "loss": loss.losses.mean(),
            "rewards/chosen": loss.chosen_rewards.mean(),
            "rewards/rejected": loss.rejected_rewards.mean(),
            "rewards/margins": margins.mean(),
            "rewards/accuracies": accuracy(margins),
            "logps/chosen": chosen.mean(),  # absolute: likelihood displacement shows here
            "logps/rejected": rejected.mean(),
        }


def require_pairs(trees: PromptTrees) -> None:
    """Raise ``DataError`` unless every prompt has two completions."""
    pairs = torch.arange(len(trees.prompt_lengths), device=trees.group.device)
    if not torch.equal(trees.group, pairs.repeat_interleave(2)):
        raise DataError(
            "preference pairs need two completions per prompt. Use PreferenceData, or another "
            "objective."
        )


def both(x: Tensor) -> tuple[Tensor, Tensor]:
    """Chosen and rejected ``[B]`` of a ``[2 B]`` tensor whose pairs stand together."""
    pairs = x.view(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def accuracy(margins: Tensor) -> Tensor:
    """Share of positive margins, a tie counting one half."""
    return ((margins > 0).float() + 0.5 * (margins == 0).float()).mean()
