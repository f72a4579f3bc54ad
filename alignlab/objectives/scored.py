"""The step shared by objectives that fit a scorer: every completion is scored once."""

from abc import abstractmethod

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.models import ScoreModel
from alignlab.objectives.base import LossAndMetrics, TreeObjective, own_count
from alignlab.objectives.metrics import Metric, correlation, weighted_means
from alignlab.objectives.schedule import Schedule


class ScoreObjective(TreeObjective):
    """Scores every completion once and asks a subclass for the losses.

    Validation adds ``val/length_correlation``, Pearson's correlation of score and tokens of a
    completion, which shows whether a reward model prefers length for its own sake.

    Args:
        model: The scorer to train, usually started from the SFT policy.
        optimizer: Builds the optimizer.
        schedule: Factor on the learning rate.

    Raises:
        ConfigError: A model with more than one output.
    """

    def __init__(
        self, model: ScoreModel, optimizer: OptimizerCallable, schedule: Schedule | None = None
    ) -> None:
        super().__init__(optimizer, schedule)
        if model.outputs != 1:
            raise ConfigError(
                f"{type(self).__name__} fits one score, its model has {model.outputs}. "
                "Set model.init_args.model.outputs to 1."
            )
        self.model = model

    @abstractmethod
    def score_loss_and_metrics(self, trees: PromptTrees, scores: Tensor) -> LossAndMetrics:
        """Losses to be summed, one per ``unit``, and means to log, of ``scores`` ``[M]``."""

    def losses(self, trees: PromptTrees) -> LossAndMetrics:
        """One forward per completion."""
        return self.score_loss_and_metrics(trees, self.model.scores(trees))

    def validation_metrics(self, trees: PromptTrees) -> dict[str, Metric]:
        """The means and the metrics of the scores, from one forward."""
        scores = self.model.scores(trees)
        _, means = self.score_loss_and_metrics(trees, scores)
        weighted = weighted_means(means, own_count(trees, self.unit))
        return weighted | self.score_metrics(trees, scores)

    def score_metrics(self, trees: PromptTrees, scores: Tensor) -> dict[str, Metric]:
        """Metrics of ``scores`` ``[M]`` that are no means over batches, such as correlations."""
        return {"length_correlation": correlation(scores, trees.completion_lengths)}
