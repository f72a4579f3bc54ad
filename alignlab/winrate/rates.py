"""From verdicts to win rates with their intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignlab.evaluation.comparison import interval
from alignlab.evaluation.power import Enough, Spread, enough
from alignlab.results.statistics import Floats, bootstrap_counts, share_interval
from alignlab.results.tables import WinRate
from alignlab.winrate.length import length_controlled
from alignlab.winrate.matches import Match, Verdict, value_of

REPLICATES = 1000


class Decided(NamedTuple):
    """A match with its verdict, and the value that counts: the mean over both orders."""

    match: Match
    verdict: Verdict
    value: float


def decided(
    matches: Sequence[Match], verdicts: Sequence[Verdict | None], *, both_orders: bool
) -> list[Decided]:
    """The matches that have a value."""
    found = []
    for match, verdict in zip(matches, verdicts, strict=True):
        value = value_of(verdict, both_orders=both_orders)
        if verdict is not None and value is not None:
            found.append(Decided(match, verdict, value))
    return found


def win_rates(
    matches: Sequence[Match],
    verdicts: Sequence[Verdict | None],
    *,
    judge: str,
    both_orders: bool,
    replicates: int = REPLICATES,
) -> list[WinRate]:
    """A row for each policy, opponent and temperature that has a decided match.

    Args:
        matches: All of them.
        verdicts: One for each.
        judge: Its name.
        both_orders: See ``Judge``.
        replicates: Of the bootstrap.
    """
    cells: dict[tuple[str, str, float], list[Decided]] = {}
    for one in decided(matches, verdicts, both_orders=both_orders):
        key = one.match.policy, one.match.against, one.match.temperature
        cells.setdefault(key, []).append(one)
    asked: dict[tuple[str, str, float], int] = {}
    for match, verdict in zip(matches, verdicts, strict=True):
        key = match.policy, match.against, match.temperature
        asked[key] = asked.get(key, 0) + (verdict is not None)
    return [_row(key, own, asked[key] - len(own), judge, replicates) for key, own in cells.items()]


def _row(
    key: tuple[str, str, float], own: Sequence[Decided], left_out: int, judge: str, replicates: int
) -> WinRate:
    prompts = sorted({one.match.place for one in own})
    pairs = sorted({one.match.pair for one in own})
    counts = np.concatenate(
        [np.ones((1, len(prompts))), bootstrap_counts(len(prompts), replicates, 0)]
    )
    rates, at_equal_length = [], []
    for pair in pairs:
        some = [one for one in own if one.match.pair == pair]
        values = np.array([one.value for one in some])
        weights = _weights(some, prompts, counts)
        rates.append(_mean(values, weights))
        at_equal_length.append(length_controlled(values, _longer(some), weights))
    rate, lo, hi = interval([np.stack(rates)], len(prompts))
    values = np.array([one.value for one in own])
    wilson = share_interval(values, [one.match.place for one in own])
    equal: tuple[float | None, ...] = (None, None, None)
    if known := [each for each in at_equal_length if each is not None]:
        equal = _within(*interval([np.stack(known)], len(prompts)))
    needed = _needed(own, [float(each[0]) for each in rates])
    return WinRate(
        policy=key[0],
        against=key[1],
        temperature=key[2],
        judge=judge,
        rate=rate,
        lo=max(0.0, lo),
        hi=min(1.0, hi),
        wilson_lo=wilson.lo,
        wilson_hi=wilson.hi,
        wins=int((values > 0.5).sum()),
        ties=int((values == 0.5).sum()),
        losses=int((values < 0.5).sum()),
        length_controlled=equal[0],
        length_controlled_lo=equal[1],
        length_controlled_hi=equal[2],
        consistency=_consistency(own),
        first_position=_first_position(own),
        length=float(np.mean([len(one.match.own.strip()) for one in own])),
        against_length=float(np.mean([len(one.match.theirs.strip()) for one in own])),
        n_prompts=len(prompts),
        n_seeds=len(pairs),
        n_matches=len(own),
        left_out=left_out,
        prompts_needed=needed.prompts,
        seeds_needed=needed.seeds,
    )


def replicated_rate(
    own: Sequence[Decided], pair: int, prompts: Sequence[int], counts: Floats
) -> Floats:
    """``[R]`` rates of one pair of runs, for each row of ``counts`` ``[R, len(prompts)]``.

    Args:
        own: Matches on these prompts.
        pair: Which of the pairs of runs.
        prompts: Their places, ascending.
        counts: How often each prompt counts.
    """
    some = [one for one in own if one.match.pair == pair]
    weights = _weights(some, prompts, counts)
    return _mean(np.array([one.value for one in some]), weights)


def _weights(some: Sequence[Decided], prompts: Sequence[int], counts: Floats) -> Floats:
    """``[R, M]`` how often each match counts: as often as its prompt was drawn."""
    return counts[:, np.searchsorted(prompts, [one.match.place for one in some])]


def _mean(values: Floats, weights: Floats) -> Floats:
    """Weighted means ``[R]``; a replicate without any of these prompts repeats the sample."""
    total = weights.sum(1)
    drawn = total > 0
    means: Floats = np.where(drawn, weights @ values / np.where(drawn, total, 1), values.mean())
    return means


def _within(rate: float, lo: float, hi: float) -> tuple[float, float, float]:
    return rate, max(0.0, lo), min(1.0, hi)


def _longer(some: Sequence[Decided]) -> Floats:
    texts = [(one.match.own.strip(), one.match.theirs.strip()) for one in some]
    return np.array([float(len(own) - len(theirs)) for own, theirs in texts])


def _asked_twice(own: Sequence[Decided]) -> Floats:
    """``[K, 2]`` verdicts on different texts that are known in both orders."""
    known = [
        (first, second)
        for match, (first, second), _ in own
        if first is not None and second is not None and match.own.strip() != match.theirs.strip()
    ]
    return np.array(known, dtype=np.float64).reshape(-1, 2)


def _consistency(own: Sequence[Decided]) -> float | None:
    twice = _asked_twice(own)
    return float((twice[:, 0] == twice[:, 1]).mean()) if len(twice) else None


def _first_position(own: Sequence[Decided]) -> float | None:
    twice = _asked_twice(own)
    return float((twice[:, 0] + 1 - twice[:, 1]).mean() / 2) if len(twice) else None


def _needed(own: Sequence[Decided], by_pair: Sequence[float]) -> Enough:
    """Prompts and seeds that resolve the difference to 1/2 if it is as observed."""
    by_prompt: dict[int, list[float]] = {}
    for one in own:
        by_prompt.setdefault(one.match.place, []).append(one.value)
    means = [float(np.mean(values)) for values in by_prompt.values()]
    if len(means) < 2 or not np.std(means) > 0:
        return Enough(seeds=None, prompts=None)
    return enough(
        Spread(
            difference=float(np.mean(by_pair)) - 0.5,
            seeds=len(by_pair),
            seed_sd=float(np.std(by_pair, ddof=1)) if len(by_pair) > 1 else 0.0,
            prompts=len(means),
            prompt_sd=float(np.std(means, ddof=1)),
        )
    )
