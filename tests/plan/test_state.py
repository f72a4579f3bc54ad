"""What is left to do of a small experiment whose jobs are marked as done by hand."""

from pathlib import Path

import pytest

from alignlab.errors import ConfigError
from alignlab.files import DONE, stamp, write_record
from alignlab.plan import state
from alignlab.plan.experiment import Plan, load_plan
from alignlab.results.run_records import table_of
from alignlab.results.tables import Point, write_points
from tests.plan.conftest import decide, tuned

RUNS = ["dpo-beta0.1-s0", "dpo-beta0.1-s1", "dpo-beta0.5-s0", "dpo-beta0.5-s1"]


@pytest.fixture
def plan(experiment: Path, tmp_path: Path) -> Plan:
    return load_plan(experiment, results=tmp_path / "results")


def finish(plan: Plan, *names: str) -> None:
    for name in names:
        folder = plan.folder(plan.jobs[name])
        folder.mkdir(parents=True)
        (folder / "rows").write_text("output")
        (folder / "log").write_text("steps")
        stamps = {each: {each: stamp(folder / each)} for each in ("rows", "log")}
        table = table_of(plan.results, name)
        table.parent.mkdir(exist_ok=True)
        table.touch()
        content = {"config_sha": plan.jobs[name].config_sha, "table": stamp(table)}
        write_record(folder / DONE, {**content, "files": stamps["rows"], "logs": stamps["log"]})


def record(plan: Plan, *names: str, sha: str | None = None) -> None:
    """Rows and an empty per-prompt table, as of a clone without weights."""
    points = [
        Point(
            experiment="demo", objective="dpo", run_id=name, seed=0, step=1, hparams={}, kl=0.5,
            kl_se=0.1, kl_k1=0.5, kl_k1_se=0.1, reward=1.0, reward_se=0.1, proxy_reward=None,
            length=3.0, n_prompts=1, n_samples=1, git_sha="g", seconds=1.0,
            config_sha=sha or plan.jobs[name].config_sha,
        )
        for name in names
    ]  # fmt: skip
    write_points(plan.results / state.POINTS, points)
    for name in names:
        table_of(plan.results, name).parent.mkdir(exist_ok=True)
        table_of(plan.results, name).touch()


def left(plan: Plan, **how: object) -> list[str]:
    return [job.name for job in state.what_to_do(plan, **how).jobs]  # type: ignore[arg-type]


def test_everything_is_to_do_at_first_inputs_before_what_reads_them(plan: Plan) -> None:
    assert left(plan) == ["world", "sft", *RUNS]
    assert left(plan, only="sft") == ["world", "sft"]
    assert state.missing(plan, ["sft"])[0] == [plan.jobs["world"], plan.jobs["sft"]]


def test_what_is_done_is_not_repeated_unless_forced(plan: Plan) -> None:
    finish(plan, "world", "sft", RUNS[0])
    assert state.is_done(plan, plan.jobs["sft"])
    assert "sft" not in left(plan)
    assert left(plan) == RUNS[1:]
    assert [job.name for job in state.what_to_do(plan).unmerged] == RUNS[:1]
    assert left(plan, only="sft") == []
    assert left(plan, only="sft", force=True) == ["sft"]


def test_output_of_another_config_does_not_count(plan: Plan, experiment: Path) -> None:
    finish(plan, "world", "sft")
    (experiment / "sft.yaml").write_text(
        "model: {class_path: m.Other}\ndata: {source: '{world}'}\n"
    )
    changed = load_plan(experiment, results=plan.results)
    assert left(changed, only="sft") == ["sft"]


def test_changed_output_is_made_again_and_reported(plan: Plan) -> None:
    finish(plan, "world", "sft")
    (plan.folder(plan.jobs["sft"]) / "rows").write_text("damage")  # as long as before
    todo = state.what_to_do(plan)
    assert [job.name for job in todo.jobs] == ["sft", *RUNS]
    assert todo.damaged == ["sft: rows is not what was written; it is made again"]


def test_rows_in_the_table_stand_for_a_run_without_weights(plan: Plan) -> None:
    record(plan, *RUNS)
    assert left(plan) == []
    table_of(plan.results, RUNS[2]).unlink()
    assert left(plan) == ["world", "sft", RUNS[2]]


def test_rows_of_another_config_do_not(plan: Plan) -> None:
    record(plan, *RUNS, sha="other")
    assert left(plan) == ["world", "sft", *RUNS]


def test_the_frontier_depends_on_all_of_a_row_but_its_seconds(plan: Plan) -> None:
    record(plan, *RUNS)
    before = state.frontier_sha(plan)
    text = (plan.results / state.POINTS).read_text()
    (plan.results / state.POINTS).write_text(text.replace(",1\n", ",2\n"))
    assert state.frontier_sha(plan) == before
    (plan.results / state.POINTS).write_text(text.replace("0.5", "0.6", 1))
    assert state.frontier_sha(plan) != before
    assert not state.frontier_is_drawn(plan)


def test_a_stage_that_does_not_exist_is_named(plan: Plan) -> None:
    with pytest.raises(ConfigError, match=r"^no stage 'ppo'. Stages: world, sft, dpo, "):
        state.what_to_do(plan, only="ppo")


def test_settings_that_were_found_are_kept_without_the_trials_folder(experiment: Path) -> None:
    plan = tuned(experiment)
    finals = [job.name for job in plan.runs]
    upstream = ["world", "sft", "pairs-s0", "pairs-s1", "pairs-s7", "pool", "dpo-tuning"]
    assert set(left(plan)) == {*upstream, *finals}
    table = plan.results / "tuning" / "dpo.csv"
    table.parent.mkdir(parents=True)
    table.write_text("trial\n0\n")
    decide(plan, 4, 4, files={"dpo.csv": stamp(table)})
    assert left(plan) == ["world", "sft", "pairs-s0", "pairs-s1", *finals[:2]]
    record(plan, *finals[:2])
    assert left(plan) == []
    assert left(plan, only="dpo") == []
    table.write_text("trial\n1\n")  # as long as before
    assert left(plan) == []  # nothing that is to be done reads it
    table_of(plan.results, finals[1]).unlink()
    todo = state.what_to_do(plan)
    assert "dpo-tuning" in [job.name for job in todo.jobs]
    assert "dpo-tuning: dpo.csv is not what was written; it is made again" in todo.damaged
