"""Trials of a stage: what they are worth, which is chosen, and that kills change neither."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from alignlab.errors import ConfigError, DataError
from alignlab.files import read_record
from alignlab.pipeline import tuning
from alignlab.pipeline.messages import Reporter, Trained
from alignlab.results.csv_tables import read_table
from alignlab.results.pool import POOL_NAME, Pool
from alignlab.results.prompt_tables import PromptScores, write_scores
from alignlab.results.run_folder import Evaluation
from alignlab.results.tables import read_points
from tests.sweep.training import LR, write_stage

BETA, STEPS = "model.init_args.beta", "model.init_args.schedule.warmup_steps"
SPACE = {BETA: {"float": [0.1, 10.0], "log": True}, STEPS: {"int": [0, 60]}}
LOG3 = float(np.log(3))
# At beta 1 the optimum of rewards 0 and log 3 has weights 1/4 and 3/4, at beta 1/2 1/10 and 9/10.
KL_1 = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
KL_2 = 0.9 * np.log(1.8) + 0.1 * np.log(0.2)


def pool_of(prompts: int = 2) -> Pool:
    rewards = np.tile([0.0, LOG3], (prompts, 64))
    nothing = np.zeros_like(rewards)
    return Pool(
        prompt_ids=tuple(f"p{i}" for i in range(prompts)),
        rewards=rewards,
        proxy=None,
        proposals=("reference",),
        proposal=np.zeros(128, dtype=np.int64),
        log_ref=nothing,
        log_mixture=nothing,
    )


# At beta 0.3 the weight of the better answer is 3^(1 / 0.3) / (1 + 3^(1 / 0.3)).
BEST = 3 ** (1 / 0.3) / (1 + 3 ** (1 / 0.3))
KL_3 = BEST * np.log(2 * BEST) + (1 - BEST) * np.log(2 * (1 - BEST))


def test_a_trials_shares_are_its_own_hull_over_the_optimum_and_level_beyond_it() -> None:
    """Gains of the optimum: 3/4 - 1/2 = 1/4 and 9/10 - 1/2 = 2/5, in units of log 3.

    The hull of the reference, (0.05, 0.1) and (0.55, 0.3) is above the point in the middle.
    """
    assert KL_3 > 0.55  # beyond all evaluations
    bench = tuning.Bench(pool_of(), [float(KL_1), float(KL_2), float(KL_3)])
    points = [[1, 0.05, 0.6 * LOG3], [2, 0.3, 0.1], [3, 0.55, 0.8 * LOG3]]
    gain_1 = 0.1 + 0.2 * (KL_1 - 0.05) / 0.5
    gain_2 = 0.1 + 0.2 * (KL_2 - 0.05) / 0.5
    shares = [gain_1 / 0.25, gain_2 / 0.4, 0.3 / (BEST - 0.5)]
    assert bench.shares(points) == pytest.approx(shares, rel=1e-6)
    assert bench.shares([*points, [4, 0.56, 0.1]]) == pytest.approx(shares, rel=1e-6)
    assert bench.shares([]) == [0.0, 0.0, 0.0]
    assert bench.shares([[1, 0.4, 0.3]]) == [0.0, 0.0, 0.0]  # worse than the reference


def test_a_pool_that_does_not_carry_to_a_budget_is_refused() -> None:
    with pytest.raises(DataError, match=r"^tune: .* too few samples .* optimum at KL 0\.8\. Draw"):
        tuning.Bench(pool_of(), [0.1, 0.8])
    rare = replace(pool_of(), rewards=np.tile([0.0] * 127 + [5.0], (2, 1)))
    with pytest.raises(DataError, match=r"too few samples to estimate the optimum at KL 3\. Draw"):
        tuning.Bench(rare, [3.0])  # nearly all of its weight is on one sample


def trial(kl: float, *shares: float) -> dict[str, Any]:
    settings = {BETA: kl}
    return {"settings": settings, "shares": list(shares), "evaluations": [[9, kl, 0.0]]}


def test_each_budget_has_the_trial_that_is_highest_there_among_those_that_reach_it() -> None:
    bench = tuning.Bench(pool_of(), [0.1, 0.2, 0.6])
    trials = [trial(0.3, 0.7, 0.8, 0.0), trial(0.1, 0.9, 0.0, 0.0), trial(0.4, 0.7, -0.1, 0.0)]
    chosen = tuning.choose([*trials, trial(0.5, 0.9, 0.8, 0.0)], bench)
    assert [each["trial"] for each in chosen] == [1, 0, None]
    assert [each["share"] for each in chosen] == [0.9, 0.8, None]
    assert [each["settings"] for each in chosen] == [{BETA: 0.1}, {BETA: 0.3}, None]
    only = tuning.choose([trial(0.4, -0.5, -0.1, 0.0), trial(0.1, 0.9, 0.0, 0.0)], bench)
    assert only[1]["trial"] == 0  # worse than nothing, and the only one that was there


def asked(*values: Callable[[dict[str, Any]], float], seed: int = 3) -> list[dict[str, Any]]:
    space, found = tuning.space_in({"space": SPACE}), []
    search = tuning.Search(space, 12 * len(values), seed, goals=len(values))
    for _ in range(12 * len(values)):
        found.append(search.ask())
        search.tell([value(found[-1]) for value in values])
    return found


def test_a_third_is_spread_and_the_rest_goes_by_the_values_and_the_seed_alone() -> None:
    first = asked(lambda settings: settings[BETA])
    assert asked(lambda settings: settings[BETA]) == first
    other = asked(lambda settings: -settings[BETA])
    assert [a == b for a, b in zip(first, other, strict=True)] == [True] * 4 + [False] * 8
    assert asked(lambda settings: settings[BETA], seed=4)[0] != first[0]
    assert np.mean([s[BETA] for s in first[4:]]) > 2 * np.mean([s[BETA] for s in other[4:]])
    assert all(float(f"{s[BETA]:.3g}") == s[BETA] for s in first)
    assert {type(s[STEPS]) for s in first} == {int}


def test_each_goal_has_its_turn_and_hears_of_all_trials() -> None:
    """One goal is a large beta, the other a beta near 1; only 8 of 24 trials are spread.

    Of trials at random the means would be 2.1 and 1.15.
    """
    both = asked(lambda s: s[BETA], lambda s: -abs(np.log(s[BETA])))
    large, near = both[8::2], both[9::2]
    assert np.mean([s[BETA] for s in large]) > 4
    assert np.mean([abs(np.log(s[BETA])) for s in near]) < 0.8
    alike = asked(lambda s: s[BETA], lambda s: s[BETA])
    assert alike[:9] == both[:9]  # the second goal has not been asked yet
    assert alike[9] != both[9]


def test_a_search_may_begin_with_settings_that_are_known() -> None:
    known = {BETA: 2.34, STEPS: 7}
    search = tuning.Search(tuning.space_in({"space": SPACE}), 12, 3, goals=1, first=known)
    first = []
    for _ in range(5):
        first.append(search.ask())
        search.tell([1.0])
    assert first == [known, *asked(lambda settings: 1.0)[:4]]


def test_the_order_of_keys_in_a_file_changes_nothing() -> None:
    turned = dict(reversed(SPACE.items()))
    assert tuning.space_in({"space": turned}) == tuning.space_in({"space": SPACE})


class Told(Reporter):
    """Keeps what it hears."""

    def __init__(self) -> None:
        super().__init__(None)
        self.lines: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, step: int, total: int) -> None:
        self.steps.append((step, total))


class Study:
    """A tuning job whose runs are made up: KL is 0.2 / beta, reward grows with its root."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.record = tmp_path / "stages", tmp_path / "tuning" / "dpo.json"
        self.trained: list[float] = []
        self.killed_in: int | None = None
        self.folder.mkdir()
        pool_of().save(tmp_path / POOL_NAME)
        monkeypatch.setattr(tuning, "train", self._train)
        tune: dict[str, Any] = {
            "trials": 6,
            "seed": 1,
            "pool": str(tmp_path),
            "budgets": [0.05, 0.1, 0.6],
        }
        tune["space"] = SPACE
        spec = {"config": {"model": {}}, "tune": tune}
        self.tune = tune
        self.job: dict[str, Any] = {"name": "dpo-tuning", "config_sha": "c", "spec": spec}
        self.job |= {"record": str(self.record)}
        self.told = Told()
        self.prompts: tuple[str, ...] = ("p0", "p1")

    def run(self) -> Trained:
        return tuning.tune(self.job, self.folder, self.told)

    def rows(self) -> list[dict[str, str]]:
        rows = read_table(self.record.with_suffix(".csv"))
        return [{name: cell for name, cell in row.items() if "seconds" not in name} for row in rows]

    def _train(self, job: Mapping[str, Any], folder: Path, reporter: Reporter) -> Trained:
        beta = job["spec"]["config"]["model"]["init_args"]["beta"]
        if len(self.trained) == self.killed_in:
            (folder / "half").mkdir(parents=True)
            raise KeyboardInterrupt
        self.trained.append(beta)
        reporter.progress(5, 10)
        (folder / "weights").mkdir(parents=True)
        if beta > 5:
            raise FloatingPointError("diverged")
        kl = np.full(len(self.prompts), 0.2 / beta)
        scores = PromptScores(
            prompt_ids=self.prompts,
            kl=kl,
            kl_k1=kl,
            reward=0.5 * LOG3 + 0.2 * np.sqrt(kl),
            proxy_reward=None,
            length=kl,
            n_samples=np.ones(len(self.prompts), dtype=np.int64),
        )
        evaluation = Evaluation(folder / "train", 10)
        evaluation.write_texts([])
        write_scores(evaluation.scores, scores)
        evaluation.seal(1.0)
        return Trained(2.0, {}, None)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    return Study(tmp_path, monkeypatch)


