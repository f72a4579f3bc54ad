"""Code that has moved is found by its old name, and recorded under it."""

import importlib
import pkgutil
import sys
from pathlib import Path

import pytest
import yaml

from alignlab import names
from alignlab.data import blocks
from alignlab.models import Lora, reference
from alignlab.pipeline import run_experiment
from alignlab.plan.content import by_content
from alignlab.plan.experiment import Job, load_plan
from alignlab.plan.overlay import read_yaml
from alignlab.results import pool
from alignlab.rewards.build import build_reward
from alignlab.rewards.rule import ToySentiment
from alignlab.stages.policies import copy_policy
from alignlab.training import fit
from alignlab.worlds import toy


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A table of a function and of a whole module, and nothing reported yet."""
    table = {
        "alignlab.attic.copy": "alignlab.stages.policies.copy_policy",
        "alignlab.attic.rules": "alignlab.rewards.rule",
    }
    monkeypatch.setattr(names, "MOVED", table)
    names._report.cache_clear()
    return table


@pytest.mark.usefixtures("moved")
def test_a_function_and_all_of_a_module_are_found_by_both_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert names.find("alignlab.stages.policies.copy_policy") is copy_policy
    assert capsys.readouterr().err == ""
    assert names.find("alignlab.attic.copy") is copy_policy
    assert isinstance(build_reward("alignlab.attic.rules.ToySentiment"), ToySentiment)
    names.present("alignlab.attic.copy")  # a second time: nothing more to report
    assert capsys.readouterr().err.splitlines() == [
        "note: alignlab.attic.copy moved to alignlab.stages.policies.copy_policy",
        "note: alignlab.attic.rules.ToySentiment moved to alignlab.rewards.rule.ToySentiment",
    ]


@pytest.mark.usefixtures("moved")
def test_only_whole_names_of_this_package_count() -> None:
    kept = ["alignlab.attic.copying", "alignlab.attic", "my.alignlab.attic.copy", "a text", ""]
    assert [names.present(name) for name in kept] == kept
    assert names.recorded("alignlab.stages.policies") == "alignlab.stages.policies"


@pytest.mark.usefixtures("moved")
def test_a_hash_holds_the_recorded_name(tmp_path: Path) -> None:
    old = {"call": "alignlab.attic.copy", "args": {"like": ["alignlab.attic.rules.ToySentiment"]}}
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(old))
    now = read_yaml(path)
    assert now == {
        "call": "alignlab.stages.policies.copy_policy",
        "args": {"like": ["alignlab.rewards.rule.ToySentiment"]},
    }
    assert by_content(now) == by_content(old) == old


def job_of(folder: Path, call: str, reward: str) -> tuple[Job, Job]:
    """A plan's two jobs: a call, and a training run with a reward."""
    callbacks = [{"class_path": "my.Probe", "init_args": {"reward": {"class_path": reward}}}]
    (folder / "fit.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    stages = {"one": {"call": call}, "two": {"fit": "fit.yaml", "needs": ["one"]}}
    (folder / "pipeline.yaml").write_text(yaml.safe_dump({"stages": stages}))
    one, two = load_plan(folder).jobs.values()
    return one, two


def test_a_plan_keeps_its_hashes_when_code_moves(
    tmp_path: Path, moved: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = "alignlab.attic.copy", "alignlab.attic.rules.ToySentiment"
    now = "alignlab.stages.policies.copy_policy", "alignlab.rewards.rule.ToySentiment"
    monkeypatch.setattr(names, "MOVED", {})
    before = job_of(tmp_path, *old)
    others = job_of(tmp_path, *now)
    monkeypatch.setattr(names, "MOVED", moved)
    for job, was, other in zip(job_of(tmp_path, *now), before, others, strict=True):
        assert job.config_sha == was.config_sha != other.config_sha
    for job, same in zip(job_of(tmp_path, *old), job_of(tmp_path, *now), strict=True):
        assert job == same


@pytest.mark.usefixtures("moved")
def test_fit_takes_old_names_from_a_file_and_from_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(names, "MOVED", {"alignlab.attic": "alignlab.objectives"})
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}}
    init = {"policy": {"source": "x"}, "optimizer": optimizer}
    data = {"class_path": "DemonstrationData", "init_args": {"source": "x", "batch_size": 1}}
    config = {"model": {"class_path": "alignlab.attic.sft.SFT", "init_args": init}, "data": data}
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(config))
    words = ["--config", str(path)]
    assert fit.Command(words).config.model.class_path == "alignlab.objectives.sft.SFT"
    assert capsys.readouterr().err.endswith(
        "note: alignlab.attic.sft.SFT moved to alignlab.objectives.sft.SFT\n"
    )
    new = "alignlab.attic.orpo.ORPO"
    for given in (["--model", new], [f"--model={new}"], [f"--model.class_path={new}"]):
        built = fit.Command([*words, *given, "--model.init_args.lam=0.1"])
        assert built.config.model.class_path == "alignlab.objectives.orpo.ORPO"


def test_an_old_name_in_a_pipeline_runs_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(names, "MOVED", {"alignlab.attic": "alignlab.stages.policies"})
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    names._report.cache_clear()
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = {"model_type": "llama", "num_attention_heads": 2, **sizes}
    stage = {"call": "alignlab.attic.make_up_policy", "args": {"config": config}}
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "pipeline.yaml").write_text(yaml.safe_dump({"stages": {"one": stage}}))
    assert run_experiment(Path("demo"), workers=1) == 0
    said = capsys.readouterr().err
    line = "note: alignlab.attic.make_up_policy moved to alignlab.stages.policies.make_up_policy\n"
    assert said.count(line) == 1
    assert Path("results/demo/stages/one/all/config.json").exists()


def test_an_old_module_imports_as_the_present_one_with_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("alignlab.data.toy", "alignlab.evaluation.pool", "alignlab.objectives.referenced"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    names._report.cache_clear()
    assert importlib.import_module("alignlab.data.toy") is toy
    assert importlib.import_module("alignlab.data.toy") is toy
    assert (toy.__name__, toy.__spec__.name) == ("alignlab.worlds.toy", "alignlab.worlds.toy")
    assert capsys.readouterr().err == "note: alignlab.data.toy moved to alignlab.worlds.toy\n"
    scope: dict[str, object] = {}
    exec("from alignlab.evaluation import pool", scope)
    exec("from alignlab.objectives.referenced import make_reference", scope)
    exec("from alignlab.data.tokenise import tokenise, tokenise_texts", scope)
    exec("from alignlab.models.loading import Lora", scope)
    assert scope["pool"] is pool
    assert scope["Lora"] is Lora
    assert scope["tokenise_texts"] is blocks.tokenise_texts
    assert scope["make_reference"] is reference.make_reference
    with pytest.raises(ImportError, match=r"cannot import name 'no_such'"):
        exec("from alignlab.data.tokenise import no_such", scope)
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'alignlab\.data\.no_such'"):
        importlib.import_module("alignlab.data.no_such")


def test_the_table_names_what_is_there_and_each_place_once() -> None:
    for old, now in names.MOVED.items():
        assert names.recorded(now) == old != now
        assert pkgutil.resolve_name(now) is not None
