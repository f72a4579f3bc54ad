"""REINFORCE leave-one-out: other completions of the same prompt are the baseline.

Ahmadian et al. 2024, arXiv:2402.14740, section 3.2 (Kool et al. 2019). A whole completion is one
action, the KL penalty is part of its reward, and there is no value function.
"""

from torch import Tensor

from alignlab.data.rollouts import RolloutBatch
from alignlab.models import Scores
from alignlab.objectives.base import LossAndMetrics
from alignlab.objectives.metrics import largest, mean_of
from alignlab.objectives.on_policy import LeaveOneOutObjective


def rloo_loss(token_logps: Tensor, advantages: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """``-A * log pi(y)`` per completion, as (sum, count) over completions.

    Args:
        token_logps: ``[M, T]`` nats; cells outside the mask never matter.
        advantages: ``[M]``, reward minus the mean of the group's others (``leave_one_out``).
        mask: ``[M, T]``, which cells are tokens.
    """
    mask = mask.bool()
    logps = token_logps.masked_fill(~mask, 0).sum(1)
    return -(advantages * logps).sum(), mask.any(1).sum()


class RLOO(LeaveOneOutObjective):
    """Maximise a reward minus ``kl_coef`` times the divergence with several completions a prompt.

    The data need ``samples_per_prompt`` of at least 2. Minibatches after a phase's first are
    weighted by the completion's ratio, without clipping. Arguments: see ``OnPolicyObjective``.
    """

    caps_ratio = True

    unit = "completions"

    def losses(self, batch: RolloutBatch, scores: Scores) -> LossAndMetrics:
        """The policy gradient, corrected for the updates since the phase was sampled."""
        mask, log_ratio = batch.trees.loss_mask, scores.token_logps.detach() - batch.old_token_logps
        ratio = log_ratio.masked_fill(~mask, 0).sum(1).exp().clamp(max=self.sampling.ratio_cap)
        total, count = rloo_loss(scores.token_logps, ratio * batch.advantages[:, 0], mask)
        return total, {
            "policy_loss": mean_of(total, count),
            "ratio_max": largest(ratio[mask.any(1)]),
        }
