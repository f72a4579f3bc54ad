"""Classification of texts with a head on a language model (Radford et al. 2018, GPT-1, Eq. 3-5).

The task loss may be joined by the language-modelling loss of the same text, ``L_task + alpha *
L_LM``, which GPT-1 found to help with generalisation and speed.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.models import ScoreModel
from alignlab.objectives.base import Objective, finite
from alignlab.objectives.schedule import Schedule


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


class Classify(Objective):
    """Fit a classifier to labelled texts.

    Args:
        model: A scorer with one output per class.
        optimizer: Builds the optimizer.
        schedule: Factor on the learning rate.
    """

    def __init__(
        self, model: ScoreModel, optimizer: OptimizerCallable, schedule: Schedule | None = None
    ) -> None:
        super().__init__(optimizer, schedule)
        self.model = model

    @property
    def tokenizer(self) -> Any:
        """The classifier's."""
        return self.model.tokenizer

    def training_step(self, trees: PromptTrees, batch_idx: int) -> Tensor:
        """Summed losses over the step's texts."""
        losses, means = self._losses(trees)
        self.log_means("train", means, trees.totals)
        return self.normalised(losses.sum(), trees.totals.completions)

    def validation_step(self, trees: PromptTrees, batch_idx: int) -> None:
        """Loss and accuracy on held-out texts."""
        with torch.no_grad():
            _, means = self._losses(trees)
        self.log_means("val", means, trees.totals)

    def save(self, path: Path) -> None:
        """Write the classifier's folder."""
        self.model.save(path)

    def _losses(self, trees: PromptTrees) -> tuple[Tensor, dict[str, Tensor]]:
        assert trees.labels is not None
        logits, labels = self.model.scores(trees), trees.labels.long()
        nothing = torch.zeros_like(logits[:, 0])
        losses = classify_loss(logits, labels, nothing, nothing, alpha=0.0)
        finite(losses, trees.ids)
        hit = (logits.argmax(-1) == labels).float()
        return losses, {"loss": losses.mean(), "accuracy": hit.mean()}
