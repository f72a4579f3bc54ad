"""``alignlab frontier`` on results folders made from a world whose optimum is known."""

import argparse
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignlab.errors import DataError
from alignlab.report import command as commands
from alignlab.report.command import add_arguments, frontier_command
from alignlab.results.pool import Pool
from alignlab.results.prompt_tables import read_prompt_tables, write_prompt_tables
from alignlab.results.tables import BUDGETS, read_frontier, read_points, write_points
from tests.evaluation.worlds import World

pytestmark = pytest.mark.usefixtures("light_figures")


@pytest.fixture
def light_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer curve points: the lines need not be smooth here."""
    monkeypatch.setattr(commands, "CURVE_POINTS", 4)


def write_results(
    folder: Path, world: World, objective: str, seeds: tuple[int, ...], *, reward_shift: float = 0.0
) -> None:
    rng = np.random.default_rng(len(objective))
    points = []
    for seed in seeds:
        tables = [
            world.table(
                world.tilted(beta, world.reward + 0.2 * rng.normal(size=world.reward.shape)),
                objective=objective,
                run_id=f"{objective}-s{seed}",
                seed=seed,
                step=10 * step,
                samples=16,
                rng=rng,
            )
            for step, beta in enumerate((3.0, 1.0, 0.5), start=1)
        ]
        write_prompt_tables(folder / "points" / f"{objective}-s{seed}.parquet", tables)
        points += [
            table.point(experiment="toy", hparams={}, config_sha="c", git_sha="g", seconds=1.0)
            for table in tables
        ]
    write_points(folder / "points.csv", points)
    pool = world.pool(2000, 0)
    pool = replace(pool, rewards=pool.rewards + reward_shift, proxy=pool.rewards)
    pool.save(folder / "stages" / "pool" / "all" / "pool.parquet")


def test_one_folder_gets_its_table_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(32, 30, seed=0)
    write_results(tmp_path, world, "dpo", (0, 1, 2))
    frontier_command([tmp_path])
    rows = read_frontier(tmp_path / "frontier.csv")
    objectives = ["dpo", "best_of_n", "best_of_n_gt", "oracle", "reference"]
    assert [(r.objective, r.kl_budget) for r in rows] == [
        (name, budget) for name in objectives for budget in BUDGETS
    ]
    exact, _ = world.optimum_at(0.5)
    oracle = next(r for r in rows if (r.objective, r.kl_budget) == ("oracle", 0.5))
    assert oracle.reward == pytest.approx(exact, abs=0.03)
    found = next(r for r in rows if (r.objective, r.kl_budget) == ("dpo", 0.5))
    assert found.n_seeds == 3
    assert found.oracle_efficiency is not None
    assert 0.8 < found.oracle_efficiency < 1.05
    assert len(read_frontier(tmp_path / "curves.csv")) > len(rows)
    said = capsys.readouterr().out
    assert "toy: 9 checkpoints, 32 prompts" in said
    assert "At KL 0.5, of the gain that is possible: " in said
    names = ("frontier.csv", "curves.csv", "frontier.png", "frontier.svg")
    once = {name: (tmp_path / name).read_bytes() for name in names}
    frontier_command([tmp_path])
    assert {name: (tmp_path / name).read_bytes() for name in names} == once


def test_several_folders_are_merged(tmp_path: Path) -> None:
    world = World(16, 20, seed=1)
    write_results(tmp_path / "a", world, "dpo", (0, 1))
    write_results(tmp_path / "b", world, "ppo", (0,))
    frontier_command([tmp_path / "a", tmp_path / "b"])
    rows = read_frontier(tmp_path / "frontier" / "frontier.csv")
    assert {"dpo", "ppo"} < {row.objective for row in rows}
    assert not (tmp_path / "a" / "frontier.csv").exists()


def break_pool(folder: Path) -> None:
    shutil.rmtree(folder / "stages")


def break_points(folder: Path) -> None:
    (folder / "points.csv").unlink()


def break_table(folder: Path) -> None:
    (folder / "points" / "dpo-s0.parquet").unlink()


def break_step(folder: Path) -> None:
    path = folder / "points" / "dpo-s0.parquet"
    write_prompt_tables(path, read_prompt_tables(path)[:2])


def break_mean(folder: Path) -> None:
    points = read_points(folder / "points.csv")
    write_points(folder / "points.csv", [replace(points[0], reward=9.0), *points[1:]])


def break_all(folder: Path) -> None:
    write_points(folder / "points.csv", [])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (break_pool, r"no pool\.parquet there or below stages/"),
        (break_points, r"points\.csv: no such table"),
        (break_table, r"dpo-s0\.parquet: no such table"),
        (break_step, r"dpo-s0\.parquet: no rows of step 30\. Run 'dpo-s0' again"),
        (break_mean, r"step 10 has mean KL .* and reward .*, points\.csv says .* and 9\."),
        (break_all, r"points\.csv has no row"),
    ],
)
def test_a_broken_folder_is_one_message(
    tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    write_results(tmp_path, World(8, 10, seed=0), "dpo", (0,))
    harm(tmp_path)
    with pytest.raises(DataError, match=message):
        frontier_command([tmp_path])
    assert not (tmp_path / "frontier.csv").exists()


def test_without_its_pool_a_folder_says_what_makes_it_and_whether_it_is_drawn(
    tmp_path: Path,
) -> None:
    write_results(tmp_path, World(8, 10, seed=0), "dpo", (0,))
    frontier_command([tmp_path])
    break_pool(tmp_path)
    with pytest.raises(
        DataError, match=r"alignlab run EXPERIMENT --results .* stands in .*\.csv\."
    ):
        frontier_command([tmp_path])
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "commands.txt").write_text("alignlab sweep a.yaml --results here\n")
    (tmp_path / "frontier.csv").unlink()
    with pytest.raises(DataError, match=r"and draws: alignlab sweep a\.yaml --results here\.$"):
        frontier_command([tmp_path])


def test_folders_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    world = World(16, 20, seed=1)
    write_results(tmp_path / "a", world, "dpo", (0,))
    write_results(tmp_path / "same", world, "dpo", (0,))
    with pytest.raises(DataError, match="'dpo-s0', step 10, of objective 'dpo' also stands in"):
        frontier_command([tmp_path / "a", tmp_path / "same"])
    write_results(tmp_path / "scaled", world, "ppo", (0,), reward_shift=0.5)
    with pytest.raises(DataError, match=r"reference's reward differs from that .* by 0\.5 "):
        frontier_command([tmp_path / "a", tmp_path / "scaled"])
    write_results(tmp_path / "other", World(17, 20, seed=1), "ppo", (0,))
    with pytest.raises(DataError, match="its prompts are not those of"):
        frontier_command([tmp_path / "a", tmp_path / "other"])


def test_an_impossible_efficiency_fails_after_writing_what_is_possible(tmp_path: Path) -> None:
    world = World(16, 20, seed=1)
    write_results(tmp_path, world, "dpo", (0,))
    path = tmp_path / "stages" / "pool" / "all" / "pool.parquet"
    pool = Pool.load(path)
    replace(pool, rewards=pool.rewards * 0.2).save(path)  # another scale than the runs'
    with pytest.raises(ArithmeticError, match=r"impossible efficiency: dpo at KL 0\.25 has"):
        frontier_command([tmp_path])
    row = read_frontier(tmp_path / "frontier.csv")[0]
    assert row.reward is not None
    assert row.oracle_efficiency is None


def test_the_commands_arguments(tmp_path: Path) -> None:
    write_results(tmp_path / "a", World(8, 10, seed=0), "dpo", (0,))
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args([str(tmp_path / "a"), "--out", str(tmp_path / "out")])
    assert commands.run(args) == 0
    assert (tmp_path / "out" / "frontier.svg").exists()
