"""Details of PPO, and where its time goes."""

from pathlib import Path

import pytest

from alignlab.claims.card import OURS
from alignlab.claims.finding import FAILED, HELD, NOT_RUN, UNRESOLVED
from alignlab.results.csv_tables import write_table
from alignlab.results.run_records import POINTS
from alignlab.results.tables import write_points
from tests.claims.decided import NUDGE, points, values, verdicts, write_evaluations


@pytest.mark.parametrize(
    ("ratio", "kl", "expected"), [(9e-6, 1e-6, [HELD, HELD]), (2e-5, 4e-6, [FAILED, FAILED])]
)
def test_the_first_pass(tmp_path: Path, ratio: float, kl: float, expected: list[str]) -> None:
    """Two phases of eight steps; what follows an update may be anything."""
    rows = [{"step": k, "train/first_log_ratio": 0.1, "train/approx_kl": 0.3} for k in range(16)]
    rows[0] |= {"train/first_log_ratio": 1e-6, "train/approx_kl": kl}
    rows[8] |= {"train/first_log_ratio": ratio, "train/approx_kl": 0.0}
    write_table(tmp_path / OURS / "first_pass.csv", rows)
    assert verdicts(tmp_path, "C10")[:2] == expected
    assert values(tmp_path, "C10")[:2] == pytest.approx([ratio, kl])


def test_ablations(tmp_path: Path) -> None:
    """At KL 0.5 each has half of its last reward; PPO with another target does not count."""
    own = points("ppo", [(1, 1.05, 2.0)], kl_target=1.0)
    own += points("ppo", [(1, 1.05, 9.0)], kl_target=2.0)
    own += points("ppo_no_whitening", [(1, 1.05, 1.5)])
    own += points("ppo_value_sft", [(1, 1.05, 2.0)], NUDGE[::-1])
    own += points("ppo_kl_in_loss", [(1, 1.05, 3.0)])
    write_points(tmp_path / OURS / POINTS, own)
    write_evaluations(tmp_path)
    assert verdicts(tmp_path, "C10") == [NOT_RUN, NOT_RUN, HELD, UNRESOLVED, FAILED]
    assert values(tmp_path, "C10")[2::2] == pytest.approx([-0.5 / 2.1, 1.0 / 2.1], rel=0.01)


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [((0.7, 0.5), [HELD, HELD]), ((0.5, 0.5), [UNRESOLVED] * 2), ((0.4, 0.5), [FAILED] * 2)],
)
def test_rollouts(tmp_path: Path, shares: tuple[float, float], verdict: list[str]) -> None:
    rows = [
        {"stage": f"ppo_lengths-max_new_tokens{n}-s{s}", "seconds": 10.0,
         "rollout_seconds": 10 * (share + x)}
        for n, share, nudge in zip((40, 5), shares, (NUDGE, NUDGE[::-1]), strict=True)
        for s, x in enumerate(nudge)
    ]  # fmt: skip
    rows.append({"stage": "ppo_cost", "seconds": 1.0, "rollout_seconds": 0.1})
    write_table(tmp_path / OURS / "cost.csv", rows)
    assert verdicts(tmp_path, "C24") == verdict
    assert values(tmp_path, "C24") == pytest.approx([shares[0], shares[0] - shares[1]])
