"""What flipped labels cost."""

from pathlib import Path

import pytest

from alignlab.claims.card import OURS
from alignlab.claims.finding import FAILED, HELD, UNRESOLVED
from alignlab.results.run_records import POINTS
from alignlab.results.tables import write_points
from tests.claims.decided import NUDGE, points, values, verdicts, write_evaluations


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
