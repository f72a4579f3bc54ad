"""``alignlab compare``: an experiment on a user's own pairs, from one command to an answer."""

import argparse
import re
import time
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError
from alignlab.files import Made, atomic_write
from alignlab.start import folder as folders
from alignlab.start.folder import SEEDS, SETTINGS, VALUES

EXAMPLE = (
    "alignlab compare --policy Qwen/Qwen2.5-0.5B --pairs pairs.jsonl --reward my_reward.py:score "
    "--objectives dpo,simpo --budget 2h"
)
ANSWER = "answer.txt"
NAMES = ("steps", "batch", "lr", "max_length", "new_tokens")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's options."""
    add = parser.add_argument
    add("--policy", required=True, metavar="MODEL", help="folder or hub id of the model")
    add("--pairs", required=True, metavar="FILE", help="pairs: prompt, chosen, rejected")
    add(
        "--reward",
        metavar="SPEC",
        help="what measures the policies (docs/rewards.md); without one, they are measured by how "
        "often they prefer the chosen reply of held-out pairs",
    )
    add("--objectives", type=_names, default=("dpo", "simpo"), metavar="LIST",
        help=f"any of {', '.join(VALUES)} (default: dpo,simpo)")  # fmt: skip
    add("--budget", type=_seconds, metavar="TIME",
        help="such as 25m or 2h: the first runs are timed to decide how many settings and seeds "
        "fit")  # fmt: skip
    add(
        "--settings",
        dest="points",
        type=int,
        metavar="K",
        help=f"settings of each objective, 1 to 5 (default: {SETTINGS})",
    )
    add("--seeds", type=int, metavar="S", help=f"seeds of each setting (default: {SEEDS})")
    add("--out", type=Path, metavar="DIR", help="experiment folder (default: compare-<pairs>)")
    add("--steps", type=int, metavar="N", help="optimizer steps of a run (default: one epoch)")
    add("--batch", type=int, metavar="N", help="pairs per step (default: 32)")
    add("--lr", type=float, metavar="RATE", help="default: by the size of the model")
    add("--max-length", type=int, metavar="N", help="tokens of prompt and reply (default: 512)")
    add("--new-tokens", type=int, metavar="N", help="tokens of a sampled reply (default: 64)")
    add("--workers", type=int, default=2, metavar="N", help="processes (default: 2)")


def run(args: argparse.Namespace) -> int:
    """Do what is left of a comparison; returns the exit status.

    Raises:
        ConfigError: Impossible options, or others than the folder was begun with.
    """
    began = time.monotonic()
    _check(args)
    folder = args.out or Path(f"compare-{Path(args.pairs).name.partition('.')[0]}")
    results = Path("results") / folder.resolve().name
    options: dict[str, Any] = {
        name: getattr(args, name)
        for name in ("policy", "pairs", "reward", "budget", "seeds", *NAMES)
    }
    options["settings"] = args.points
    options["objectives"] = list(args.objectives)
    record = folders.opened(folder, options)
    made = [Made(folder), Made(results)]
    if record is None:
        record = _begin(args, folder, options)
    else:
        print(f"{folder}: continuing the comparison that was begun there.", flush=True)
    if not (results / "stages.csv").is_file() and (
        status := _examine(folder, args.objectives[0], results)
    ):
        if made[0].is_new:  # otherwise its files may have been edited
            for each in made:
                each.remove()
            print(f"{folder} was deleted, so that the next call may have other options.")
        return status
    if args.budget and "size" not in record:
        if status := _run(folder, args.workers):
            return status
        settings, seeds, why = folders.affordable(
            results, args.objectives, args.budget, args.workers, time.monotonic() - began
        )
        print(f"\n{why}\n", flush=True)
        folders.resize(folder, settings, seeds, args.objectives)
        folders.write_record(folder, options, size=[settings, seeds], why=why)
    if status := _run(folder, args.workers):
        return status
    said = _answer(results, args)
    atomic_write(results / ANSWER, (said + "\n").encode())
    print(
        f"\n{said}\n\nIn {results}: {ANSWER}, " + ("report.html" if args.reward else "accuracy.csv")
    )
    return 0


