"""Best-of-n, Gao's formulas and falls of the gold reward, by hand."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from alignlab.claims.card import REVIEWS, TOY
from alignlab.claims.finding import FAILED, HELD, NOT_RUN, UNRESOLVED
from alignlab.results.csv_tables import write_table
from tests.claims.decided import NUDGE, SEEDS, values, verdicts

RISE, SATURATION, BOUND = range(3)  # claims of C5 on the toy world
BEST, PPO, LEARNED, GOLD, *_ = range(9)  # of C17
DATA, SIZE, PENALTY = 6, 7, 8  # of C17: PPO's peaks, and the penalty


def curve(
    name: str, at: Sequence[tuple[int, float, float]], nudge: Sequence[float] = NUDGE, **cells: Any
) -> list[dict[str, Any]]:
    """Rows (step, d, gold gain) of five seeds, with gains that the nudge scales."""
    return [
        {"curve": name, "form": "rl", "seed": s, "run_id": f"{name}-s{s}", "step": step,
         "kl": d * d, "d": d, "gold_gain": gain * (1 + nudge[s]), **cells}
        for s in SEEDS
        for step, d, gain in at
    ]  # fmt: skip


def best_of_n(gains: Sequence[float], kl_share: float = 0.99) -> list[dict[str, Any]]:
    at = []
    for k, gain in enumerate(gains, start=1):
        bound = math.log(2**k) - (2**k - 1) / 2**k
        at.append((2**k, math.sqrt(kl_share * bound), gain))
    return curve("best_of_n", at, form="best_of_n")


FLAT = (1.0, 1.5, 1.8, 2.0, 2.1, 2.15, 2.17)  # at n = 2, 4, ... 128
FALLING = (1.0, 1.5, 1.6, 1.7, 1.8, 2.5, 2.4)


@pytest.mark.parametrize(
    ("gains", "scatter", "expected"),
    [
        (FLAT, 0, [HELD, HELD, HELD]),
        (FLAT, 40, [UNRESOLVED, UNRESOLVED, HELD]),
        (FALLING, 0, [FAILED, FAILED, HELD]),
    ],
)
def test_best_of_n(
    tmp_path: Path, gains: Sequence[float], scatter: float, expected: list[str]
) -> None:
    """The first gain 0.5 from 4 to 16, 0.07 from 32 to 128 and, last, 0.02; the others 0.2, 0.6."""
    rows = best_of_n(gains)
    for row in rows:
        if row["step"] == 128:
            row["gold_gain"] += scatter * NUDGE[row["seed"]]
    write_table(tmp_path / TOY / "overoptimisation.csv", rows)
    assert verdicts(tmp_path, "C5")[:3] == expected
    known = [0.02, 0.07 - 0.5, 0.99] if gains == FLAT else [-0.1, 0.6 - 0.2, 0.99]
    assert values(tmp_path, "C5")[:3] == pytest.approx(known, rel=1e-5)


def test_kl_above_the_bound(tmp_path: Path) -> None:
    write_table(tmp_path / TOY / "overoptimisation.csv", best_of_n((1.0, 1.5), kl_share=1.02))
    assert verdicts(tmp_path, "C5")[BOUND] == FAILED
    assert values(tmp_path, "C5")[BOUND] == pytest.approx(1.02)


def formula(d: float) -> float:
    return d * (2 - 0.5 * math.log(d))


def test_how_well_the_formulas_fit(tmp_path: Path) -> None:
    """Gains 1, 0, 1 at d = 1, 2, 3: d (8 - d) / 19 leaves 0.842 of a variance of 0.667."""
    bent = [(k, float(k), float(k != 2)) for k in (1, 2, 3)]
    right = [(k, float(k), formula(k)) for k in (1, 2, 3, 4)]
    rows = curve("best_of_n", bent, form="best_of_n")
    for end in ("_256", "_8192", "_8"):
        rows += curve(f"best_of_n{end}", right)
    for end in ("", "_256", "_8192", "_8"):
        rows += curve(f"ppo_no_kl{end}", right)
    write_table(tmp_path / TOY / "overoptimisation.csv", rows)
    assert verdicts(tmp_path, "C17")[:2] == [FAILED, HELD]
    assert values(tmp_path, "C17")[:2] == pytest.approx([1 - 16 / 19 / (2 / 3), 1.0])
    mixed = [row for row in rows if row["curve"] != "ppo_no_kl" or row["seed"] == 0]
    mixed += [row for row in curve("ppo_no_kl", bent) if row["seed"] == 1]
    write_table(tmp_path / TOY / "overoptimisation.csv", mixed)
    assert verdicts(tmp_path, "C17")[PPO] == UNRESOLVED


def fit(name: str, score: str, decline: float, half: float = 0.1, **cells: Any) -> dict[str, Any]:
    ends = {"decline": decline, "decline_lo": decline - half, "decline_hi": decline + half}
    own = {"alpha": 2.0, "beta": 0.5, "peak": "", "peak_lo": "", "peak_hi": ""}
    return {"curve": name, "score": score, "seeds": 3, **own, **ends, **cells}


@pytest.mark.parametrize(
    ("learned", "gold", "expected"),
    [
        ((0.0, 0.0), (0.5, 0.1), [HELD, HELD]),
        ((0.0, 0.1), (0.05, 0.1), [UNRESOLVED, UNRESOLVED]),
        ((0.2, 0.1), (0.0, 0.0), [FAILED, FAILED]),  # one that never falls is no hump
    ],
)
def test_falls(
    tmp_path: Path,
    learned: tuple[float, float],
    gold: tuple[float, float],
    expected: list[str],
) -> None:
    rows = [fit("ppo_no_kl_8", "proxy", *learned), fit("ppo_no_kl_8", "gold", *gold)]
    for end in ("", "_256", "_8192"):
        rows += [fit(f"ppo_no_kl{end}", "proxy", -0.5), fit(f"ppo_no_kl{end}", "gold", 0.9)]
    rows += [fit("dpo", "gold", *gold), fit("dpo", "proxy", 0.9)]
    write_table(tmp_path / TOY / "fits.csv", rows)
    assert verdicts(tmp_path, "C17")[LEARNED : GOLD + 1] == expected
    assert values(tmp_path, "C17")[LEARNED : GOLD + 1] == pytest.approx([learned[0], gold[0]])
    assert verdicts(tmp_path, "C18")[:2] == [expected[1], NOT_RUN]


def peaks(results: Path, **known: tuple[Any, Any, Any]) -> None:
    rows = [
        fit(name, "gold", 0.5, **dict(zip(("peak", "peak_lo", "peak_hi"), ends, strict=True)))
        for name, ends in known.items()
    ]
    write_table(results / TOY / "fits.csv", rows)


def test_peaks(tmp_path: Path) -> None:
    """3 in [2.7, 3.4] less 2 in [1.8, 2.4]: 1, down by (0.3, 0.4), which is 0.5."""
    peaks(
        tmp_path,
        ppo_no_kl_8192=(3.0, 2.7, 3.4), ppo_no_kl_256=(2.0, 1.8, 2.4),
        ppo_no_kl=(1.0, 0.9, 1.1), ppo_no_kl_8=(2.0, 1.8, 2.4),
    )  # fmt: skip
    assert verdicts(tmp_path, "C17")[DATA : SIZE + 1] == [HELD, FAILED]
    assert values(tmp_path, "C17")[DATA : SIZE + 1] == pytest.approx([1.0, -1.0])
    peaks(
        tmp_path,
        ppo_no_kl_8192=(3.0, 1.0, ""), ppo_no_kl_256=(2.0, 1.8, 2.4),
        ppo_no_kl=("", "", ""), ppo_no_kl_8=(2.0, 1.8, 2.4),
    )  # fmt: skip
    assert verdicts(tmp_path, "C17")[DATA : SIZE + 1] == [UNRESOLVED, UNRESOLVED]
    assert values(tmp_path, "C17")[DATA : SIZE + 1] == [pytest.approx(1.0), None]


@pytest.mark.parametrize(
    ("share", "half", "verdict"),
    [(0.02, 0.07, HELD), (-0.05, 0.07, UNRESOLVED), (-0.3, 0.1, FAILED)],
)
def test_the_penalty(tmp_path: Path, share: float, half: float, verdict: str) -> None:
    """At d = e the gain is e (2 - 0.5)."""
    gain = 1.5 * math.e
    row = {"first": "ppo", "second": "ppo_no_kl", "seeds": 3, "d": math.e}
    row |= {"difference": share * gain}
    row |= {"difference_lo": (share - half) * gain, "difference_hi": (share + half) * gain}
    write_table(tmp_path / TOY / "contrasts.csv", [row])
    write_table(tmp_path / TOY / "fits.csv", [fit("ppo_no_kl", "gold", 0.5)])
    assert verdicts(tmp_path, "C17")[PENALTY] == verdict
    assert values(tmp_path, "C17")[PENALTY] == pytest.approx(share, rel=1e-4)


@pytest.mark.parametrize(
    ("best", "verdict"), [((24, 24), HELD), ((24, 80), UNRESOLVED), ((80, 80), FAILED)]
)
def test_the_best_epoch(tmp_path: Path, best: tuple[int, int], verdict: str) -> None:
    """Three epochs of 32 steps; each seed's best checkpoint counts."""
    rows = []
    for seed in SEEDS:
        top = best[seed % 2]
        own = curve("dpo", [(step, 1.0, 1.0 + (step == top)) for step in range(8, 97, 8)])
        rows += [row for row in own if row["seed"] == seed]
    write_table(tmp_path / REVIEWS / "overoptimisation.csv", rows)
    assert verdicts(tmp_path, "C18")[-1] == verdict
    assert values(tmp_path, "C18")[-1] == pytest.approx((3 * best[0] + 2 * best[1]) / 5 / 32)
