"""Results folders that cannot be read, or not together."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from alignlab.errors import DataError
from alignlab.report.command import frontier_command
from alignlab.results.prompt_tables import read_prompt_tables, write_prompt_tables
from alignlab.results.tables import read_points, write_points
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


def test_without_its_pool_a_folder_says_what_makes_it_and_whether_it_is_drawn(
    tmp_path: Path,
) -> None:
    write_results(tmp_path, World(8, 10, seed=0), "dpo", (0,))
    frontier_command([tmp_path])
    break_pool(tmp_path)
    with pytest.raises(DataError, match=r"alignlab run EXPERIMENT --results .* is in .*\.csv\."):
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
    with pytest.raises(DataError, match="'dpo-s0', step 10, of objective 'dpo' is also in"):
        frontier_command([tmp_path / "a", tmp_path / "same"])
    write_results(tmp_path / "scaled", world, "ppo", (0,), reward_shift=0.5)
    with pytest.raises(DataError, match=r"reference's reward differs from that .* by 0\.5 "):
        frontier_command([tmp_path / "a", tmp_path / "scaled"])
    write_results(tmp_path / "other", World(17, 20, seed=1), "ppo", (0,))
    with pytest.raises(DataError, match="its prompts are not those of"):
        frontier_command([tmp_path / "a", tmp_path / "other"])