def _begin(args: argparse.Namespace, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Write the experiment."""
    from alignlab.start import fill

    given = {name: getattr(args, name) for name in NAMES}
    given["batch"] = args.batch or 32
    given["steps"] = args.steps or _epoch(args.pairs, given["batch"])
    values = fill.settings(folder, policy=args.policy, reward=args.reward, **given)
    settings, seeds = (1, 1) if args.budget else (args.points or SETTINGS, args.seeds or SEEDS)
    values = folders.compare_values(
        values, args.pairs, args.objectives, settings=settings, seeds=seeds
    )
    fill.write(folder, "compare", values, folders.parts_of(args.objectives, args.reward))
    folders.write_record(folder, options)
    print(
        f"{folder}: an experiment of {', '.join(args.objectives)}, {values['steps']} steps of "
        f"{values['batch']} pairs, learning rate {values['lr']:g}. Its files are yours to edit.",
        flush=True,
    )
    return {"options": options}


def _epoch(pairs: str, batch: int) -> int:
    """Optimizer steps of one pass over the pairs that are not held out."""
    from alignlab.data.rows import PreferencePair
    from alignlab.data.sources import read_rows

    rows, _ = read_rows(pairs, PreferencePair)
    return max(1, round(0.9 * len(rows) / batch))


def _examine(folder: Path, objective: str, results: Path) -> int:
    """Divide the pairs, then plan and check the first objective's run; the exit status."""
    from alignlab.capacity import command as plan_command
    from alignlab.doctor import command as doctor_command
    from alignlab.pipeline import run_experiment

    if status := run_experiment(folder, only="data", workers=1):
        return status
    stage = f"{folder}:{objective}"
    parser = argparse.ArgumentParser()
    plan_command.add_arguments(parser)
    print(f"\nalignlab plan {stage}", flush=True)
    plan_command.run(parser.parse_args([stage], argparse.Namespace(settings=[])))
    print(f"\nalignlab doctor {stage}", flush=True)
    status = doctor_command.run(argparse.Namespace(settings=[stage], json=False))
    if status:  # so that the next call examines it again
        (results / "stages.csv").unlink(missing_ok=True)
    return status


def _run(folder: Path, workers: int) -> int:
    from alignlab.pipeline import run_experiment

    return run_experiment(folder, workers=workers)


def _answer(results: Path, args: argparse.Namespace) -> str:
    from alignlab.start.answer import accuracy_answer, answer

    if args.reward:
        return answer(results)
    return accuracy_answer(results, args.objectives)


def _check(args: argparse.Namespace) -> None:
    for name, most in (("points", 5), ("seeds", 100), ("workers", 64), ("steps", 10**9),
                       ("batch", 10**6), ("max_length", 10**7), ("new_tokens", 10**6)):  # fmt: skip
        value = getattr(args, name)
        if value is not None and not 1 <= value <= most:
            name = name.replace("points", "settings").replace("_", "-")
            raise ConfigError(f"--{name} must be 1 to {most}, got {value}.")
    if args.budget and (args.points or args.seeds):
        raise ConfigError(
            "--budget decides how many settings and seeds there are. Leave out --settings and "
            "--seeds, or --budget."
        )
    if args.reward:
        from alignlab.rewards.spec import from_text

        from_text(args.reward)
    elif "ppo" in args.objectives:
        raise ConfigError(
            "ppo needs --reward, by which it is measured. Give one, or leave ppo out."
        )


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in VALUES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no objective {unknown[0]!r}; choose from {', '.join(VALUES)}, or copy a stage by hand"
        )
    return names


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 25m or 2h, got {text!r}")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
