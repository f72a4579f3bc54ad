"""Every stage of every experiment at every scale, against the signatures it will meet."""

import re
from functools import cache
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignlab.data.rows import Prompt
from alignlab.objectives.base import TreeObjective
from alignlab.pipeline.calls import check_call
from alignlab.plan.address import as_config
from alignlab.plan.experiment import Job, Plan, load_plan
from alignlab.training import fit

EXPERIMENTS = sorted(path.parent for path in Path("experiments").rglob("pipeline.yaml"))
SCALES: list[tuple[Path, str | None, bool]] = [
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
FILES = sorted(path for path in Path("experiments").glob("[!_]*/*.yaml") if path.name[0] != "_")
BASES = sorted(Path("experiments").glob("*/_*.yaml"))
ALONE = [
    *sorted(Path("experiments/own_data").glob("[!p]*.yaml")),
    Path("experiments/imdb/classify.yaml"),
]
SIBLINGS = [path for path in FILES if "dpo.yaml differs only in `model`" in path.read_text()]


@cache
def read(folder: Path, scale: str | None, smoke: bool = False) -> Plan:
    """The plan of a scale, read once for all tests; they only look at it."""
    return load_plan(folder, scale=scale, smoke=smoke)


def one_of_each_stage(plan: Plan) -> list[Job]:
    return list({job.stage: job for job in plan.jobs.values()}.values())


@pytest.fixture
def parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(fit.Command, "_set_seed", lambda self: None)

    def parsed(config: dict[str, Any]) -> Any:
        path = tmp_path / "stage.yaml"
        path.write_text(yaml.safe_dump(config))
        return fit.Command(["--config", str(path)]).config

    return parsed


def find(class_path: str) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)


def keeps_some(folder: Path, scale: str | None) -> bool:
    """Whether a scale has a few of the pipeline's stages, which are parsed without it."""
    return scale is not None and "\nonly:" in (folder / "scales" / f"{scale}.yaml").read_text()


# What the slow ones parse, `make smoke` trains for the largest scales.
@pytest.mark.parametrize(
    ("folder", "scale", "smoke"),
    [
        pytest.param(*each, marks=[pytest.mark.slow] * (each[2] or keeps_some(*each[:2])))
        for each in SCALES
    ],
)
def test_stages_parse(folder: Path, scale: str | None, smoke: bool, parse: Any) -> None:
    plan = read(folder, scale, smoke)
    for job in one_of_each_stage(plan):
        spec = plan.resolved(job)
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

    full = precisions(read(folder, scale))
    small = precisions(read(folder, scale, smoke))
    assert {stage: full.get(stage, found) for stage, found in small.items()} == small


@pytest.mark.parametrize("folder", EXPERIMENTS, ids=str)
def test_objectives_are_given_rows_that_they_train_on(folder: Path) -> None:
    configs = [yaml.safe_load(path.read_text()) for path in ALONE if path.parent == folder]
    for scale in [scale for own, scale, smoke in SCALES if own == folder and not smoke]:
        jobs = one_of_each_stage(read(folder, scale))
        configs += [job.spec["config"] for job in jobs if "config" in job.spec]
    for config in configs:
        objective, data = (find(config[part]["class_path"]) for part in ("model", "data"))
        rows = objective.rows if issubclass(objective, TreeObjective) else (Prompt,)
        assert data.kind in rows, config["model"]["class_path"]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_stage_files_say_how_to_run_them(
    path: Path, parse: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the command that they give is an address of theirs, or their own path."""
    header = [line for line in path.read_text().splitlines() if line.startswith("# ")]
    for word in ("Run", "Expected", *["Source"] * (path.name != "pipeline.yaml")):
        assert any(word in line for line in header), f"{path}: no line with {word}"
    if path.name == "pipeline.yaml":
        return
    (command,) = re.findall(r"alignlab fit ([^\\\n]*)", "\n".join(header))
    words = command.split()
    if path in ALONE:
        assert words[:2] == ["--config", str(path)]
        parse(yaml.safe_load(path.read_text()))
        return
    monkeypatch.setattr("alignlab.plan.state.Standing.done", lambda *_, **__: True)
    fit.Command(as_config("fit", words, tmp_path))
    folder, _, stage = words[0].partition(":")
    scale = words[words.index("--scale") + 1] if "--scale" in words else None
    files = read(Path(folder), scale).stages[stage].entry["fit"]
    assert Path(files if isinstance(files, str) else files[-1]).name == path.name


def test_an_objectives_file_says_what_the_objective_is_and_no_more() -> None:
    laid = {  # overrides keys of a base, or is used without a pipeline
        path.resolve()
        for folder, scale, smoke in SCALES
        if not smoke
        for stage in read(folder, scale).stages.values()
        if isinstance(stage.entry.get("fit"), list)
        for path in (folder / name for name in stage.entry["fit"])
        if path.name[0] != "_"
    }
    assert len(laid) >= 116  # that none is overlooked; a new objective adds some
    for path in [*laid, *BASES]:
        lines = path.read_text().splitlines()
        assert lines[0].startswith("# "), f"{path}: no header"
        own = [line for line in lines if not line.startswith("#")]
        assert path in BASES or len(own) <= 10, f"{path}: {len(own)} lines"


@pytest.mark.parametrize("path", [path for path in FILES if path not in ALONE], ids=str)
def test_inputs_are_named_by_the_pipeline_alone(path: Path) -> None:
    assert path.name == "pipeline.yaml" or "results/" not in str(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("path", SIBLINGS, ids=str)
def test_siblings_differ_only_in_their_model(path: Path) -> None:
    sibling = path.with_name("dpo.yaml")
    assert [list(yaml.safe_load(file.read_text())) for file in (path, sibling)] == [["model"]] * 2


def test_a_stages_own_paths_are_folders_that_an_experiment_makes() -> None:
    """So that the command in its header works after ``alignlab run``."""
    made = {
        plan.folder(job).as_posix()
        for folder, scale, smoke in SCALES
        if not smoke
        for plan in [read(folder, scale)]
        for job in plan.jobs.values()
    }
    for path in Path("experiments").glob("*/*.yaml"):
        for asked in re.findall(r"results/[\w-]+/stages/\w+/\w+", path.read_text()):
            assert asked in made, f"{path} reads {asked}"
