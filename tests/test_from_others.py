"""The page for users of other libraries: the names that it gives exist in TRL and in alignlab."""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import trl

from alignlab.cli import _parser
from alignlab.models.adapters import Lora
from alignlab.models.policy import Policy
from alignlab.objectives.on_policy import Sampling
from alignlab.objectives.schedule import Schedule
from alignlab.training.help import objectives

PAGE = (Path(__file__).parents[1] / "docs/from_others.md").read_text()
NESTED: dict[str, Callable[..., Any]] = {
    "policy": Policy,
    "lora": Lora,
    "sampling": Sampling,
    "schedule": Schedule,
}
DATA = ["PreferenceData", "DemonstrationData", "JudgedData"]
CONFIGS = [
    "SFTConfig",
    "DPOConfig",
    "RewardConfig",
    "GRPOConfig",
    "RLOOConfig",
    "KTOConfig",
    "ModelConfig",
]
OF_TRAINERS = {"peft_config", "ref_model", "reward_funcs"}
QUANTISED = "BitsAndBytesConfig(load_in_4bit)"  # of transformers
HEADS = 11  # rows before the settings of TRL: the trainers, and the columns' headings


def table(title: str) -> list[list[str]]:
    """The cells of all rows of tables under the heading ``title``, headings of columns first."""
    text = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip(" |") for cell in row] for row in rows]


def code(cell: str) -> list[str]:
    """What is between backquotes."""
    return re.findall(r"`([^`]+)`", cell)


def loaded(path: str) -> Callable[..., Any]:
    """The class that ``path`` names."""
    module, _, name = path.rpartition(".")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def arguments(*classes: Callable[..., Any]) -> set[str]:
    """The names of their arguments."""
    return {name for each in classes for name in inspect.signature(each).parameters}


def settings() -> dict[str, set[str]]:
    """The arguments that may stand under each beginning of a key."""
    data = [loaded(f"alignlab.data.modules.{name}") for name in DATA]
    return {
        "model.init_args": arguments(*(loaded(path) for path, _ in objectives())),
        "data.init_args": arguments(loaded("alignlab.data.rollout_data.RolloutData"), *data),
        "trainer": arguments(lightning.Trainer),
    }


def test_every_key_of_alignlab_exists() -> None:
    known, seen = settings(), 0
    for row in table("From TRL") + table("From LLaMA-Factory"):
        for key in code(row[1]):
            beginning = next((name for name in known if key.startswith(f"{name}.")), None)
            if beginning is None:
                continue
            first, *rest = key.split(":")[0].removeprefix(f"{beginning}.").split(".")
            assert first in known[beginning], key
            parent = first
            for name in rest:
                assert name in arguments(NESTED[parent]), key
                parent = name
            seen += 1
    assert seen > 70


def test_every_class_exists() -> None:
    paths = re.findall(r"`(alignlab\.[\w.]+)`", PAGE)
    assert len(paths) > 12
    assert all(inspect.isclass(loaded(path)) for path in paths)


def test_every_setting_of_trl_exists() -> None:
    fields = {f.name for name in CONFIGS for f in dataclasses.fields(getattr(trl, name))}
    names = [name for row in table("From TRL")[HEADS:] for name in code(row[0])]
    plain = {re.split(r"[=\[]", name)[0] for name in names} - {QUANTISED}
    assert len(plain) > 40
    assert plain <= fields | OF_TRAINERS


def test_every_command_exists() -> None:
    commands = set(re.findall(r"`alignlab ([a-z-]+)", PAGE))
    listed = set(re.findall(r"^    ([a-z-]+)", _parser().format_help(), re.MULTILINE))
    assert len(commands) > 8
    assert commands <= listed
