"""Where runs stand on the axes of the parallel coordinates."""

import math
from dataclasses import replace

import pytest

from alignlab.report.gather import key_of
from alignlab.report.look import Look
from alignlab.report.parallel import parallel, placed
from tests.report.test_page import findings, point


def test_numbers_far_apart_are_on_a_logarithmic_scale_and_others_are_not() -> None:
    ticks, at = placed([1e-4, 1e-2, 1e-3, None])
    assert at == [(0.0, "0.0001"), (1.0, "0.01"), (0.5, "0.001"), (None, "not set")]
    assert ticks == [(0.0, "0.0001"), (0.5, "0.001"), (1.0, "0.01")]
    assert placed([1, 19, 10])[1] == [(0.0, "1"), (1.0, "19"), (0.5, "10")]
    assert placed([0.0, 100.0])[1] == [(0.0, "0"), (1.0, "100")]
    assert placed([3, 3]) == ([(0.5, "3")], [(0.5, "3"), (0.5, "3")])


def test_many_numbers_have_five_ticks_even_on_their_scale() -> None:
    linear = [i / 2 for i in range(9)]
    assert placed(linear)[0] == [(k / 4, f"{k:g}") for k in range(5)]
    log = [2.0**i for i in range(9)]
    assert placed(log)[0] == [(k / 4, f"{4**k:g}") for k in range(5)]


def test_anything_else_is_a_word() -> None:
    ticks, at = placed(["b", True, "a", None, 2])
    assert ticks == [(0.0, "2"), (0.3333, "True"), (0.6667, "a"), (1.0, "b")]
    assert at[3] == (None, "not set")
    assert at[0] == (1.0, "b")
    assert placed(["x"]) == ([(0.5, "x")], [(0.5, "x")])
    assert placed([1.0, math.nan])[1] == [(0.0, "1.0"), (1.0, "nan")]
    assert placed([None]) == ([], [(None, "not set")])


RUNS = [
    replace(point("dpo-s0", 10, kl=0.1, reward=0.5), hparams={"beta": 0.1, "lr": 1.0}),
    replace(point("dpo-s0", 20, kl=0.5, reward=1.0), hparams={"beta": 0.1, "lr": 1.0}),
    replace(point("dpo-s1", 20, kl=1.5, reward=2.0), hparams={"beta": 0.3, "lr": 1.0}, seed=1),
    replace(point("ppo-s0", 20, kl=1.0, reward=3.0), hparams={"lr": 1.0}),
]


def test_axes_are_what_differs_and_lines_are_runs_after_their_last_step() -> None:
    found = parallel(findings(points=RUNS, look=Look(names={"ppo": "PPO <i>"})))
    assert [axis["name"] for axis in found["axes"]] == ["objective", "beta", "seed", "KL", "reward"]
    assert [run["key"] for run in found["runs"]] == [key_of(p) for p in RUNS[1:]]
    assert found["runs"][0]["at"] == [1.0, 0.0, 0.0, 0.0, 0.0]  # "PPO" before "dpo"
    assert found["runs"][2]["at"] == [0.0, None, 0.0, 0.5, 1.0]
    assert found["runs"][2]["text"] == ["PPO <i>", "not set", "0", "1", "3"]
    assert found["runs"][0]["colour"] != found["runs"][2]["colour"]
    assert found["more"] == 0


def test_more_runs_than_a_browser_draws_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignlab.report.parallel.MOST_RUNS", 2)
    found = parallel(findings(points=RUNS))
    assert (len(found["runs"]), found["more"]) == (2, 1)
    assert len(parallel(findings(points=RUNS, look=Look(arms=("ppo",))))["runs"]) == 1
