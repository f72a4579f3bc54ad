"""The step shared by objectives that fit a scorer, and figures that no mean of batches can give.

A correlation or a calibration error of a validation set is no average of those of its batches. So
each batch adds to a few sums, over ranks too, and the figure is made of them when all rows are in.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rows import Row
from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.models import ScoreModel
from alignlab.objectives.base import TreeObjective, own_count
from alignlab.objectives.schedule import Schedule

BINS = 10
Figure = tuple[
    Callable[[Tensor], Tensor], Tensor
]  # what makes a number of sums, and a batch's sums


class ScoreObjective(TreeObjective):
    """Scores every completion once and asks a subclass for the losses.

    A subclass says which ``rows`` it trains on: a label is a rank, a rating or a margin, and on
    trees made of other rows a loss would read it wrongly without noticing.

    Validation adds ``val/length_correlation``, Pearson's correlation of score and tokens of a
    completion: a reward model that likes length for its own sake shows here first.

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
        self._figures: dict[str, Figure] = {}

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

    def figures(self, trees: PromptTrees, scores: Tensor) -> dict[str, Figure]:
        """Figures of the validation set by name, with what this batch adds to their sums."""
        lengths = trees.completion_lengths
        return {"length_correlation": (correlation, correlation_sums(scores, lengths))}

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

    def on_validation_epoch_start(self) -> None:
        """Begin all sums at 0."""
        self._figures = {}

    @torch.no_grad()
    def validation_step(self, trees: PromptTrees, batch_idx: int) -> None:
        """Log the means of held-out trees and add to the sums."""
        scores = self.model.scores(trees)
        _, means = self.score_losses(trees, scores)
        self.log_means("val", means, own_count(trees, self.unit))
        for name, (finish, sums) in self.figures(trees, scores).items():
            before = self._figures.get(name)
            self._figures[name] = (finish, sums if before is None else before[1] + sums)

    def on_validation_epoch_end(self) -> None:
        """Log the figures of all batches and ranks together."""
        for name, (finish, sums) in self._figures.items():
            whole = self.trainer.strategy.reduce(sums, reduce_op="sum")
            self.log(f"val/{name}", finish(whole).float(), sync_dist=True)  # equal on all ranks


def correlation_sums(x: Tensor, y: Tensor) -> Tensor:
    """``[6]`` float64: count, sums of x, y, x^2, y^2 and x y of two ``[M]`` tensors."""
    x, y = x.double(), y.double()
    return torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y]).sum(1)


def correlation(sums: Tensor) -> Tensor:
    """Pearson's correlation of the sums' values; NaN where either does not vary."""
    n, x, y, xx, yy, xy = sums.unbind()
    squares, both = torch.stack([n * xx, n * yy]), torch.stack([x * x, y * y])
    spread = (squares - both).masked_fill(squares - both <= 1e-12 * squares, torch.nan)  # rounding
    return (n * xy - x * y) / spread.prod().sqrt()


def calibration_sums(margins: Tensor, weights: Tensor) -> Tensor:
    """``[BINS + 1]`` float64: gap of confidence and success by bin of confidence, and the weight.

    Of a pair whose better one is ``margins`` ahead (``[N]``), a Bradley-Terry model backs the
    higher score with confidence ``sigmoid(|margin|)``, and is right if the margin is positive, half
    right if it is 0. Bins are equally wide over [1/2, 1].
    """
    margins, weights = margins.double(), weights.double()
    confidence, right = margins.abs().sigmoid(), (margins.sign() + 1) / 2
    bins = ((2 * confidence - 1) * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64, device=margins.device)
    return torch.cat([gaps.index_add(0, bins, weights * (confidence - right)), weights.sum()[None]])


def calibration_error(sums: Tensor) -> Tensor:
    """Mean gap between confidence and how often it is right, over bins weighted by their pairs."""
    return sums[:-1].abs().sum() / sums[-1]
