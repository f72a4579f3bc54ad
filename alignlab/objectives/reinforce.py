"""REINFORCE with rewards-to-go and a baseline (Williams 1992), as in RLHF (arXiv:2402.14740).

The score-function gradient: raise a token's log-probability in proportion to its reward-to-go minus
a baseline. With a value function as the baseline it equals PPO with ``gae_lambda`` 1 and an
infinite ``clip_epsilon``, so that variant needs only a YAML file.
"""

from torch import Tensor

from alignlab.data.rollouts import RolloutBatch
from alignlab.functional import rewards_to_go
from alignlab.models import Scores
from alignlab.objectives.base import LossAndMetrics
from alignlab.objectives.on_policy import OnPolicyObjective, Scored


def reinforce_loss(token_logps: Tensor, advantages: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """``-A * log pi`` per token, as (sum, count) over the tokens under the mask.

    All tensors are ``[M, T]``; cells outside the mask never matter. The value has no meaning; its
    gradient is the negative policy gradient.
    """
    mask = mask.bool()
    losses = advantages.masked_fill(~mask, 0) * token_logps.masked_fill(~mask, 0)
    return -losses.sum(), mask.sum()


class REINFORCE(OnPolicyObjective):
    """Maximise a reward minus ``kl_coef`` times the divergence, token by token, without a critic.

    A token's return is the reward and the KL penalties from it on; the baseline is their mean over
    the phase. Minibatches after a phase's first are importance-weighted, without clipping.
    Arguments: see ``OnPolicyObjective``.
    """

    caps_ratio = True

    def advantages(self, scored: Scored) -> RolloutBatch:
        """Rewards-to-go minus their mean."""
        mask = scored.trees.loss_mask
        returns = rewards_to_go(self.token_rewards(scored), mask, discount=1.0)
        return self.rollout_batch(scored, returns - returns[mask].mean())

    def losses(self, batch: RolloutBatch, scores: Scores) -> LossAndMetrics:
        """The policy gradient, corrected for the updates since the phase was sampled."""
        ratio = (scores.token_logps.detach() - batch.old_token_logps).exp()
        ratio = ratio.clamp(max=self.sampling.ratio_cap)
        total, count = reinforce_loss(
            scores.token_logps, ratio * batch.advantages, batch.trees.loss_mask
        )
        return total, {"policy_loss": total / count}
