"""Learning-rate factors by hand."""

import pytest

from alignlab.errors import ConfigError
from alignlab.objectives.schedule import Schedule


def factors(schedule: Schedule, total: int) -> list[float]:
    return [round(schedule.factor(step, total), 6) for step in range(total)]


def test_linear_warmup_from_nothing_then_constant():
    assert factors(Schedule(warmup_steps=4), 6) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear_warmup_from_a_tenth():
    schedule = Schedule(warmup_steps=3, warmup_start=0.1)
    assert factors(schedule, 4) == [0.1, 0.4, 0.7, 1.0]


def test_constant_warmup_then_linear_to_a_floor():
    schedule = Schedule(
        warmup_steps=2, warmup="constant", warmup_start=0.01, decay="linear", floor=0.2
    )
    assert factors(schedule, 6) == [0.01, 0.01, 1.0, 0.8, 0.6, 0.4]


def test_weights_that_begin_later_have_the_same_schedule_in_what_is_left():
    """Steps 0 to 2 are not theirs; from then on a rise of two steps and a fall over four."""
    rate = Schedule(warmup_steps=2, decay="linear").counted_from(3, 9)
    assert [rate(step) for step in range(9)] == [0, 0, 0, 0, 0.5, 1, 0.75, 0.5, 0.25]


def test_cosine_passes_its_middle_and_stays_at_its_floor():
    schedule = Schedule(decay="cosine", floor=0.1, total_steps=4)
    assert factors(schedule, 4)[2] == pytest.approx(0.55)  # half way between 1 and 0.1
    assert schedule.factor(4, 4) == pytest.approx(0.1)
    assert schedule.factor(9, 4) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "settings",
    [
        {"warmup_steps": -1},
        {"floor": 1.5},
        {"warmup_start": -0.1},
        {"total_steps": 5, "warmup_steps": 5},
    ],
)
def test_impossible_values_name_their_key(settings):
    with pytest.raises(ConfigError, match=r"schedule\."):
        Schedule(**settings)
