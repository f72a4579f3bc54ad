"""Trust-region DPO, TR-DPO (Gorbatovski et al. 2024, arXiv:2404.09656, Eq. 4 and 5).

DPO against a reference that follows the policy, so that the policy may drift further from its start
than ``beta`` alone would let it. The drift has no end: see ``docs/variants.md``.
"""

from typing import Any

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.functional import bradley_terry
from alignlab.models import FrozenReference, Policy, ReferenceKind, Scores
from alignlab.models.sharding import mix_weights
from alignlab.objectives.base import PairLoss, PairObjective
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


def tr_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float,
) -> PairLoss:
    """DPO's loss; the log-probs of the reference are those of the reference as it is now.

    All inputs are ``[B]`` summed completion log-probs in nats; losses are ``[B]``.
    """
    chosen = beta * (policy_chosen_logps - ref_chosen_logps)
    rejected = beta * (policy_rejected_logps - ref_rejected_logps)
    return PairLoss(bradley_terry(chosen, rejected), chosen.detach(), rejected.detach())


class TRDPO(PairObjective):
    """DPO whose reference is moved towards the policy every ``tau`` optimizer steps.

    The reference is a copy of the policy, which checkpoints hold too. Implicit rewards are relative
    to it; the KL of probes and of the frontier is that to the start. Other arguments are as in
    ``DPO``.

    Args:
        alpha: How far the reference moves, in [0, 1]: the weights become ``alpha`` times the
            policy's plus ``1 - alpha`` times its own. 1 replaces it, 0 is DPO.
        tau: Optimizer steps between two moves, > 0.
        reference: Only ``frozen``, a copy of the whole policy.

    Raises:
        ConfigError: Another ``reference``, or a policy with adapters: the mean of two adapters is
            not the adapter of the mean.
    """

    reference: FrozenReference

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.05,
        alpha: float = 0.6,
        tau: int = 512,
        reference: ReferenceKind = "frozen",
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        if reference != "frozen" or hasattr(policy.model, "disable_adapter"):
            raise ConfigError(
                "TRDPO moves the weights of its reference towards the policy's, which neither "
                "cached log-probs nor adapters allow. Set model.init_args.reference to frozen, and "
                "leave out lora and prompt_tuning; or take DPO."
            )
        self.reference = FrozenReference(policy)
        self.beta = checked(self, "beta", beta, "> 0")
        self.alpha = checked(self, "alpha", alpha, "in [0, 1]")
        self.tau = checked(self, "tau", tau, "> 0")

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        """The loss of each pair of the batch."""
        return tr_dpo_loss(*self.four_logps(trees, scores), beta=self.beta)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, and move the reference if it is due."""
        super().optimizer_step(*args, **kwargs)
        if (self.trainer.global_step + 1) % self.tau == 0:  # this step is counted afterwards
            mix_weights(self.reference.policy, self.policy, self.alpha)

    def kept_names(self) -> set[str]:
        """The trained tensors, and the reference, which is stored nowhere else."""
        moved = {name for name in self.state_dict() if name.startswith("reference.")}
        return super().kept_names() | moved
