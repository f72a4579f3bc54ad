"""Runs by folder, by name and by label; and what is left of them."""

from pathlib import Path

import pytest

from alignlab.errors import ConfigError
from alignlab.records.find import Run, find_run, job_in, runs_in
from alignlab.results.run_records import results_folders
from tests.records.conftest import lone, write_toy

RESULTS = [Path("results")]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("dpo-beta0.5-s0", None),
        ("dpo-beta0.5-s0, step 10", 10),
        ("results/toy/dpo-beta0.5-s0", None),
        ("results/toy/stages/dpo/beta0.5-s0", None),
        ("results/toy/stages/dpo/beta0.5-s0, step 20", 20),
    ],
)
def test_every_name_of_a_run_leads_to_it(toy: Path, text: str, step: int | None) -> None:
    assert find_run(text, RESULTS) == Run(toy, "dpo-beta0.5-s0", step)


def test_a_run_of_fit_has_its_results_in_its_own_folder(toy: Path) -> None:
    run = find_run(str(lone(Path("logs/lightning_logs/version_3"))), RESULTS)
    assert run == Run(Path("logs/lightning_logs/version_3"), "logs-version_3")
    (point,) = run.points  # from its evaluation, since it has no table yet
    assert (point.objective, point.seed, point.step, point.reward) == ("dpo", 1, 20, 2.0)
    assert run.scores(20) is not None
    assert run.origin["commands"] == ["alignlab fit --config a.yaml"]
    assert run.label == "logs/lightning_logs/version_3"


def test_a_job_of_no_frontier_is_known_by_its_config(toy: Path) -> None:
    run = find_run("sft", RESULTS)
    assert (run.points, run.config_sha, run.config) == ([], "abc123", {"call": "m.sft"})
    assert run.folder is None
    assert runs_in(toy)[-1] == "sft"


def test_what_a_run_read_is_in_its_config(toy: Path) -> None:
    own = Run(toy, "dpo-beta0.5-s1")
    assert own.inputs == [Run(toy, "sft"), Run(toy, "pairs-s1")]
    assert own.parent is None
    assert job_in("results/a/stages/sft/all") == Run(Path("results/a"), "sft")
    assert job_in("results/a/stages/cache") is None
    assert job_in("stages") is None


def test_names_that_are_wrong_or_not_enough_are_refused(toy: Path) -> None:
    with pytest.raises(ConfigError, match=r"dpo-beta0\.5-s3: no such run in results/toy\. Did you"):
        find_run("dpo-beta0.5-s3", RESULTS)
    with pytest.raises(
        ConfigError, match=r"results/toy: it holds 6 runs .*results/toy/dpo-beta0\.5"
    ):
        find_run("results/toy", RESULTS)
    write_toy(Path("results/other"))
    with pytest.raises(ConfigError, match=r"several .*: results/other/ppo-s0, results/toy/ppo-s0"):
        find_run("ppo-s0", RESULTS)
    with pytest.raises(ConfigError, match="expected the name"):
        find_run("", RESULTS)


def test_results_of_a_sweeps_jobs_are_found_too(toy: Path) -> None:
    write_toy(Path("results/sweep/job-0"))
    assert results_folders(RESULTS) == [toy, Path("results/sweep/job-0")]
    assert results_folders([toy]) == [toy]
