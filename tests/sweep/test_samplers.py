"""Samplers: designs that are known beforehand, and those that go by the results."""

from typing import Any

import pytest


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
