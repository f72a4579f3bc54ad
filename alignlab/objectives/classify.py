"""Classification of texts with a head on a language model (Radford et al. 2018, GPT-1, Eq. 3-5).

The task loss may be joined by the language-modelling loss of the same text, ``L_task + alpha *
L_LM``, which GPT-1 found to help with generalisation and speed. Both come from one forward of the
transformer. Language modelling alone is ``SFT`` on ``TextData``.
"""

from collections.abc import Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.rows import LabelledText
from alignlab.data.trees import PromptTrees
from alignlab.errors import DataError
from alignlab.functional import token_logps
from alignlab.models import LanguageHead, ScoreModel
from alignlab.objectives.base import LossAndMetrics, TreeObjective
from alignlab.objectives.metrics import Metric, mean_of
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.settings import checked

CHUNK = 4096  # positions whose logits are held at once


def classify_loss(
    logits: Tensor, labels: Tensor, lm_sum: Tensor, lm_count: Tensor, *, alpha: float
) -> Tensor:
    """Cross-entropy of the label plus ``alpha`` times the text's mean token loss, ``[B]``.

    Args:
        logits: ``[B, C]`` of the classes.
        labels: ``[B]`` long.
        lm_sum: ``[B]`` negative log-likelihood of each text in nats.
        lm_count: ``[B]`` its tokens; a text without any adds nothing.
        alpha: Weight of the language-modelling loss; 0.5 in GPT-1.
    """
    return F.cross_entropy(logits, labels, reduction="none") + alpha * lm_sum / lm_count.clamp(
        min=1
    )


class Classify(TreeObjective):
    """Fit a classifier to labelled texts.

    Args:
        model: A scorer with one output per class; with ``alpha`` it must start from a language
            model, whose output layer is trained too.
        optimizer: Builds the optimizer.
        alpha: Weight of the language-modelling loss of the text, >= 0; 0.5 in GPT-1.
        schedule: Factor on the learning rate.

    Raises:
        ConfigError: ``alpha`` below 0, or the model's source has no output layer.
    """

    rows = (LabelledText,)
    unit = "completions"

    def __init__(
        self,
        model: ScoreModel,
        optimizer: OptimizerCallable,
        alpha: float = 0.0,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(optimizer, schedule)
        self.model, self.alpha = model, checked(self, "alpha", alpha, ">= 0")
        self.lm_head = LanguageHead(model) if alpha else None
        model.reads_rows = True  # so that a reward made of it reads texts like these rows

    def setup(self, stage: str) -> None:
        """Check that all texts have labels of the model's classes.

        Raises:
            DataError: A text has none; names the row.
        """
        if self.knows_rows:
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            for tree in chain(data.train_trees, data.validation_trees):
                check_labels(tree.id, tree.labels, self.model.outputs)

    def losses(self, trees: PromptTrees) -> LossAndMetrics:
        """One loss per text."""
        if not self.knows_rows:
            given = None if trees.labels is None else trees.labels.tolist()
            for m, p in enumerate(trees.group.tolist()):
                check_labels(trees.ids[p], given and given[m : m + 1], self.model.outputs)
        assert trees.labels is not None
        labels, count = trees.labels.long(), trees.loss_mask.sum(1)
        logits, lm_sum = self._both_heads(trees)
        losses = classify_loss(logits, labels, lm_sum, count, alpha=self.alpha)
        hit = (logits.argmax(-1) == labels).float()
        means: dict[str, Tensor | Metric] = {"loss": losses.mean(), "accuracy": hit.mean()}
        if self.alpha:
            means["lm_loss"] = mean_of(lm_sum.sum(), count.sum())
        return losses, means

    def _both_heads(self, trees: PromptTrees) -> tuple[Tensor, Tensor]:
        """Class logits ``[M, C]`` and each text's summed token loss ``[M]``."""
        if self.lm_head is None:
            logits = self.model.scores(trees)
            return logits, torch.zeros_like(logits[:, 0])
        logits, states = self.model.scores_and_states(trees)
        targets = trees.completion_ids[trees.loss_mask]
        logps = token_logps(states, self.lm_head, targets, chunk=CHUNK)
        spread = torch.zeros(trees.loss_mask.shape, dtype=logps.dtype, device=logps.device)
        return logits, -spread.masked_scatter(trees.loss_mask, logps).sum(1)


def check_labels(row: str, labels: Sequence[float] | None, classes: int) -> None:
    """Refuse labels of a row that are not whole numbers from 0 to ``classes - 1``.

    Raises:
        DataError: There are no labels, or one is not a class.
    """
    if labels is None:
        raise DataError("classification needs labels. Use LabelledData, or another objective.")
    for label in labels:
        if label not in range(classes):
            raise DataError(
                f"row {row!r} has label {label:g}; the model's {classes} outputs are for whole "
                f"numbers from 0 to {classes - 1}. Correct the row, or set "
                "model.init_args.model.outputs."
            )
