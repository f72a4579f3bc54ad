"""``alignlab frontier --base``: what is tested, own optima, costs, and the same bytes again."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from alignlab.errors import ConfigError
from alignlab.evaluation.oracle import optimum_at_kl
from alignlab.report import command as commands
from alignlab.report.command import frontier_command
from alignlab.report.look import Look
from alignlab.report.study import (
    against_grid,
    against_sentences,
    cost_rows,
    own_rows,
    settings_of,
    text_rows,
)
from alignlab.results.csv_tables import read_table, write_table
from alignlab.results.prompt_tables import PromptScores, PromptTable
from alignlab.results.tables import Against, FrontierRow, OwnOptimum, Point
from tests.evaluation.worlds import World
from tests.report.test_command import write_results

RULE = {"class_path": "rewards.Rule"}
STUDY = ("against.csv", "own_optima.csv", "texts.csv", "costs.csv", "shares.png", "shares.pdf")


def config(name: str, trainer: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    probe = {"class_path": "FrontierProbe", "init_args": {"reward": RULE}}
    return {
        "model": {"class_path": f"alignlab.objectives.x.{name}", "init_args": settings},
        "trainer": {"callbacks": [probe], **(trainer or {})},
    }


def point(objective: str, seed: int, step: int, kl: float, reward: float, length: float) -> Point:
    return Point(
        experiment="toy", objective=objective, run_id=f"{objective}-s{seed}", seed=seed, step=step,
        hparams={}, kl=kl, kl_se=0.0, kl_k1=kl, kl_k1_se=0.0, reward=reward, reward_se=0.0,
        proxy_reward=None, length=length, n_prompts=4, n_samples=16, config_sha="c", git_sha="g",
        seconds=float(step),
    )  # fmt: skip


def row(objective: str, share: float, half: float = 0.05, budget: float = 1.0) -> FrontierRow:
    return FrontierRow(
        objective=objective, kl_budget=budget, reward=4 * share, oracle_reward=4.0,
        oracle_efficiency=share, efficiency_lo=share - half, efficiency_hi=share + half, n_seeds=5,
    )  # fmt: skip


def test_a_reward_is_gold_if_the_probe_has_it_too() -> None:
    learned = {"class_path": "alignlab.rewards.model.ModelReward", "init_args": {"path": "rm"}}
    assert settings_of(config("DPO", beta=2.0)) == ("DPO", {"beta": 2.0})
    assert settings_of(config("PPO", reward=RULE)) == ("PPO", {"reward": "gold"})
    assert settings_of(config("PPO", reward=learned)) == ("PPO", {"reward": "learned"})
    ranked = {"class_path": "rewards.BestOfN", "init_args": {"n": 4, "reward": learned}}
    assert settings_of(config("RLOO", reward=ranked)) == ("RLOO", {"reward": "learned", "n": 4})
    other = settings_of(config("PPO", reward={"class_path": "rewards.Other"}))
    assert other == ("PPO", {"reward": "rewards.Other"})


def frontier_of(world: World, budget: float) -> list[FrontierRow]:
    """Reference, optimum and two objectives that keep 0.9 of its gain."""
    best, start = optimum_at_kl(world.exact_pool(), budget), (world.ref * world.reward).sum(1)
    assert best is not None
    shared: dict[str, Any] = {"kl_budget": budget, "oracle_reward": float(best.reward.mean())}
    return [
        FrontierRow(objective="reference", reward=float(start.mean()), **shared),
        *(FrontierRow(objective=name, oracle_efficiency=0.9, **shared) for name in ("dpo", "cdpo")),
        FrontierRow(objective="kto", **shared),
    ]


def test_own_optima_are_shares_of_the_same_gain() -> None:
    world = World(4, 2000, seed=3, levels=12)
    runs = {
        "dpo": [config("DPO", beta=1.0), config("DPO", beta=2.0)],
        "cdpo": [config("DPO", label_smoothing=0.3), config("DPO", label_smoothing=0.1)],
        "kto": [config("KTO")],
    }
    rows = own_rows(world.exact_pool(), frontier_of(world, 0.7), runs)
    found = {row.objective: row for row in rows}
    assert found["dpo"].share == pytest.approx(1.0, abs=1e-5)
    assert found["dpo"].kept == pytest.approx(0.9, abs=1e-5)
    (less,) = own_rows(
        world.exact_pool(), frontier_of(world, 0.7), {"cdpo": runs["cdpo"][:1]}
    )  # the further smoothing alone
    assert less.share is not None
    assert found["cdpo"].share is not None
    assert less.share < found["cdpo"].share - 1e-6 < 1.0
    assert found["cdpo"].kept == pytest.approx(0.9 / found["cdpo"].share)
    assert found["kto"].share is None
    assert "more often than not" in found["kto"].why
    (nothing,) = own_rows(world.exact_pool(), frontier_of(world, 0.7), {"dpo": []})
    assert nothing.why == "no config of its runs was kept"


def table(
    seed: int, step: int, kl: float, reward: float, length: float, **more: Any
) -> PromptTable:
    shared = {"kl": kl, "kl_k1": kl, "reward": reward, "length": length, **more}
    measures: dict[str, Any] = {name: np.array([v - 1.0, v + 1.0]) for name, v in shared.items()}
    scores = PromptScores(
        prompt_ids=("a", "b"), n_samples=np.array([4, 4]), **{"proxy_reward": None, **measures}
    )
    return PromptTable(objective="dpo", run_id=f"dpo-s{seed}", seed=seed, step=step, scores=scores)


def test_texts_lie_on_the_hull_between_checkpoints() -> None:
    """Seed 0 goes from 8 to 12 tokens, past a point below the hull; seed 1 stays at 20."""
    tables = [
        table(0, 1, 0.5, 1.0, 8.0, entropy=6.0, chosen_logp=-9.0, rejected_logp=-9.5),
        table(0, 2, 1.0, 0.0, 99.0, entropy=0.0, chosen_logp=0.0, rejected_logp=0.0),
        table(0, 3, 1.5, 2.0, 12.0, entropy=4.0, chosen_logp=-8.0, rejected_logp=-12.5),
        table(1, 1, 0.8, 1.0, 20.0, entropy=7.0),
        table(1, 2, 1.2, 1.5, 20.0, entropy=3.0),
    ]
    rows = text_rows(tables, [0.25, 0.5, 1.0, 2.0])
    assert [(row.kl_budget, row.n_seeds) for row in rows] == [(0.5, 1), (1.0, 2)]
    first, second = rows
    assert (first.length, first.entropy) == pytest.approx((8.0, 6.0))
    assert (first.chosen_logp, first.rejected_logp) == pytest.approx((-9.0, -9.5))
    assert (second.length, second.entropy) == pytest.approx((15.0, 5.0))
    assert (second.chosen_logp, second.rejected_logp) == (None, None)  # not of every seed


def test_costs_by_hand(tmp_path: Path) -> None:
    """10 steps of 4 completions over 2 inner epochs: 20 prompts, in phases of 8: 24; twice each."""
    points = [point("rloo", s, step, 1.0, 1.0, 5.0) for s in (0, 1) for step in (5, 10)]
    points.append(point("dpo", 0, 30, 1.0, 1.0, 5.0))
    data = {"rollout_size": 8, "batch_size": 4, "inner_epochs": 2, "samples_per_prompt": 2}
    drawing = {**config("RLOO", {"max_steps": 10}), "data": {"init_args": data}}
    trials = [
        {"trial": i, "value": v, "seconds": 3.0, "cpu_seconds": 2.0 + i}
        for i, v in enumerate((0.5, 0.9, 0.82, 0.0))
    ]
    write_table(tmp_path / "tuning" / "rloo.csv", trials)
    dpo, rloo = cost_rows(points, {"rloo": [drawing], "dpo": [config("DPO")]}, [tmp_path])
    assert (rloo.runs, rloo.seconds, rloo.generated_tokens) == (2, 10.0, 48 * 5.0)
    assert (rloo.trials, rloo.trial_seconds, rloo.cpu_seconds) == (4, 12.0, 3.5)
    assert (rloo.best, rloo.worst, rloo.near_best) == (0.9, 0.0, 0.5)  # 0.82 >= 0.81
    assert rloo.median == pytest.approx(0.66)
    assert (dpo.seconds, dpo.generated_tokens, dpo.trials, dpo.best) == (30.0, 0.0, 0, None)


ROWS = [row("dpo", 0.9), row("kto", 0.7), row("ppo", 0.95), row("oracle", 1.0, 0.0)]
TESTS = [
    Against(objective="kto", base="dpo", kl_budget=1.0, difference=-0.2, lo=-0.25, hi=-0.15,
            p=0.0001, p_holm=0.0002, n_seeds=5),
    Against(objective="ppo", base="dpo", kl_budget=1.0, difference=0.05, lo=-0.01, hi=0.11,
            p=0.08, p_holm=0.08, seeds_needed=12, n_seeds=5),
    Against(objective="ppo", base="dpo", kl_budget=2.0, difference=0.5, lo=0.4, hi=0.6),
]  # fmt: skip
OWN = [OwnOptimum(objective="dpo", kl_budget=1.0, share=1.0, kept=0.9)]


def test_the_main_table() -> None:
    table = against_grid("dpo", ROWS, TESTS, OWN, Look(names={"ppo": "PPO"}))
    assert table.labels == ["PPO", "dpo", "kto"]
    assert table.cells == [
        ["0.950±0.050", "-", "-", "0.050±0.060", "0.080", "0.080", "12"],
        ["0.900±0.050", "1.000", "0.900", "-", "-", "-", "-"],
        ["0.700±0.050", "-", "-", "-0.200±0.050", "<0.001", "<0.001", "-"],
    ]
    assert table.bold == {(2, 3)}


def test_the_sentences_say_what_is_resolved() -> None:
    assert against_sentences(TESTS).splitlines() == [
        "Above dpo: none.",
        "Below dpo: kto.",
        "Not resolved from dpo: ppo.",
        "Tested at KL 1 only: 2 objectives, Holm's correction, 5 %. Other budgets in against.csv "
        "are descriptive.",
    ]
    assert "nothing is tested" in against_sentences(TESTS[2:])


def write_study_folder(folder: Path) -> None:
    """Two objectives, three seeds, configs and a pool that all own optima can be read from."""
    world = World(32, 30, seed=0)
    for name in ("dpo", "robust"):
        write_results(folder / name, world, name, (0, 1, 2))
    shutil.copytree(folder / "dpo" / "points", folder / "points")
    shutil.copytree(folder / "robust" / "points", folder / "points", dirs_exist_ok=True)
    shutil.copytree(folder / "dpo" / "stages", folder / "stages")
    lines = [(folder / name / "points.csv").read_text().splitlines() for name in ("dpo", "robust")]
    (folder / "points.csv").write_text("\n".join([*lines[0], *lines[1][1:]]) + "\n")
    (folder / "configs").mkdir()
    for name in ("dpo", "robust"):
        shutil.rmtree(folder / name)
        text = yaml.safe_dump(config("DPO"))
        (folder / "configs" / f"{name}-s0.yaml").write_text(text)


def test_two_calls_and_a_folder_without_its_pool_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "CURVE_POINTS", 4)
    monkeypatch.setattr("alignlab.report.figure.draw_frontier", lambda *_, **__: [])
    monkeypatch.setattr("alignlab.report.page.write_page", lambda *_: None)
    write_study_folder(tmp_path)

    def made() -> dict[str, bytes]:
        frontier_command([tmp_path], base="dpo")
        return {name: (tmp_path / name).read_bytes() for name in STUDY}

    once = made()
    said = capsys.readouterr().out
    assert "robust" in said.partition("at KL 1")[2]
    assert "Tested at KL 1 only: 1 objectives" in said
    aims = {(r["objective"], r["kl_budget"]): r for r in read_table(tmp_path / "own_optima.csv")}
    assert float(aims["dpo", "1"]["share"]) == pytest.approx(1.0, abs=1e-3)
    tests = read_table(tmp_path / "against.csv")
    assert [bool(test["p"]) for test in tests] == [test["kl_budget"] == "1" for test in tests]
    assert made() == once
    shutil.rmtree(tmp_path / "stages")
    assert made() == once
    with pytest.raises(ConfigError, match="the tables compare with dpo, not robust"):
        frontier_command([tmp_path], base="robust")
    with pytest.raises(ConfigError, match=r"no runs of 'ppo'\. There are: dpo, robust"):
        frontier_command([tmp_path], base="ppo")
