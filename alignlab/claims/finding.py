"""What a measurement says about a claim: it held, it did not, or more runs would have to tell.

A claim is an inequality. Where several independent runs measured it, Student's 95 % interval
decides; where it was computed exactly, the numbers do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import fdtri

from alignlab.evaluation.power import Spread, enough
from alignlab.results.statistics import Interval, t_interval

HELD, FAILED, UNRESOLVED, NOT_RUN = "held", "did not hold", "not resolved", "not run"
VERDICTS = (FAILED, UNRESOLVED, NOT_RUN, HELD)  # of several parts of a card, the first one counts
MOST = 1_000  # runs that are still worth naming
Values = Mapping[int, float]  # seed -> what its run has


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A verdict, and the number that it comes from.

    Args:
        verdict: One of ``VERDICTS``.
        value: What was measured; of several values that must all hold, the one nearest to failing.
        lo: Lower end of its 95 % interval; the value itself where it is exact.
        hi: Upper end.
        n: Independent runs behind it; 0 where it is exact.
        needed: Where it is not resolved, runs that would resolve a difference of this size with a
            chance of 80 %; ``None`` where ``MOST`` are too few, or the spread is not known.
    """

    verdict: str
    value: float | None = None
    lo: float | None = None
    hi: float | None = None
    n: int = 0
    needed: int | None = None


def exact(values: Sequence[float], *, low: float = -math.inf, high: float = math.inf) -> Finding:
    """Whether numbers without error all lie from ``low`` to ``high``."""
    worst = min(values, key=lambda value: min(value - low, high - value))
    verdict = HELD if low <= worst <= high else FAILED
    return Finding(verdict=verdict, value=worst, lo=worst, hi=worst)


def mean_of(values: Values, *, low: float = -math.inf, high: float = math.inf) -> Finding:
    """Whether the mean over runs lies from ``low`` to ``high``: its t-interval does, or none of it.

    Not resolved with one run, or where the interval holds a bound.
    """
    x = list(values.values())
    ends = t_interval(x)
    gap = min(abs(fmean(x) - bound) for bound in (low, high) if math.isfinite(bound))
    return _finding(ends, fmean(x), len(x), low, high, lambda: _runs_needed(x, gap))


def _runs_needed(x: Sequence[float], gap: float) -> int | None:
    if len(x) < 2 or gap == 0:
        return None
    # All in one interval of Student's: prompts are the same in every run.
    return enough(Spread(difference=gap, seed_sd=stdev(x), prompts=2, prompt_sd=0.0)).seeds


def spread_ratio(
    groups: Sequence[Sequence[float]], others: Sequence[Sequence[float]], *, high: float
) -> Finding:
    """Whether the standard deviation in ``groups`` is at most ``high`` times that in the others.

    Variances of several groups are pooled. The interval of the ratio is that of independent normal
    samples (F distribution).
    """
    n = sum(map(len, groups))
    (sd, df), (other_sd, other_df) = _pooled(groups), _pooled(others)
    if df == 0 or other_sd == 0:  # a single run has no spread
        return Finding(verdict=UNRESOLVED, n=n)
    ratio = sd / other_sd

    def ends(df: int, other_df: int) -> Interval:
        widest, least = (fdtri(df, other_df, tail) ** 0.5 for tail in (0.975, 0.025))
        return Interval(float(ratio / widest), float(ratio / least))

    def needed() -> int | None:
        # As many of both, if the ratio stays what it is.
        apart = (
            n for n in range(2, MOST) if not ends(n - 1, n - 1).lo <= high <= ends(n - 1, n - 1).hi
        )
        return next(apart, None)

    return _finding(ends(df, other_df), ratio, n, -math.inf, high, needed)


def _pooled(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Standard deviation within groups, and its degrees of freedom; both 0 without any."""
    squares = [(x - fmean(group)) ** 2 for group in groups for x in group]
    df = sum(len(group) - 1 for group in groups)
    return (math.sqrt(sum(squares) / df), df) if df else (0.0, 0)


def in_interval(
    value: float, lo: float, hi: float, n: int, *, low: float = -math.inf, high: float = math.inf
) -> Finding:
    """Of a number whose 95 % interval a table has."""
    return _finding(Interval(lo, hi), value, n, low, high, lambda: None)


def all_of(findings: Sequence[Finding]) -> Finding:
    """Of parts that must all hold: the one that decides, the first of ``VERDICTS``."""
    return min(findings, key=lambda finding: VERDICTS.index(finding.verdict))


def _finding(
    ends: Interval,
    value: float,
    n: int,
    low: float,
    high: float,
    needed: Callable[[], int | None],
) -> Finding:
    verdict, more = UNRESOLVED, None
    if ends.lo >= low and ends.hi <= high:
        verdict = HELD
    elif ends.hi < low or ends.lo > high:
        verdict = FAILED
    else:
        more = needed()
    known = [None if math.isnan(end) else end for end in ends]
    return Finding(verdict=verdict, value=value, lo=known[0], hi=known[1], n=n, needed=more)
