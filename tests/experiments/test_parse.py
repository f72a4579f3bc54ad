"""Every stage of every experiment at every scale, against the signatures it will meet."""

import re
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignlab.data.rows import Prompt
from alignlab.objectives.base import TreeObjective
from alignlab.pipeline.calls import check_call
from alignlab.plan.experiment import Job, Plan, load_plan
from alignlab.training import fit

EXPERIMENTS = sorted(path.parent for path in Path("experiments").glob("*/pipeline.yaml"))
SCALES = [
    (folder, scale, smoke)
    for folder in EXPERIMENTS
    for scale, smoke in product(
        [
            None,
            *sorted(p.stem for p in (folder / "scales").glob("*.yaml") if "smoke" not in p.stem),
        ],
        [False, True],
    )
    if not smoke or (folder / "scales" / "smoke.yaml").is_file()
]
SIBLINGS = [
    (path, path.with_name(said.group(1)))
    for path in sorted(Path("experiments").glob("*/*.yaml"))
    if (said := re.search(r"Sibling: (\w+\.yaml) differs only in `model`", path.read_text()))
]


def one_of_each_stage(plan: Plan) -> list[Job]:
    return list({job.stage: job for job in plan.jobs.values()}.values())


@pytest.fixture
def parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(fit.Command, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(fit.Command, "_set_seed", lambda self: None)

    def parsed(config: dict[str, Any]) -> Any:
        path = tmp_path / "stage.yaml"
        path.write_text(yaml.safe_dump(config))
        return fit.build(["--config", str(path)]).config

    return parsed


def find(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize(("folder", "scale", "smoke"), SCALES)
def test_stages_parse(folder: Path, scale: str | None, smoke: bool, parse: Any) -> None:
    for job in one_of_each_stage(load_plan(folder, scale=scale, smoke=smoke)):
        spec = load_plan(folder, scale=scale, smoke=smoke).resolved(job)
        if "config" in spec:
            assert parse(spec["config"]).model.class_path == spec["config"]["model"]["class_path"]
        else:
            check_call(spec["call"], spec["args"])


@pytest.mark.parametrize(("folder", "scale", "smoke"), [each for each in SCALES if each[2]])
def test_smoke_runs_train_in_their_scales_precision(
    folder: Path, scale: str | None, smoke: bool
) -> None:
    """What stops under bf16-mixed alone would otherwise be seen on the large machine first."""

    def precisions(plan: Plan) -> dict[str, str]:
        configs = {job.stage: job.spec.get("config", {}) for job in plan.jobs.values()}
        trained = {stage: config["trainer"] for stage, config in configs.items() if config}
        return {stage: trainer.get("precision", "32-true") for stage, trainer in trained.items()}

    full = precisions(load_plan(folder, scale=scale))
    small = precisions(load_plan(folder, scale=scale, smoke=smoke))
    assert {stage: full.get(stage, found) for stage, found in small.items()} == small


STAGES = [p for p in sorted(Path("experiments").glob("*/*.yaml")) if "\nmodel:" in p.read_text()]


@pytest.mark.parametrize("path", STAGES, ids=str)
def test_objectives_are_given_rows_that_they_train_on(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    objective, data = (find(config[part]["class_path"]) for part in ("model", "data"))
    assert data.kind in (objective.rows if issubclass(objective, TreeObjective) else (Prompt,))


@pytest.mark.parametrize("path", sorted(Path("experiments").glob("*/*.yaml")), ids=str)
def test_stage_files_say_how_to_run_them_and_parse_alone(path: Path, parse: Any) -> None:
    text = path.read_text()
    header = [line for line in text.splitlines() if line.startswith("# ")]
    for word in ("Run", "Expected", *["Source"] * (path.name != "pipeline.yaml")):
        assert any(word in line for line in header), f"{path}: no line with {word}"
    if path.name != "pipeline.yaml":
        parse(yaml.safe_load(text))


@pytest.mark.parametrize(("path", "sibling"), SIBLINGS, ids=str)
def test_siblings_differ_only_in_their_model(path: Path, sibling: Path) -> None:
    own, other = (yaml.safe_load(file.read_text()) for file in (path, sibling))
    assert own.pop("model") != other.pop("model")
    assert own == other


def test_a_stages_own_paths_are_folders_that_an_experiment_makes() -> None:
    """So that the command in its header works after ``alignlab run``."""
    made = {
        plan.folder(job).as_posix()
        for folder, scale, smoke in SCALES
        if not smoke
        for plan in [load_plan(folder, scale=scale)]
        for job in plan.jobs.values()
    }
    for path in Path("experiments").glob("*/*.yaml"):
        for asked in re.findall(r"results/[\w-]+/stages/\w+/\w+", path.read_text()):
            assert asked in made, f"{path} reads {asked}"
