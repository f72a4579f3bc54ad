import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.functional import clip_fraction, clipped_surrogate, clipped_value_loss

ON = torch.ones(1, 1, dtype=torch.bool)


def cell(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "moves"),
    [
        (1.5, 2.0, -2.4, False),  # good and already likelier: held at 1.2
        (1.5, -2.0, 3.0, True),  # bad and likelier: pushed back
        (0.5, 2.0, -1.0, True),  # good and less likely: pulled up
        (0.5, -2.0, 1.6, False),  # bad and already less likely: held at 0.8
        (1.1, 2.0, -2.2, True),  # inside the range nothing is held
        (0.9, -2.0, 1.8, True),
    ],
)
def test_four_quadrants(ratio: float, advantage: float, loss: float, moves: bool) -> None:
    logps = cell(-1 + math.log(ratio)).requires_grad_()
    losses = clipped_surrogate(logps, cell(-1), cell(advantage), ON, clip_epsilon=0.2)
    losses.sum().backward()
    assert_close(losses.detach(), cell(loss))
    # d loss / d logp = -ratio * A where it moves
    assert_close(logps.grad, cell(-ratio * advantage if moves else 0.0))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "moves"),
    [
        (1.25, 2.0, -2.5, True),  # beyond 1.2, within 1.28
        (1.5, 2.0, -2.56, False),
        (0.75, -2.0, 1.6, False),  # below 0.8: the range downwards is the other one
        (0.85, -2.0, 1.7, True),
    ],
)
def test_the_two_sides_have_their_own_range(
    ratio: float, advantage: float, loss: float, moves: bool
) -> None:
    logps = cell(-1 + math.log(ratio)).requires_grad_()
    losses = clipped_surrogate(
        logps, cell(-1), cell(advantage), ON, clip_epsilon=0.2, clip_epsilon_high=0.28
    )
    losses.sum().backward()
    assert_close(losses.detach(), cell(loss))
    assert_close(logps.grad, cell(-ratio * advantage if moves else 0.0))


def test_the_share_of_clipped_tokens() -> None:
    """Of 0.75, 0.85, 1.25 and 1.5 three are beyond 0.2, two beyond 0.2 down and 0.28 up."""
    ratios = torch.tensor([[0.75, 0.85], [1.25, 1.5]], dtype=torch.float64)
    given = ratios.log(), torch.zeros(2, 2), torch.ones(2, 2, dtype=torch.bool)
    assert clip_fraction(*given, clip_epsilon=0.2) == 0.75
    assert clip_fraction(*given, clip_epsilon=0.2, clip_epsilon_high=0.28) == 0.5
    assert clip_fraction(*given[:2], ~given[2], clip_epsilon=0.2) == 0


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "loss", "slope"),
    [
        (200.0, 2.0, -2.4, 0.0),  # held at 1.2, far beyond exp's range in float32
        (200.0, 0.0, 0.0, 0.0),
        (-200.0, -2.0, 1.6, 0.0),  # held at 0.8
        (-200.0, 2.0, 0.0, 0.0),  # underflows to a ratio of 0
        (200.0, -2.0, math.inf, math.inf),  # a bad token e^200 times as likely: diverged
    ],
)
def test_ratios_that_float32_does_not_hold(
    log_ratio: float, advantage: float, loss: float, slope: float
) -> None:
    old = torch.tensor([[-201.0 if log_ratio > 0 else -1.0]])
    logps = (old + log_ratio).requires_grad_()
    losses = clipped_surrogate(logps, old, torch.tensor([[advantage]]), ON, clip_epsilon=0.2)
    losses.sum().backward()
    assert_close(losses.detach(), torch.tensor([[loss]]))
    assert_close(logps.grad, torch.tensor([[slope]]))


def test_a_range_of_one_or_more_has_no_lower_end() -> None:
    """1 - 1.5 is below every ratio; a range without end leaves the importance-weighted gradient."""
    for epsilon in (1.0, 1.5, math.inf):
        logps = cell(-10.0).requires_grad_()
        losses = clipped_surrogate(logps, cell(0), cell(-2), ON, clip_epsilon=epsilon)
        losses.sum().backward()
        assert_close(logps.grad, cell(2 * math.exp(-10)))


@pytest.mark.parametrize(
    ("value", "loss", "slope"),
    [
        # old value 1, range 0.5, return 3
        (1.2, 1.62, -1.8),  # inside the range: (1.2 - 3)^2 / 2
        (2.0, 1.125, 0.0),  # left the range towards the return: held at 1.5
        (0.0, 4.5, -3.0),  # left it away from the return: the plain error is larger
        (9.0, 18.0, 6.0),  # overshot: pulled back
    ],
)
def test_value_clipping(value: float, loss: float, slope: float) -> None:
    values = cell(value).requires_grad_()
    losses = clipped_value_loss(values, cell(1), cell(3), ON, value_clip_epsilon=0.5)
    losses.sum().backward()
    assert_close(losses.detach(), cell(loss))
    assert_close(values.grad, cell(slope))


def test_infinite_range_is_half_the_squared_error() -> None:
    losses = clipped_value_loss(cell(9), cell(1), cell(3), ON, value_clip_epsilon=math.inf)
    assert_close(losses, cell(18))


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e6])
def test_outside_the_mask_neither_loss_nor_gradient(garbage: float) -> None:
    mask = torch.tensor([[True, False]])
    dirty = torch.tensor([[-1.0, garbage]])
    for function, setting in (
        (clipped_surrogate, "clip_epsilon"),
        (clipped_value_loss, "value_clip_epsilon"),
    ):
        leaf = dirty.clone().requires_grad_()
        losses = function(leaf, dirty, 2 * dirty, mask, **{setting: 0.2})
        losses.sum().backward()
        assert losses[0, 1] == 0
        assert leaf.grad is not None
        assert leaf.grad[0, 0] != 0
        assert leaf.grad[0, 1] == 0
