"""The plan of an experiment as a whole."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import ConfigError
from alignlab.files import write_record
from alignlab.plan.experiment import Job, Plan, load_plan
from tests.plan.conftest import DPO, PIPELINE, SFT, TUNED, changed, decide, shas, tuned, write


def test_the_config_of_a_run_is_filled_in(experiment: Path) -> None:
    plan = load_plan(experiment, results=Path("out"))
    assert plan.resolved(plan.jobs["dpo-beta0.5-s1"]) == {
        "config": {
            "model": {
                "class_path": "m.DPO",
                "init_args": {"policy": "out/stages/sft/all", "beta": 0.5},
            },
            "seed_everything": 1,
        }
    }
    assert plan.resolved(plan.jobs["sft"])["config"]["seed_everything"] == 0
    assert plan.resolved(plan.jobs["world"]) == {"call": "m.world", "args": {"rows": 8}}


def test_what_a_scale_adds_comes_before_what_needs_it(experiment: Path) -> None:
    more = {"rows": {"call": "m.rows", "needs": ["lm"]}, "lm": {"call": "m.lm"}}
    changed = {"sft": {"needs": ["world", "rows"], "set": {"rows": "{rows}"}}}
    write(experiment, scales__small={"stages": changed | more})
    before = list(load_plan(experiment).stages)
    stages = list(load_plan(experiment, scale="small").stages)
    assert stages == ["world", "lm", "rows", *before[1:]]


def test_a_sweeps_runs_share_their_experiments_inputs_and_caches(experiment: Path) -> None:
    write(experiment, dpo=DPO | {"cache": "{results}/stages/cache", "own": "{out}"})
    plan = load_plan(experiment, results=Path("out"))
    sweep = replace(plan, results=Path("sweep"), inputs=plan.results)
    config = sweep.resolved(sweep.jobs["dpo-beta0.5-s1"])["config"]
    assert config["model"]["init_args"]["policy"] == "out/stages/sft/all"
    assert config["cache"] == "out/stages/cache"
    assert config["own"] == "sweep/stages/dpo/beta0.5-s1"


def test_hashes_do_not_depend_on_where_results_lie(experiment: Path) -> None:
    assert shas(load_plan(experiment)) == shas(load_plan(experiment, results=Path("/elsewhere")))


def test_the_run_that_a_config_was_forked_from_is_no_setting(experiment: Path) -> None:
    before = shas(load_plan(experiment))
    write(experiment, dpo=DPO | {"parent": {"run": "results/a/dpo", "config_sha": "c"}})
    plan = load_plan(experiment)
    assert shas(plan) == before
    assert plan.resolved(plan.jobs["dpo-beta0.5-s1"])["config"]["parent"]["config_sha"] == "c"


@pytest.mark.parametrize("seeds", [[0, 0], [-1], [], [2**32]])
def test_seeds_of_the_call_are_checked_too(experiment: Path, seeds: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"^--seeds: seeds(\.0)? must .*, got "):
        load_plan(experiment, seeds=seeds)


def test_seeds_of_the_call_win(experiment: Path) -> None:
    plan = load_plan(experiment, seeds=[5])
    assert [job.seed for job in plan.runs] == [5, 5]


def test_a_run_that_is_needed_by_name_is_there_whatever_seeds_are_asked_for(
    experiment: Path,
) -> None:
    seeded = {"call": "m.rm", "per_seed": True, "args": {"seed": "{seed}"}}
    stages = {
        "rm": seeded,
        "pool": {"call": "m.pool", "needs": ["rm-s0"], "args": {"proxy": "{rm-s0}"}},
        "ppo": {**seeded, "objective": "ppo", "needs": ["rm"]},
        "texts": {"call": "m.texts", "needs": ["ppo"], "args": {"policies": "{ppo}"}},
    }
    write(experiment, pipeline={"seeds": [0, 1], "stages": stages})
    plan = load_plan(experiment, seeds=[4])
    assert [job.name for job in plan.asked] == ["rm-s4", "pool", "ppo-s4", "texts"]
    assert [job.name for job in plan.runs] == ["ppo-s4"]
    assert plan.jobs["texts"].needs == {"ppo": ("ppo-s4",)}
    assert plan.jobs["pool"].needs == {"rm-s0": ("rm-s0",)}
    assert plan.jobs["pool"].config_sha == load_plan(experiment).jobs["pool"].config_sha


def test_the_frontier_names_what_it_reads(experiment: Path) -> None:
    content = PIPELINE | {"frontier": {"needs": ["world"], "args": {"reward_label": "gold"}}}
    plan = load_plan(write(experiment, pipeline=content))
    assert (plan.frontier, plan.frontier_needs) == ({"reward_label": "gold"}, ("world",))


def test_what_no_stage_uses_is_noted(experiment: Path) -> None:
    assert load_plan(experiment).notes == ()
    one: dict[str, Any] = {"call": "m.f"}
    write(experiment, pipeline={"stages": {"one": one}})
    assert load_plan(experiment).notes == ()
    assert load_plan(experiment, seeds=[1]).notes == (
        "'seeds' changes nothing: no stage has 'per_seed: true'",
    )
    given = {"seeds": [0], "set": {"a": 1}, "frontier": {"needs": ["one"]}, "stages": {"one": one}}
    write(experiment, pipeline=given)
    assert [note.split(" ")[0] for note in load_plan(experiment).notes] == [
        "'seeds'", "'set'", "'frontier'"
    ]  # fmt: skip
    stages = {"one": {**one, "per_seed": True}, "two": {**one, "per_seed": True, "needs": ["one"]}}
    write(experiment, pipeline={"seeds": [0, 1], "stages": stages})
    assert load_plan(experiment).notes == (
        "stage 'one' runs once for each seed but does not use {seed}",
    )


def test_the_results_are_named_by_their_stage_and_not_by_their_path(experiment: Path) -> None:
    stages = {"two": {"call": "m.f", "args": {"files": ["results/demo/stages/one/all/x.csv"]}}}
    write(experiment, pipeline={"stages": stages})
    with pytest.raises(ConfigError, match=r"stage 'two': results/demo/stages.* own results"):
        load_plan(experiment)
    assert load_plan(experiment, results=Path("elsewhere")).jobs


def test_the_frontier_needs_what_there_is(experiment: Path) -> None:
    write(experiment, pipeline={"stages": {}, "frontier": {"needs": ["x"]}})
    with pytest.raises(ConfigError, match="stage 'frontier' needs 'x'"):
        load_plan(experiment)


def test_a_scale_is_laid_over_and_smoke_over_that(experiment: Path) -> None:
    write(
        experiment,
        scales__small={
            "seeds": [7],
            "set": {"trainer.max_steps": 100},
            "stages": {
                "world": {"args": {"rows": 4, "more": True}},
                "dpo": {"set": {"trainer.max_steps": 50}, "grid": {"model.init_args.beta": [2]}},
            },
        },
        scales__smoke={"set": {"trainer.max_steps": 2}, "stages": {"sft": {"needs": []}}},
    )
    write(experiment, sft={"model": {"class_path": "m.SFT"}})
    small = load_plan(experiment, scale="small")
    assert small.results == Path("results/demo-small")
    assert list(small.jobs) == ["world", "sft", "dpo-beta2-s7"]
    assert small.jobs["world"].spec["args"] == {"rows": 4, "more": True}
    steps = {n: j.spec["config"]["trainer"] for n, j in small.jobs.items() if n != "world"}
    assert steps == {"sft": {"max_steps": 100}, "dpo-beta2-s7": {"max_steps": 50}}
    smoke = load_plan(experiment, scale="small", smoke=True)
    assert (smoke.name, smoke.results) == ("demo-small-smoke", Path("results/demo-small-smoke"))
    assert smoke.jobs["dpo-beta2-s7"].spec["config"]["trainer"] == {"max_steps": 2}
    assert smoke.jobs["sft"].needs == {}


def test_a_scale_can_drop_a_stage(experiment: Path) -> None:
    write(experiment, scales__bare={"stages": {"dpo": None}})
    assert list(load_plan(experiment, scale="bare").jobs) == ["world", "sft"]


def test_a_scale_can_bring_its_own_smoke(experiment: Path) -> None:
    write(
        experiment,
        scales__big={"stages": {"world": {"args": {"rows": 10**6}}}},
        scales__other={},
        scales__smoke={"stages": {"world": {"args": {"rows": 2}}}},
    )
    write(experiment / "scales", **{"big.smoke": {"stages": {"world": {"args": {"more": 1}}}}})
    args = {
        scale: load_plan(experiment, scale=scale, smoke=True).jobs["world"].spec["args"]
        for scale in ("big", "other")
    }
    assert args == {"big": {"rows": 2, "more": 1}, "other": {"rows": 2}}
    assert "more" not in load_plan(experiment, scale="big").jobs["world"].spec["args"]
    with pytest.raises(ConfigError, match=r"Known: big, other, smoke\."):
        load_plan(experiment, scale="huge")


def test_a_scale_can_extend_another(experiment: Path) -> None:
    write(
        experiment,
        scales__big={"stages": {"world": {"args": {"rows": 100, "words": 5}}}},
        scales__bigger={"extends": "big", "stages": {"world": {"args": {"rows": 1000}}}},
        scales__biggest={"extends": "bigger", "seeds": [4]},
        scales__smoke={"stages": {"world": {"args": {"rows": 2}}}},
    )
    write(experiment / "scales", **{"big.smoke": {"stages": {"world": {"args": {"words": 1}}}}})
    plan = load_plan(experiment, scale="biggest")
    assert plan.jobs["world"].spec["args"] == {"rows": 1000, "words": 5}
    assert (plan.name, plan.seeds) == ("demo-biggest", (4,))
    smoke = load_plan(experiment, scale="biggest", smoke=True).jobs["world"].spec["args"]
    assert smoke == {"rows": 2, "words": 1}


@pytest.mark.parametrize("extended", ["small", "other", "smoke", "../small"])
def test_scales_do_not_extend_each_other(experiment: Path, extended: str) -> None:
    write(
        experiment,
        scales__small={"extends": extended},
        scales__other={"extends": "small"},
        scales__smoke={},
    )
    with pytest.raises(ConfigError, match=r"small\.yaml: extends must name another scale"):
        load_plan(experiment, scale="small" if extended != "other" else "other")


def test_a_pipeline_extends_nothing(experiment: Path) -> None:
    write(experiment, scales__small={"extends": "big"})
    with pytest.raises(ConfigError, match=r"no scale 'big'\. Known: small"):
        load_plan(experiment, scale="small")
    write(experiment, pipeline={"extends": "small", "stages": {"world": {"call": "m.world"}}})
    with pytest.raises(ConfigError, match=r"pipeline\.yaml: 'extends' is for a scale"):
        load_plan(experiment)


def test_a_scale_can_make_a_stage_another_one(experiment: Path) -> None:
    write(
        experiment,
        scales__given={
            "stages": {
                "world": {"call": "m.other", "args": {"from": "x"}},
                "sft": {"call": "m.copy", "args": {"source": "{world}"}},
            }
        },
        scales__same={"stages": {"world": {"call": "m.world", "args": {"more": 1}}}},
    )
    given = load_plan(experiment, scale="given").jobs
    assert given["world"].spec == {"call": "m.other", "args": {"from": "x"}}
    assert given["sft"].spec == {"call": "m.copy", "args": {"source": "{world}"}}
    same = load_plan(experiment, scale="same").jobs
    assert same["world"].spec["args"] == {"rows": 8, "more": 1}


def test_an_unknown_scale_and_a_wrong_folder_are_told(experiment: Path, tmp_path: Path) -> None:
    write(experiment, scales__small={})
    with pytest.raises(ConfigError, match=r"no scale 'big'\. Known: small"):
        load_plan(experiment, scale="big")
    with pytest.raises(ConfigError, match=r"no pipeline.yaml there. Name an experiment folder"):
        load_plan(tmp_path)


@pytest.mark.parametrize("scale", ["", "../other", "a/b", "a.smoke", "smoke", "\0", "x y"])
def test_a_scale_is_a_name_and_no_path(experiment: Path, scale: str) -> None:
    write(experiment, other={"seeds": [3]}, scales__smoke={})
    with pytest.raises(ConfigError, match=r"scale"):
        load_plan(experiment, scale=scale)


@pytest.mark.parametrize("entry", [None, {"set": {"a": 1}}, {}])
def test_an_overlay_of_a_stage_that_is_not_there(experiment: Path, entry: Any) -> None:
    write(experiment, scales__small={"stages": {"dqo": entry}})
    with pytest.raises(
        ConfigError, match=r"small.yaml: stage 'dqo' is new and has neither 'fit' nor 'call'"
    ):
        load_plan(experiment, scale="small")


def test_the_frontiers_own_rows_are_no_objectives(experiment: Path) -> None:
    write(experiment, pipeline={"stages": {"one": {"call": "m.f", "objective": "oracle"}}})
    with pytest.raises(ConfigError, match="the frontier has a row 'oracle' of its own"):
        load_plan(experiment)


@pytest.mark.parametrize(
    ("name", "entry", "said"),
    [
        ("two", {"call": "m.f", "fit": "a.yaml"}, "stage 'two' needs exactly one of 'fit: st"),
        ("two", {"needs": ["one"]}, "'two' is new and has neither 'fit' nor 'call'. Add exactly"),
        ("two", None, "'two' is new and has neither 'fit' nor 'call'"),
        (
            "two",
            {"fit": "a.yaml", "args": {}},
            "'args' are for a call; a stage that trains takes 'set'",
        ),
        (
            "two",
            {"call": "m.f", "set": {"a": 1}},
            "'set' is for a stage that trains; a call takes 'args'",
        ),
        ("Bad-Name", {"call": "m.f"}, "lower-case letters"),
        ("out", {"call": "m.f"}, "lower-case letters"),
    ],
)
def test_a_stage_is_a_training_or_a_call(tmp_path: Path, name: str, entry: Any, said: str) -> None:
    folder = write(tmp_path / "demo", pipeline={"stages": {name: entry}})
    with pytest.raises(ConfigError) as caught:
        load_plan(folder)
    assert said in str(caught.value)


def test_stages_become_jobs_named_for_grid_point_and_seed(experiment: Path) -> None:
    plan = load_plan(experiment)
    assert list(plan.jobs) == [
        "world",
        "sft",
        "dpo-beta0.1-s0",
        "dpo-beta0.1-s1",
        "dpo-beta0.5-s0",
        "dpo-beta0.5-s1",
    ]
    job = plan.jobs["dpo-beta0.5-s1"]
    assert (job.seed, job.hparams, job.objective) == (1, {"beta": 0.5}, "dpo")
    assert plan.folder(job) == Path("results/demo/stages/dpo/beta0.5-s1")
    assert [run.name for run in plan.runs] == list(plan.jobs)[2:]


def test_a_change_reaches_what_is_downstream_and_nothing_else(experiment: Path) -> None:
    before = load_plan(experiment)
    dpo = {f"dpo-beta{beta}-s{seed}" for beta in (0.1, 0.5) for seed in (0, 1)}
    write(experiment, dpo=DPO | {"trainer": {"max_steps": 3}})
    assert changed(before, load_plan(experiment)) == dpo
    write(experiment, dpo=DPO, sft=SFT | {"trainer": {"max_steps": 3}})
    assert changed(before, load_plan(experiment)) == dpo | {"sft"}


def test_every_grid_point_and_seed_has_its_own_hash(experiment: Path) -> None:
    plan = load_plan(experiment)
    assert len(set(shas(plan).values())) == len(plan.jobs)


def test_each_seed_reads_its_own_upstream_and_others_read_all(experiment: Path) -> None:
    stages = {
        "rm": {"call": "m.rm", "per_seed": True, "args": {"seed": "{seed}"}},
        "ppo": {"call": "m.ppo", "per_seed": True, "needs": ["rm"], "args": {"rm": "{rm}"}},
        "texts": {"call": "m.texts", "needs": ["ppo"], "args": {"policies": "{ppo}"}},
    }
    plan = load_plan(write(experiment, pipeline={"seeds": [0, 1], "stages": stages}))
    assert plan.resolved(plan.jobs["rm-s1"])["args"] == {"seed": 1}
    assert plan.resolved(plan.jobs["ppo-s1"])["args"] == {"rm": "results/demo/stages/rm/s1"}
    folders = ["results/demo/stages/ppo/s0", "results/demo/stages/ppo/s1"]
    assert plan.resolved(plan.jobs["texts"])["args"] == {"policies": folders}
    assert plan.jobs["texts"].needs == {"ppo": ("ppo-s0", "ppo-s1")}


def test_a_single_run_can_be_needed(experiment: Path) -> None:
    pool = {
        "call": "m.pool",
        "needs": ["sft", "dpo-beta0.1-s1"],
        "args": {"proposals": {"dpo": "{dpo-beta0.1-s1}"}},
    }
    content = PIPELINE | {"stages": PIPELINE["stages"] | {"pool": pool}}
    plan = load_plan(write(experiment, pipeline=content))
    folder = "results/demo/stages/dpo/beta0.1-s1"
    assert plan.resolved(plan.jobs["pool"])["args"] == {"proposals": {"dpo": folder}}
    assert plan.jobs["pool"].needs["dpo-beta0.1-s1"] == ("dpo-beta0.1-s1",)


def test_a_grid_can_be_a_list_of_points(experiment: Path) -> None:
    grid = [{"a.kl_coef": 0.1, "a.lr": 1e-4}, {"a.kl_coef": 0.2, "a.lr": 2e-5}]
    stages = {"ppo": {"call": "m.ppo", "grid": grid}}
    plan = load_plan(write(experiment, pipeline={"stages": stages}))
    assert list(plan.jobs) == ["ppo-kl_coef0.1-lr0.0001", "ppo-kl_coef0.2-lr2e-05"]
    assert plan.jobs["ppo-kl_coef0.2-lr2e-05"].spec["args"] == {"a": {"kl_coef": 0.2, "lr": 2e-5}}


def test_keys_that_end_alike_are_written_out(experiment: Path) -> None:
    stages = {"x": {"call": "m.x", "grid": {"a.lr": [1], "b.lr": [2]}}}
    plan = load_plan(write(experiment, pipeline={"stages": stages}))
    assert list(plan.jobs) == ["x-a_lr1-b_lr2"]


def test_a_job_without_grid_and_seed_is_named_for_its_stage() -> None:
    job = Job("sft", "all", None, {}, None, {}, {}, "")
    assert (job.name, job.folder) == ("sft", "stages/sft/all")


def test_runs_are_counted_before_they_are_listed(experiment: Path) -> None:
    axes = {f"a{i}": list(range(10)) for i in range(30)}
    write(experiment, pipeline={"stages": {"sft": {"call": "m.f", "grid": axes}}})
    with pytest.raises(ConfigError, match=r"stage 'sft': grid points: 1(,000){10} of them"):
        load_plan(experiment)
    stage = {"call": "m.f", "per_seed": True, "grid": {"a": list(range(40))}}
    write(experiment, pipeline={"stages": {"sft": stage}})
    assert len(load_plan(experiment, seeds=range(50)).jobs) == 2000
    with pytest.raises(ConfigError, match="stage 'sft': runs: 2,040 of them"):
        load_plan(experiment, seeds=range(51))


def test_a_probe_has_the_hash_of_the_first_callback(tmp_path: Path) -> None:
    """So rows of runs whose stage named it in trainer.callbacks are up to date."""
    more = {"class_path": "m.More"}
    arguments = {"samples": 4, "reward": {"class_path": "m.R"}}
    probe = {"class_path": "alignlab.callbacks.probe.FrontierProbe", "init_args": arguments}

    def sha(**config: Any) -> str:
        write(tmp_path / "demo", pipeline={"stages": {"a": {"fit": "a.yaml"}}}, a=config)
        return load_plan(tmp_path / "demo").jobs["a"].config_sha

    for callbacks in ([], [more]):
        first = sha(trainer={"max_steps": 1, "callbacks": [probe, *callbacks]})
        others = {"callbacks": callbacks} if callbacks else {}
        assert sha(trainer={"max_steps": 1, **others}, probe=arguments) == first
        assert sha(trainer={"max_steps": 1, **others}, probe=probe) == first
        assert sha(trainer={"max_steps": 1, **others}, probe=arguments | {"samples": 5}) != first
    assert sha(probe=arguments, trainer={"callbacks": more}) == sha(
        trainer={"callbacks": [probe, more]}
    )
    assert sha(probe=None, trainer={"max_steps": 1}) == sha(trainer={"max_steps": 1})
    assert sha(probe=arguments) == sha(trainer={"callbacks": [probe]})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"fit": "gone.yaml"}, "gone.yaml: no such file"),
        ({"call": "m.f", "needs": ["three"]}, "needs 'three', which is neither an earlier stage"),
        ({"call": "m.f", "needs": ["two"]}, "needs 'two', which is neither an earlier stage"),
        ({"call": "m.f", "needs": ["one-s3"]}, "nor a run of one. Stages before it: one"),
        ({"call": "m.f", "args": {"x": "{one}"}}, "{one}, which is not defined. Add 'one'"),
        ({"call": "m.f", "args": {"x": "{seed}"}}, "give it 'per_seed: true'"),
        ({"call": "m.f", "grid": {"a": ["x/y", "x_y"]}}, "would both be run 'two-ax_y'"),
        ({"call": "m.f", "grid": {"a": ["x" * 300]}}, "more than the 200 that fit"),
    ],
    ids=str,
)
def test_what_no_job_can_be_made_of(tmp_path: Path, entry: Any, said: str) -> None:
    stages = {"one": {"call": "m.one"}, "two": entry}
    folder = write(tmp_path / "demo", pipeline={"stages": stages})
    with pytest.raises(ConfigError) as caught:
        load_plan(folder)
    assert said in str(caught.value)


def test_an_installed_experiment_is_used_where_there_is_no_folder(
    experiment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package, here = experiment.parent / "package", experiment.parent / "here"
    shutil.copytree(experiment, package / "experiments/one")
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("alignlab.plan.experiment.INSTALLED", package)
    plan = load_plan(Path("experiments/one"))
    assert plan.experiment == package / "experiments/one"
    assert plan.results == Path("results/one")
    said = f"experiments/one is not here; using {package / 'experiments/one'}.\n"
    assert capsys.readouterr().err == said
    shutil.copytree(experiment, "experiments/one")
    assert load_plan(Path("experiments/one")).experiment == Path("experiments/one")
    assert capsys.readouterr().err == ""
    with pytest.raises(ConfigError, match=r"other/one: no pipeline\.yaml there"):
        load_plan(Path("other/one"))


def test_a_tuned_stage_is_a_search_on_its_own_seed_and_a_run_a_budget_and_seed(
    experiment: Path,
) -> None:
    plan = tuned(experiment)
    runs = [f"dpo-best{budget}-s{seed}" for budget in (1, 2) for seed in (0, 1)]
    assert [job.name for job in plan.runs] == runs
    search, run = plan.jobs["dpo-tuning"], plan.jobs[runs[0]]
    assert search.needs["pairs"] == ("pairs-s7",)
    assert run.needs == {
        "world": ("world",),
        "sft": ("sft",),
        "pairs": ("pairs-s0",),
        "dpo-tuning": ("dpo-tuning",),
    }
    found, own = plan.resolved(search), plan.resolved(run)
    assert found["config"]["seed_everything"] == 7
    assert found["config"]["probe"]["prompts"].endswith("world/all/validation.jsonl")
    assert own["config"]["probe"]["prompts"].endswith("world/all/eval.jsonl")
    assert found["tune"]["pool"] == str(experiment / "out/stages/pool/all")
    assert (found["tune"]["trials"], found["tune"]["budgets"]) == (24, [1.0, 2.0])
    assert found["tune"]["space"].keys() == {"lr", "model.init_args.beta", "x"}
    assert "pairs-s7" not in [job.name for job in plan.asked]
    assert len({*shas(plan).values()}) == len(plan.jobs)


def test_a_run_has_the_settings_that_tuning_chose_and_only_of_the_present_search(
    experiment: Path,
) -> None:
    plan = tuned(experiment)
    job = plan.jobs["dpo-best2-s1"]
    assert (plan.hparams(job), plan.needless(job)) == ({}, False)
    decide(plan, 4, 5)
    assert plan.hparams(job) == {"beta": 0.7, "lr": 0.2, "x": 3}
    config = plan.resolved(job)["config"]
    assert (config["model"]["init_args"]["beta"], config["x"]) == (0.7, 3)
    assert not plan.needless(job)
    decide(plan, 4, 5, sha="of other trials")
    assert plan.hparams(job) == {}


@pytest.mark.parametrize(
    ("trials", "needless"),
    [((4, 5), [False, False]), ((4, 4), [False, True]), ((None, 4), [True, False]),
     ((None, None), [True, True])],
)  # fmt: skip
def test_equal_settings_are_trained_once_and_budgets_out_of_reach_not_at_all(
    experiment: Path, trials: tuple[int | None, int | None], needless: list[bool]
) -> None:
    plan = tuned(experiment)
    decide(plan, *trials)
    assert [plan.needless(plan.jobs[f"dpo-best{b}-s0"]) for b in (1, 2)] == needless


def test_other_stages_and_seeds_leave_a_tuned_stage_as_it_is(experiment: Path) -> None:
    before = shas(tuned(experiment))
    ipo = {**TUNED, "objective": "ipo", "needs": ["world", "sft"]}
    stages = tuned(experiment).stages
    more = {name: dict(stage.entry) for name, stage in stages.items()} | {"ipo": ipo}
    for name in ("sft", "dpo"):
        more[name]["set"] = (PIPELINE["stages"] | {"dpo": TUNED})[name].get("set")
    more["dpo"]["tune"] = TUNED["tune"]
    after = shas(tuned(experiment, stages=more, seeds=[0, 1, 2]))
    assert before.items() <= after.items()
    assert "ipo-best1-s2" in after


def test_a_scale_changes_the_tuning_of_all_stages(experiment: Path) -> None:
    tuned(experiment)
    small = {"tune": {"trials": 3, "space": {"lr": None}}, "stages": {"dpo": {"tune": {}}}}
    write(experiment, scales__small=small)
    plan = load_plan(experiment, scale="small")
    tune = plan.resolved(plan.jobs["dpo-tuning"])["tune"]
    assert (tune["trials"], tune["seed"]) == (3, 7)
    assert tune["space"].keys() == {"model.init_args.beta", "x"}


def test_a_scale_may_add_what_the_trials_read(experiment: Path) -> None:
    tuned(experiment)
    more = {"more": {"call": "m.f"}, "dpo": {"tune": {"needs": ["world", "pool", "more"]}}}
    write(experiment, scales__more={"stages": dict(reversed(more.items()))})
    plan = load_plan(experiment, scale="more")
    assert plan.jobs["dpo-tuning"].needs["more"] == ("more",)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grid": {"lr": [1]}}, r"stage 'dpo' has both 'grid' and 'tune'\. Keep one of them"),
        ({"per_seed": False}, r"stage 'dpo' has 'tune' and lacks per_seed\. Add it"),
        ({"objective": None}, r"lacks objective\. Add it"),
        ({"tune": {"pool": ""}}, r"tune\.pool must be text in one line"),
        ({"tune": {"seed": 1}}, r"stage 'dpo': tune\.seed 1 is also a seed of the runs"),
        ({"tune": {"budgets": [1, 1.0]}}, r"tune\.budgets must hold each budget once"),
        ({"tune": {"budgets": [0]}}, r"tune\.budgets\.0 must be greater than 0"),
        ({"tune": {"trials": 0}}, r"tune\.trials must be greater than 0"),
        ({"tune": {"steps": 3}}, r"unknown key stages\.dpo\.tune\.steps"),
        ({"tune": {"needs": ["nothing"]}}, r"stage 'dpo' needs 'nothing', which is neither"),
        ({"tune": {"fixed": {"results": "other"}}}, r"tune\.fixed\.free is missing"),
        (
            {"tune": {"fixed": {"results": "other", "free": ["x"]}}},
            r"stage 'dpo': tune\.fixed with free keys takes settings at one KL only",
        ),
        (
            {"tune": {"budgets": [1], "fixed": {"results": "other", "free": ["x", "lt"]}}},
            r"tune\.fixed\.free has lt, not in the space: lr, model\.init_args\.beta, x",
        ),
    ],
)
def test_tuning_that_cannot_be_is_refused(
    experiment: Path, changes: dict[str, Any], said: str
) -> None:
    tuned(experiment)
    write(experiment, scales__other={"stages": {"dpo": changes}})
    with pytest.raises(ConfigError, match=said):
        load_plan(experiment, scale="other")


def test_no_stage_reads_runs_of_which_only_tuning_knows_whether_there_are_any(
    experiment: Path,
) -> None:
    tuned(experiment)
    write(experiment, scales__other={"stages": {"texts": {"call": "m.f", "needs": ["dpo"]}}})
    with pytest.raises(ConfigError, match=r"'texts' needs 'dpo', whose settings are found by tri"):
        load_plan(experiment, scale="other")


def test_a_scale_keeps_the_stages_that_it_names_and_what_they_need(experiment: Path) -> None:
    stages = {
        "held_out": {"call": "m.f"},
        "pool": {"call": "m.g", "needs": ["pairs-s0"]},
        "pairs": {"call": "m.pairs", "needs": ["world"], "per_seed": True},
        "ipo": PIPELINE["stages"]["dpo"] | {"objective": "ipo"},
    }
    write(experiment, scales__one={"stages": stages, "only": ["ipo"]})
    assert list(load_plan(experiment, scale="one").stages) == ["world", "sft", "ipo"]
    drawn = {"stages": stages, "only": ["ipo"], "frontier": {"needs": ["pool"]}}
    write(experiment, scales__one=drawn)
    kept = ["world", "sft", "ipo", "pairs", "pool"]
    assert list(load_plan(experiment, scale="one").stages) == kept
    write(experiment, scales__one={"only": ["dqo"]})
    with pytest.raises(ConfigError, match=r"only: there is no stage 'dqo'\. Stages: world, sft, d"):
        load_plan(experiment, scale="one")


FOUND = {"model.init_args.beta": 0.7, "lr": 0.2, "x": 3}


def fixed(experiment: Path, *free: str, settings: Any = FOUND, budget: float = 2.0) -> Plan:
    """The tuned experiment with settings that the trials of another folder found."""
    other = experiment / "other"
    chosen = [{"budget": 1.0, "settings": {}}, {"budget": budget, "settings": settings}]
    write_record(other / "tuning" / "dpo.json", {"chosen": chosen})
    tuned(experiment)
    scale = {"tune": {"budgets": [2], "fixed": {"results": str(other), "free": list(free)}}}
    write(experiment, scales__again=scale)
    return load_plan(experiment, scale="again", results=experiment / "out")


def test_trials_find_what_is_free_and_take_the_rest_from_another_folder(experiment: Path) -> None:
    plan = fixed(experiment, "lr")
    search, run = plan.jobs["dpo-tuning"], plan.jobs["dpo-best2-s1"]
    tune = plan.resolved(search)["tune"]
    assert (tune["space"].keys(), tune["first"]) == ({"lr"}, {"lr": 0.2})
    for job in (search, run):
        config = plan.resolved(job)["config"]
        assert (config["model"]["init_args"]["beta"], config["x"]) == (0.7, 3)
        assert "lr" not in config
    assert plan.hparams(run) == {"beta": 0.7, "x": 3}
    assert plan.notes == (f"stage 'dpo' takes from {experiment / 'other'}: beta 0.7, x 3",)
    other = fixed(experiment, "lr", settings={**FOUND, "x": 4})
    assert changed(plan, other) == {"dpo-tuning", "dpo-best2-s0", "dpo-best2-s1"}


def test_where_nothing_is_free_there_are_runs_and_no_trials(experiment: Path) -> None:
    plan = fixed(experiment)
    run = plan.jobs["dpo-s1"]
    assert [job.name for job in plan.jobs.values() if job.stage == "dpo"] == ["dpo-s0", run.name]
    config = plan.resolved(run)["config"]
    assert (config["model"]["init_args"]["beta"], config["x"], config["lr"]) == (0.7, 3, 0.2)
    assert config["seed_everything"] == 1
    assert plan.hparams(run) == {"beta": 0.7, "lr": 0.2, "x": 3}
    assert run.needs["pairs"] == ("pairs-s1",)


def test_settings_of_several_budgets_are_runs_each_and_none_twice(experiment: Path) -> None:
    plan = fixed(experiment)
    other = {"model.init_args.beta": 0.5, "lr": 0.1, "x": 3}
    near = {"model.init_args.beta": 1.5, "lr": 0.1, "x": 3}
    found = [near, FOUND, FOUND, other]
    chosen = [
        {"budget": b, "settings": s} for b, s in zip((0.5, 1.0, 2.0, 3.0), found, strict=True)
    ]
    write_record(experiment / "other" / "tuning" / "dpo.json", {"chosen": chosen})
    taken = {"results": str(experiment / "other"), "free": [], "budgets": [1, 2, 3]}
    write(experiment, scales__again={"tune": {"budgets": [9], "fixed": taken}})
    plan = load_plan(experiment, scale="again", results=experiment / "out")
    names = ["dpo-best1-s0", "dpo-best1-s1", "dpo-best3-s0", "dpo-best3-s1"]
    assert [job.name for job in plan.jobs.values() if job.stage == "dpo"] == names
    assert [plan.hparams(plan.jobs[name])["beta"] for name in names] == [0.7, 0.7, 0.5, 0.5]
    assert [plan.resolved(plan.jobs[name])["config"]["lr"] for name in names[1:3]] == [0.2, 0.1]
    assert [note.partition(":")[2] for note in plan.notes] == [
        " lr 0.2, beta 0.7, x 3", " lr 0.1, beta 0.5, x 3"
    ]  # fmt: skip


def test_trials_may_start_from_the_settings_at_another_budget(experiment: Path) -> None:
    fixed(experiment)
    taken = {"results": str(experiment / "other"), "free": ["lr"], "budgets": [2.0]}
    write(experiment, scales__again={"tune": {"budgets": [1], "fixed": taken}})
    plan = load_plan(experiment, scale="again", results=experiment / "out")
    tune = plan.resolved(plan.jobs["dpo-tuning"])["tune"]
    assert (tune["budgets"], tune["first"]) == ([1.0], {"lr": 0.2})
    assert plan.hparams(plan.jobs["dpo-best1-s0"]) == {"beta": 0.7, "x": 3}


@pytest.mark.parametrize("free", [(), ("lr",)])
@pytest.mark.parametrize(
    "wrong", [{"settings": None}, {"settings": {"lr": 0.2, "x": 3}}, {"budget": 3.0}]
)
def test_settings_that_are_not_there_are_told_before_anything_runs(
    experiment: Path, free: tuple[str, ...], wrong: dict[str, Any]
) -> None:
    plan = fixed(experiment, *free, **wrong)
    for job in [job for job in plan.jobs.values() if job.stage == "dpo"]:
        with pytest.raises(
            ConfigError, match=r"dpo\.json has no settings for KL 2\. Run its trials"
        ):
            plan.to_check(job)
    plan.to_check(plan.jobs["sft"])
