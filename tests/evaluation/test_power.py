import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import nctdtr

from alignlab.evaluation.power import Enough, Spread, enough, power
from alignlab.results.statistics import t_quantile


@pytest.mark.parametrize(
    ("seeds", "prompts", "seed_sd", "difference"),
    [(3, 128, 0.2, 0.5), (5, 128, 0.2, 0.3), (8, 400, 0.3, 0.35), (4, 128, 0.2, 0.0)],
)
def test_power_is_the_share_of_simulated_intervals_that_exclude_zero(
    seeds: int, prompts: int, seed_sd: float, difference: float
) -> None:
    """20,000 studies of normal seeds and prompts: the share is known to 0.004."""
    rng = np.random.default_rng(7)
    by_seed = rng.normal(difference, seed_sd, (20_000, seeds))
    mean = by_seed.mean(1) + rng.normal(0, 1 / math.sqrt(prompts), 20_000)
    own = t_quantile(seeds - 1) * by_seed.std(1, ddof=1) / math.sqrt(seeds)
    excludes = np.abs(mean) > np.hypot(own, t_quantile(prompts - 1) / math.sqrt(prompts))
    spread = Spread(
        difference=difference, seeds=seeds, seed_sd=seed_sd, prompts=prompts, prompt_sd=1.0
    )
    assert power(spread) == pytest.approx(excludes.mean(), abs=0.012)


@pytest.mark.parametrize(("seeds", "difference"), [(3, 0.5), (5, 0.25), (12, 0.2), (5, 0.0)])
def test_seeds_average_the_interaction_with_prompts_out(seeds: int, difference: float) -> None:
    """20,000 studies whose interval, like the bootstrap's, has the interaction twice."""
    rng = np.random.default_rng(7)
    prompts, own, prompt, mixed = 100, 0.1, 0.5, 1.5
    by_seed = rng.normal(difference, own, (20_000, seeds))
    by_seed += rng.normal(0, mixed / math.sqrt(prompts), by_seed.shape)
    mean = by_seed.mean(1) + rng.normal(0, prompt / math.sqrt(prompts), 20_000)
    half = t_quantile(seeds - 1) * by_seed.std(1, ddof=1) / math.sqrt(seeds)
    bootstrap = math.sqrt((prompt**2 + mixed**2 / seeds) / prompts)
    excludes = np.abs(mean) > np.hypot(half, t_quantile(prompts - 1) * bootstrap)
    spread = Spread(
        difference=difference,
        seeds=seeds,
        seed_sd=math.hypot(own, mixed / math.sqrt(prompts)),
        prompts=prompts,
        prompt_sd=prompt,
        interaction_sd=mixed,
    )
    assert power(spread) == pytest.approx(excludes.mean(), abs=0.012)


def test_a_difference_that_only_the_interaction_hides_is_a_matter_of_seeds() -> None:
    """With 25 seeds, an interaction of 1 is worth 0.02 of 100 prompts, and seeds themselves 0.02.

    The difference 0.1 is then 3.5 standard errors of 0.0283 for an interval of 2.02.
    """
    spread = Spread(
        difference=0.1, seeds=3, seed_sd=0.1, prompts=100, prompt_sd=0.0, interaction_sd=1.0
    )
    found = enough(spread)
    assert found.seeds is not None
    assert power(replace(spread, seeds=found.seeds)) >= 0.8
    assert power(replace(spread, seeds=found.seeds - 1)) < 0.8
    assert 10 < found.seeds < 25
    hidden = replace(spread, prompt_sd=1.0, interaction_sd=0.0)
    assert enough(hidden).seeds is None


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_without_noise_over_prompts_it_is_the_power_of_the_t_test(seeds: int) -> None:
    reach, shift = t_quantile(seeds - 1), 1.5 * math.sqrt(seeds)
    exact = 1 - nctdtr(seeds - 1, shift, reach) + nctdtr(seeds - 1, shift, -reach)
    spread = Spread(difference=-1.5, seeds=seeds, seed_sd=1.0, prompts=100, prompt_sd=0.0)
    assert power(spread) == pytest.approx(exact, abs=2e-4)


def test_prompts_by_hand() -> None:
    """(1.96 + 0.8416)^2 / 0.1^2 = 784.9 prompts by the normal; Student's t asks for 2 more."""
    assert enough(Spread(difference=0.1, prompts=100, prompt_sd=1.0)) == Enough(
        seeds=None, prompts=787
    )


def test_seeds_by_hand() -> None:
    """Tables of the paired t-test: an effect of one standard deviation takes 10 pairs."""
    spread = Spread(difference=2.0, seeds=3, seed_sd=2.0, prompts=100, prompt_sd=0.0)
    found = enough(spread)
    assert found == Enough(seeds=10, prompts=None)
    assert str(found) == "10 seeds"
    assert str(Enough(seeds=1200, prompts=34)) == "1,200 seeds or 34 prompts"


def test_what_one_source_hides_the_other_cannot_show() -> None:
    """Prompts alone give a half-width of 0.2, more than the difference, whatever the seeds."""
    spread = Spread(difference=0.1, seeds=3, seed_sd=0.2, prompts=100, prompt_sd=1.0)
    assert enough(spread) == Enough(seeds=None, prompts=None)
    assert str(enough(spread)) == "neither seeds nor prompts alone"


def test_a_difference_without_noise_is_resolved_unless_it_is_none() -> None:
    assert power(Spread(difference=0.1, prompts=9, prompt_sd=0.0)) == 1.0
    assert power(Spread(difference=0.0, prompts=9, prompt_sd=0.0)) == 0.0
