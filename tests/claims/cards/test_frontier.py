"""Objectives beside each other and beside the optimum."""

from dataclasses import replace
from pathlib import Path

import pytest

from alignlab.claims.card import OURS, STUDY, TUNED
from alignlab.claims.cards.frontier import BUDGETS, PAIRS
from alignlab.claims.finding import FAILED, HELD, NOT_RUN, UNRESOLVED
from alignlab.results.csv_tables import write_table
from alignlab.results.run_records import POINTS
from alignlab.results.tables import write_points
from tests.claims.decided import NUDGE, points, values, verdicts, write_evaluations


def test_comparisons_of_the_study(tmp_path: Path) -> None:
    """The table has each pair once; RLOO less PPO is minus PPO less RLOO."""
    row = {"objective": "ppo", "other": "rloo", "kl_budget": 1.0, "n_seeds": 5}
    rows = [
        {**row, "kl_budget": 2.0, "difference": 9.0, "lo": 8.0, "hi": 10.0},
        {**row, "difference": -0.3, "lo": -0.5, "hi": -0.1},
        {**row, "objective": "dpo", "other": "online_dpo", "difference": 0.2, "lo": 0.1, "hi": 0.3},
    ]
    write_table(tmp_path / STUDY / "comparisons.csv", rows)
    assert verdicts(tmp_path, "C12") == [HELD]
    assert values(tmp_path, "C12") == pytest.approx([0.3])
    assert verdicts(tmp_path, "C11") == [FAILED]
    assert values(tmp_path, "C11") == pytest.approx([-0.2])


def share(
    objective: str, value: float | None, half: float = 0.05, kl: float = 1.0
) -> dict[str, object]:
    """A row of ``frontier.csv`` with a share of the optimum's gain, which is 2."""
    ends = (None, None) if value is None else (value - half, value + half)
    return {
        "objective": objective,
        "kl_budget": kl,
        "n_seeds": 5,
        "reward": 2.2 if value is None else 2 * value,
        "reward_lo": 0.0,
        "reward_hi": 9.0,
        "oracle_reward": 2.0,
        "oracle_efficiency": value,
        "efficiency_lo": ends[0],
        "efficiency_hi": ends[1],
    }


def test_a_kl_that_one_of_two_does_not_reach(tmp_path: Path) -> None:
    row = {"objective": "ppo", "other": "rloo", "kl_budget": 0.5, "n_seeds": 5}
    table = [{**row, "difference": 1.0, "lo": 0.9, "hi": 1.1}]
    write_table(tmp_path / STUDY / "comparisons.csv", table)
    assert verdicts(tmp_path, "C12") == [NOT_RUN]
    write_table(tmp_path / STUDY / "frontier.csv", [share("rloo", 0.5), share("ppo", 0.5)])
    assert verdicts(tmp_path, "C12") == [UNRESOLVED]


def test_dpo_on_reviews(tmp_path: Path) -> None:
    """PPO at KL 0.5, 1 and 2; the gold one was compared at 1 alone; unlikelihood has no run."""
    row = {"objective": "dpo", "other": "ppo", "n_seeds": 3}
    rows = [
        {**row, "kl_budget": kl, "difference": d, "lo": d - 0.1, "hi": d + 0.1}
        for kl, d in ((0.5, 0.2), (1.0, 0.05), (2.0, -0.2))
    ]
    rows.append({**rows[0], "other": "ppo_gt", "kl_budget": 1.0})
    write_table(tmp_path / TUNED / "comparisons.csv", rows)
    table = [share("dpo", 0.5), share("ppo_gt", 0.5)]
    write_table(tmp_path / TUNED / "frontier.csv", table)
    assert verdicts(tmp_path, "C1")[:9] == [
        HELD, UNRESOLVED, FAILED, UNRESOLVED, HELD, UNRESOLVED, NOT_RUN, NOT_RUN, NOT_RUN,
    ]  # fmt: skip
    assert values(tmp_path, "C1")[:3] == pytest.approx([0.2, 0.05, -0.2])


@pytest.mark.parametrize(
    ("reward", "nudge", "verdict"),
    [(0.6, NUDGE, HELD), (0.3, NUDGE[::-1], UNRESOLVED), (0.1, NUDGE, FAILED)],
)
def test_the_lowest_on_reviews(
    tmp_path: Path, reward: float, nudge: tuple[float, ...], verdict: str
) -> None:
    """It ends with 0.3 at KL 0.4, the other method at 0.2: both count within 0.5, 1 and 2."""
    own = points("preferred_ft", [(1, 0.4, 0.3)]) + points("dpo", [(1, 0.3, 0.9)])
    own += points("kto", [(1, 0.2, reward)], nudge)
    write_points(tmp_path / TUNED / POINTS, own)
    rows = [share("reference", 0.0, kl=kl) for kl in BUDGETS]
    write_table(tmp_path / TUNED / "frontier.csv", rows)
    assert verdicts(tmp_path, "C1")[9:12] == [verdict] * 3
    assert values(tmp_path, "C1")[9:12] == pytest.approx([reward - 0.3] * 3)


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.9, HELD), (0.97, UNRESOLVED), (1.2, FAILED), (None, FAILED)]
)
def test_nothing_is_above_the_optimum(tmp_path: Path, value: float | None, verdict: str) -> None:
    """An impossible share is left empty in the table; bounds and the reference are no methods."""
    rows = [share("dpo", 0.4, kl=0.5), share("kto", value, kl=0.5), share("oracle", 1.2, kl=0.5)]
    write_table(tmp_path / TUNED / "frontier.csv", rows)
    assert verdicts(tmp_path, "C1")[12] == verdict
    assert values(tmp_path, "C1")[12] == (pytest.approx(value) if value else None)


