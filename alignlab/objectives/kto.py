"""Kahneman-Tversky Optimisation (Ethayarajh et al. 2024, arXiv:2402.01306, Eq. 7 and 8).

It needs no pairs: each completion is desirable or undesirable by itself. Its log-ratio is compared
with ``z0``, the estimated divergence of the policy from the reference.
"""

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import Optimizer

from alignlab.data.rows import JudgedCompletion, PreferencePair
from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError, DataError
from alignlab.models import LiveReference, Policy, make_reference
from alignlab.models.modes import reading
from alignlab.objectives.base import LossAndMetrics, TreeObjective
from alignlab.objectives.metrics import mean_of
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def kto_loss(
    policy_logps: Tensor,
    ref_logps: Tensor,
    desirable: Tensor,
    kl: Tensor,
    *,
    beta: float,
    lambda_d: float = 1.0,
    lambda_u: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """``lambda * (1 - sigmoid(+-(r - beta * z0)))`` with ``r = beta * log(policy / reference)``.

    Args:
        policy_logps: ``[B]`` summed completion log-probs in nats.
        ref_logps: ``[B]``.
        desirable: ``[B]`` bool, the sign: plus where True.
        kl: Estimate of the divergence in nats, one for all or ``[B]``: a mean log-ratio over
            mismatched prompts and completions. It counts as 0 where negative; no gradient flows.
        beta: Strength of the KL constraint.
        lambda_d: Weight of desirable completions.
        lambda_u: Weight of undesirable ones.

    Returns:
        Losses and rewards ``r``, both ``[B]``; the rewards carry no gradient.
    """
    rewards = beta * (policy_logps - ref_logps)
    gain = rewards - beta * kl.detach().clamp(min=0)
    losses = torch.where(desirable.bool(), lambda_d * (-gain).sigmoid(), lambda_u * gain.sigmoid())
    return losses, rewards.detach()


class KTO(TreeObjective):
    """Fit a policy to completions that were labelled desirable or undesirable.

    Data are ``JudgedData``, or ``PreferenceData`` whose pairs are split. The divergence is
    estimated on the previous optimizer step, over all its micro-batches and processes (0 at the
    first step, where the policy is the reference), from prompts paired with the completions of
    another prompt of the step. So it does not depend on how a step is cut.

    Args:
        policy: The language model to train; its initial state is also the reference.
        optimizer: Builds the optimizer.
        beta: Strength of the KL constraint, > 0. Smaller lets the policy drift further.
        lambda_d: Weight of desirable completions, >= 0. With ``n_d`` and ``n_u`` rows of each kind,
            the paper recommends ``lambda_d * n_d / (lambda_u * n_u)`` in [1, 4/3].
        lambda_u: Weight of undesirable ones, >= 0.
        reference: As in ``DPO``, without ``cached``, which lacks the mismatched completions.
        schedule: Factor on the learning rate.
    """

    rows = (PreferencePair, JudgedCompletion)
    unit = "completions"
    kl: Tensor
    kl_sums: Tensor

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        lambda_d: float = 1.0,
        lambda_u: float = 1.0,
        reference: LiveReference = "auto",
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.policy = policy
        self.beta = checked(self, "beta", beta, "> 0")
        self.lambda_d = checked(self, "lambda_d", lambda_d, ">= 0")
        self.lambda_u = checked(self, "lambda_u", lambda_u, ">= 0")
        self.reference = make_reference(policy, reference)
        self.register_buffer("kl", torch.zeros((), dtype=torch.float64))
        self.register_buffer("kl_sums", torch.zeros(2, dtype=torch.float64))  # sum and count

    def losses(self, trees: PromptTrees) -> LossAndMetrics:
        """One loss per completion."""
        good, logps = desirable(trees), self.policy(trees).logps
        losses, rewards = kto_loss(
            logps,
            self.reference.token_logps(trees).sum(1),
            good,
            self.kl.to(logps),
            beta=self.beta,
            lambda_d=self.lambda_d,
            lambda_u=self.lambda_u,
        )
        return losses, {
            "loss": losses.mean(),
            "kl": self.kl.float(),
            "rewards/desirable": mean_of((rewards * good).sum(), good.sum()),
            "rewards/undesirable": mean_of((rewards * ~good).sum(), (~good).sum()),
        }

    def training_step(self, trees: PromptTrees, batch_idx: int) -> Tensor:
        """Compute the micro-batch's loss, and add to the next step's estimate of the divergence."""
        self._watch(trees)
        return super().training_step(trees, batch_idx)

    @torch.no_grad()
    def _watch(self, trees: PromptTrees) -> None:
        others = trees.mismatched_in_step()
        if others is not None:
            if self.policy.room is not None:  # two rows that fit may not fit together
                left = self.policy.room - others.prompt_lengths[others.group]
                others = others.shortened(left)
            with reading(self.policy):
                logps = self.policy(others).token_logps
            log_ratios = logps - self.reference.token_logps(others)
            self.kl_sums += torch.stack([log_ratios.sum(), log_ratios.new_tensor(len(log_ratios))])

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Finish this step's estimate of the divergence, which the next step uses."""
        super().on_before_optimizer_step(optimizer)
        total, count = self.trainer.strategy.reduce(self.kl_sums.clone(), reduce_op="sum")
        if count > 0:
            self.kl.copy_((total / count).clamp(min=0))
        self.kl_sums.zero_()

    def on_train_start(self) -> None:
        """Check that a step has several prompts.

        Raises:
            ConfigError: Steps of a single prompt.
        """
        super().on_train_start()
        if getattr(self.trainer.train_dataloader, "batch_size", None) == 1:
            raise ConfigError(
                "KTO estimates a divergence from prompts with other prompts' completions, and a "
                "step of one prompt has none. Set data.init_args.batch_size to 2 or more."
            )


def desirable(trees: PromptTrees) -> Tensor:
    """``[M]`` bool: which completions are desirable; of a pair it is the first.

    Raises:
        DataError: Neither pairs nor judged completions.
    """
    prompts, completions = len(trees.prompt_lengths), len(trees.group)
    if completions == 2 * prompts:
        return torch.arange(completions, device=trees.group.device) % 2 == 0
    if completions == prompts and trees.labels is not None:
        return trees.labels > 0
    raise DataError(
        "KTO needs completions labelled desirable or undesirable, or preference pairs. Use "
        "JudgedData or PreferenceData, or another objective."
    )
