"""The soft minimum by hand and at its ends; members of every kind."""

import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.errors import ConfigError, DataError
from alignlab.rewards.build import build_reward
from alignlab.rewards.ensemble import Ensemble, soft_minimum
from alignlab.rewards.rule import Length, Matches
from alignlab.rewards.spec import as_class, with_classes


def f64(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_worked_by_hand() -> None:
    """exp(-r) of 0 and log 3: 1 and 1/3, their mean 2/3. Doubled with beta, the score doubles."""
    scores = f64([0.0, math.log(3)], [math.log(3), math.log(3)])
    assert_close(soft_minimum(scores, 1.0), f64([math.log(1.5), math.log(3)])[0])
    assert_close(soft_minimum(2 * scores, 2.0), 2 * f64([math.log(1.5), math.log(3)])[0])


def test_its_ends_are_the_mean_and_the_worst_case() -> None:
    scores = f64([1.0, -2.0], [4.0, 5.0], [1.0, 0.0])
    assert_close(soft_minimum(scores, math.inf), f64([2.0, 1.0])[0])
    assert_close(soft_minimum(scores, 0.0), f64([1.0, -2.0])[0])
    assert_close(soft_minimum(scores, 1e15), f64([2.0, 1.0])[0], atol=1e-12, rtol=0)
    assert_close(soft_minimum(scores, 1e-9), f64([1.0, -2.0])[0], atol=1e-8, rtol=0)
    between = torch.stack([soft_minimum(scores, beta) for beta in (0.0, 0.1, 1.0, 10.0, math.inf)])
    assert bool((between.diff(dim=0) > 0).all())


def test_the_second_order_is_a_penalty_on_the_variance() -> None:
    """Scores 0, 1 and 5: mean 2, variance (4 + 1 + 9) / 3. The third order is k3 / (6 beta^2)."""
    mean, variance, third = 2.0, 14 / 3, (-8 - 1 + 27) / 3
    for beta in (1e2, 1e3, 1e4):
        found = float(soft_minimum(f64([0.0], [1.0], [5.0]), beta))
        assert found - (mean - variance / (2 * beta)) == pytest.approx(third / 6 / beta**2, rel=0.1)


def test_no_constant_and_no_size_matters() -> None:
    """Sums of exponentials would overflow, or be 0, and their logarithms would cancel."""
    scores = f64([0.0, 1e5], [3.0, -1e5])
    for beta in (1e-3, 1.0, 1e3):
        assert bool(soft_minimum(scores, beta).isfinite().all())
        shifted = soft_minimum(scores + 1000, beta)
        assert_close(shifted, soft_minimum(scores, beta) + 1000, atol=1e-10, rtol=1e-12)
    assert_close(soft_minimum(scores[:, :1].expand(2, 4), 1.0)[0], soft_minimum(scores, 1.0)[0])


def test_members_are_rewards_of_any_kind() -> None:
    spec = {
        "class_path": "alignlab.rewards.ensemble.Ensemble",
        "init_args": {"members": ["length", "regex:good"], "beta": 0},
    }
    reward = build_reward(with_classes({"reward": spec})["reward"])
    assert isinstance(reward, Ensemble)
    assert [type(member) for member in reward.members] == [Length, Matches]
    texts = ["good", "a good film", ""]
    assert reward([""] * 3, texts).tolist() == [1.0, 1.0, 0.0]
    summed = as_class("0.5*length + 0.5*regex:good")
    mean = Ensemble([Length(), Matches("good")])([""] * 3, texts)
    assert_close(mean, build_reward(summed)([""] * 3, texts))


def test_a_member_without_a_finite_score_is_named() -> None:
    class Broken(Length):
        def __call__(self, prompts, completions):
            return super().__call__(prompts, completions) / 0

    with pytest.raises(DataError, match="Broken: 1 of 1 scores are not finite"):
        Ensemble([Length(), Broken()])([""], ["a"])


@pytest.mark.parametrize("settings", [{"members": []}, {"beta": -1.0}, {"beta": math.nan}])
def test_impossible_settings_are_refused(settings) -> None:
    with pytest.raises(ConfigError, match=r"needs members and beta >= 0 \(\.inf"):
        Ensemble(**{"members": [Length()]} | settings)
