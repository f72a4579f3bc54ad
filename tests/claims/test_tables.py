"""What rules read of a results folder, by hand."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignlab.claims.tables import (
    Folder,
    Missing,
    NotReached,
    OfStage,
    less,
    paired,
    seed_of,
)
from alignlab.errors import DataError
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


def test_one_row_of_each_seed(tmp_path: Path) -> None:
    rows = [{"model": f"rm{part}-s0", "x": 1.0} for part in ("", "_512", "-limit2")]
    write_table(tmp_path / "t.csv", rows)
    folder = Folder(tmp_path)
    assert folder.by_seed("t.csv", "x", name="model", run="rm-s") == {0: 1.0}
    with pytest.raises(DataError, match=r"several rows with .*rm"):
        folder.by_seed("t.csv", "x", name="model", run="rm")


def test_a_number_with_its_interval(tmp_path: Path) -> None:
    rows = [
        {"policy": "dpo-beta0.5", "at": 1.0, "rate": 0.4, "lo": 0.3, "hi": 0.5, "n_seeds": 3},
        {"policy": "dpo_nll", "at": 1.0, "rate": 0.1, "lo": 0.1, "hi": 0.1, "n_seeds": 3},
        {"policy": "ppo", "at": 0.5, "rate": 2.0, "lo": 1.0, "hi": "", "n_seeds": 2},
        {"policy": "ipo", "at": 0.5, "rate": "", "lo": "", "hi": "", "n_seeds": 0},
    ]
    write_table(tmp_path / "t.csv", rows, numbers=".6g")
    folder = Folder(tmp_path)
    assert folder.measured("t.csv", "rate", policy=OfStage("dpo"), at=1.0) == (0.4, 0.3, 0.5, 3)
    assert folder.measured("t.csv", "rate", policy="ppo") == (2.0, 1.0, math.inf, 2)
    with pytest.raises(NotReached):
        folder.measured("t.csv", "rate", policy="ipo")
    with pytest.raises(Missing):
        folder.measured("t.csv", "rate", policy=OfStage("dpo"), at=0.5)
    with pytest.raises(DataError, match="several rows"):
        folder.measured("t.csv", "rate", at=0.5)


def test_a_difference_in_either_order(tmp_path: Path) -> None:
    row = {"objective": "a", "other": "b", "difference": 0.3, "lo": 0.1, "hi": 0.6, "n_seeds": 4}
    write_table(tmp_path / "t.csv", [row])
    folder = Folder(tmp_path)
    assert folder.difference("t.csv", "a", "b") == (0.3, 0.1, 0.6, 4)
    assert folder.difference("t.csv", "b", "a") == (-0.3, -0.6, -0.1, 4)
    with pytest.raises(Missing):
        folder.difference("t.csv", "a", "c")


def test_the_largest_reward_within_a_kl(tmp_path: Path) -> None:
    """Seed 0: (0, 0), (0.5, 1), then down to (1, 0.4). Seed 1 ends at (0.2, 0.3)."""
    points = [
        POINT,
        replace(POINT, step=20, kl=1.0, reward=0.4),
        replace(POINT, run_id="dpo-s1", seed=1, kl=0.2, reward=0.3),
    ]
    write_points(tmp_path / POINTS, points)
    folder = Folder(tmp_path)
    assert folder.reward_within(0.25, 0.0, "dpo") == pytest.approx({0: 0.5, 1: 0.3})
    assert folder.reward_within(2.0, 0.0, "dpo") == pytest.approx({0: 1.0, 1: 0.3})
    assert folder.objectives() == {"dpo"}


def test_a_column_between_checkpoints_on_the_hull(tmp_path: Path) -> None:
    """The checkpoint below the hull does not count; before the first one nothing is known."""
    points = [
        replace(POINT, kl=0.5, reward=1.0, length=10.0),
        replace(POINT, step=20, kl=0.75, reward=0.5, length=90.0),
        replace(POINT, step=30, kl=1.0, reward=1.5, length=20.0),
        replace(POINT, run_id="dpo-s1", seed=1, kl=0.9, reward=1.0, length=50.0),
    ]
    write_points(tmp_path / POINTS, points)
    folder = Folder(tmp_path)
    assert folder.hull_at(0.75, 0.0, "length", math.nan, "dpo") == pytest.approx({0: 15.0})
    known = folder.hull_at(0.45, 0.0, "length", 5.0, "dpo")
    assert known == pytest.approx({0: 9.5, 1: 27.5})
    with pytest.raises(NotReached):
        folder.hull_at(0.25, 0.0, "length", math.nan, "dpo")


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
