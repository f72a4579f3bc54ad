"""The YAML files of an experiment, merged: ``pipeline.yaml`` and its overlays.

A scale (``scales/<name>.yaml``), ``scales/smoke.yaml`` and, if it is there,
``scales/<name>.smoke.yaml`` have the same keys. A later file wins.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError
from alignlab.plan import overlay
from alignlab.plan.schema import PipelineKeys, check

SCALE, SMOKE = "[A-Za-z0-9][A-Za-z0-9_-]*", "smoke"
FIXED_NAMES = ("seed", "out", "experiment", "results")
TAKEN = (*FIXED_NAMES, "frontier", "check", "workers", "logs")
ROWS = ("best_of_n", "best_of_n_gt", "oracle", "reference")  # of the frontier, of no run


@dataclass(frozen=True)
class Stage:
    """A stage as the layers give it.

    Args:
        name: Its key.
        entry: Its other keys, merged.
        settings: The ``set`` of each layer, in order.
    """

    name: str
    entry: dict[str, Any] = field(default_factory=dict)
    settings: tuple[Mapping[str, Any], ...] = ()

    def changed(self, entry: Mapping[str, Any], common: Mapping[str, Any] | None = None) -> "Stage":
        """This stage under the keys of an overlay or of a sweep's arm.

        Another ``fit`` or ``call`` makes it another stage, which keeps no arguments.

        Args:
            entry: The keys.
            common: The layer's ``set`` for every training.

        Raises:
            ConfigError: ``set`` of a call.
        """
        over = {key: value for key, value in entry.items() if key != "set"}
        gone: set[str] = set()
        if "fit" in over:
            gone = {"call", "args"}
        elif "call" in over and over["call"] != self.entry.get("call"):
            gone = {"fit", "args"}
        kept = {key: value for key, value in self.entry.items() if key not in gone}
        merged = overlay.merge(kept, over)
        if entry.get("set") and "call" in merged:
            raise ConfigError(
                f"stage {self.name!r}: 'set' is for a stage that trains; a call takes 'args'."
            )
        return Stage(self.name, merged, (*self.settings, common or {}, entry.get("set") or {}))

    def check(self) -> None:
        """Refuse a name that cannot be a folder, and a stage without one of ``fit`` and ``call``.

        Raises:
            ConfigError: A wrong name, or not exactly one of the two.
        """
        where = f"stage {self.name!r}"
        if not re.fullmatch("[a-z][a-z0-9_]*", self.name) or self.name in TAKEN:
            raise ConfigError(
                f"{where}: a stage's name is lower-case letters, digits and _, and none of "
                f"{', '.join(TAKEN)}."
            )
        if ("fit" in self.entry) == ("call" in self.entry):
            raise ConfigError(
                f"{where} needs exactly one of 'fit: stage.yaml' and 'call: a.function'."
            )
        if "fit" in self.entry and "args" in self.entry:
            raise ConfigError(f"{where}: 'args' are for a call; a stage that trains takes 'set'.")
        if (objective := self.entry.get("objective")) in ROWS:
            raise ConfigError(
                f"{where}: objective {objective!r} is a row of its own in the frontier. "
                f"Choose a name other than {', '.join(ROWS)}."
            )


def read_layers(experiment: Path, scale: str | None, smoke: bool) -> list[dict[str, Any]]:
    """The files of an experiment under ``scale``, each to be merged into those before it.

    Raises:
        ConfigError: No such file, or one that is refused.
    """
    if not (experiment / "pipeline.yaml").is_file():
        raise ConfigError(
            f"{experiment}: no pipeline.yaml there. Name an experiment folder, such as "
            "experiments/quickstart."
        )
    if scale is not None and not re.fullmatch(SCALE, scale):
        raise ConfigError(f"a scale is named by letters, digits, _ and -, got {scale!r}.")
    if scale == SMOKE:  # by its folder it would be taken for a smoke run of the experiment
        raise ConfigError("smoke is not a scale of its own: give --smoke, with a scale or without.")
    scales = experiment / "scales"
    names = [*([scale] if scale else []), *[SMOKE] * smoke]
    if smoke and (scales / f"{scale}.smoke.yaml").is_file():
        names.append(f"{scale}.smoke")  # what this scale alone needs to be small
    layers: list[dict[str, Any]] = []
    for path in [experiment / "pipeline.yaml", *(scales / f"{name}.yaml" for name in names)]:
        if not path.is_file():
            known = sorted(p.stem for p in scales.glob("*.yaml") if "." not in p.stem)
            raise ConfigError(
                f"{experiment} has no scale {path.stem!r}. Known: {', '.join(known) or 'none'}."
            )
        layers.append(_read(path, layers))
    return layers


def _read(path: Path, before: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    layer = overlay.read_yaml(path)
    check(PipelineKeys, layer, str(path))
    stages = {name for earlier in before for name in earlier.get("stages") or {}}
    for name, entry in (layer.get("stages") or {}).items():
        if name not in stages and not {"fit", "call"} & set(entry or {}):
            raise ConfigError(
                f"{path}: stage {name!r} is new and has neither 'fit' nor 'call'. Add exactly one "
                f"of them, or name a stage to change: {', '.join(sorted(stages)) or 'none'}."
            )
    return layer


def merged_stages(layers: Sequence[Mapping[str, Any]]) -> list[Stage]:
    """The stages in order; a later layer adds, changes or drops (``name: null``) them.

    Raises:
        ConfigError: A stage that means nothing.
    """
    stages: dict[str, Stage] = {}
    listed = [layer.get("stages") or {} for layer in layers]
    for name in dict.fromkeys(name for entries in listed for name in entries):
        if any(name in entries and entries[name] is None for entries in listed):
            continue
        stage = Stage(name)
        for layer, entries in zip(layers, listed, strict=True):
            stage = stage.changed(entries.get(name) or {}, layer.get("set"))
        stage.check()
        stages[name] = stage
    return list(stages.values())
