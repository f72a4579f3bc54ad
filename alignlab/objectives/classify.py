"""Classification of texts with a head on a language model (Radford et al. 2018, GPT-1, Eq. 3-5).

The task loss may be joined by the language-modelling loss of the same text, ``L_task + alpha *
L_LM``, which GPT-1 found to help with generalisation and speed.
"""

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.errors import DataError
from alignlab.models import ScoreModel
from alignlab.objectives.base import TreeObjective
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


class Classify(TreeObjective):
    """Fit a classifier to labelled texts.

    Args:
        model: A scorer with one output per class.
        optimizer: Builds the optimizer.
        schedule: Factor on the learning rate.
    """

    unit = "completions"

    def __init__(
        self, model: ScoreModel, optimizer: OptimizerCallable, schedule: Schedule | None = None
    ) -> None:
        super().__init__(optimizer, schedule)
        self.model = model

    @property
    def trained(self) -> ScoreModel:
        """The classifier."""
        return self.model

    def losses(self, trees: PromptTrees) -> tuple[Tensor, dict[str, Tensor]]:
        """One loss per text."""
        if trees.labels is None:
            raise DataError("classification needs labels. Use LabelledData, or another objective.")
        logits, labels = self.model.scores(trees), trees.labels.long()
        nothing = torch.zeros_like(logits[:, 0])
        losses = classify_loss(logits, labels, nothing, nothing, alpha=0.0)
        hit = (logits.argmax(-1) == labels).float()
        return losses, {"loss": losses.mean(), "accuracy": hit.mean()}
