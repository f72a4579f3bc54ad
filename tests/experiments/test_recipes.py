"""The recipes: whether they fit their hardware as they say, and each from end to end when tiny."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignlab import cli
from alignlab.capacity import setup
from alignlab.models.loading import load_config
from alignlab.pipeline import run_experiment
from alignlab.plan.experiment import load_plan

RECIPES = Path("experiments/recipes").resolve()
CLASSES = ["qwen_05b", "llama_8b_qlora", "llama_8b"]
OBJECTIVES = ["sft", "rm", "dpo", "simpo", "ppo"]
# A size, and what gave it; of these lines the test reads sizes and commands and nothing else.
LINE = re.compile(r"# +([\d.]+) GB, +([\d.]+) s a step: (alignlab plan .*)")
CONFIGS = {  # of the hub's models, without their weights
    "Qwen/Qwen2.5-0.5B-Instruct": "qwen2.5-0.5b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "meta-llama/Llama-3.2-1B-Instruct": "llama-3.2-1b",
}


def call(words: list[str]) -> object:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    return caught.value.code


def planned() -> Iterator[Any]:
    """Figures and command of each line of the headers; the first is quick enough for any run."""
    for objective in OBJECTIVES:
        for figures in LINE.findall((RECIPES / f"{objective}.yaml").read_text()):
            quick = objective == "sft" and "qwen" in figures[2]
            slow = [] if quick else [pytest.mark.slow]
            yield pytest.param(*figures, id=figures[2].split()[2], marks=slow)


PLANNED = list(planned())


def test_every_recipe_is_planned_for_every_hardware() -> None:
    names = {str(each.id) for each in PLANNED}
    assert names == {
        f"experiments/recipes/{kind}:{objective}" for kind in CLASSES for objective in OBJECTIVES
    }


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize(("size", "seconds", "command"), PLANNED)
def test_a_recipe_needs_what_its_header_says_and_fits(
    size: str,
    seconds: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def local(source: str) -> Any:
        return load_config(str(RECIPES / "models" / CONFIGS[source]))

    monkeypatch.setattr(setup, "load_config", local)
    monkeypatch.chdir(tmp_path)  # without data: rows of max_length
    (tmp_path / "experiments").symlink_to(RECIPES.parent)
    assert call(shlex.split(command)[1:]) == 0
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in table(capsys.readouterr().out))
    column = -1  # FSDP2 after DDP
    assert rows["fits"].split()[column] == "yes"
    assert rows["together"].split()[column] == size
    assert rows["s a step"].split()[column] == seconds


def table(said: str) -> list[str]:
    return [line for line in said.split("\n\n")[1].splitlines() if "  " in line]


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_every_recipe_trains_when_it_is_tiny(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert run_experiment(RECIPES / name, smoke=True, results=Path("results")) == 0
    plan = load_plan(RECIPES / name, smoke=True, results=Path("results"))
    for objective in OBJECTIVES:
        (folder,) = (plan.folder(job) for job in plan.jobs.values() if job.stage == objective)
        saved = "adapter_model.safetensors" if "qlora" in name else "model.safetensors"
        assert (folder / saved).stat().st_size


def test_models_of_the_configs_are_those_of_the_recipes() -> None:
    used = {
        word for path in RECIPES.glob("*/pipeline.yaml") for word in re.findall(
            r"source: ([\w.-]+/[\w.-]+)", path.read_text()
        )
    }  # fmt: skip
    assert used == set(CONFIGS)
    assert {path.name for path in (RECIPES / "models").iterdir()} == set(CONFIGS.values())


def test_without_the_model_the_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "none"))
    words = ["fit", f"{RECIPES}/qwen_05b:dpo", "--trainer.accelerator", "cpu"]
    assert call(words) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: no such folder for a model: Qwen/Qwen2.5-0.5B-Instruct")
    assert last.endswith("Give a folder, or download it elsewhere.")
