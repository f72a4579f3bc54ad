"""Differences of win rates, paired over prompts and seeds: between policies and temperatures.

Two rates whose intervals overlap may still differ: what makes a prompt easy for both policies, or
at both temperatures, cancels in their difference.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from alignlab.evaluation.comparison import interval
from alignlab.results.statistics import Floats, bootstrap_counts
from alignlab.winrate.rates import REPLICATES, Decided, replicated_rate

Cells = dict[tuple[str, float], list[Decided]]  # by policy and temperature


class Difference(NamedTuple):
    """A difference of win rates against one opponent, with its 95 % interval.

    Attributes:
        policy: Whose rate, at ``temperature``.
        other: The policy whose rate is subtracted; empty where the policy's own is, at the other
            temperature.
        against: The opponent.
        temperature: Of the sampling.
        minus_temperature: Where given, each rate is the change from this temperature to
            ``temperature``.
        difference: In shares of matches.
        lo: Lower end.
        hi: Upper end.
        n_prompts: Prompts that all rates have.
        n_seeds: The fewest seeds of a rate.
    """

    policy: str
    other: str
    against: str
    temperature: float
    minus_temperature: float | None
    difference: float
    lo: float
    hi: float
    n_prompts: int
    n_seeds: int


def differences(known: Sequence[Decided], *, replicates: int = REPLICATES) -> list[Difference]:
    """Every two policies at every temperature, and every policy's change with the temperature.

    The change is from the lowest to the highest temperature, and every two policies are compared
    in it, too. A difference without a common prompt has no row. The intervals are not adjusted for
    their number.

    Args:
        known: Decided matches.
        replicates: Of the bootstrap.
    """
    found = []
    for against in dict.fromkeys(one.match.against for one in known):
        cells: Cells = {}
        for one in known:
            if one.match.against == against:
                cells.setdefault((one.match.policy, one.match.temperature), []).append(one)
        for policy, other, temperature, minus in _questions(cells):
            signed = _signed(policy, other, temperature, minus)
            if row := _difference(signed, cells, replicates):
                found.append(Difference(policy, other, against, temperature, minus, *row))
    return found


def _questions(cells: Cells) -> Iterator[tuple[str, str, float, float | None]]:
    policies = list(dict.fromkeys(policy for policy, _ in cells))
    temperatures = sorted({temperature for _, temperature in cells})
    for temperature in temperatures:
        yield from ((*pair, temperature, None) for pair in combinations(policies, 2))
    lowest, highest = temperatures[0], temperatures[-1]
    if lowest < highest:
        yield from ((policy, "", highest, lowest) for policy in policies)
        yield from ((*pair, highest, lowest) for pair in combinations(policies, 2))


def _signed(
    policy: str, other: str, temperature: float, minus: float | None
) -> list[list[tuple[int, tuple[str, float]]]]:
    """The rates to add up with their signs, those of a policy in one list."""
    sides = []
    for sign, name in ((1, policy), (-1, other)):
        if name:
            sides.append([(sign, (name, temperature))])
            if minus is not None:
                sides[-1].append((-sign, (name, minus)))
    return sides


def _difference(
    sides: Sequence[Sequence[tuple[int, tuple[str, float]]]], cells: Cells, replicates: int
) -> tuple[float, float, float, int, int] | None:
    needed = [key for side in sides for _, key in side]
    if any(key not in cells for key in needed):
        return None
    shared = set.intersection(*({one.match.place for one in cells[key]} for key in needed))
    if not shared:
        return None
    prompts = sorted(shared)
    drawn = bootstrap_counts(len(prompts), replicates, 0)
    counts = np.concatenate([np.ones((1, len(prompts))), drawn])
    parts = [
        np.sum([sign * _by_seed(cells[key], prompts, counts) for sign, key in side], axis=0)
        for side in sides
    ]
    if len(parts) == 2 and len(parts[0]) == len(parts[1]):  # seed by seed
        parts = [parts[0] + parts[1]]
    return (*interval(parts, len(prompts)), len(prompts), min(map(len, parts)))


def _by_seed(own: Sequence[Decided], prompts: Sequence[int], counts: Floats) -> Floats:
    """``[S, 1 + B]`` rates on these prompts, row by row of ``counts``."""
    wanted = set(prompts)
    some = [one for one in own if one.match.place in wanted]
    pairs = sorted({one.match.pair for one in some})
    return np.stack([replicated_rate(some, pair, prompts, counts) for pair in pairs])
