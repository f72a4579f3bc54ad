"""How many seeds and prompts resolve a difference: the power of the intervals in ``comparison.py``.

A difference is *resolved* when its 95 % interval excludes 0. The interval adds the squares of two
half-widths: Student's t over seeds, and prompts. The power is the chance of a resolved difference
for a given true difference and given spreads.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import chdtri, ndtr

from alignlab.results.statistics import t_quantile

POWER = 0.8  # the usual chance of seeing a difference that is there
MOST_SEEDS, MOST_PROMPTS = 1_000, 10_000_000
QUANTILES = 400  # of the observed variance over seeds, to average over


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A difference of two means, and how far seeds and prompts scatter around it.

    Args:
        difference: The true difference, or the observed one in its place.
        seeds: Pairs of runs; with one, the interval counts prompts only.
        seed_sd: Standard deviation of the difference over seeds, on these prompts; 0 where it is
            unknown.
        prompts: Prompts that both are evaluated on.
        prompt_sd: Standard deviation over prompts of a prompt's difference, mean over endless
            seeds.
        interaction_sd: Standard deviation over prompts of how far a prompt's difference with one
            seed is from that mean. Seeds average it out. Where it is unknown it is 0, and part of
            ``prompt_sd``.
    """

    difference: float
    seeds: int = 1
    seed_sd: float = 0.0
    prompts: int
    prompt_sd: float
    interaction_sd: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Enough:
    """The fewest seeds at the present prompts, and prompts at the present seeds, that suffice.

    ``None`` where the other source of error alone hides the difference, or would need more than
    ``MOST_SEEDS`` or ``MOST_PROMPTS``; seeds also where their spread is unknown.
    """

    seeds: int | None
    prompts: int | None

    def __str__(self) -> str:
        """One phrase for a table or a sentence."""
        known = {"seeds": self.seeds, "prompts": self.prompts}
        found = [f"{number:,} {name}" for name, number in known.items() if number is not None]
        return " or ".join(found) or "neither seeds nor prompts alone"


def power(spread: Spread, confidence: float = 0.95) -> float:
    """The chance that the interval of this ``confidence`` excludes 0, on either side.

    The observed difference is normal around the true one. The observed variance over seeds is an
    independent multiple of chi squared with n - 1 degrees of freedom, and the chance is averaged
    over it; with many prompts their variance counts as known. Without a spread over prompts this
    is the power of the t-test (noncentral t); without one over seeds it is the normal
    approximation of arXiv:2411.00640, section 5. The interval counts the interaction of seeds
    and prompts twice, in the spread over seeds and in the bootstrap over prompts; the observed
    difference has it once, also where the spread over seeds is smaller than that.
    """
    own = _variance_of_mean(spread)
    delta = abs(spread.difference)
    if own == 0:
        return float(delta > 0)
    by_prompt = _variance_over_prompts(spread)
    square = t_quantile(spread.prompts - 1, confidence) ** 2 * by_prompt
    half = np.full(1, math.sqrt(square))
    if spread.seeds > 1:
        df = spread.seeds - 1
        observed = spread.seed_sd**2 * chdtri(df, (np.arange(QUANTILES) + 0.5) / QUANTILES) / df
        half = np.sqrt(square + t_quantile(df, confidence) ** 2 * observed / spread.seeds)
    se = math.sqrt(own)
    return float((ndtr((delta - half) / se) + ndtr((-delta - half) / se)).mean())


def enough(spread: Spread, wanted: float = POWER, confidence: float = 0.95) -> Enough:
    """Seeds and prompts that resolve ``spread.difference`` with a chance of ``wanted``."""

    def resolves(other: Spread) -> bool:
        return power(other, confidence) >= wanted

    seeds = None
    if spread.seed_sd > 0:
        seeds = _fewest(lambda n: resolves(replace(spread, seeds=n)), 2, MOST_SEEDS)
    return Enough(
        seeds=seeds,
        prompts=_fewest(lambda n: resolves(replace(spread, prompts=n)), 2, MOST_PROMPTS),
    )


def _variance_of_mean(spread: Spread) -> float:
    if spread.seeds == 1:
        return _variance_over_prompts(spread)
    # A spread over seeds that is small by chance does not take the interaction away.
    by_seed = max(spread.seed_sd**2, spread.interaction_sd**2 / spread.prompts)
    return by_seed / spread.seeds + spread.prompt_sd**2 / spread.prompts


def _variance_over_prompts(spread: Spread) -> float:
    """What a bootstrap over prompts finds of the mean over seeds."""
    interaction = spread.interaction_sd**2 / spread.seeds
    return (spread.prompt_sd**2 + interaction) / spread.prompts


def _fewest(holds: Callable[[int], bool], low: int, most: int) -> int | None:
    """The smallest number from ``low`` to ``most`` that holds, of a property that then stays."""
    if not holds(most):
        return None
    while low < most:
        middle = (low + most) // 2
        low, most = (low, middle) if holds(middle) else (middle + 1, most)
    return low
