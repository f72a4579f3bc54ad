"""What beta, targets and seeds do."""

from pathlib import Path

import pytest

from alignlab.claims.card import OURS
from alignlab.claims.cards.control import STRENGTHS
from alignlab.claims.finding import FAILED, HELD, UNRESOLVED
from alignlab.results.run_records import POINTS
from alignlab.results.tables import write_points
from tests.claims.decided import points, values, verdicts, write_evaluations


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
    assert smallest == pytest.approx(0.25)  # KL 0.5 - 0.25, the last step
    assert ratio == pytest.approx(1.0)
    assert missed == pytest.approx(1.3)  # the target that decides
    # Rewards of training seeds are nudged a tenth as much as those of sampling seeds.
    assert verdicts(tmp_path, "C6") == [HELD]
    assert values(tmp_path, "C6") == pytest.approx([0.1])
