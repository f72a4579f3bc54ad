"""The folder of a comparison: its files, the options behind them, and what a budget buys."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError
from alignlab.files import atomic_write
from alignlab.plan import overlay

RECORD = "compare.json"  # the options, in the experiment's folder
VALUES: dict[str, tuple[float, ...]] = {  # of each objective's own setting, the first ones first
    "dpo": (0.1, 0.03, 0.3, 0.01, 1.0),
    "ipo": (0.1, 0.03, 0.3, 0.01, 1.0),
    "simpo": (2.5, 10.0, 1.0, 5.0, 20.0),
    "orpo": (0.1, 0.3, 1.0, 0.03, 3.0),
    "ppo": (0.1, 0.03, 0.3, 0.01, 1.0),
}
SIZES = ((1, 2), (2, 2), (3, 2), (3, 3), (5, 3), (5, 4), (5, 5))  # settings and seeds, by cost
SETTINGS, SEEDS = 3, 3


def parts_of(objectives: Sequence[str], reward: str | None) -> set[str]:
    """Which parts and files of the template a comparison has."""
    parts = {*objectives, "reward" if reward else "no_reward"}
    return parts | ({"reward_model"} if "ppo" in objectives else set())


def compare_values(
    values: Mapping[str, Any], pairs: str, objectives: Sequence[str], *, settings: int, seeds: int
) -> dict[str, Any]:
    """Values of the names in the template ``compare``, added to ``values``."""
    return {
        **values,
        "pairs": pairs,
        "objectives": ", ".join(objectives),
        "seeds": list(range(seeds)),
        "held_out": 0.1,
        "prompts": 64,
        "prompt_tokens": max(16, values["max_length"] - values["new_tokens"]),
        "reward_label": str(values["reward"]),
        "trained": ["data", *objectives],
        "placeholders": [f"{{{name}}}" for name in objectives],
        **{f"{name}_values": sorted(VALUES[name][:settings]) for name in VALUES},
    }


def opened(folder: Path, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a comparison that was begun in ``folder``; ``None`` if there is none.

    Raises:
        ConfigError: It was begun with other options, or the folder holds something else.
    """
    if not folder.exists():
        return None
    if not (folder / RECORD).is_file():
        raise ConfigError(
            f"{folder}: it exists and holds no comparison. Name another folder with --out."
        )
    record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    before = record["options"]
    changed = [
        f"--{name.replace('_', '-')} {options[name]} (it was {before.get(name)})"
        for name in options
        if options[name] != before.get(name)
    ]
    if changed:
        raise ConfigError(
            f"{folder} was begun with other options: {', '.join(changed)}. Name another folder "
            "with --out, or edit its files and call: alignlab run " + str(folder)
        )
    return record


def write_record(folder: Path, options: Mapping[str, Any], **found: Any) -> None:
    """Keep the options, and what is known of the comparison's size."""
    text = json.dumps({"options": dict(options), **found}, indent=2) + "\n"
    atomic_write(folder / RECORD, text.encode())


def resize(folder: Path, settings: int, seeds: int, objectives: Sequence[str]) -> None:
    """Give the pipeline of a comparison more settings and seeds; finished runs stay as they are.

    Raises:
        ConfigError: The pipeline is not as it was written.
    """
    path = folder / "pipeline.yaml"
    text = path.read_text(encoding="utf-8")
    if "seeds: [0]\n" not in text:
        raise ConfigError(f"{path}: seeds is not [0] any more. Call: alignlab run {folder}")
    text = text.replace("seeds: [0]\n", f"seeds: {list(range(seeds))}\n")
    layer = overlay.read_yaml(path)["stages"]
    for name in objectives:
        ((key, old),) = layer[name]["grid"].items()
        new = sorted(VALUES[name][:settings])
        head, stage, rest = text.partition(f"\n  {name}:\n")
        text = (
            head + stage + rest.replace(f"{key}: {json.dumps(old)}", f"{key}: {json.dumps(new)}", 1)
        )
    atomic_write(path, text.encode())


def affordable(
    results: Path, objectives: Sequence[str], budget: float, workers: int, elapsed: float = 0.0
) -> tuple[int, int, str]:
    """How many settings and seeds fit into a time, from the seconds of the first runs.

    Args:
        results: Results of one setting and one seed of each objective.
        objectives: Their names.
        budget: Seconds in all, from the beginning.
        workers: Processes side by side.
        elapsed: Seconds that this call has taken, imports and checks included.

    Returns:
        Settings, seeds, and a line that says why.
    """
    with (results / "stages.csv").open(encoding="utf-8") as file:
        rows = [(row["stage"], float(row["seconds"])) for row in csv.DictReader(file)]
    each = {name: math.fsum(s for stage, s in rows if stage == name) for name in objectives}
    if "ppo" in objectives:
        each["reward_model"] = math.fsum(s for stage, s in rows if stage == "reward_model")
    spent = max(elapsed, math.fsum(seconds for _, seconds in rows) / workers)
    by_size = {}
    for settings, seeds in SIZES:
        models = each.get("reward_model", 0.0) * (seeds - 1)
        runs = math.fsum(each[name] for name in objectives) * (settings * seeds - 1)
        by_size[settings, seeds] = spent + (models + runs) / workers
    fit = [size for size, seconds in by_size.items() if seconds <= budget]
    settings, seeds = fit[-1] if fit else (1, 1)
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in each.items())
    need = by_size.get((settings, seeds), spent)
    return (
        settings,
        seeds,
        f"The first runs took {took}. In {budget / 60:.0f} minutes fit {settings} settings x "
        f"{seeds} seeds of {len(objectives)} objectives on {workers} processes: about "
        f"{need / 60:.0f} minutes, those of the first runs included."
        + ("" if fit else " More does not fit, so the answer has one seed."),
    )
