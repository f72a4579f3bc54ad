"""Gao's curves against data made by the formulas themselves, and against a simulation."""

import math

import numpy as np
import pytest

from alignlab.errors import DataError
from alignlab.evaluation.comparison import interval
from alignlab.evaluation.overoptimisation import Form, Run, decline, fieller, fit, peak_of
from alignlab.results.statistics import Floats, half_weights, t_quantile

D = np.array([0.3, 0.8, 1.4, 2.0, 2.9])


def formula(form: Form, d: Floats, alpha: float, beta: float) -> list[float]:
    """The gains, one d at a time."""
    if form == "best_of_n":
        return [x * (alpha - beta * x) for x in d]
    return [x * (alpha - beta * math.log(x)) for x in d]


def exact(form: Form, alpha: float, beta: float, *, seed: int = 0, prompts: int = 8) -> Run:
    """A run on the curve, the same for all prompts."""
    gain = np.array(formula(form, D, alpha, beta))[:, None] + np.zeros(prompts)
    return Run(seed=seed, kl=np.tile(D[:, None] ** 2, prompts), gain=gain)


@pytest.mark.parametrize("form", ["best_of_n", "rl"])
def test_the_numbers_that_made_the_data_are_found(form: Form) -> None:
    runs = [exact(form, 1.5, 0.5), exact(form, 2.1, 0.9, seed=4)]
    found = fit(runs, form, half_weights(8, 50, 0))
    assert found.seeds == (0, 4)
    np.testing.assert_allclose(found.coefficients[0], [[1.5, 0.5]] * 51, rtol=1e-9)
    np.testing.assert_allclose(found.coefficients[1], [[2.1, 0.9]] * 51, rtol=1e-9)
    assert found.reached == pytest.approx(2.9)
    assert found.gains(1.4)[:, 0] == pytest.approx(
        [formula(form, D, 1.5, 0.5)[2], formula(form, D, 2.1, 0.9)[2]]
    )
    mean = formula(form, D, 1.8, 0.7)
    y = [*formula(form, D, 1.5, 0.5), *formula(form, D, 2.1, 0.9)]
    off = sum((a - b) ** 2 for a, b in zip(y, mean * 2, strict=True))
    assert found.r2 == pytest.approx(1 - off / sum((a - sum(y) / 10) ** 2 for a in y))
    assert fit(runs[:1], form, half_weights(8, 50, 0)).r2 == pytest.approx(1)


def test_peaks_by_hand() -> None:
    """1.5 / (2 * 0.5) = 1.5; exp(1.5 / 0.5 - 1) = e^2. A grid agrees that nothing is higher."""
    assert peak_of("best_of_n", 3.0) == 1.5
    assert peak_of("rl", 3.0) == pytest.approx(math.exp(2))
    grid = np.linspace(0.01, 12, 1200)
    forms: list[Form] = ["best_of_n", "rl"]
    for form in forms:
        top = grid[int(np.argmax(formula(form, grid, 1.5, 0.5)))]
        assert peak_of(form, 3.0) == pytest.approx(top, abs=0.01)
        found = fit([exact(form, 1.5, 0.5)], form, half_weights(8, 50, 0)).peak()
        assert found is not None
        assert found == pytest.approx((peak_of(form, 3.0),) * 3, rel=1e-6)
    assert peak_of("rl", 1e4) == math.inf


def test_a_curve_that_bends_up_has_no_peak() -> None:
    assert fit([exact("best_of_n", 1.0, -0.2)], "best_of_n", half_weights(8, 50, 0)).peak() is None


def test_a_ratio_by_hand() -> None:
    """Half-widths of 0.6 and 0.4, uncorrelated: the ends solve (3 - r)^2 = 0.36 + 0.16 r^2."""
    lo, hi = fieller(3.0, 1.0, np.diag([0.36, 0.16]))
    for end in (lo, hi):
        assert (3 - end) ** 2 == pytest.approx(0.36 + 0.16 * end**2)
    assert lo < 3 < hi
    # Together they move the ratio less: (3 - r)^2 = 0.36 - 0.24 r + 0.16 r^2.
    near = fieller(3.0, 1.0, np.array([[0.36, 0.12], [0.12, 0.16]]))
    assert (3 - near[1]) ** 2 == pytest.approx(0.36 - 0.24 * near[1] + 0.16 * near[1] ** 2)
    assert near[1] - near[0] < hi - lo


def test_a_bend_that_may_be_nothing_leaves_the_peak_open() -> None:
    """(3 - r)^2 <= 0.36 + 1.21 r^2 holds from (-3 + sqrt(10.8144)) / 0.21 = 1.37 on."""
    lo, hi = fieller(3.0, 1.0, np.diag([0.36, 1.21]))
    assert lo == pytest.approx((-3 + math.sqrt(9 + 0.21 * 8.64)) / 0.21)
    assert hi == math.inf
    assert fieller(0.1, 0.1, np.diag([0.36, 1.21])) == (-math.inf, math.inf)


