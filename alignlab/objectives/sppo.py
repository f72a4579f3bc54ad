"""Self-Play Preference Optimisation, its loss on given pairs (Wu et al. 2024, arXiv:2405.00675).

Eq. 4.7: each log-ratio is regressed on its completion's chance to win minus one half, over beta.
Self-play is a loop around this loss: sample pairs from the policy, label them, train, repeat.
"""

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective, split_pairs
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def sppo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
    chance: Tensor | float = 1.0,
) -> PairLoss:
    """``(ratio_w - t)^2 + (ratio_l + t)^2`` with the target ``t = (chance - 1/2) / beta``.

    All inputs are ``[B]`` summed completion log-probs in nats; losses are ``[B]``. ``chance``, one
    for all or ``[B]``, is the probability that chosen beats rejected. Rewards are ``beta`` times
    log-ratios.
    """
    chosen = policy_chosen_logps - ref_chosen_logps
    rejected = policy_rejected_logps - ref_rejected_logps
    target = (chance - 0.5) / beta
    losses = (chosen - target).square() + (rejected + target).square()
    return PairLoss(losses, beta * chosen.detach(), beta * rejected.detach())


class SPPO(PairObjective):
    """Regress the log-ratio of each completion on its chance to win.

    Other arguments are as in ``DPO``.

    Args:
        beta: Strength of the KL constraint, > 0: log-ratios aim at ``+-1 / (2 beta)``. It is the
            paper's ``1 / eta``.
        soft: Take ``sigmoid(margin)`` of a pair, a column of the data, for the chance that chosen
            beats rejected; otherwise chosen always does.

    Raises:
        ConfigError: ``soft`` without margins.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 1e-3,
        soft: bool = False,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")
        self.margins = soft

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 4.7 on the batch."""
        logps = self.four_logps(trees, scores)
        if not self.margins:
            return sppo_loss(*logps, beta=self.beta)
        if trees.labels is None:
            raise ConfigError(
                "SPPO's soft labels are made of the pairs' margins, and these pairs have none. Add "
                "a column 'margin', or set model.init_args.soft to false."
            )
        chance = split_pairs(trees.labels)[0].sigmoid()
        return sppo_loss(*logps, beta=self.beta, chance=chance)
