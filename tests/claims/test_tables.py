"""What rules read of a results folder, by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignlab.claims.tables import Folder, Missing, NotReached, less, paired, seed_of
from alignlab.results.csv_tables import write_table
from alignlab.results.prompt_tables import PromptScores, PromptTable, write_prompt_tables
from alignlab.results.run_records import POINTS, table_of
from alignlab.results.tables import Point, write_points

POINT = Point(
    experiment="claims", objective="dpo", run_id="dpo-beta1-s0", seed=0, step=10,
    hparams={"beta": 1.0}, kl=0.5, kl_se=0.0, kl_k1=0.5, kl_k1_se=0.0, reward=1.0, reward_se=0.0,
    proxy_reward=None, length=5.0, n_prompts=2, n_samples=4, config_sha="a", git_sha="b",
    seconds=1.0,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    second = replace(POINT, run_id="dpo-beta1-s1", seed=1)
    points = [
        POINT,
        replace(POINT, step=20, kl=1.0, reward=1.2),
        replace(second, kl=0.2, reward=0.1),
        replace(second, step=20, kl=0.4, reward=0.8),
        replace(POINT, run_id="dpo-beta2-s0", hparams={"beta": 2.0}, kl=0.1, reward=0.2),
    ]
    write_points(tmp_path / POINTS, points)
    return Folder(tmp_path)


def test_rows_by_cells_and_seed(tmp_path: Path) -> None:
    rows = [
        {"run": "small-a-s0", "kind": "own", "x": 1.5},
        {"run": "small-a-s3", "kind": "own", "x": 2.5},
        {"run": "large-s0", "kind": "own", "x": 9.0},
        {"run": "small-a-s0", "kind": "data", "x": 9.0},
    ]
    write_table(tmp_path / "t.csv", rows)
    folder = Folder(tmp_path)
    assert folder.by_seed("t.csv", "x", run="small-", kind="own") == {0: 1.5, 3: 2.5}
    assert folder.numbers("t.csv", "x", kind="data") == [9.0]
    with pytest.raises(Missing, match=r'nothing with {"kind": "none"}'):
        folder.rows("t.csv", kind="none")
    with pytest.raises(Missing, match="no such table"):
        folder.rows("u.csv")
    assert (seed_of("a-s12"), seed_of("sft")) == (12, 0)


def test_the_last_checkpoint_of_each_run(folder: Folder) -> None:
    assert folder.ends("kl", "dpo", beta=1.0) == {0: 1.0, 1: 0.4}
    with pytest.raises(Missing):
        folder.ends("kl", "dpo", beta=3.0)


def test_reward_at_a_kl_on_each_seeds_hull(folder: Folder) -> None:
    """Seed 0: from (0, 0) to (0.5, 1). Seed 1: (0.2, 0.1) lies below (0, 0) to (0.4, 0.8)."""
    assert folder.reward_at(0.25, 0.0, "dpo", beta=1.0) == pytest.approx({0: 0.5, 1: 0.5})
    assert folder.reward_at(0.75, 0.0, "dpo", beta=1.0) == pytest.approx({0: 1.1})
    with pytest.raises(NotReached):
        folder.reward_at(2.0, 0.0, "dpo", beta=1.0)


def test_a_measure_at_a_kl_on_the_line_through_checkpoints(folder: Folder) -> None:
    for run, logps in {"dpo-beta1-s0": (-12.0, -16.0), "dpo-beta1-s1": (-11.0, -13.0)}.items():
        seed = seed_of(run)
        kl = {0: (0.5, 1.0), 1: (0.2, 0.4)}[seed]
        tables = [
            PromptTable(
                objective="dpo", run_id=run, seed=seed, step=step, scores=scores(kl[i], logps[i])
            )
            for i, step in enumerate((10, 20))
        ]
        write_prompt_tables(table_of(folder.path, run), tables)
    found = folder.measure_at(0.25, -10.0, "chosen_logp", "dpo", beta=1.0)
    assert found == pytest.approx({0: -11.0, 1: -11.5})
    assert folder.measure_at(0.5, -10.0, "chosen_logp", "dpo", beta=1.0) == pytest.approx({0: -12})
    with pytest.raises(NotReached):  # nobody has measured it
        folder.measure_at(0.25, -10.0, "proxy_reward", "dpo", beta=1.0)


def scores(kl: float, logp: float) -> PromptScores:
    two = np.ones(2)
    return PromptScores(
        prompt_ids=("a", "b"), kl=kl * two, kl_k1=kl * two, reward=two, proxy_reward=None,
        length=two, n_samples=np.ones(2, dtype=np.int64), chosen_logp=logp * two,
        rejected_logp=logp * two,
    )  # fmt: skip


def test_differences_of_seeds_that_both_have() -> None:
    assert less({0: 1.0, 1: 5.0}, {1: 2.0, 2: 0.0}) == {1: 3.0}
    assert paired({0: 6.0}, {0: 3.0}, lambda a, b: a / b) == {0: 2.0}
    with pytest.raises(NotReached):
        less({0: 1.0}, {1: 1.0})
