"""Log-probs of held-out pairs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignlab.claims.card import OURS
from alignlab.claims.finding import FAILED, HELD, NOT_RUN, UNRESOLVED
from alignlab.results.csv_tables import write_table
from alignlab.results.prompt_tables import PromptTable, write_prompt_tables
from alignlab.results.run_records import POINTS, table_of
from alignlab.results.tables import write_points
from tests.claims.decided import NUDGE, points, values, verdicts, write_evaluations
from tests.claims.test_tables import scores


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


def base_pairs(policy: str, reward: str, chosen: float, rejected: float) -> list[dict[str, object]]:
    return [
        {
            "policy": f"{policy}-s{seed}",
            "reward": reward,
            "chosen": chosen + x,
            "rejected": rejected,
        }
        for seed, x in enumerate(NUDGE)
    ]


def test_a_base_model(tmp_path: Path) -> None:
    """The gap per token rises from 0.1 to 0.4; fine-tuning leaves the others where they were."""
    rows = [
        *base_pairs("little", "mean_logp", -2.0, -2.1),
        *base_pairs("orpo_little", "mean_logp", -1.5, -1.9),
        *base_pairs("orpo_little", "log_ratio", -3.0, -9.0),
        *base_pairs("sft_little", "mean_logp", 9.0, 9.0),
        *base_pairs("sft_little", "log_ratio", 4.0, 0.0),
    ]
    for row, x in zip(rows[-5:], NUDGE, strict=True):
        row["rejected"] = x
    write_table(tmp_path / OURS / "base_pairs.csv", rows)
    assert verdicts(tmp_path, "C14") == [HELD, FAILED, HELD, UNRESOLVED]
    assert values(tmp_path, "C14") == pytest.approx([0.3, -3.0, 4.0, 0.0])
