"""Over-optimisation of learned rewards: best-of-n, PPO and direct objectives along sqrt(KL)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignlab.claims.card import REVIEWS, SUMMARIES, TOY, Card, Claim, Rule
from alignlab.claims.cards.win_rates import BEST, COLD, DPO, WARM, rates_apart
from alignlab.claims.finding import (
    Finding,
    Values,
    all_of,
    apart,
    in_interval,
    mean_of,
)
from alignlab.claims.tables import Folder, NotReached, less
from alignlab.evaluation.overoptimisation import terms

CURVES, FITS = "overoptimisation.csv", "fits.csv"
FREE, BEST_OF_N = "ppo_no_kl", "best_of_n"  # against the reward model of middle size and data
SMALLEST = 1e-6  # a smaller fall of the reward does not count
EPOCHS = 3  # that direct objectives train on reviews


class World(NamedTuple):
    """A results folder of over-optimisation, and the names in it.

    Attributes:
        folder: Its name.
        named: In a sentence.
        few: Pairs of the smallest set; the largest has 8,192.
        small: The end of the name of the smallest reward model.
        first: Two n of best-of-n, early.
        last: Two n, as far apart, late.
    """

    folder: str
    named: str
    few: str
    small: str
    first: tuple[int, int]
    last: tuple[int, int]

    def against(self, optimiser: str) -> list[str]:
        """The curves of an optimiser against single reward models."""
        ends = ("", f"_{self.few}", "_8192", f"_{self.small}")
        return [f"{optimiser}{end}" for end in ends]


WORLDS = (
    World(TOY, "toy world", "256", "8", (4, 16), (32, 128)),
    World(REVIEWS, "reviews", "512", "h64", (2, 8), (8, 32)),
)


# ------------------------------------------------------------------------------------- best-of-n


def _gain(folder: Folder, n: int) -> Values:
    return folder.by_seed(CURVES, "gold_gain", name="run_id", curve=BEST_OF_N, step=n)


def _rises_with_n(world: World) -> Rule:
    def rule(folder: Folder) -> Finding:
        sizes = [2**k for k in range(1, world.last[1].bit_length())]
        steps = [less(_gain(folder, 2 * n), _gain(folder, n)) for n in sizes[:-1]]
        return all_of([mean_of(step, low=0.0) for step in (_gain(folder, 2), *steps)])

    return rule


def _saturates(world: World) -> Rule:
    def rule(folder: Folder) -> Finding:
        late, early = (
            less(_gain(folder, n), _gain(folder, m)) for m, n in (world.last, world.first)
        )
        return mean_of(less(late, early), high=0.0)

    return rule


def _within_the_bound(folder: Folder) -> Finding:
    found = []
    for n in sorted({int(row["step"]) for row in folder.rows(CURVES, curve=BEST_OF_N)}):
        kl = folder.by_seed(CURVES, "kl", name="run_id", curve=BEST_OF_N, step=n)
        bound = math.log(n) - (n - 1) / n
        found.append(mean_of({seed: own / bound for seed, own in kl.items()}, high=1.0))
    return all_of(found, worst="largest")


# ------------------------------------------------------------------------------ Gao's two formulas


def _is_fitted(curves: Sequence[str]) -> Rule:
    """R² of the formula with each seed's own numbers, on its gold gains."""

    def rule(folder: Folder) -> Finding:
        return all_of([mean_of(_r2(folder, curve), low=0.95) for curve in curves])

    return rule


def _r2(folder: Folder, curve: str) -> Values:
    found = {}
    rows = folder.rows(CURVES, curve=curve)
    for seed in {row["seed"] for row in rows}:
        own = [row for row in rows if row["seed"] == seed]
        d, gain = (np.array([float(r[name]) for r in own]) for name in ("d", "gold_gain"))
        across = terms("best_of_n" if own[0]["form"] == "best_of_n" else "rl", d)
        fitted = across @ np.linalg.lstsq(across, gain, rcond=None)[0]
        spread = float(((gain - gain.mean()) ** 2).sum())
        if spread > 0:
            found[int(seed)] = 1 - float(((gain - fitted) ** 2).sum()) / spread
    if not found:
        raise NotReached
    return found


def _falls(score: str, curves: Sequence[str], *, at_all: bool) -> Rule:
    """Whether a reward falls from its best checkpoint to the last one, or does not, on each."""
    bounds = {"low": SMALLEST} if at_all else {"high": 0.0}

    def rule(folder: Folder) -> Finding:
        falls = [
            folder.measured(
                FITS, "decline", ends="decline_", runs="seeds", curve=curve, score=score
            )
            for curve in curves
        ]
        decided = [in_interval(fall, **bounds) for fall in falls]
        return all_of(decided, worst="smallest" if at_all else "largest")

    return rule


def _peaks_later(curve: str, other: str) -> Rule:
    """The d at which a curve's gold gain is largest, less that of another curve."""

    def rule(folder: Folder) -> Finding:
        one, two = (
            folder.measured(FITS, "peak", ends="peak_", runs="seeds", curve=name, score="gold")
            for name in (curve, other)
        )
        return in_interval(apart(one, two), low=0.0)

    return rule


