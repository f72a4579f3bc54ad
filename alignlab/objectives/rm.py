"""Pairwise reward model: Bradley-Terry on scores (Ouyang et al. 2022, arXiv:2203.02155, Eq. 1)."""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.functional import bradley_terry
from alignlab.models import ScoreModel
from alignlab.objectives.base import TreeObjective
from alignlab.objectives.pairs import PairLoss, accuracy, both, require_pairs
from alignlab.objectives.schedule import Schedule


def rm_loss(
    chosen_scores: Tensor, rejected_scores: Tensor, *, margin: Tensor | float | None = None
) -> PairLoss:
    """Negative log-probability that ``chosen`` is preferred: ``-log sigmoid(chosen - rejected)``.

    Args:
        chosen_scores: ``[B]``.
        rejected_scores: ``[B]``.
        margin: Subtracted from the difference (Touvron et al. 2023, arXiv:2307.09288, Eq. 2).
    """
    shifted = chosen_scores if margin is None else chosen_scores - margin
    losses = bradley_terry(shifted, rejected_scores)
    return PairLoss(losses, chosen_scores.detach(), rejected_scores.detach())


class RewardModel(TreeObjective):
    """Fit a scorer to preference pairs; scores are read at the last real token.

    Args:
        model: The scorer to train, usually started from the SFT policy.
        optimizer: Builds the optimizer.
        schedule: Factor on the learning rate.
    """

    unit = "prompts"

    def __init__(
        self, model: ScoreModel, optimizer: OptimizerCallable, schedule: Schedule | None = None
    ) -> None:
        super().__init__(optimizer, schedule)
        self.model = model

    @property
    def trained(self) -> ScoreModel:
        """The scorer."""
        return self.model

    def losses(self, trees: PromptTrees) -> tuple[Tensor, dict[str, Tensor]]:
        """One loss per pair."""
        require_pairs(trees)
        loss = rm_loss(*both(self.model.scores(trees)))
        margins = loss.chosen_rewards - loss.rejected_rewards
        return loss.losses, {
            "loss": loss.losses.mean(),
            "accuracy": accuracy(margins),
            "margin": margins.mean(),
            "score": (loss.chosen_rewards + loss.rejected_rewards).mean() / 2,
        }
