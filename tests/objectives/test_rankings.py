"""Metrics of rankings, worked out by hand."""

import pytest
import torch

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import DataError
from alignlab.objectives.rankings import calibration_metric, ranking_means, ranks, untied_margins

# Prompt 0 ranks three completions, of which the last two tie; prompt 1 ranks two, wrongly scored.
SCORES = torch.tensor([2.0, 1.0, -1.0, 0.0, 3.0])
GROUP = torch.tensor([0, 0, 0, 1, 1])
RANK = torch.tensor([0, 1, 1, 0, 1])


def test_pairs_that_tie_are_left_out_and_prompts_weigh_alike() -> None:
    margins, weights = untied_margins(SCORES, GROUP, RANK)
    assert margins.tolist() == [1.0, 3.0, -3.0]
    assert weights.tolist() == [0.5, 0.5, 1.0]


def test_means_are_over_prompts() -> None:
    means = ranking_means(torch.tensor([0.5, 1.5]), SCORES, GROUP, RANK)
    assert {name: float(value) for name, value in means.items()} == pytest.approx(
        {"loss": 1.0, "accuracy": 0.5, "margin": -0.5, "score": (2 / 3 + 1.5) / 2}
    )


def test_calibration_is_the_gap_between_confidence_and_being_right() -> None:
    """Confidences 0.73 (right) and 0.95 (half right by weight) lie in two bins of ten."""
    sure, surer = (float(torch.tensor(x, dtype=torch.float64).sigmoid()) for x in (1.0, 3.0))
    error = calibration_metric(SCORES, GROUP, RANK)["calibration_error"].value
    assert float(error) == pytest.approx((0.5 * (1 - sure) + abs(1.5 * surer - 0.5)) / 2)


def test_ranks_are_the_labels() -> None:
    tree = PromptTree(0, "a", (1,), ((5,), (6,)), labels=(0.0, 1.0))
    assert ranks(collate([tree])).tolist() == [0, 1]
    with pytest.raises(DataError, match="needs ranks"):
        ranks(collate([PromptTree(0, "a", (1,), ((5,),))]))
