"""The step shared by objectives that fit a scorer: every completion is scored once."""

from abc import abstractmethod
from typing import ClassVar

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rows import Row
from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.models import ScoreModel
from alignlab.objectives.base import TreeObjective, own_count
from alignlab.objectives.figures import Figure, correlation_of, means_of
from alignlab.objectives.schedule import Schedule


class ScoreObjective(TreeObjective):
    """Scores every completion once and asks a subclass for the losses.

    A subclass says which ``rows`` it trains on: a label is a rank, a rating or a margin, and on
    trees made of other rows a loss would read it wrongly without noticing. Validation adds
    ``val/length_correlation``, Pearson's correlation of score and tokens of a completion: a reward
    model that likes length for its own sake shows here first.

    Args:
        model: The scorer to train, usually started from the SFT policy.
        optimizer: Builds the optimizer.
        schedule: Factor on the learning rate.
    """

    rows: ClassVar[tuple[type[Row], ...]]

    def __init__(
        self, model: ScoreModel, optimizer: OptimizerCallable, schedule: Schedule | None = None
    ) -> None:
        super().__init__(optimizer, schedule)
        self.model = model

    @property
    def trained(self) -> ScoreModel:
        """The scorer."""
        return self.model

    @abstractmethod
    def score_losses(self, trees: PromptTrees, scores: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses to be summed, one per ``unit``, and means to log, of ``scores`` ``[M]``."""

    def losses(self, trees: PromptTrees) -> tuple[Tensor, dict[str, Tensor]]:
        """One forward per completion."""
        return self.score_losses(trees, self.model.scores(trees))

    def figures(self, trees: PromptTrees) -> dict[str, Figure]:
        """The means, and what else is to be said of the scores, from one forward."""
        scores = self.model.scores(trees)
        _, means = self.score_losses(trees, scores)
        return means_of(means, own_count(trees, self.unit)) | self.score_figures(trees, scores)

    def score_figures(self, trees: PromptTrees, scores: Tensor) -> dict[str, Figure]:
        """Figures of ``scores`` ``[M]`` that are no means."""
        return {"length_correlation": correlation_of(scores, trees.completion_lengths)}

    def on_fit_start(self) -> None:
        """Check that the data module's rows are those of this objective."""
        super().on_fit_start()
        data = getattr(self.trainer, "datamodule", None)
        kind = getattr(data, "kind", None)
        if kind is not None and kind not in self.rows:
            wanted = " or ".join(row.__name__ for row in self.rows)
            raise ConfigError(
                f"{type(self).__name__} trains on rows of type {wanted}, "
                f"{type(data).__name__} has {kind.__name__}. Set data.class_path to match."
            )
