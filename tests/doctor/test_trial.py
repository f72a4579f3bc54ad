"""What a few steps say of a schedule's KL."""

import pytest

from alignlab.doctor.trial import Trial


@pytest.mark.parametrize(
    ("kl", "rest", "limit", "state", "words"),
    [
        (None, 10.0, 50.0, None, ""),
        (0.0, 10.0, 50.0, "warning", "does not move"),
        (0.1, 10.0, 50.0, "ok", "10 times that: 1 to 10"),
        (0.1, 30.0, 50.0, "ok", "3 to 90"),
        (0.1, 10.0, 0.5, "warning", "the limit is 0.5"),
        (60.0, 1.0, 50.0, "warning", "60 nats after 8 steps"),
    ],
)
def test_the_smallest_kl_that_follows_is_held_against_the_limit(
    kl: float | None, rest: float, limit: float, state: str | None, words: str
) -> None:
    trial = Trial()
    trial.kl, trial.rest, trial.limit = kl, rest, limit
    verdict = trial.verdict()
    assert (verdict and verdict[0]) == state
    assert verdict is None or words in verdict[1]
