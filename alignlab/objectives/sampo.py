"""SamPO: DPO on equally many tokens of both completions (Lu et al. 2024, arXiv:2406.10957, Eq. 7).

From the longer completion, as many tokens as the shorter one has are drawn at random, so length
alone changes neither completion's reward.
"""

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.functional import bradley_terry, uniform
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective, split_pairs
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def sampo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    chosen_kept: Tensor,
    rejected_kept: Tensor,
    *,
    beta: float,
) -> PairLoss:
    """DPO's loss on sums over the kept tokens, equally many of both completions.

    Log-probs are ``[B, T]``, of tokens, in nats; ``[B, T]`` bool says which are kept, of both
    models. Losses and rewards are ``[B]``; rewards are those of the kept tokens.
    """
    chosen = beta * ((policy_chosen_logps - ref_chosen_logps) * chosen_kept).sum(1)
    rejected = beta * ((policy_rejected_logps - ref_rejected_logps) * rejected_kept).sum(1)
    return PairLoss(bradley_terry(chosen, rejected), chosen.detach(), rejected.detach())


def kept_tokens(mask: Tensor, noise: Tensor) -> Tensor:
    """``[2 B, T]`` bool: equally many tokens of both completions of a pair, by least noise.

    Args:
        mask: ``[2 B, T]`` bool, the tokens that count; pairs stand together.
        noise: ``[2 B, T]`` in (0, 1).
    """
    shorter = torch.minimum(*split_pairs(mask.sum(1))).repeat_interleave(2)
    rank = noise.masked_fill(~mask, 1.0).argsort(1).argsort(1)
    return mask & (rank < shorter[:, None])


class SamPO(PairObjective):
    """DPO on a random subset of the longer completion's tokens, a new one each time.

    Other arguments are as in ``DPO``.

    Args:
        seed: Subsets are a function of it, the optimizer step, the row and a token's position.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        seed: int = 0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")
        self.seed = seed

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 7 on the batch."""
        ids, positions = trees.index[trees.group], torch.arange(scores.mask.shape[1])
        side, step = torch.arange(len(ids)) % 2, self.global_step
        noise = uniform(  # a sampler's positions count from 0: no other noise uses these
            self.seed, step, ids[:, None], side.to(ids)[:, None], -1 - positions.to(ids)
        )
        kept, ref = kept_tokens(scores.mask, noise), self.reference.token_logps(trees)
        return sampo_loss(
            *(x[k::2] for x in (scores.token_logps, ref, kept) for k in (0, 1)), beta=self.beta
        )