def simulated(rng: np.random.Generator, form: Form, seeds: int, prompts: int) -> list[Run]:
    """Runs whose alpha and beta scatter over seeds and whose prompts scatter around them."""
    own = rng.normal(0, 0.4, prompts)  # a prompt gains more or less with every policy
    runs = []
    for seed in range(seeds):
        alpha, beta = rng.normal(1.5, 0.12), rng.normal(0.5, 0.04)
        curve = np.array(formula(form, D, alpha, beta))
        gain = curve[:, None] * (1 + own) + rng.normal(0, 0.3, (len(D), prompts))
        runs.append(Run(seed=seed, kl=np.tile(D[:, None] ** 2, prompts), gain=gain))
    return runs


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """200 studies of three seeds: the share is known to 0.03, and the interval is a little wide.

    A percentile bootstrap over three seeds would cover 0.75.
    """
    rng = np.random.default_rng(3)
    weights = half_weights(64, 100, 0)
    inside = {"alpha": 0, "beta": 0, "peak": 0}
    truth = {"alpha": 1.5, "beta": 0.5, "peak": 1.5}
    for _ in range(200):
        found = fit(simulated(rng, "best_of_n", 3, 64), "best_of_n", weights)
        peak = found.peak()
        assert peak is not None
        ends = {"peak": peak[1:]}
        for place, name in enumerate(("alpha", "beta")):
            ends[name] = interval([found.coefficients[:, :, place]], 64)[1:]
        for name, (lo, hi) in ends.items():
            inside[name] += lo <= truth[name] <= hi
    for name, count in inside.items():
        assert 0.92 <= count / 200 <= 1, name


def test_an_interval_of_a_single_seed_counts_prompts_alone() -> None:
    """Half-widths of a combination are those of ``interval``, with one seed and with three."""
    for seeds in (1, 3):
        runs = simulated(np.random.default_rng(1), "rl", seeds, 64)
        found = fit(runs, "rl", half_weights(64, 200, 0))
        mean, lo, hi = interval([found.gains(1.4)], 64)
        v = np.array([1.4, -1.4 * math.log(1.4)])
        assert math.sqrt(v @ found._squares() @ v) == pytest.approx((hi - lo) / 2)
        assert mean == pytest.approx(v @ found.coefficients[:, 0].mean(0))


def test_a_decline_is_read_on_the_prompts_that_did_not_choose_the_best() -> None:
    """Four prompts, three checkpoints. Even prompts are best at 0, odd ones at 1."""
    gain = np.array([[3.0, 0, 1, 2], [1, 4, 2, 2], [0, 2, 0, 1]])
    run = Run(seed=0, kl=np.ones((3, 4)), gain=gain)
    # Means of the even prompts: 2, 1.5, 0; of the odd ones: 1, 3, 1.5.
    even_at_odd_best, odd_at_even_best = 1.5 - 0, 1 - 1.5
    found = decline([run], half_weights(4, 20, 0))
    assert found.shape == (1, 21)
    assert found[0, 0] == pytest.approx((even_at_odd_best + odd_at_even_best) / 2)


def test_noise_around_a_flat_end_is_no_decline() -> None:
    """Choosing the best of ten noisy checkpoints on the prompts it is read on would show 0.15."""
    rng = np.random.default_rng(0)
    weights, falls = half_weights(64, 2, 0), []
    for _ in range(100):
        gain = rng.normal(0, 1, (10, 64))
        falls.append(decline([Run(seed=0, kl=np.ones((10, 64)), gain=gain)], weights)[0, 0])
    assert abs(np.mean(falls)) < t_quantile(99) * np.std(falls) / 10


def test_two_checkpoints_are_refused() -> None:
    run = exact("rl", 1.0, 0.5)
    few = Run(seed=3, kl=run.kl[:2], gain=run.gain[:2])
    with pytest.raises(DataError, match="seed 3: 2 checkpoints"):
        fit([few], "rl", half_weights(8, 5, 0))
    same = Run(seed=3, kl=np.ones((5, 8)), gain=run.gain)
    with pytest.raises(DataError, match="seed 3: 5 checkpoints"):
        fit([same], "rl", half_weights(8, 5, 0))


def test_a_kl_that_is_rounded_to_below_zero_is_zero_and_equal_gains_explain_nothing() -> None:
    run = exact("best_of_n", 0.0, 0.0)
    kl = run.kl.copy()
    kl[0] = -1e-9
    found = fit([Run(seed=0, kl=kl, gain=run.gain)], "best_of_n", half_weights(8, 5, 0))
    np.testing.assert_allclose(found.coefficients, 0.0, atol=1e-12)
    assert math.isnan(found.r2)