def _penalty_changes_little(folder: Folder) -> Finding:
    """Difference of gold gains at the largest d that both reach, as a share of the gain there."""
    pair = {"first": "ppo", "second": FREE}
    found = folder.measured("contrasts.csv", "difference", ends="difference_", runs="seeds", **pair)
    (row,) = folder.rows("contrasts.csv", **pair)
    (fit,) = folder.rows(FITS, curve=FREE, score="gold")
    gain = float(terms("rl", np.array(float(row["d"]))) @ [float(fit["alpha"]), float(fit["beta"])])
    if gain <= 0:
        raise NotReached
    return in_interval(found.over(gain), low=-0.1, high=0.1)


# ------------------------------------------------------------------------------ direct objectives


def _best_in_the_first_epoch(curve: str) -> Rule:
    """Step of the checkpoint with the largest gold gain, in epochs."""

    def rule(folder: Folder) -> Finding:
        best: dict[int, float] = {}
        for seed in {row["seed"] for row in folder.rows(CURVES, curve=curve)}:
            rows = folder.rows(CURVES, curve=curve, seed=seed)
            steps = {float(row["gold_gain"]): int(row["step"]) for row in rows}
            best[int(seed)] = EPOCHS * steps[max(steps)] / max(steps.values())
        return mean_of(best, high=1.0)

    return rule


# ---------------------------------------------------------------------------------------- the cards

C5 = Card(
    "C5",
    "best-of-n saturates",
    (
        *(
            claim
            for world in WORLDS
            for claim in (
                Claim(
                    f"{world.named}: the gold reward of best-of-n rises with each doubling of n up "
                    f"to {world.last[1]} (the smallest rise)",
                    world.folder,
                    _rises_with_n(world),
                ),
                Claim(
                    "{}: best-of-n gains less from n = {} to {} than from {} to {} "
                    "(difference)".format(world.named, *world.last, *world.first),
                    world.folder,
                    _saturates(world),
                ),
                Claim(
                    f"{world.named}: best-of-n's KL is at most log n - (n - 1) / n (share of it)",
                    world.folder,
                    _within_the_bound,
                ),
            )
        ),
        Claim(
            f"on TL;DR DPO at temperature {COLD:g} wins at least as often as best of 16 at {WARM} "
            "(difference of win rates)",
            SUMMARIES,
            rates_apart((DPO, COLD), (BEST, WARM)),
        ),
    ),
)

C17 = Card(
    "C17",
    "over-optimisation after Gao et al.",
    tuple(
        claim
        for world in WORLDS
        for claim in (
            Claim(
                f"{world.named}: d (alpha - beta d) explains 95 % of the variance of best-of-n's "
                "gold gains (R², the worst reward model)",
                world.folder,
                _is_fitted(world.against(BEST_OF_N)),
            ),
            Claim(
                f"{world.named}: d (alpha - beta log d) explains 95 % of the variance of the gold "
                "gains of PPO without a penalty (R², the worst reward model)",
                world.folder,
                _is_fitted(world.against(FREE)),
            ),
            Claim(
                f"{world.named}: in PPO without a penalty the learned reward does not fall (best "
                "less last checkpoint)",
                world.folder,
                _falls("proxy", world.against(FREE), at_all=False),
            ),
            Claim(
                f"{world.named}: in PPO without a penalty the gold reward falls (best less last "
                "checkpoint)",
                world.folder,
                _falls("gold", world.against(FREE), at_all=True),
            ),
            *(
                Claim(
                    f"{world.named}: the gold reward of {name} peaks at a larger d with {more} "
                    "(difference of d)",
                    world.folder,
                    _peaks_later(curve, other),
                )
                for optimiser, name in ((BEST_OF_N, "best-of-n"), (FREE, "PPO"))
                for curve, other, more in (
                    (
                        f"{optimiser}_8192",
                        f"{optimiser}_{world.few}",
                        f"8,192 pairs than with {world.few}",
                    ),
                    (
                        optimiser,
                        f"{optimiser}_{world.small}",
                        "the largest reward model than with the smallest",
                    ),
                )
            ),
            Claim(
                f"{world.named}: at the same d a KL penalty changes PPO's gold gain by at most a "
                "tenth (share of it)",
                world.folder,
                _penalty_changes_little,
            ),
        )
    ),
)

C18 = Card(
    "C18",
    "over-optimisation of direct objectives",
    (
        *(
            Claim(
                f"{world.named}: {name}'s gold reward falls (best less last checkpoint)",
                world.folder,
                _falls("gold", [curve], at_all=True),
            )
            for world in WORLDS
            for curve, name in (("dpo", "DPO"), ("ipo", "IPO"), ("slic", "SLiC"))
        ),
        Claim(
            "reviews: DPO's gold reward is largest within the first epoch (epochs)",
            REVIEWS,
            _best_in_the_first_epoch("dpo"),
        ),
    ),
)
