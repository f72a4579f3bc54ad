"""Ranges and choices as points."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest

from alignlab.sweep.spec import load_sweep
from tests.sweep.conftest import BETA, RANGE, refused


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ({"int": [1, 7], "step": 3}, [1, 4, 7]),
        ({"float": [0.1, 0.4], "step": 0.1}, [0.1, 0.2, 0.3, 0.4]),
        ({"choices": ["a", None]}, ["a", None]),
    ],
)
def test_ranges_with_steps_have_a_grid(load: Any, entry: Any, values: list[Any]) -> None:
    points = load(space={"model.init_args.beta": entry}).points
    assert [p.values["model.init_args.beta"] for p in points] == values


@pytest.mark.parametrize(
    ("name", "trials"), [("quickstart", 24), ("imdb_frontier", 22), ("simpo_beta_gamma", 12)]
)
def test_how_many_trials_a_grid_has(name: str, trials: int) -> None:
    points = load_sweep(Path(f"sweeps/{name}.yaml")).points
    assert points is not None
    assert len(points) == trials


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"float": [0.1, 1.0], "step": 5}, "must lead from low to high in a whole number of steps"),
        (
            {"float": [0.1, 1.0], "step": 0.4},
            "must lead from low to high in a whole number of steps",
        ),
        ({"float": [0.1, 1.0], "step": -0.1}, "step must be greater than 0, got -0.1"),
        ({"int": [1, 4], "step": 0}, "step must be greater than 0, got 0"),
        ({"int": [1, 4], "step": True}, "step must be a number, got True"),
        ({"int": [1, 4], "step": 0.5}, "must have a whole number as its step"),
        ({"int": [1, 4], "step": 2}, "must lead from low to high in a whole number of steps"),
        ({"float": [0.1, 1.0], "log": "false"}, "log must be true or false, got 'false'"),
        ({"float": [0.1, math.inf]}, "float.1 must be a finite number, got inf"),
        ({"float": [True, 2]}, "float.0 must be a number, got True"),
        ({"float": [1]}, "float must have at least 2 items, got [1]"),
        ({"float": 3}, "float must be a list, got 3"),
        ({"float": [1.0, 0.1]}, "must go from its low to its high end"),
        ([math.inf], "0 must be true or false or a finite number or a string, got inf"),
        ([], "must have at least 1 item, got []"),
        ([1, 1.0], "must hold each choice once"),
        ({"choices": [1], "log": True}, "must have neither log nor step beside its choices"),
    ],
    ids=str,
)
def test_a_dimension_is_taken_as_it_is_written_or_not_at_all(
    load: Any, entry: Any, said: str
) -> None:
    line = refused(load, {"space": {BETA: entry}})
    assert f"space.{BETA}" in line
    assert said in line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": {f"a{i}": list(range(10)) for i in range(39)}}, "points: 1" + ",000" * 13),
        ({"space": {BETA: {"int": [0, 10**12]}}}, "points: 1,000,000,000,001 of them"),
        ({"space": {BETA: {"float": [0.0, 1.0], "step": 1e-9}}}, "points: 1,000,000,001 of them"),
        ({"space": RANGE, "sampler": "random", "trials": 10**9}, "trials: 1,000,000,000 of them"),
        ({"space": {BETA: list(range(1001))}}, "must have at most 1000 items, got [0, 1"),
        (
            {"sampler": {"tpe": {"n_ei_candidates": 10**9}}, "trials": 1},
            "n_ei_candidates must be less than or equal to 1000000",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_too_much_is_counted_and_not_listed(load: Any, changes: Any, said: str) -> None:
    assert said in refused(load, changes)


def test_a_small_space_is_drawn_and_no_longer_asked(load: Any) -> None:
    drawn = load(space={BETA: {"int": [1, 3]}}, sampler="random", trials=10_000).points
    assert sorted(point.values[BETA] for point in drawn) == [1, 2, 3]


def test_a_switch_is_no_number(load: Any) -> None:
    assert len(load(space={BETA: [1, True, 0, False]}).points) == 4


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_a_random_design_is_the_same_every_time_and_has_no_point_twice(
    load: Any, sampler: str
) -> None:
    space = {
        "model.init_args.beta": {"float": [0.1, 1.0], "log": True},
        "trainer.max_steps": [1, 2],
    }
    sweeps = [load(sampler=sampler, trials=6, space=space) for _ in range(2)]
    assert sweeps[0].points == sweeps[1].points
    assert len({str(p) for p in sweeps[0].points}) == 6
    assert all(0.1 <= p.values["model.init_args.beta"] <= 1.0 for p in sweeps[0].points)
    other = load(sampler={sampler: {"seed": 1}}, trials=6, space=space)
    assert other.points != sweeps[0].points
    assert len(load(sampler=sampler, trials=9, space={"trainer.max_steps": [1, 2]}).points) == 2


def test_a_design_without_a_seed_is_read_without_a_warning(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    logger = logging.getLogger("optuna.samplers._qmc")
    monkeypatch.setattr(logger, "warning", lambda line, *_: warned.append(line))
    load(sampler="qmc", trials=2, space={"model.init_args.beta": {"float": [0.1, 1.0]}})
    assert warned == []


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_arms_of_a_design_with_a_seed_have_points_of_their_own(load: Any, sampler: str) -> None:
    space = {"model.init_args.beta": {"float": [0.1, 1.0]}}
    arms = {"dpo": {}, "other": {"stage": "dpo"}}
    one, two = (
        load(sampler={sampler: {"seed": seed}}, trials=6, space=space, arms=arms).points
        for seed in (7, 8)
    )

    def betas(points: Any, arm: str) -> list[Any]:
        return [p.values["model.init_args.beta"] for p in points if p.arm == arm]

    assert not {*betas(one, "dpo")} & {*betas(one, "other")}
    assert betas(one, "other") == betas(two, "dpo")  # each arm's seed is one more
