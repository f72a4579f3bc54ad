"""Odds Ratio Preference Optimisation (Hong et al. 2024, arXiv:2403.07691, Eq. 6 and 7).

Imitation of the chosen completion and a contrast of odds in one stage, without a reference.
"""

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.functional import bradley_terry, log1mexp
from alignlab.models import Policy, Scores
from alignlab.models.sharding import is_sharded
from alignlab.objectives.base import PairLoss, PairObjective, split_pairs
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def orpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    *,
    lam: float,
    nll: Tensor | None = None,
) -> PairLoss:
    """``nll - lam * log sigmoid(log odds of chosen - log odds of rejected)``.

    A completion's probability is here ``p = exp(mean log-prob of its tokens)``, its odds are
    ``p / (1 - p)``, and its reward is their logarithm.

    Args:
        policy_chosen_logps: ``[B]`` summed, in nats.
        policy_rejected_logps: ``[B]`` summed, in nats.
        chosen_lengths: ``[B]`` tokens.
        rejected_lengths: ``[B]`` tokens.
        lam: Weight of the odds ratio.
        nll: ``[B]`` negative log-likelihood of the imitated text, in nats per token; that of the
            chosen completion when left out.
    """
    chosen_mean = policy_chosen_logps / chosen_lengths
    chosen, rejected = log_odds(chosen_mean), log_odds(policy_rejected_logps / rejected_lengths)
    losses = (-chosen_mean if nll is None else nll) + lam * bradley_terry(chosen, rejected)
    return PairLoss(losses, chosen.detach(), rejected.detach())


def log_odds(logps: Tensor) -> Tensor:
    """``log(p / (1 - p))`` of log-probabilities, elementwise.

    A probability that was rounded to 1 counts as the largest below it and gets no gradient.
    """
    below_one = logps.clamp(max=-torch.finfo(logps.dtype).tiny)
    return below_one - log1mexp(below_one)


class ORPO(PairObjective):
    """Imitate chosen completions and raise their odds over those of rejected ones.

    Args:
        policy: The language model to train; a pretrained one, since this is also its fine-tuning.
        optimizer: Builds the optimizer.
        lam: Weight of the odds ratio, >= 0; larger lowers the rejected completion more.
        prompt_nll: Imitate the prompt's tokens too, as the paper's code does by default.
        schedule: Factor on the learning rate.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        lam: float = 0.1,
        prompt_nll: bool = False,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.lam, self.prompt_nll = checked(self, "lam", lam, ">= 0"), prompt_nll

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """Eq. 6 on the batch."""
        logps, lengths = split_pairs(scores.logps), split_pairs(scores.lengths)
        nll = self._with_prompt(trees, logps[0], lengths[0]) if self.prompt_nll else None
        return orpo_loss(*logps, *lengths, lam=self.lam, nll=nll)

    def _with_prompt(self, trees: PromptTrees, chosen: Tensor, lengths: Tensor) -> Tensor:
        """``[B]`` nats per token of prompt and chosen completion, read as one text."""
        prompts, rows = trees.prompts_as_completions()
        if len(rows):
            scores = self.policy(prompts)
            chosen = chosen.index_add(0, rows, scores.logps)
            lengths = lengths.index_add(0, rows, scores.lengths)
        elif is_sharded(self.policy):  # other ranks have prompts, and a call needs all ranks
            chosen = chosen + 0 * self.policy(trees).logps.sum()
        return -chosen / lengths
