from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignlab.errors import ConfigError
from alignlab.plan import content as content_module
from alignlab.plan.experiment import Job, Plan, load_plan

PIPELINE: dict[str, Any] = {
    "seeds": [0, 1],
    "stages": {
        "world": {"call": "m.world", "args": {"rows": 8}},
        "sft": {"fit": "sft.yaml", "needs": ["world"]},
        "dpo": {
            "fit": "dpo.yaml",
            "objective": "dpo",
            "needs": ["sft"],
            "per_seed": True,
            "grid": {"model.init_args.beta": [0.1, 0.5]},
        },
    },
}
SFT = {"model": {"class_path": "m.SFT"}, "data": {"source": "{world}/rows.jsonl"}}
DPO = {"model": {"class_path": "m.DPO", "init_args": {"policy": "{sft}", "beta": 0.3}}}


def write(folder: Path, **files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write(tmp_path / "demo", pipeline=PIPELINE, sft=SFT, dpo=DPO)


def shas(plan: Plan) -> dict[str, str]:
    return {name: job.config_sha for name, job in plan.jobs.items()}


def changed(before: Plan, after: Plan) -> set[str]:
    assert shas(before).keys() == shas(after).keys()
    return {name for name, sha in shas(before).items() if shas(after)[name] != sha}


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


def test_data_count_by_content_not_by_place(experiment: Path, tmp_path: Path) -> None:
    def with_file(path: Path) -> Plan:
        stages = {"world": {"call": "m.world", "args": {"source": str(path)}}}
        return load_plan(write(experiment, pipeline={"stages": stages}))

    first, second = tmp_path / "a.jsonl", tmp_path / "deeper.jsonl"
    first.write_text("rows")
    second.write_text("rows")
    before = with_file(first)
    assert shas(before) == shas(with_file(second))
    second.write_text("rowz")
    assert changed(before, with_file(second)) == {"world"}


def test_a_folder_counts_by_the_content_of_its_files(experiment: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    stages = {"world": {"call": "m.world", "args": {"source": str(model)}}}
    before = load_plan(write(experiment, pipeline={"stages": stages}))
    (model / "weights").write_text("w")
    assert changed(before, load_plan(experiment)) == {"world"}


def test_a_pattern_counts_by_the_content_of_what_it_matches(
    experiment: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text("a")
    stages = {"world": {"call": "m.world", "args": {"source": f"{tmp_path}/*.jsonl"}}}
    before = load_plan(write(experiment, pipeline={"stages": stages}))
    (tmp_path / "b.txt").write_text("b")
    assert changed(before, load_plan(experiment)) == set()
    (tmp_path / "b.jsonl").write_text("b")
    assert changed(before, load_plan(experiment)) == {"world"}


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


@pytest.mark.parametrize("seeds", [[0, 0], [-1], [], [2**32]])
def test_seeds_of_the_call_are_checked_too(experiment: Path, seeds: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"--seeds: seeds must be .* each once, got \["):
        load_plan(experiment, seeds=seeds)


def test_seeds_of_the_call_win(experiment: Path) -> None:
    plan = load_plan(experiment, seeds=[5])
    assert [job.seed for job in plan.runs] == [5, 5]


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


def test_the_frontier_names_what_it_reads(experiment: Path) -> None:
    content = PIPELINE | {"frontier": {"needs": ["world"], "args": {"reward_label": "gold"}}}
    plan = load_plan(write(experiment, pipeline=content))
    assert (plan.frontier, plan.frontier_needs) == ({"reward_label": "gold"}, ("world",))


def stage(**entry: Any) -> dict[str, Any]:
    return {"stages": {"one": {"call": "m.one"}, "two": entry}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"stagez": {}}, r"pipeline.yaml: unknown key stagez. Known: frontier, seeds, set, stages"),
        ({"seeds": [0.5], "stages": {}}, "seeds must be a list of whole numbers"),
        ({"seeds": [], "stages": {}}, "seeds must be a list of whole numbers"),
        ({"seeds": [0, 0]}, r"each once, got \[0, 0\]"),
        (
            {"stages": ["one"]},
            r"pipeline.yaml: stages must be names and their values, got \['one'\]",
        ),
        (stage(call=3), "stage 'two': call must be a function's dotted name, got 3"),
        (stage(fit=[]), r"stage 'two': fit must be a YAML file or a list of them, got \[\]"),
        (stage(call="m.f", args="hello"), "stage 'two': args must be names and their values"),
        (stage(call="m.f", needs="one"), "stage 'two': needs must be a list of words, got 'one'"),
        (stage(call="m.f", objective=3), "stage 'two': objective must be a word, got 3"),
        (stage(call="m.f", grid="beta"), "stage 'two': grid must be keys and lists of values"),
        (stage(call="m.f", grid={"a": ["x/y", "x_y"]}), "would both be run 'two-ax_y'"),
        (stage(call="m.f", grid={"a": ["x" * 300]}), "more than the 200 that fit"),
        ({"stages": {}, "frontier": {"args": {"reward_lable": "x"}}}, "unknown key reward_lable"),
        ({"stages": {}, "frontier": {"args": {"reward_label": 3}}}, "reward_label must be a word"),
        (stage(call="m.f", betas=[1]), "stage 'two': unknown key betas"),
        (stage(call="m.f", fit="a.yaml"), "exactly one of"),
        (stage(needs=["one"]), "exactly one of"),
        (stage(fit="a.yaml", args={}), "'args' belong to a call"),
        (stage(call="m.f", set={"a": 1}), "'set' is for a stage that trains; a call takes 'args'"),
        (stage(fit="gone.yaml"), "gone.yaml: no such file"),
        (stage(call="m.f", needs=["three"]), "needs 'three', which is no stage before it"),
        (stage(call="m.f", needs=["two"]), "needs 'two', which is no stage before it"),
        (stage(call="m.f", needs=["one-s3"]), "nor a run of one. Stages before it: one"),
        (stage(call="m.f", args={"x": "{one}"}), "{one}, which stands for nothing. Add 'one'"),
        (stage(call="m.f", args={"x": "{seed}"}), "give it 'per_seed: true'"),
        (stage(call="m.f", grid={"a": 3}), "grid.a must be a list, got 3"),
        (stage(call="m.f", grid={"a": [{}]}), "a grid value is a number, a word or a switch"),
        ({"stages": {"Bad-Name": {"call": "m.f"}}}, "lower-case letters"),
        ({"stages": {"out": {"call": "m.f"}}}, "lower-case letters"),
        ({"stages": {}, "frontier": {"pool": 1}}, "frontier: unknown key pool"),
        ({"stages": {}, "frontier": {"needs": ["x"]}}, "stage 'frontier' needs 'x'"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    folder = write(tmp_path / "demo", pipeline=content)
    with pytest.raises(ConfigError, match=said):
        load_plan(folder)


def test_an_unknown_scale_and_a_wrong_folder_are_told(experiment: Path, tmp_path: Path) -> None:
    write(experiment, scales__small={})
    with pytest.raises(ConfigError, match=r"no scale 'big'\. Known: small"):
        load_plan(experiment, scale="big")
    with pytest.raises(ConfigError, match=r"no pipeline.yaml there. Name an experiment folder"):
        load_plan(tmp_path)


def test_a_job_without_grid_and_seed_is_named_for_its_stage() -> None:
    job = Job("sft", "all", None, {}, None, {}, {}, frozenset(), "")
    assert (job.name, job.folder) == ("sft", "stages/sft/all")


@pytest.mark.parametrize("scale", ["", "../other", "a/b", "a.smoke", "smoke", "\0", "x y"])
def test_a_scale_is_a_name_and_no_path(experiment: Path, scale: str) -> None:
    write(experiment, other={"seeds": [3]}, scales__smoke={})
    with pytest.raises(ConfigError, match=r"scale"):
        load_plan(experiment, scale=scale)


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


@pytest.mark.parametrize("entry", [None, {"set": {"a": 1}}, {}])
def test_an_overlay_of_a_stage_that_is_not_there(experiment: Path, entry: Any) -> None:
    write(experiment, scales__small={"stages": {"dqo": entry}})
    with pytest.raises(ConfigError, match=r"small.yaml: stage 'dqo': there is none to change"):
        load_plan(experiment, scale="small")


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
    assert load_plan(experiment).notes == ("stage 'one' runs once for each seed, and uses none",)


def test_what_a_run_writes_is_none_of_its_inputs(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(experiment, dpo=DPO | {"reference_cache": "cache/logps", "logs": {"save_dir": "logs/x"}})
    before = shas(load_plan(experiment))
    for made in ("cache/logps", "logs/x"):
        Path(made).mkdir(parents=True)
        (Path(made) / "file").write_text("made by the run")
    assert shas(load_plan(experiment)) == before


def test_the_results_are_named_by_their_stage_and_not_by_their_path(experiment: Path) -> None:
    stages = {"two": {"call": "m.f", "args": {"files": ["results/demo/stages/one/all/x.csv"]}}}
    write(experiment, pipeline={"stages": stages})
    with pytest.raises(ConfigError, match=r"stage 'two': results/demo/stages.* own results"):
        load_plan(experiment)
    assert load_plan(experiment, results=Path("elsewhere")).jobs


@pytest.mark.parametrize("text", ["/", "./", "../", "a/" * 3000])
def test_text_that_is_a_path_by_chance_is_text(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(experiment, pipeline={"stages": {"one": {"call": "m.f", "args": {"stop": text}}}})
    before = shas(load_plan(experiment))
    (tmp_path / "new").write_text("")
    assert shas(load_plan(experiment)) == before


def test_a_folder_of_very_many_files_is_no_input(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_module, "MOST_FILES", 3)
    for i in range(content_module.MOST_FILES + 1):
        (tmp_path / "demo" / f"f{i}").touch()
    stages = {"one": {"call": "m.f", "args": {"source": str(tmp_path / "demo")}}}
    write(experiment, pipeline={"stages": stages})
    with pytest.raises(ConfigError, match="a folder of more than 3 files"):
        load_plan(experiment)


def test_the_frontiers_own_rows_are_no_objectives(experiment: Path) -> None:
    write(experiment, pipeline={"stages": {"one": {"call": "m.f", "objective": "oracle"}}})
    with pytest.raises(ConfigError, match="objective 'oracle' is a row of its own"):
        load_plan(experiment)


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
