"""What lectures claim."""

from pathlib import Path

import pytest

from alignlab.claims.card import OURS, STUDY
from alignlab.claims.finding import FAILED, HELD, NOT_RUN
from alignlab.results.csv_tables import write_table
from alignlab.results.run_records import POINTS
from alignlab.results.tables import write_points
from tests.claims.decided import NUDGE, SEEDS, points, values, verdicts


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
