"""Write the folder of a template: its files with ``$names`` replaced and unused parts left out."""

import json
import re
from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from alignlab.errors import ConfigError
from alignlab.files import refuse_run

FILES = files("alignlab.start") / "files"
KINDS = ("dpo", "ppo", "sft-chat", "rm", "kto", "compare")
SMALL, RATE = 5e6, 1e-4  # weights of a model, and the learning rate of experiments/hh for it
POWER = 0.75  # so that 8e9 weights get 4e-7, near the 5e-7 of arXiv:2405.14734
_OBJECTIVE = re.compile(r"^    objective: \w+\n", re.MULTILINE)  # its runs are evaluated by a probe
_BLOCK = re.compile(r"^#if (\w+)\n(.*?)^#end\n", re.MULTILINE | re.DOTALL)


def settings(folder: Path, *, policy: str, reward: str | None, **given: Any) -> dict[str, Any]:
    """Values of a template's names, with the defaults of those that are not ``given``.

    Args:
        folder: The folder to be written.
        policy: Folder or hub id of the model to start from.
        reward: Short form of the reward, or ``None``.
        given: Further names; ``None`` stands for the default.
    """
    given = {name: value for name, value in given.items() if value is not None}
    steps = given.get("steps", 100)
    max_length, new_tokens = given.get("max_length", 512), given.get("new_tokens", 64)
    return {
        "folder": str(folder),
        "name": folder.name,
        "results": f"results/{folder.resolve().name}",
        "policy": policy,
        "reward": reward,
        "lr": learning_rate(policy),
        "batch": 32,
        "steps": steps,
        "warmup": max(1, steps // 10),
        "every": max(1, steps // 3),
        "max_length": max_length,
        "new_tokens": new_tokens,
        "prompt_length": max(1, max_length - new_tokens),
        **given,
    }


def learning_rate(policy: str) -> float:
    """A learning rate by the model's size: from its weight files, or the ``7B`` in its name.

    Raises:
        ConfigError: The folder is that of a run.
    """
    refuse_run(policy)
    size = sum(file.stat().st_size for file in Path(policy).glob("*.safetensors")) / 4
    if not size:
        named = re.search(r"(\d+(?:\.\d+)?)([bm])(?![a-z])", Path(policy).name.lower())
        size = float(named[1]) * {"b": 1e9, "m": 1e6}[named[2]] if named else 5e8
    return float(f"{RATE * min(1.0, (SMALL / size) ** POWER):.0e}")


def write(folder: Path, kind: str, values: Mapping[str, Any], parts: Collection[str] = ()) -> None:
    """Write the files of a template into a new folder.

    Args:
        folder: Where.
        kind: One of ``KINDS``.
        values: Name -> value; in YAML, a text is quoted where it needs to be.
        parts: Which of the parts between ``#if NAME`` and ``#end`` are kept; a file whose name is
            a part's is written only with that part.

    Raises:
        ConfigError: The folder is there already.
    """
    if folder.exists():
        raise ConfigError(f"{folder}: it exists already. Name another folder, or delete it.")
    texts = rendered(kind, values, parts)
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def rendered(kind: str, values: Mapping[str, Any], parts: Collection[str] = ()) -> dict[str, str]:
    """Name -> text of the files of a template; see ``write``."""
    found = {}
    inputs = [*FILES.iterdir(), *(FILES / kind).iterdir()]
    own = {each.name: each for each in inputs if each.is_file()}  # a template's own file wins
    for source in own.values():
        stem, _, ending = source.name.rpartition(".")
        if ending == "in":
            name = f"{stem}.md" if stem == "README" else f"{stem}.py"
        elif kind == "compare" and not (stem in parts or stem in ALWAYS):
            continue
        else:
            name = source.name
        text = _BLOCK.sub(lambda m: m[2] if m[1] in parts else "", source.read_text("utf-8"))
        if "no_reward" in parts:
            text = _OBJECTIVE.sub("", text)
        shown = {key: _yaml(value) for key, value in values.items()} if ending == "yaml" else values
        found[name] = _filled(text, shown, values)
    return found


ALWAYS = ("pipeline", "_pairs")  # of compare's stages


def _filled(text: str, shown: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    """``text`` with its names filled; a comment has values without quotes."""
    lines = [
        Template(line).substitute(plain if line.lstrip().startswith("#") else shown)
        for line in text.split("\n")
    ]
    return "\n".join(lines)


def _yaml(value: Any) -> str:
    """``value`` as YAML writes it on one line."""
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z./][\w./-]*(:[\w.]+)?", value)
        word = value.lower() in ("yes", "no", "on", "off", "true", "false", "null")
        return value if plain and not word else json.dumps(value)
    return json.dumps(value)
