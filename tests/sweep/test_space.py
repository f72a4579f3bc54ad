"""Ranges and choices as points."""

from pathlib import Path
from typing import Any

import pytest

from alignlab.sweep.spec import load_sweep


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
