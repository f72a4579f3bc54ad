"""Results folders that cannot be read, or not together."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from alignlab.errors import ConfigError, DataError
from alignlab.report.command import frontier_command
from alignlab.report.look import Look
from alignlab.report.read import read_results
from alignlab.results.prompt_tables import read_prompt_tables, write_prompt_tables
from alignlab.results.tables import (
    BUDGETS,
    FrontierRow,
    read_frontier,
    read_points,
    write_points,
    write_rows,
)
from tests.evaluation.worlds import World
from tests.report.test_command import light_figures, write_results

__all__ = ["light_figures"]  # a fixture
pytestmark = pytest.mark.usefixtures("light_figures")


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


def test_without_its_pool_a_folder_says_what_makes_it(tmp_path: Path) -> None:
    write_results(tmp_path, World(8, 10, seed=0), "dpo", (0,))
    break_pool(tmp_path)
    with pytest.raises(DataError, match=r"alignlab run EXPERIMENT --results [^ ]*\.$"):
        frontier_command([tmp_path])
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "commands.txt").write_text("alignlab sweep a.yaml --results here\n")
    with pytest.raises(DataError, match=r"and draws: alignlab sweep a\.yaml --results here\.$"):
        frontier_command([tmp_path])


def test_without_its_pool_a_folder_is_drawn_again_from_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path, World(8, 10, seed=0), "dpo", (0, 1))
    frontier_command([tmp_path])
    tables = {path: path.read_bytes() for path in tmp_path.glob("*.csv")}
    said = capsys.readouterr().out
    break_pool(tmp_path)
    (tmp_path / "frontier.png").unlink()
    frontier_command([tmp_path], None, Look(arms=("dpo",), budgets=(0.25,)))
    assert {path: path.read_bytes() for path in tmp_path.glob("*.csv")} == tables
    assert (tmp_path / "frontier.png").exists()
    short = capsys.readouterr().out
    assert "has no pool.parquet: drawn again from curves.csv" in short
    cell = next(line.split()[1] for line in said.splitlines() if line.startswith("dpo "))
    assert f"dpo        {cell}\n" in short
    with pytest.raises(ConfigError, match=r"nothing was computed at KL 0\.7\. There are: 0\."):
        frontier_command([tmp_path], None, Look(budgets=(0.7,)))
    with pytest.raises(ConfigError, match=r"--arms: no objective ppo"):
        frontier_command([tmp_path], None, Look(arms=("ppo",)))


def fewer_seeds(folder: Path) -> None:
    points = read_points(folder / "points.csv")
    write_points(folder / "points.csv", [point for point in points if point.seed == 0])


def another_objective(folder: Path) -> None:
    rows = read_frontier(folder / "curves.csv")
    others = [replace(row, objective=row.objective.replace("dpo", "ipo")) for row in rows]
    write_rows(folder / "curves.csv", FrontierRow, others)


@pytest.mark.parametrize("change", [fewer_seeds, another_objective])
def test_tables_that_were_drawn_from_other_points_are_not_used(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    write_results(tmp_path, World(8, 10, seed=0), "dpo", (0, 1))
    frontier_command([tmp_path])
    break_pool(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=r"What was drawn from other points is in .*frontier\.csv"):
        frontier_command([tmp_path])


def test_a_budget_of_its_own_is_computed_and_kept_with_the_curves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_results(tmp_path, World(8, 10, seed=0), "dpo", (0, 1))
    frontier_command([tmp_path], None, Look(budgets=(0.123,)))
    assert "KL budget           0.123\n" in capsys.readouterr().out
    assert 0.123 in {row.kl_budget for row in read_frontier(tmp_path / "curves.csv")}
    assert {row.kl_budget for row in read_frontier(tmp_path / "frontier.csv")} == {*BUDGETS}


def test_a_pool_of_prompts_that_no_run_was_evaluated_on_is_left_out(tmp_path: Path) -> None:
    world = World(16, 20, seed=1)
    write_results(tmp_path / "a", world, "dpo", (0,))
    alone = read_results([tmp_path / "a"])
    assert alone.pool is not None
    first = tmp_path / "a" / "stages" / "first_pool" / "all" / "pool.parquet"
    first.parent.mkdir(parents=True)
    renamed = {name: f"validation-{name}" for name in alone.pool.prompt_ids}
    other = replace(alone.pool, prompt_ids=tuple(renamed.values()))
    other.save(first)
    found = read_results([tmp_path / "a"])
    assert found.pool is not None
    assert found.pool.prompt_ids == alone.pool.prompt_ids


def test_folders_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    world = World(16, 20, seed=1)
    write_results(tmp_path / "a", world, "dpo", (0,))
    write_results(tmp_path / "same", world, "dpo", (0,))
    with pytest.raises(DataError, match="'dpo-s0', step 10, of objective 'dpo' is also in"):
        frontier_command([tmp_path / "a", tmp_path / "same"])
    write_results(tmp_path / "scaled", world, "ppo", (0,), reward_shift=0.5)
    with pytest.raises(DataError, match=r"reference's reward differs from that .* by 0\.5 "):
        frontier_command([tmp_path / "a", tmp_path / "scaled"])
    write_results(tmp_path / "other", World(17, 20, seed=1), "ppo", (0,))
    with pytest.raises(DataError, match="its prompts are not those of"):
        frontier_command([tmp_path / "a", tmp_path / "other"])
