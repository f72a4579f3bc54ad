"""Dynamic beta, beta-DPO (Wu et al. 2024, arXiv:2407.08639): a ``beta`` of its own for each step.

A step whose pairs have larger margins gets a larger ``beta``, and pairs with unusual margins are
often left out. Both are computed over the whole optimizer step.
"""

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.functional import bradley_terry, uniform
from alignlab.models import Policy, ReferenceKind, Scores, make_reference
from alignlab.objectives.base import PairLoss, PairObjective
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked

MOMENTUM = 0.9  # of the running mean and deviation of margins


def beta_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    factor: Tensor,
    weights: Tensor,
    *,
    beta: float,
) -> PairLoss:
    """DPO's loss at ``factor * beta``, weighted; ``factor`` and weights have no gradient.

    Log-probs are ``[B]``, summed over completions, in nats; ``factor`` is the step's, one number;
    weights ``[B]`` are 0 for pairs that are left out. Rewards are those at ``beta``.
    """
    chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    factor, weights = factor.detach(), weights.detach()
    losses = weights * bradley_terry(factor * chosen, factor * rejected)
    return PairLoss(losses, chosen.detach(), rejected.detach())


def kept_pairs(margins: Tensor, usual: Tensor, spread: Tensor, noise: Tensor, rho: float) -> Tensor:
    """``[N]`` bool: a share ``rho`` of N pairs, drawn without replacement.

    Args:
        margins: ``[N]``; a pair's chance is proportional to the normal density at its margin.
        usual: Mean of that density, one number.
        spread: Its standard deviation.
        noise: ``[N]`` in (0, 1), made into Gumbel noise; kept are the pairs whose log-chance plus
            noise is largest.
        rho: In (0, 1]; at least one pair is kept.
    """
    log_chances = -((margins - usual) / spread.clamp(min=1e-12)).square() / 2
    keys = log_chances - (-noise.log()).log()
    best = keys.topk(max(1, int(rho * len(keys)))).indices
    return torch.zeros_like(margins, dtype=torch.bool).index_fill(0, best, True)


class BetaDPO(PairObjective):
    """DPO with a ``beta`` that follows the margins of each step's pairs.

    A step uses ``beta * (1 + alpha * (mean margin of the kept pairs - usual margin))``. Margins are
    DPO's at ``beta``; the usual margin is a running mean, kept in checkpoints. Validation uses
    ``beta`` itself and all pairs. Other arguments are as in ``DPO``.

    Args:
        alpha: How much ``beta`` follows, >= 0; with 0 and ``rho`` 1 it is DPO.
        rho: Share of the pairs of a step that are kept, in (0, 1].
        seed: Which pairs are kept is a function of it, the optimizer step, rows and margins.

    Raises:
        ConfigError: A number out of its range; while training, several micro-batches in a step, or
            a ``beta`` that has become 0 or less.
    """

    usual: Tensor
    spread: Tensor

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        alpha: float = 0.6,
        rho: float = 0.8,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        seed: int = 0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")
        self.alpha = checked(self, "alpha", alpha, ">= 0")
        self.rho = checked(self, "rho", rho, "in (0, 1]")
        self.seed = seed
        self.register_buffer("usual", torch.zeros((), dtype=torch.float64))
        self.register_buffer("spread", torch.zeros((), dtype=torch.float64))

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """The loss of each pair of the batch."""
        four = self.four_logps(trees, scores)
        chosen, rejected = (four[k].detach() - four[k + 2] for k in (0, 1))
        factor, weights = torch.ones_like(chosen[0]), torch.ones_like(chosen)
        if self.training:
            factor, weights = self._follow(self.beta * (chosen - rejected), trees)
        return beta_dpo_loss(*four, factor, weights, beta=self.beta)

    def _follow(self, margins: Tensor, trees: PromptTrees) -> tuple[Tensor, Tensor]:
        """The step's factor on ``beta`` and the weights of this rank's pairs."""
        first, end, ids, whole = 0, len(margins), trees.index, margins.double()
        if trees.step:  # of which other ranks have the rest
            first, end = trees.first, trees.first + end
            ids = torch.tensor([tree.index for tree in trees.step]).to(ids)
            whole = whole.new_zeros(len(ids)).index_add(0, torch.arange(first, end).to(ids), whole)
            whole = self.trainer.strategy.reduce(whole, reduce_op="sum")
        self.usual.lerp_(whole.mean(), 1 - MOMENTUM)
        self.spread.lerp_(whole.std(correction=0), 1 - MOMENTUM)
        noise = uniform(self.seed, self.global_step, ids, torch.zeros_like(ids), -1)
        kept = kept_pairs(whole, self.usual, self.spread, noise, self.rho)
        factor = 1 + self.alpha * (whole[kept].mean() - self.usual)
        if factor <= 0:
            raise ConfigError(
                f"beta-DPO's beta has become {float(self.beta * factor):.3g}: the margins of a "
                f"step have fallen {float(self.usual - whole[kept].mean()):.3g} below the usual "
                "ones. Lower model.init_args.alpha or the learning rate."
            )
        weights = kept[first:end] * (len(kept) / kept.sum())
        return factor.to(margins), weights.to(margins)

    def on_train_start(self) -> None:
        """Check that a step is one micro-batch.

        Raises:
            ConfigError: It has several.
        """
        super().on_train_start()
        if (parts := self.trainer.accumulate_grad_batches) > 1:
            raise ConfigError(
                f"beta-DPO computes its beta from a whole step, which has {parts} micro-batches. "
                "Set data.init_args.micro_batch_size to null."
            )
