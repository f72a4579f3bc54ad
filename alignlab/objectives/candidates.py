"""The step of objectives that train on rated samples of the reference, all of a prompt together."""

from abc import abstractmethod

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rows import Candidates
from alignlab.data.trees import PromptTrees
from alignlab.errors import DataError
from alignlab.functional import group_logsumexp, group_normalise
from alignlab.models import Policy, ReferenceKind, make_reference
from alignlab.objectives.base import LossAndMetrics, TreeObjective
from alignlab.objectives.metrics import mean_of
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked


class CandidateObjective(TreeObjective):
    """Scores all candidates of each prompt in one forward and asks a subclass for the loss.

    Logs ``gain``: the policy's reward minus the reference's, estimated on the candidates with the
    importance weights policy / reference.

    Args:
        policy: The language model to train; its initial state is also the reference, whose samples
            the candidates should be.
        optimizer: Builds the optimizer.
        beta: Strength of the KL constraint, > 0. Smaller lets the policy drift further.
        reference: As in ``DPO``.
        reference_cache: Folder of cached log-probs, for ``cached``.
        schedule: Factor on the learning rate.

    Raises:
        ConfigError: ``beta`` that is not positive, or ``cached`` without a folder.
    """

    rows = (Candidates,)

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.policy = policy
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = checked(self, "beta", beta, "> 0")

    @abstractmethod
    def candidate_loss(
        self, logps: Tensor, ref_logps: Tensor, rewards: Tensor, group: Tensor
    ) -> Tensor:
        """Losses to be summed, one per ``unit``; all arguments are ``[M]``."""

    def losses(self, trees: PromptTrees) -> LossAndMetrics:
        """The losses, and the policy's estimated gain."""
        if trees.labels is None:
            name = type(self).__name__
            raise DataError(f"{name} needs rewards. Use CandidateData, or another objective.")
        scores = self.policy(trees)
        ref_logps = self.reference.token_logps(trees).sum(1)
        rewards, group = trees.labels.to(scores.logps), trees.group
        losses = self.candidate_loss(scores.logps, ref_logps, rewards, group)
        ratios = (scores.logps - ref_logps).detach()
        weights = (ratios - group_logsumexp(ratios, group)).exp()
        gain = (weights * group_normalise(rewards, group, scale=False)).sum()
        return losses, {"loss": losses.mean(), "gain": mean_of(gain, len(trees.prompt_lengths))}
