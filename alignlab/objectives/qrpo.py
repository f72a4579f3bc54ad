"""Quantile reward policy optimisation (Matrenok et al. 2025, arXiv:2507.08068, Eq. 9 and 11).

Each completion's log-ratio is regressed onto its value in the optimum, pi_ref exp(q / beta) / Z.
This is possible because Z is known: the reward is a quantile of the reference's own rewards.
"""

from torch import Tensor

from alignlab.functional import group_logsumexp
from alignlab.objectives.candidates import CandidateObjective


def qrpo_loss(
    policy_logps: Tensor, ref_logps: Tensor, quantiles: Tensor, log_z: Tensor, *, beta: float
) -> Tensor:
    """``(q - beta log Z - beta log(policy / reference))^2`` of each completion, ``[M]``.

    Args:
        policy_logps: ``[M]`` summed completion log-probs in nats.
        ref_logps: ``[M]``.
        quantiles: ``[M]``, the share of the reference's rewards that are no larger.
        log_z: ``[M]``, ``log E exp(q / beta)`` over the reference's completions of the prompt.
        beta: Strength of the KL constraint, in quantiles.
    """
    return (quantiles - beta * log_z - beta * (policy_logps - ref_logps)).square()


def quantiles(rewards: Tensor, group: Tensor) -> Tensor:
    """``[M]``: the share of a completion's group whose reward is no larger; ties count in full.

    Args:
        rewards: ``[M]``.
        group: ``[M]`` long, which prompt each completion answers.
    """
    together = group[:, None] == group
    return (together & (rewards <= rewards[:, None])).sum(1) / together.sum(1)


def log_partition(quantiles: Tensor, group: Tensor, *, beta: float) -> Tensor:
    """``[M]``: ``log mean exp(q / beta)`` over a completion's group, exact whatever the ties.

    Of many candidates without ties it is ``log(beta (exp(1 / beta) - 1))``, the paper's closed
    form (which leaves the -1 out).
    """
    total = group_logsumexp(quantiles / beta, group)
    return total - group.bincount()[group].to(total).log()


class QRPO(CandidateObjective):
    """Regress the policy onto the optimum of the quantile reward, with its exact normaliser.

    The quantile of a completion is its place among the candidates of its prompt, so nothing but
    the order of the rewards matters. Arguments: see ``CandidateObjective``.
    """

    unit = "completions"

    def candidate_loss(
        self, logps: Tensor, ref_logps: Tensor, rewards: Tensor, group: Tensor
    ) -> Tensor:
        """One loss per completion."""
        q = quantiles(rewards, group).to(logps)
        log_z = log_partition(q, group, beta=self.beta)
        return qrpo_loss(logps, ref_logps, q, log_z, beta=self.beta)
