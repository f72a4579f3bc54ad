"""Likelihoods of preferences: a pair (Bradley-Terry) or a ranking of a prompt's completions.

A ranking's tensors are ``[M]``: ``scores``, ``group`` (long, which prompt) and ``rank`` (long,
0 = best, equal = tie). Losses come back one per group, by increasing group number. A tie says
nothing: tied completions are never compared with each other, so their order cannot matter.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def bradley_terry(score_a: Tensor, score_b: Tensor) -> Tensor:
    """``-log sigmoid(score_a - score_b)``: the cost of a being preferred to b, elementwise."""
    return F.softplus(score_b - score_a)


def kwise_ranking(scores: Tensor, group: Tensor, rank: Tensor) -> Tensor:
    """Mean Bradley-Terry loss over a group's untied pairs (Ouyang et al. 2022, Eq. 1).

    Without ties each pair weighs ``1 / C(K, 2)``. A group of ties only costs 0.
    """
    groups, member = group.unique(return_inverse=True)
    better, worse = torch.nonzero(
        (member[:, None] == member) & (rank[:, None] < rank), as_tuple=True
    )
    losses = bradley_terry(scores[better], scores[worse])
    zeros = losses.new_zeros(len(groups))
    pairs = zeros.index_add(0, member[better], torch.ones_like(losses))
    return zeros.index_add(0, member[better], losses) / pairs.clamp(min=1)


def plackett_luce(scores: Tensor, group: Tensor, rank: Tensor) -> Tensor:
    """Negative log-likelihood of a group's ranking under Plackett-Luce (Rafailov 2023, A.3).

    Each completion is chosen from itself and all that rank strictly below it. Without ties this is
    the model's likelihood, and with two completions Bradley-Terry.
    """
    groups, member = group.unique(return_inverse=True)
    beaten = (member[:, None] == member) & (rank[:, None] < rank)
    beaten.fill_diagonal_(True)
    rivals = scores.expand(len(scores), -1).masked_fill(~beaten, -torch.inf)
    losses = rivals.logsumexp(1) - scores
    return losses.new_zeros(len(groups)).index_add(0, member, losses)
