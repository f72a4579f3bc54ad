"""What alignlab alone is measured by: the order of works, and the fit of growth."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("own")
    for name in [name for name in sys.modules if name.split(".")[0] in ("own", "bench", "sides")]:
        sys.modules.pop(name)


def test_an_exponent_is_the_slope_of_logarithms(own: Any) -> None:
    assert own.exponent([(1, 3), (2, 12), (4, 48)]) == pytest.approx(2)


def test_a_share_is_of_the_median_step(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"alignlab_side": iter([9, 4, 2, 8]), "limit_side": iter([9, 1, 2, 3])}

    def run(side: str) -> Any:
        return lambda case, folder: {"cpu": next(times[side])}

    monkeypatch.setattr(own, "prepare", lambda case, folder: None)
    for side in times:
        monkeypatch.setattr(getattr(own, side), "run", run(side))
    (row,) = own.shares(None, 3, own.SHARES[:1])
    assert row == {"part": "shares", "what": own.SHARES[0].name, "value": 0.5}


def test_works_take_turns_and_the_first_round_warms_up(own: Any) -> None:
    order, times = [], {"a": iter([9, 1, 3, 2]), "b": iter([9, 5, 7, 6])}

    def work(name: str) -> float:
        order.append(name)
        return float(next(times[name]))

    found = own.in_turn({name: lambda n=name: work(n) for name in times}, 3)
    assert found == {"a": 2.0, "b": 6.0}
    assert order == ["a", "b"] * 4
