import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.objectives.gspo import gspo_loss

MASK = torch.tensor([[True, True], [True, False]])
LOGPS = torch.tensor([[-1.0, -3.0], [-4.0, torch.nan]], dtype=torch.float64)
# Token ratios 1.69 and 1: a completion's is their geometric mean, 1.3. The other's is 0.5.
OLD = LOGPS - torch.tensor([[math.log(1.69), 0.0], [math.log(0.5), 0.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("advantages", "ranges", "loss", "slopes"),
    [
        ((2.0, 1.0), (0.2, 0.4), -2.6 - 0.5, (-1.3, -0.5)),  # -s A / |y| for each token
        ((2.0, 1.0), (0.4, 0.2), -2.4 - 0.5, (0.0, -0.5)),  # held at 1.2 as a whole
        ((2.0, -1.0), (0.2, 0.4), -2.6 + 0.8, (-1.3, 0.0)),  # held at 0.8
        ((-2.0, -1.0), (0.6, None), 2.6 + 0.5, (1.3, 0.5)),
    ],
)
def test_values_and_slopes_worked_by_hand(
    advantages: tuple[float, float],
    ranges: tuple[float, float | None],
    loss: float,
    slopes: tuple[float, float],
) -> None:
    logps = LOGPS.clone().requires_grad_()
    total, count = gspo_loss(
        logps, OLD, torch.tensor(advantages, dtype=torch.float64), MASK,
        clip_epsilon=ranges[0], clip_epsilon_high=ranges[1],
    )  # fmt: skip
    total.backward()
    assert total.item() == pytest.approx(loss)
    assert int(count) == 2
    rows = [[slopes[0], slopes[0]], [slopes[1], 0.0]]
    assert_close(logps.grad, torch.tensor(rows, dtype=torch.float64))


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "loss"), [(200.0, 2.0, -2.8), (-200.0, -2.0, 1.6), (-200, 2.0, 0)]
)
def test_far_ratios_are_finite_in_float32(log_ratio: float, advantage: float, loss: float) -> None:
    """As PPO's, but for a bad completion that became e^200 times as likely: that one diverged."""
    logps = torch.full((1, 2), -1.0 + max(0, log_ratio)).requires_grad_()
    total, _ = gspo_loss(
        logps, logps.detach() - log_ratio, torch.tensor([advantage]), MASK[:1],
        clip_epsilon=0.2, clip_epsilon_high=0.4,
    )  # fmt: skip
    total.backward()
    assert total.item() == pytest.approx(loss)
    assert_close(logps.grad, torch.zeros(1, 2))


def test_a_completion_without_a_token_adds_nothing() -> None:
    none = torch.tensor([[True, True], [False, False]])
    total, count = gspo_loss(
        LOGPS, OLD, torch.tensor([2.0, 1.0]), none, clip_epsilon=0.2, clip_epsilon_high=0.4
    )
    assert total.item() == pytest.approx(-2.6)
    assert int(count) == 1