def test_trials_leave_a_table_a_record_and_no_weights(study: Study) -> None:
    assert study.run().seconds == pytest.approx(2.0 * sum(b <= 5 for b in study.trained), abs=0.1)
    rows = study.rows()
    assert [json.loads(row["settings"])["beta"] for row in rows] == study.trained
    assert [row["state"] == "diverged" for row in rows] == [b > 5 for b in study.trained]
    assert {row["value"] for row in rows if row["state"] == "diverged"} == {"0.000000"}
    assert any(b > 5 for b in study.trained)
    record = read_record(study.record)
    assert record is not None
    best = max((n for n, b in enumerate(study.trained) if 0.2 / b >= 0.05 and b <= 5), key=lambda
               n: float(rows[n]["share_0.05"]))  # fmt: skip
    assert record["chosen"][0]["trial"] == best
    assert rows[best]["chosen_for"].split(" ")[0] == "0.05"
    assert sorted(path.name for path in study.folder.iterdir()) == [
        f"trial-{n:02d}.json" for n in range(6)
    ]
    assert study.told.steps == [(10 * n + 5, 60) for n in range(6)]
    assert len(study.told.lines) == 3
    assert study.told.lines[0].startswith(f"dpo-tuning: KL 0.05: trial {best} has 0.")


def test_killed_anywhere_it_ends_with_the_same_trials_and_repeats_none(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.run()
    whole = study.rows(), study.trained, study.record.read_text()
    (tmp_path / "again").mkdir()
    again = Study(tmp_path / "again", monkeypatch)
    for killed_in in (2, 5):
        again.killed_in = killed_in
        with pytest.raises(KeyboardInterrupt):
            again.run()
        assert not again.record.exists()
        assert all(row["chosen_for"] == "" for row in again.rows())
        if killed_in == 2:  # between a trial's record and the removal of its weights
            (again.folder / "trial-01" / "weights").mkdir(parents=True)
    again.killed_in = None
    again.run()
    chosen = read_record(again.record), read_record(study.record)
    assert (again.rows(), again.trained) == whole[:2]
    assert chosen[0] is not None
    assert chosen[1] is not None
    assert chosen[0]["chosen"] == chosen[1]["chosen"]
    assert not [path for path in again.folder.iterdir() if path.is_dir()]


def test_recorded_trials_of_other_settings_are_refused(study: Study) -> None:
    study.run()
    study.tune["seed"] = 2
    with pytest.raises(ConfigError, match=r"trial-00\.json: the trial had .* Delete .* to begin"):
        study.run()


def test_evaluations_on_other_prompts_than_the_pools_are_refused(study: Study) -> None:
    study.prompts = ("p0", "p1", "p2")
    with pytest.raises(DataError, match=r"evaluated on 3 prompts, which are not the 2 of the pool"):
        study.run()


@pytest.fixture
def demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Callable[..., Any]
) -> dict[str, Any]:
    """The tuning of a model of a few thousand weights, as the content of ``pipeline.yaml``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    stage = write_stage(tmp_path, build(dtype="float32"))
    stage["tune"] = {"space": {LR: {"float": [0.001, 0.05], "log": True}}}
    pool = {
        "reference": str(tmp_path / "reference"),
        "prompts": str(tmp_path / "prompts.jsonl"),
        "reward": {"class_path": "tests.sweep.training.Without"},
        "samples": 512,
        "max_new_tokens": 4,
        "seed": 0,
    }
    return {
        "seeds": [0, 1],
        "tune": {"trials": 5, "needs": ["pool"], "pool": "{pool}", "budgets": [0.001, 0.002, 0.05]},
        "stages": {
            "pool": {"call": "alignlab.stages.pool_sampling.draw_pool", "args": pool},
            "sft": stage,
        },
        "frontier": {"needs": ["pool"]},
    }


def call(content: Mapping[str, Any], *words: str) -> "subprocess.Popen[bytes]":
    Path("demo/pipeline.yaml").write_text(yaml.safe_dump(dict(content), sort_keys=False))
    command = [sys.executable, "-m", "alignlab.cli", "run", "demo", "--workers", "1", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def outcome(results: Path) -> tuple[Any, ...]:
    """All of a study that does not tell the time."""
    table = read_table(results / "tuning" / "sft.csv")
    trials = [{name: cell for name, cell in row.items() if "seconds" not in name} for row in table]
    points = read_points(results / "points.csv")
    return trials, [(p.run_id, p.step, p.hparams, p.kl, p.reward, p.config_sha) for p in points]


@pytest.mark.slow
def test_a_study_that_is_killed_ends_as_one_that_is_not(demo: dict[str, Any]) -> None:
    whole = call(demo, "--results", "whole")
    _, said = whole.communicate(timeout=400)
    assert whole.returncode == 0, said.decode()
    expected = outcome(Path("whole"))
    for seconds in (9.0, 11.0, 12.0):
        killed = call(demo, "--results", "killed")
        time.sleep(seconds)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    last = call(demo, "--results", "killed")
    _, said = last.communicate(timeout=400)
    assert last.returncode == 0, said.decode()
    assert outcome(Path("killed")) == expected
    again = call(demo, "--results", "killed")
    assert b"Nothing to do" in again.communicate(timeout=60)[1]
