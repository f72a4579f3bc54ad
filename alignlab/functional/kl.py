"""Kullback-Leibler estimators (Schulman 2020, "Approximating KL divergence"), in nats.

All of them estimate ``KL(policy || reference)`` from samples of the *policy*. With
``r = pi_ref / pi``: k1 is unbiased and can be negative, k2 is biased with low variance, k3 is
unbiased and never negative but heavy-tailed where the policy has left the reference. As a per-token
*loss*, none of them has the gradient of the KL; k1 in the reward has it.
"""

import torch
from torch import Tensor


def kl_k1(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """``-log r``, elementwise, in the inputs' shape."""
    return logps - ref_logps


def kl_k2(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """``(log r)^2 / 2``, elementwise, in the inputs' shape."""
    return (logps - ref_logps).square() / 2


def kl_k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """``(r - 1) - log r``, elementwise, in the inputs' shape."""
    log_r = ref_logps - logps
    return torch.expm1(log_r) - log_r  # expm1: r - 1 would lose every digit near r = 1


def kl_full(log_softmax_p: Tensor, log_softmax_q: Tensor) -> Tensor:
    """Exact ``KL(p || q)`` of next-token distributions: ``[..., V]`` log-probs to ``[...]``.

    Summed over the tokens of a completion sampled from p this is the Rao-Blackwell estimate of the
    sequence KL (Amini, Vieira and Cotterell 2025, arXiv:2504.10637): unbiased, never negative.
    A token that p cannot take (``-inf``) adds 0 and gets no gradient, even if q cannot take it.
    """
    impossible = log_softmax_p == -torch.inf
    log_p = log_softmax_p.masked_fill(impossible, 0)
    log_ratio = log_p - log_softmax_q.masked_fill(impossible, 0)
    return (log_p.exp() * log_ratio).sum(-1)
