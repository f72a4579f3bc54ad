"""Every rule on tables whose numbers are known."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignlab.claims import exact
from alignlab.claims.cards import CARDS, OURS, STRENGTHS, STUDY
from alignlab.claims.finding import FAILED, HELD, NOT_RUN, UNRESOLVED, Finding
from alignlab.claims.page import decide
from alignlab.results.csv_tables import read_table, write_table
from alignlab.results.prompt_tables import PromptTable, write_prompt_tables
from alignlab.results.run_records import POINTS, table_of
from alignlab.results.tables import Point, write_points
from tests.claims.test_tables import POINT, scores

SEEDS = range(5)
NUDGE = (-0.02, -0.01, 0.0, 0.01, 0.02)  # of seeds: mean 0


def found(results: Path, card: str) -> list[Finding]:
    (claims,) = (own.claims for own in CARDS if own.name == card)
    return [decide(results, claim) for claim in claims]


def verdicts(results: Path, card: str) -> list[str]:
    return [finding.verdict for finding in found(results, card)]


def values(results: Path, card: str) -> list[float | None]:
    return [finding.value for finding in found(results, card)]


def points(
    objective: str,
    at: Iterable[tuple[int, float, float]],
    nudge: Sequence[float] = NUDGE,
    **hparams: Any,
) -> list[Point]:
    """Checkpoints (step, KL, reward) of five seeds, whose KL and reward are nudged."""
    name = "-".join([objective, *(f"{k}{v}" for k, v in hparams.items())])
    return [
        replace(
            POINT,
            objective=objective,
            run_id=f"{name}-s{seed}",
            seed=seed,
            step=step,
            kl=kl * (1 + nudge[seed]),
            reward=reward + nudge[seed],
            hparams=hparams,
        )
        for seed in SEEDS
        for step, kl, reward in at
    ]


def write_evaluations(results: Path) -> None:
    rows = [
        {"policy": "reference", "reward": 0.0, "chosen_logp": -10.0, "rejected_logp": -10.0},
        *({"policy": "dpo", "reward": 2 + 10 * x} for x in NUDGE),
    ]
    columns = ["policy", "reward", "chosen_logp", "rejected_logp"]
    write_table(results / OURS / "evaluations.csv", rows, columns)


def test_what_beta_and_seeds_do(tmp_path: Path) -> None:
    own = []
    for k, beta in enumerate(STRENGTHS):
        own += points("dpo", [(64, 3.0 - k, 1.0), (128, 2.0 / 2**k, 2.0)], beta=beta)
        own += points("ppo_fixed", [(128, 2.0 / 2**k, 2.0)], kl_coef=beta)
    for target, reached in ((0.5, 0.52), (1.0, 1.3), (2.0, 2.0)):
        own += points("ppo", [(128, reached, 2.0)], kl_target=target)
    write_points(tmp_path / OURS / POINTS, own)
    write_evaluations(tmp_path)
    assert verdicts(tmp_path, "C2") == [HELD, UNRESOLVED, FAILED]
    smallest, ratio, missed = values(tmp_path, "C2")
    assert smallest == pytest.approx(1.0)  # KL 2 - 1, the first step
    assert ratio == pytest.approx(1.0)
    assert missed == pytest.approx(1.3)  # the target that decides
    # Rewards of training seeds are nudged a tenth as much as those of sampling seeds.
    assert verdicts(tmp_path, "C6") == [HELD]
    assert values(tmp_path, "C6") == pytest.approx([0.1])


def test_wrong_labels(tmp_path: Path) -> None:
    """At KL 0.5 each has half of its last reward; of IPO, its own loss counts."""
    last = {
        "dpo_flip20": 2.0, "cdpo_flip20": 3.0, "robust_dpo_flip20": 1.0, "ipo_flip20": 2.6,
        "dpo_flip30": 2.0, "cdpo_flip30": 2.0, "robust_dpo_flip30": 3.0, "ipo": 3.0,
    }  # fmt: skip
    own = points("dpo", [(1, 1.05, 2.8)], beta=0.6)
    for name, reward in last.items():
        nudge = NUDGE[::-1] if name == "cdpo_flip30" else NUDGE  # as good as DPO on the mean
        own += points(name, [(1, 1.05, reward)], nudge)
    own += points("ipo_flip30", [(1, 0.3, 1.0)])  # does not get there
    write_points(tmp_path / OURS / POINTS, own)
    write_evaluations(tmp_path)
    assert verdicts(tmp_path, "C16") == [
        HELD, FAILED, HELD,  # 20 %: cDPO, robust DPO, IPO
        UNRESOLVED, HELD, UNRESOLVED,  # 30 %
        FAILED,  # IPO is above DPO without flips
    ]  # fmt: skip
    cdpo, _, ipo, *_, clean = values(tmp_path, "C16")
    assert cdpo == pytest.approx((3 - 2) / 2.1, rel=0.01)
    assert ipo == pytest.approx((2.6 - 2 - (3.0 - 2.8)) / 2.1, rel=0.01)
    assert clean == pytest.approx((2.8 - 3.0) / 2.1, rel=0.01)


def test_displacement(tmp_path: Path) -> None:
    """Log-probs at KL 0.5, halfway from -10 to the last."""
    logps = {"dpo": -14.0, "simpo": -12.0, "orpo": -16.0, "cpo": -14.0, "dpo_nll": -9.0}
    own = points("dpo", [(1, 1.0, 1.0)], beta=1.3)
    for name in ("simpo", "orpo", "cpo", "dpo_nll"):
        own += points(name, [(1, 1.0, 1.0)])
    write_points(tmp_path / OURS / POINTS, own)
    write_evaluations(tmp_path)
    for point in own:
        nudge = NUDGE[::-1] if point.objective == "cpo" else NUDGE  # as DPO on the mean
        chosen = logps[point.objective] + nudge[point.seed]
        two = np.full(2, chosen - 3)
        given = replace(scores(point.kl, chosen), rejected_logp=two)
        table = PromptTable(
            objective=point.objective, run_id=point.run_id, seed=point.seed, step=1, scores=given
        )
        write_prompt_tables(table_of(tmp_path / OURS, point.run_id), [table])
    assert verdicts(tmp_path, "C26") == [HELD, HELD, HELD, FAILED, UNRESOLVED, HELD, NOT_RUN]
    fallen, margin, simpo, *_ = values(tmp_path, "C26")
    assert fallen == pytest.approx(-2.0, rel=0.01)
    assert margin == pytest.approx(1.5, rel=0.01)
    assert simpo == pytest.approx(1.0, rel=0.01)


def test_exact_tables(tmp_path: Path) -> None:
    exact.write_exact_tables(out=tmp_path / OURS)
    for card in ("C15", "C19", "C20", "C23"):
        assert set(verdicts(tmp_path, card)) == {HELD}, card
    assert verdicts(tmp_path, "C25") == [HELD, NOT_RUN]
    rows = {path.stem: len(read_table(path)) for path in (tmp_path / OURS).glob("*.csv")}
    assert rows == {"estimators": 16, "best_of_n": 8, "two_arms": 6, "controller": 6, "memory": 2}


def test_rankings(tmp_path: Path) -> None:
    """Together 0.50 after one epoch and 0.55 after four, shuffled 0.52 and 0.60."""
    losses = {"kwise": {1: 0.50, 4: 0.55}, "shuffled": {1: 0.52, 4: 0.60}}
    rows = [
        {"model": name, "run": f"{name}-max_epochs{epochs}-s{s}", "log_loss": loss + NUDGE[s] / 10}
        for name, own in losses.items()
        for epochs, loss in own.items()
        for s in SEEDS
    ]
    write_table(tmp_path / OURS / "log_loss.csv", rows)
    assert verdicts(tmp_path, "C7") == [HELD, HELD]
    assert values(tmp_path, "C7") == pytest.approx([-0.02, -0.03])


def test_fine_tuning(tmp_path: Path) -> None:
    rubbish = {
        "tiny": (0.8, 12.0), "ppo_review": (0.05, 13.0), "dpo_review": (0.3, 11.0),
        "ppo_none": (1.0, 30.0), "ppo_little": (0.6, 20.0), "ppo_sft": (0.1, 9.0),
    }  # fmt: skip
    rows = [
        {"policy": name, "run": f"{name}-s{s}", "rubbish": share + x / 10, "nll": nll + x}
        for name, (share, nll) in rubbish.items()
        for s, x in enumerate(NUDGE)
    ]
    rows += [
        {"run": f"small-hidden_size8-a-s{s}", "rubbish": 0.5, "expected": 0.45 + x}
        for s, x in enumerate(NUDGE)
    ]
    columns = ["policy", "run", "rubbish", "expected", "nll"]
    write_table(tmp_path / OURS / "rubbish.csv", rows, columns)
    steps = [
        {"policy": "small", "run": f"small-hidden_size8-a-s{s}", "prefix": prefix, "position": at,
         "excess": excess + NUDGE[s], "misfit": misfit + NUDGE[s]}
        for s in SEEDS
        for at in ("all", "1")
        for prefix, excess, misfit in (("data", 0.5, 0.2), ("own", 0.6, 0.2), ("broken", 9.0, 0.1))
    ]  # fmt: skip
    write_table(tmp_path / OURS / "exposure.csv", steps)
    assert verdicts(tmp_path, "L1") == [HELD, FAILED, HELD, *[NOT_RUN] * 6]
    assert values(tmp_path, "L1")[:3] == pytest.approx([0.1, -0.1, 0.05])
    assert verdicts(tmp_path, "L2") == [HELD, HELD, FAILED, HELD, FAILED]
    assert verdicts(tmp_path, "L3") == [HELD, HELD, HELD]


def test_costs(tmp_path: Path) -> None:
    """DPO reaches 1.5 at step 64 of 2 s; PPO at 80 of 3 s, and 192 steps of its scorer of 0.5 s."""
    write_points(
        tmp_path / OURS / POINTS,
        [
            *points("dpo", [(32, 0.5, 1.2), (64, 0.8, 1.9), (96, 1.0, 2.0)], beta=1.3),
            *points("ppo", [(40, 0.8, 1.0), (80, 1.0, 1.6)], kl_target=1.0),
        ],
    )
    counts = {"steps": 10, "models": 2, "megabytes": 5.0}
    rows = [
        {"stage": "dpo_cost", **counts, "cpu_seconds": 20.0, "generated_tokens": 0},
        {"stage": "ppo_cost", **counts, "cpu_seconds": 30.0, "generated_tokens": 10},
        {"stage": "reward_model_cost", **counts, "cpu_seconds": 5.0, "generated_tokens": 0},
    ]
    rows[1] |= {"models": 4, "megabytes": 4.0}
    write_table(tmp_path / OURS / "cost.csv", rows)
    write_table(tmp_path / STUDY / "tuning" / "dpo.csv", [{"value": 1 + x} for x in NUDGE])
    write_table(tmp_path / STUDY / "tuning" / "ppo.csv", [{"value": 1 + 9 * x} for x in NUDGE])
    assert verdicts(tmp_path, "L4") == [HELD, HELD, HELD, FAILED, HELD]
    ratio, tokens, models, held, spread = values(tmp_path, "L4")
    assert ratio == pytest.approx(64 * 2 / (80 * 3 + 192 * 0.5))
    assert (tokens, models) == (0, 0.5)
    assert held == pytest.approx(5 / 4)
    assert spread == pytest.approx(1 / 9)


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


def test_the_cards_are_those_of_the_list() -> None:
    names = [card.name for card in CARDS]
    assert names == [*(f"C{k}" for k in range(1, 27)), "L1", "L2", "L3", "L4"]
