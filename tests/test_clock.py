"""Seconds of nested parts, on a clock that is set by hand."""

from contextlib import contextmanager

import pytest

from alignlab.clock import Clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [100.0]
    monkeypatch.setattr("alignlab.clock.time.perf_counter", lambda: time[0])
    return time


def test_a_part_inside_of_another_counts_for_itself_alone(now: list[float]) -> None:
    own = Clock()
    with own.part("rollout"):
        now[0] += 1
        with own.part("reward"):
            now[0] += 4
            assert own.is_in("rollout")
            assert not own.is_in("probe")
        now[0] += 2
    now[0] += 50
    with own.part("data"):
        now[0] += 8
    assert dict(own.seconds) == {"rollout": 3, "reward": 4, "data": 8}
    own.restart()
    assert not own.seconds
    with own.part("data"):
        now[0] += 1
    assert dict(own.totals) == {"rollout": 3, "reward": 4, "data": 9}


def test_a_part_that_fails_is_closed(now: list[float]) -> None:
    own = Clock()

    def fail() -> None:
        with own.part("data"):
            now[0] += 1
            raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        fail()
    now[0] += 5
    assert not own.is_in("data")
    assert own.seconds["data"] == 1


def test_a_profiler_hears_of_each_part() -> None:
    heard = []

    @contextmanager
    def profile(name: str):
        heard.append(name)
        yield

    own = Clock()
    own.profile = profile
    with own.part("rollout"), own.part("reward"):
        pass
    assert heard == ["rollout", "reward"]
