"""A results folder written by hand: four runs of DPO, one of PPO, and their tables."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignlab.files import stamp, write_record
from alignlab.plan.overlay import write_yaml
from alignlab.results.csv_tables import write_table
from alignlab.results.prompt_tables import PromptScores, PromptTable, write_prompt_tables
from alignlab.results.run_folder import Evaluation, RunFolder, SampleText
from alignlab.results.run_records import POINTS, table_of
from alignlab.results.tables import FrontierRow, Point, write_points, write_rows

IDS = ("p0", "p1", "p2", "p3")
RUNS: dict[str, tuple[str, int, float | None, list[float]]] = {  # objective, seed, beta, rewards
    "dpo-beta0.5-s0": ("dpo", 0, 0.5, [1.0, 2.0, 3.0, 2.0]),
    "dpo-beta0.5-s1": ("dpo", 1, 0.5, [1.0, 2.0, 3.0, 4.0]),
    "dpo-beta1-s0": ("dpo", 0, 1, [0.5, 1.5, 2.0, 2.0]),
    "dpo-beta1-s1": ("dpo", 1, 1, [0.5, 1.5, 2.5, 3.5]),
    "ppo-s0": ("ppo", 0, None, [0.0, 0.0, 0.0, 4.0]),
}


def table(run: str, step: int) -> PromptTable:
    """Results after ``step`` of 20: the reward grows with it, KL is a tenth of the step."""
    objective, seed, _, rewards = RUNS[run]
    reward = np.array(rewards) * step / 20
    scores = PromptScores(
        prompt_ids=IDS, kl=np.full(4, step / 10), kl_k1=np.full(4, step / 10), reward=reward,
        proxy_reward=None, length=np.full(4, 5.0), n_samples=np.full(4, 8),
    )  # fmt: skip
    return PromptTable(objective=objective, run_id=run, seed=seed, step=step, scores=scores)


def config(results: Path, run: str) -> dict[str, Any]:
    objective, seed, beta, _ = RUNS[run]
    own = {} if beta is None else {"beta": beta}
    name = {"dpo": "alignlab.objectives.dpo.DPO", "ppo": "alignlab.objectives.ppo.PPO"}[objective]
    adam = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.001}}
    given = {"policy": {"source": f"{results}/stages/sft/all"}, "optimizer": adam}
    pairs = {"source": f"{results}/stages/pairs/s{seed}/pairs.jsonl", "batch_size": 4}
    return {
        "model": {"class_path": name, "init_args": given | own},
        "data": {"class_path": "alignlab.data.modules.PreferenceData", "init_args": pairs},
        "trainer": {"max_steps": 20},
        "seed_everything": seed,
    }


def point(run: str, step: int) -> Point:
    beta = RUNS[run][2]
    return table(run, step).point(
        experiment="toy", hparams={} if beta is None else {"beta": beta},
        config_sha=f"sha-{run}", git_sha="1234567890abcdef", seconds=1.0,
    )  # fmt: skip


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``results/toy``, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return write_toy(Path("results/toy"))


def write_toy(folder: Path) -> Path:
    write_points(folder / POINTS, [point(run, step) for run in RUNS for step in (10, 20)])
    for run in RUNS:
        write_prompt_tables(table_of(folder, run), [table(run, step) for step in (10, 20)])
        path = folder / "configs" / f"{run}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# {run}, config_sha c\n{write_yaml(config(folder, run))}")
    (folder / "configs" / "sft.yaml").write_text(
        "# sft, config_sha abc123, sha256 d\ncall: m.sft\n"
    )
    (folder / "configs" / "commands.txt").write_text("alignlab run experiments/toy\n")
    rows = [
        FrontierRow(objective=name, kl_budget=1.0, reward=reward, reward_lo=reward - 0.11,
                    reward_hi=reward + 0.11, oracle_efficiency=0.9249, efficiency_lo=0.9,
                    efficiency_hi=0.95, n_seeds=2, n_prompts=4)
        for name, reward in (("dpo", 1.35), ("oracle", 1.5))
    ]  # fmt: skip
    write_rows(folder / "frontier.csv", FrontierRow, rows)
    write_rows(folder / "curves.csv", FrontierRow, rows)
    job = RunFolder(folder / "stages" / "dpo" / "beta0.5-s0")
    write_record(job.started_file, {"config_sha": "sha-dpo-beta0.5-s0", "git_sha": "fedcba"})
    evaluation = Evaluation(job.logs, 20)
    texts = [SampleText(f"p{i}", "A  film", f"is good{i}", 1.0 + i, None, 0.0, 3) for i in range(3)]
    evaluation.write_texts(texts)
    evaluation.scores.write_text("scores")
    evaluation.seal(1.0)
    write_table(
        folder / "samples.csv",
        [{"run": "ppo-s0, step 20", "kl": 2.0, "prompt": "A\nbook", "completion": "is long",
          "reward": 4.0}],
    )  # fmt: skip
    return folder


def lone(folder: Path) -> Path:
    """A run of ``alignlab fit`` with an evaluation, without any table."""
    folder.mkdir(parents=True)
    run = RunFolder(folder)
    run.config.write_text(write_yaml(config(folder, "dpo-beta1-s1")))
    write_record(run.origin_file, {"commands": ["alignlab fit --config a.yaml"], "git_sha": "abc"})
    evaluation = Evaluation(folder, 20)
    evaluation.write_texts([])
    from alignlab.results.prompt_tables import write_scores

    write_scores(evaluation.scores, table("dpo-beta1-s1", 20).scores)
    evaluation.seal(1.0)
    assert stamp(evaluation.scores)
    return folder
