"""``alignlab fork``: a stage file with the settings of an existing run, some of them changed."""

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError
from alignlab.files import atomic_write
from alignlab.plan import overlay
from alignlab.records.diff import settings_between
from alignlab.records.find import PARENT, Run, find_run, texts_in

FORKS = Path("forks")
LONGEST = 120  # characters of a file's name that is made up
OWN = ("default_root_dir", "logger")  # of the trainer: where files go


def fork(
    name: str, roots: Sequence[Path], settings: Sequence[str], out: Path | None, *, start: bool
) -> tuple[Path, list[str]]:
    """Write a config with the parent's settings and changes; returns its file, and what to say.

    Args:
        name: The parent.
        roots: Where to look for its name.
        settings: ``key=value``, keys dotted as in ``alignlab fit``.
        out: The file; by default in ``forks``, named after the parent and the changes.
        start: It will be trained at once, so its inputs have to be there.

    Raises:
        ConfigError: No such run, no config of it, a call, a setting that its classes do not take,
            nothing changed, or a file that is there already.
    """
    parent = find_run(name, roots)
    config = _trained(parent)
    changed = forked(config, settings)
    lines = settings_between(config, changed)
    if not lines:
        raise ConfigError(f"{parent.label} has these settings already. Change one with --set.")
    missing = [each.label for each in parent.inputs if each.folder is None]
    if missing and start:
        raise ConfigError(
            f"{parent.label}: its inputs were not kept: {', '.join(missing)}. Make them again with "
            "the command that alignlab show names, or leave --run out."
        )
    changed[PARENT] = {"run": parent.label, "config_sha": parent.config_sha}
    _check(changed)
    path = out or FORKS / f"{_named(parent.run_id, settings)}.yaml"
    if path.exists():
        raise ConfigError(f"{path} is there already. Name another file with --out.")
    comment = "".join(f"# {line}\n" for line in (f"A fork of {parent.label}:", *lines))
    atomic_write(path, (comment + overlay.write_yaml(changed)).encode())
    lines.append(f"{path}: a fork of {parent.label}")
    if missing:
        lines.append(f"note: its inputs were not kept: {', '.join(missing)}. Make them first.")
    if not start:
        lines.append(f"Train it: alignlab fit --config {path}")
    return path, lines


def _trained(parent: Run) -> dict[str, Any]:
    """The parent's config, without the places that its files went to."""
    config = parent.config
    if not config:
        raise ConfigError(f"{parent.label}: its config was not kept, so it cannot be forked.")
    if "model" not in config:
        raise ConfigError(
            f"{parent.label} is a call, which trains nothing. Change its 'args' in pipeline.yaml."
        )
    folder = parent.folder
    trainer = {
        key: value
        for key, value in (config.get("trainer") or {}).items()
        if key not in OWN or folder is None or not _leads_into(folder, value)
    }
    kept = {key: value for key, value in config.items() if key not in ("ckpt_path", PARENT)}
    return kept | {"trainer": trainer}


def _leads_into(folder: Path, value: Any) -> bool:
    return any(Path(text).is_relative_to(folder) for text in texts_in(value))


def forked(config: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """``config`` with ``key=value`` set, values as YAML spells them.

    Raises:
        ConfigError: No ``key=value``, or a key that leads nowhere.
    """
    changed = copy.deepcopy(dict(config))
    for setting in settings:
        said = f"--set {setting}: expected KEY=VALUE, as model.init_args.beta=0.5."
        key, value = overlay.key_and_value(setting, said)
        overlay.set_dotted(changed, key, value)
    return changed


def _check(config: dict[str, Any]) -> None:
    from alignlab.training import fit

    fit.check(config, here=False)


def _named(run_id: str, settings: Sequence[str]) -> str:
    short = [setting.partition("=")[0].rpartition(".")[2] + setting.partition("=")[2]
             for setting in settings]  # fmt: skip
    return re.sub("[^A-Za-z0-9._-]+", "_", "-".join([run_id, *short]))[:LONGEST]
