"""``alignlab frontier`` on results folders made from a world whose optimum is known."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignlab.report import command as commands
from alignlab.report.command import add_arguments, frontier_command
from alignlab.results.pool import Pool
from alignlab.results.prompt_tables import write_prompt_tables
from alignlab.results.tables import BUDGETS, read_frontier, write_points
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
    objectives = ["dpo", "best_of_n", "best_of_n_gt", "oracle_proxy", "oracle", "dual_bound"]
    objectives.append("reference")
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
    assert "Share of the optimum's gain at KL 0.5: " in said
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


ROOT = Path(__file__).parents[2]
DRAWN = sorted(
    path.parent.name
    for path in (ROOT / "results").glob("*/points.csv")
    if not (path.parent / "stages").exists()  # a run of this machine's
)
FAST = "quickstart-reference"  # one of them is enough for every day


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == FAST else pytest.mark.slow) for n in DRAWN]
)
def test_a_committed_folder_is_drawn_again_to_the_same_tables(name: str, tmp_path: Path) -> None:
    committed = ROOT / "results" / name
    frontier_command([committed], tmp_path / "new")
    made = {path.name for path in (tmp_path / "new").iterdir()}
    assert made >= {"frontier.png", "frontier.svg", "frontier.pdf", "report.html"}
    tables = [path for path in (tmp_path / "new").glob("*.csv") if (committed / path.name).exists()]
    assert {path.name for path in tables} >= {"frontier.csv", "curves.csv"}
    for path in tables:
        assert path.read_bytes() == (committed / path.name).read_bytes(), path.name
