"""Adapters on a language model (peft): which base they stand on, and which set of them is on.

A policy's own adapters are peft's ``default``. Beside them may stand the values' (``VALUE``) and a
frozen copy of what the policy's were at the start (``START``), on one set of base weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from alignlab.errors import ConfigError

OWN, VALUE, START = "default", "value", "start"
CONFIG = "adapter_config.json"
BASE = "base"  # folder, inside an adapter's, of a base model that is nowhere else


def is_adapter(source: str) -> bool:
    """Whether the folder ``source`` holds adapters and not a whole model."""
    return (Path(source) / CONFIG).exists()


def adapter_config(source: str) -> Any:
    """What peft wrote of the adapters in the folder ``source``.

    Raises:
        ConfigError: It cannot be read.
    """
    from peft import PeftConfig  # seconds to import, and few runs need it

    try:
        return PeftConfig.from_pretrained(source)
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise ConfigError(f"{Path(source) / CONFIG} cannot be read: {problem}") from problem


def base_of(folder: str, named: str | None) -> str:
    """The folder or hub id of the model that the adapters in ``folder`` were trained on.

    ``named`` may be relative to the folder that the training ran in, which is forgotten, and the
    files may have moved together since. So a relative path is tried from ``folder``, from every
    folder around it and from the working directory, and a path that is gone by its last parts, two
    or more, from the folders around ``folder``.

    Raises:
        ConfigError: No base is named, none is there, or the name fits several models.
    """
    where = f"{Path(folder) / CONFIG} (base_model_name_or_path)"
    if not named:
        raise ConfigError(
            f"{folder} holds adapters and does not name their model. Write its path into {where}."
        )
    path, own = Path(named), Path(folder).resolve()
    around = [own, *own.parents]
    if path.is_absolute():
        tails = [Path(*path.parts[i:]) for i in range(1, len(path.parts) - 1)]
        groups = [[path], *([place / tail for place in around] for tail in tails)]
        groups.append([own / path.name])
    else:
        groups = [[place / path for place in (*around, Path.cwd())]]
    for group in groups:
        found = {there for p in group if (there := p.resolve()) != own and _holds_model(there)}
        if len(found) > 1:
            raise ConfigError(
                f"the adapters in {folder} need {named!r}, which may be any of "
                f"{', '.join(sorted(map(str, found)))}. Write the whole path of one into {where}."
            )
        if found:
            return str(found.pop())
    if path.is_absolute() or named.startswith(".") or named.count("/") > 1:
        raise ConfigError(
            f"the adapters in {folder} need the model {named!r}, which does not exist. Put it "
            f"back, or write its path into {where}."
        )
    return named


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").exists() or (folder / CONFIG).exists()


def whole_path(source: str) -> str:
    """``source``, a path that holds in any working directory if it is a folder."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def save_adapters(model: Any, path: Path, *, with_base: bool) -> None:
    """Write a policy's own adapters, ``with_base`` also the model that they belong to.

    Args:
        model: As peft wraps it.
        path: Folder to write.
        with_base: The base model is in no folder yet, because it was merged or made from a config.
    """
    if with_base:
        base, folder = model.get_base_model(), (path / BASE).resolve()
        state = {
            name.replace(".base_layer.", "."): tensor
            for name, tensor in base.state_dict().items()
            if ".lora_" not in name
        }
        base.save_pretrained(folder, state_dict=state)
        model.peft_config[OWN].base_model_name_or_path = str(folder)
    model.save_pretrained(path, selected_adapters=[OWN])  # others may stand beside them
    model.generation_config.save_pretrained(path)


def change_nothing(model: Any) -> bool:
    """Whether the model's own adapters are still as low-rank ones begin: their product is zero."""
    rest = [p for name, p in _own(model) if "lora_A" not in name]
    return not any(bool(p.any()) for p in rest)


def are_all_that_trains(model: Any) -> bool:
    """Whether nothing but the model's own adapters is trained (peft can train biases as well)."""
    own = {id(p) for _, p in _own(model)}
    return all(id(p) in own for p in model.parameters() if p.requires_grad)


def _own(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if OWN in name.split(".")]


@torch.no_grad()
def keep_start(model: Any) -> None:
    """Keep the model's own adapters as they are now, frozen, as the set ``START``."""
    trained = [(p, p.requires_grad) for p in model.parameters()]
    if START not in model.peft_config:
        start = deepcopy(model.peft_config[OWN])
        if hasattr(start, "bias"):
            start.bias = "none"  # a second set must not train biases, though there are none
        with torch.random.fork_rng(devices=[]):  # peft draws what is overwritten below
            model.add_adapter(START, start)
    for parameter, flag in trained:
        parameter.requires_grad_(flag)
    state = model.state_dict()
    for name, tensor in state.items():
        parts = name.split(".")
        if OWN in parts:
            state[".".join(START if part == OWN else part for part in parts)].copy_(tensor)
    for name, parameter in model.named_parameters():
        if START in name.split("."):
            parameter.requires_grad_(False)


@contextmanager
def switched_to(model: Any, name: str) -> Iterator[None]:
    """The set ``name`` in the place of the model's own, which get no gradient meanwhile."""
    trained = [(p, p.requires_grad) for p in model.parameters()]
    model.set_adapter(name)  # peft also switches off what the other adapters may learn
    try:
        yield
    finally:
        model.set_adapter(OWN)
        for parameter, flag in trained:
            parameter.requires_grad_(flag)
