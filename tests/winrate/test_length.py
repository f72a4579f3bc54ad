import numpy as np
import pytest
from scipy.optimize import minimize

from alignlab.winrate.length import PRIOR, length_controlled


def by_search(values, differences, weights):
    """Theta of the penalised likelihood's maximum, by a general optimiser in float64."""
    x = np.tanh(differences / differences.std())

    def loss(at):
        logits = at[0] + at[1] * x
        each = np.logaddexp(0, logits) - values * logits
        return (weights * each).sum() + PRIOR / 2 * (at**2).sum()

    return 1 / (1 + np.exp(-minimize(loss, np.zeros(2), tol=1e-12).x[0]))


def test_it_is_the_maximum_of_the_regressions_likelihood() -> None:
    generator = np.random.default_rng(3)
    differences = generator.normal(20, 60, 50).round()
    values = generator.choice([0.0, 0.5, 1.0], 50)
    weights = generator.multinomial(50, np.full(50, 1 / 50), size=3).astype(float)
    found = length_controlled(values, differences, weights)
    assert found is not None
    wanted = [by_search(values, differences, own) for own in weights]
    assert found == pytest.approx(wanted, abs=1e-5)


def test_a_judge_that_looks_at_length_alone_finds_no_difference_at_equal_length() -> None:
    """Longer wins by a known chance; the policy is longer in three of four pairs, so it wins."""
    generator = np.random.default_rng(0)
    differences = np.where(np.arange(4000) % 4 == 0, -40.0, 40.0) + generator.normal(0, 5, 4000)
    chance = 1 / (1 + np.exp(-2 * np.tanh(differences / differences.std())))
    values = (generator.random(4000) < chance).astype(float)
    found = length_controlled(values, differences, np.ones((1, 4000)))
    assert values.mean() > 0.6
    assert found == pytest.approx([0.5], abs=0.03)


def test_a_judge_that_does_not_look_at_length_finds_the_plain_rate() -> None:
    values = np.array([1.0, 1.0, 1.0, 0.0] * 100)
    differences = np.repeat([-30.0, 30.0], 200)
    found = length_controlled(values, differences, np.ones((1, 400)))
    assert found == pytest.approx([0.75], abs=1e-4)


def test_other_sides_mirror_it() -> None:
    generator = np.random.default_rng(1)
    values, differences = generator.random(30), generator.normal(5, 9, 30)
    weights = np.ones((1, 30))
    own, other = (length_controlled(v, d, weights) for v, d in
                  ((values, differences), (1 - values, -differences)))  # fmt: skip
    assert own is not None
    assert other is not None
    assert own + other == pytest.approx(1, abs=1e-12)


def test_it_stays_finite_where_length_decides_every_match() -> None:
    values = np.array([1.0, 1.0, 0.0, 0.0])
    found = length_controlled(values, np.array([9.0, 4.0, -4.0, -9.0]), np.ones((1, 4)))
    assert found == pytest.approx([0.5], abs=1e-6)


def test_equal_lengths_teach_nothing() -> None:
    assert length_controlled(np.array([1.0, 0.0]), np.array([3.0, 3.0]), np.ones((1, 2))) is None
