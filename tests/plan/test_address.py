"""``DIR:STAGE``: the config is the pipeline's own, and what is not there is said in a sentence."""

from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import ConfigError
from alignlab.files import DONE, write_record
from alignlab.plan import overlay
from alignlab.plan.address import as_config, fit_words, with_installed
from alignlab.plan.experiment import load_plan
from tests.plan.conftest import DPO, PIPELINE, SFT, write

IPO = {
    "stages": {"ipo": {"fit": "dpo.yaml", "needs": ["sft"], "set": {"model.class_path": "m.IPO"}}}
}


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Stages ``world`` (a call), ``sft`` and ``dpo``, in the scale ``full`` also ``ipo``."""
    monkeypatch.chdir(tmp_path)
    more = {"scales__full": IPO, "scales__full.smoke": IPO, "scales__smoke": {}}
    write(Path("demo"), pipeline=PIPELINE, sft=SFT, dpo=DPO, **more)
    return "demo"


def make(*names: str, scale: str | None = None, results: Path | None = None) -> None:
    """Leave what those jobs leave when they are done."""
    plan = load_plan(Path("demo"), scale=scale, results=results)
    for name in names:
        record = {"config_sha": plan.jobs[name].config_sha, "files": {}, "logs": {}}
        plan.folder(plan.jobs[name]).mkdir(parents=True)
        write_record(plan.folder(plan.jobs[name]) / DONE, record)


def read(words: list[str]) -> dict[str, Any]:
    assert words[0] == "--config"
    return overlay.read_yaml(Path(words[1]))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "dpo-beta0.1-s0"),
        (["--point", "1"], "dpo-beta0.5-s0"),
        (["--point=1", "--seed=1"], "dpo-beta0.5-s1"),
        (["--seed", "7"], "dpo-beta0.1-s7"),
        (["--scale", "full"], "dpo-beta0.1-s0"),
        (["--results", "there"], "dpo-beta0.1-s0"),
    ],
)
def test_the_config_is_the_pipelines(
    demo: str, tmp_path: Path, words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scale = "full" if "full" in words else None
    results = Path("there") if "there" in words else None
    make("sft", scale=scale, results=results)
    found = read(as_config("fit", ["demo:dpo", *words], tmp_path))
    plan = load_plan(Path("demo"), scale=scale, results=results, seeds=[0, 1, 7])
    assert found == plan.resolved(plan.jobs[name])["config"]
    folder = results or Path("results") / ("demo-full" if scale else "demo")
    beta, seed = (float(name[8:11]), int(name[-1]))
    arguments = {"policy": f"{folder}/stages/sft/all", "beta": beta}
    assert found["model"] == {"class_path": "m.DPO", "init_args": arguments}
    assert found["seed_everything"] == seed
    assert capsys.readouterr().err == f"demo:dpo: {name}, with inputs from {folder}\n"


def test_a_plan_takes_the_model_that_an_unmade_stage_starts_from(
    demo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A chain of stages can be planned before the first of them has been run."""
    start = {"model": {"class_path": "m.SFT", "init_args": {"policy": {"source": "hub/lm"}}}}
    later = {"model": {"class_path": "m.DPO", "init_args": {"model": {"source": "{sft}"}}}}
    last = {"model": {"class_path": "m.PPO", "init_args": {"policy": {"source": "{dpo}"}}}}
    stages = {
        "sft": {"fit": "sft.yaml"},
        "dpo": {"fit": "dpo.yaml", "needs": ["sft"]},
        "ppo": {"fit": "ppo.yaml", "needs": ["dpo"]},
    }
    write(Path("demo"), pipeline={"stages": stages}, sft=start, dpo=later, ppo=last)
    found = read(as_config("plan", ["demo:ppo"], tmp_path))
    assert found["model"]["init_args"] == {"policy": {"source": "hub/lm"}}
    note = "note: results/demo/stages/dpo/all does not exist yet; planned with hub/lm.\n"
    assert capsys.readouterr().err.endswith(note)
    make("dpo")  # then it is read itself
    found = read(as_config("plan", ["demo:ppo"], tmp_path))
    assert found["model"]["init_args"] == {"policy": {"source": "results/demo/stages/dpo/all"}}
    with pytest.raises(ConfigError, match="it reads the output of sft"):
        as_config("fit", ["demo:dpo"], tmp_path)
    stages["sft"] = {"call": "m.copy"}  # what a function will leave is not known
    write(Path("demo"), pipeline={"stages": stages})
    with pytest.raises(ConfigError, match="it reads the output of dpo"):
        as_config("plan", ["demo:ppo"], tmp_path)


