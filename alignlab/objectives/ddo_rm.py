"""Distribution-level distillation of a reward (DDO-RM, Zhang et al. 2026, arXiv:2604.11119).

Over a prompt's candidates, the policy's distribution is fitted to the reference's, tilted by the
reward. The paper tilts the current policy's distribution instead, so its target moves without end;
here the optimum is pi_ref exp(r / beta) / Z.
"""

from torch import Tensor

from alignlab.functional import group_logsumexp
from alignlab.objectives.candidates import CandidateObjective


def ddo_rm_loss(
    policy_logps: Tensor, ref_logps: Tensor, rewards: Tensor, group: Tensor, *, beta: float
) -> Tensor:
    """Cross-entropy of the candidates' target and the policy's distribution over them, ``[P]``.

    Candidates are samples of the reference, so both are taken relative to it: the target is
    ``softmax(r / beta)``, the policy's distribution ``softmax(log(policy / reference))``.

    Args:
        policy_logps: ``[M]`` summed completion log-probs in nats.
        ref_logps: ``[M]``.
        rewards: ``[M]``.
        group: ``[M]`` long, the prompt of each completion: 0 to P - 1, none of them left out.
        beta: Strength of the KL constraint, in the rewards' unit.
    """
    tilted, ratios = rewards / beta, policy_logps - ref_logps
    target = (tilted - group_logsumexp(tilted, group)).exp()
    terms = -target * (ratios - group_logsumexp(ratios, group))
    return terms.new_zeros(int(group[-1]) + 1).index_add(0, group, terms)


class DDORM(CandidateObjective):
    """Fit the policy's distribution over candidates to that of the tilted reference.

    Arguments: see ``CandidateObjective``.
    """

    unit = "prompts"

    def candidate_loss(
        self, logps: Tensor, ref_logps: Tensor, rewards: Tensor, group: Tensor
    ) -> Tensor:
        """One loss per prompt."""
        return ddo_rm_loss(logps, ref_logps, rewards, group, beta=self.beta)