@pytest.mark.parametrize(
    ("reward", "half", "verdict"),
    [(1.5, 0.2, HELD), (1.9, 0.3, UNRESOLVED), (3.0, 0.1, FAILED), (None, 0.0, UNRESOLVED)],
)
def test_nothing_is_above_the_bound(
    tmp_path: Path, reward: float | None, half: float, verdict: str
) -> None:
    """The bound is 2 in [2, 2.4]: 1.9 + 0.3 is above it, 3 - 2 is more than |(0.1, 0.4)|."""
    row = {"kl_budget": 1.0, "n_seeds": 3, "oracle_reward": ""}
    rows = [{**row, "objective": "dual_bound", "reward": 2.0, "reward_lo": 2.0, "reward_hi": 2.4}]
    if reward is not None:
        ends = {"reward": reward, "reward_lo": reward - half, "reward_hi": reward + half}
        rows.append({**row, "objective": "dpo", **ends})
    rows.append({**rows[0], "objective": "rloo", "reward": "", "reward_lo": "", "reward_hi": ""})
    write_table(tmp_path / TUNED / "frontier.csv", rows)
    at_one = len(BUDGETS) * 4 + 1 + BUDGETS.index(1.0)
    assert verdicts(tmp_path, "C1")[at_one] == verdict
    assert values(tmp_path, "C1")[at_one] == (None if reward is None else pytest.approx(reward - 2))


def test_simpos_table(tmp_path: Path) -> None:
    """Lengths at KL 1: 9 of DPO and 8 of LN-DPO, halfway between two checkpoints of each."""
    rows = [share("dpo", 0.5), share("ipo", 0.02), share("cpo", -0.5), share("reference", 0.0)]
    write_table(tmp_path / STUDY / "frontier.csv", rows)
    own = []
    for name, lengths in (("dpo", (8.0, 10.0)), ("lndpo", (7.0, 9.0))):
        for length, (kl, reward) in zip(lengths, ((0.5, 1.0), (1.5, 2.0)), strict=True):
            at = points(name, [(int(10 * kl), kl, reward)], [0.0] * 5)
            own += [replace(p, length=length + x) for p, x in zip(at, NUDGE, strict=True)]
    write_points(tmp_path / STUDY / POINTS, own)
    assert verdicts(tmp_path, "C13")[:9] == [HELD, UNRESOLVED, FAILED, *[NOT_RUN] * 5, HELD]
    assert values(tmp_path, "C13")[8] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("margin", "fast", "nudge", "verdict"),
    [(2.0, 0.3, NUDGE, HELD), (1.5, 0.2, NUDGE[::-1], UNRESOLVED), (1.0, 0.1, NUDGE, FAILED)],
)
def test_simpos_settings(
    tmp_path: Path, margin: float, fast: float, nudge: tuple[float, ...], verdict: str
) -> None:
    """At KL 0.5 half of the last reward; of the texts the last step counts."""
    own = points("simpo", [(1, 1.05, margin)], nudge)
    own += points("simpo_no_margin", [(1, 1.05, 1.5)])
    write_points(tmp_path / OURS / POINTS, own)
    write_evaluations(tmp_path)
    rows = [
        {"run": f"{run}-s{s}", "step": step, "repeated": share + x / 10}
        for run, early, late, own in (("simpo", 0.7, 0.2, NUDGE), ("simpo_fast", fast, fast, nudge))
        for step, share in ((32, early), (64, late))
        for s, x in enumerate(own)
    ]
    write_table(tmp_path / OURS / "texts.csv", rows)
    assert verdicts(tmp_path, "C13")[9:] == [verdict, verdict]
    expected = [(margin - 1.5) / 2.1, fast - 0.2]
    assert values(tmp_path, "C13")[9:] == pytest.approx(expected, rel=0.02, abs=1e-6)


@pytest.mark.parametrize(("kept", "verdict"), [(0.995, HELD), (0.98, UNRESOLVED), (0.9, FAILED)])
def test_the_gap(tmp_path: Path, kept: float, verdict: str) -> None:
    rows = [
        {"run": f"{name}-s{s}", "objective": name, "pairs": PAIRS, "share": value + x / 10}
        for name, value in (("dpo", kept), ("ipo", 0.7))
        for s, x in enumerate(NUDGE)
    ]
    write_table(tmp_path / OURS / "gap.csv", rows)
    write_table(tmp_path / STUDY / "frontier.csv", [share("dpo", 0.9)])
    assert verdicts(tmp_path, "C21") == [verdict, HELD, HELD]
    assert values(tmp_path, "C21") == pytest.approx([kept, kept + 0.002, 0.9])