def test_other_options_are_left_as_they_were(demo: str, tmp_path: Path) -> None:
    make("sft")
    own = ["--model.init_args.beta", "-1", "--config", "more.yaml", "--trainer.max_steps=3"]
    words = ["demo:dpo", *own[:2], "--point", "1", *own[2:]]
    assert as_config("fit", words, tmp_path)[2:] == own


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["demo:ipo"],
            "demo:ipo: demo has no stage 'ipo'. Add --scale full.",
        ),
        (
            ["demo:nope", "--scale=full"],
            "demo:nope: demo-full has no stage 'nope'. Stages that train: sft, dpo, ipo.",
        ),
        (
            ["demo:world"],
            "demo:world: a call of m.world trains nothing. Run it with: alignlab run demo "
            "--only world",
        ),
        (
            ["demo:sft", "--seed", "3"],
            "demo:sft: it runs once for all seeds. Give --seed_everything 3 instead.",
        ),
        (
            ["demo:dpo", "--point", "2"],
            "demo:dpo: there is no grid point 2. Points: 0 {'beta': 0.1}, 1 {'beta': 0.5}.",
        ),
        (
            ["demo:dpo", "--point=-1"],
            "demo:dpo: there is no grid point -1. Points: 0 {'beta': 0.1}, 1 {'beta': 0.5}.",
        ),
        (
            ["demo:dpo", "--results", "my results", "--scale=full"],
            "demo:dpo: it reads the output of sft. my results has none with the experiment's "
            "present settings. Make it with: alignlab run demo --scale full --results 'my results' "
            "--only sft",
        ),
        (
            [":dpo"],
            ".: no pipeline.yaml there. Name an experiment folder, such as experiments/quickstart.",
        ),
    ],
)
def test_what_is_not_there_is_said(demo: str, tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        as_config("fit", words, tmp_path)
    assert str(caught.value) == said


def test_inputs_of_other_settings_or_another_seed_are_not_there(demo: str, tmp_path: Path) -> None:
    make("world", "sft")
    as_config("fit", ["demo:dpo"], tmp_path)
    write(Path("demo"), sft=SFT | {"seed_everything": 5})
    with pytest.raises(ConfigError, match=r"reads the output of sft\."):
        as_config("fit", ["demo:dpo"], tmp_path)
    stages = PIPELINE["stages"] | {"rm": {"fit": "sft.yaml", "needs": ["world"], "per_seed": True}}
    stages["ppo"] = {"fit": "dpo.yaml", "needs": ["rm"], "per_seed": True}
    stages["ppo"]["set"] = {"model.init_args.policy": "{rm}"}
    write(Path("demo"), pipeline={"stages": stages})
    with pytest.raises(ConfigError, match=r"reads the output of rm-s3\..*--seeds 3 --only rm$"):
        as_config("fit", ["demo:ppo", "--seed", "3"], tmp_path)


def test_a_file_of_an_installed_experiment_is_used_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "package" / "experiments" / "own", dpo=DPO, more=SFT)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("alignlab.plan.experiment.INSTALLED", tmp_path / "package")
    installed = [f"{tmp_path}/package/experiments/own/{name}.yaml" for name in ("dpo", "more")]
    words = ["--config", "experiments/own/dpo.yaml", "--config=experiments/own/more.yaml", "--x=1"]
    wanted = ["--config", installed[0], "--config", installed[1], "--x=1"]
    assert with_installed(words) == wanted
    capsys.readouterr()
    assert fit_words("fit", words, tmp_path) == wanted
    assert capsys.readouterr().err.splitlines() == [
        f"experiments/own/{name}.yaml is not here; using {path}."
        for name, path in zip(("dpo", "more"), installed, strict=True)
    ]
    write(Path("experiments/own"), dpo=DPO)
    assert fit_words("fit", words[:2], tmp_path) == words[:2]
    with pytest.raises(ConfigError, match=r"experiments/own/gone\.yaml: no such file"):
        fit_words("fit", ["--config", "experiments/own/gone.yaml"], tmp_path)


def test_the_folder_of_the_pipelines_run_is_not_written_into(demo: str, tmp_path: Path) -> None:
    model = SFT["model"] | {"init_args": {"cache": "{out}/cache"}}
    write(Path("demo"), sft=SFT | {"model": model})
    make("world")
    with pytest.raises(ConfigError) as caught:
        as_config("fit", ["demo:sft"], tmp_path)
    assert str(caught.value) == (
        "demo:sft: its config names {out}, the folder of the pipeline's own run. Set each key "
        "with {out} to another value by an option, or train it with: alignlab run demo --only sft"
    )
    assert read(as_config("fit", ["demo:sft", "--model.init_args.cache=my"], tmp_path))


@pytest.mark.parametrize(
    "option", [["--model.init_args.policy=my"], ["--model.init_args.policy", "my"]]
)
def test_an_input_that_an_option_replaces_is_not_asked_for(
    demo: str, tmp_path: Path, option: list[str]
) -> None:
    assert as_config("fit", ["demo:dpo", *option], tmp_path)[2:] == option
