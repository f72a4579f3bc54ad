"""What a measurement says about a claim: it held, it did not hold, or more runs are needed.

A claim is an inequality. Where several independent runs measured it, Student's 95 % interval
decides; where it was computed exactly, the numbers do.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from scipy.special import fdtri

from alignlab.evaluation.power import Spread, enough
from alignlab.results.statistics import Interval, t_interval

HELD, FAILED, UNRESOLVED, NOT_RUN = "held", "did not hold", "not resolved", "not run"
VERDICTS = (FAILED, UNRESOLVED, NOT_RUN, HELD)  # of several parts of a card, the first one counts
MOST = 1_000  # a larger number of needed runs is not reported
Values = Mapping[int, float]  # seed -> what its run has


class Measured(NamedTuple):
    """A number of a table, with its 95 % interval.

    Attributes:
        value: The number.
        lo: Lower end of the interval.
        hi: Upper end; infinite where the table has none.
        n: Independent runs behind it.
    """

    value: float
    lo: float
    hi: float
    n: int

    def turned(self) -> "Measured":
        """The same with the other sign, of a difference taken the other way round."""
        return Measured(-self.value, -self.hi, -self.lo, self.n)

    def over(self, unit: float) -> "Measured":
        """The same as a share of ``unit``, a positive number whose own error does not count."""
        return Measured(self.value / unit, self.lo / unit, self.hi / unit, self.n)


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


def in_interval(found: Measured, *, low: float = -math.inf, high: float = math.inf) -> Finding:
    """Of a number whose 95 % interval a table has."""
    ends = Interval(found.lo, found.hi)
    return _finding(ends, found.value, found.n, low, high, lambda: None)


def apart(one: Measured, other: Measured) -> Measured:
    """``one`` less ``other``, where only their own intervals are known.

    The squares of the distances to the ends add up (MOVER: Zou and Donner 2008), as for independent
    errors. What both share, such as the prompts, makes the true interval narrower.
    """
    value = one.value - other.value
    lo = value - math.hypot(one.value - one.lo, other.hi - other.value)
    hi = value + math.hypot(one.hi - one.value, other.value - other.lo)
    return Measured(value, lo, hi, min(one.n, other.n))


def all_of(
    findings: Sequence[Finding], *, worst: Literal["smallest", "largest"] = "smallest"
) -> Finding:
    """Of parts that must all hold: the one that decides, the first of ``VERDICTS``.

    Args:
        findings: The parts.
        worst: Which value counts among parts of this verdict, the one nearest to failing.
    """
    sign = 1 if worst == "smallest" else -1

    def place(finding: Finding) -> tuple[int, float]:
        value = math.inf if finding.value is None else sign * finding.value
        return VERDICTS.index(finding.verdict), value

    return min(findings, key=place)


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
    known = [end if math.isfinite(end) else None for end in ends]
    return Finding(verdict=verdict, value=value, lo=known[0], hi=known[1], n=n, needed=more)
