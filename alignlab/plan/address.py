"""Addresses such as ``experiments/quickstart:dpo``: a stage, with the pipeline's config for it."""

import argparse
import contextlib
import itertools
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError
from alignlab.plan import overlay
from alignlab.plan.experiment import SMOKE, Job, Plan, found, load_plan
from alignlab.plan.state import Standing


def as_config(command: str, words: Sequence[str], folder: Path) -> list[str]:
    """Replace ``DIR:STAGE`` and its options on a command line by ``--config FILE``.

    A line on standard error says which seed and grid point it is. For ``plan``, an input stage that
    has not been run is replaced by the model that it starts from.

    Args:
        command: ``fit``, ``validate`` or ``plan``.
        words: ``DIR:STAGE``, its own options, and options of the training run.
        folder: Where the file is written.

    Raises:
        ConfigError: No such experiment, stage, seed or grid point; the stage is a call; or an input
            has not been made.
    """
    parser = argparse.ArgumentParser(f"alignlab {command}", add_help=False, allow_abbrev=False)
    parser.add_argument("address", metavar="DIR:STAGE")
    parser.add_argument("--scale", metavar="NAME")
    parser.add_argument("--results", type=Path, metavar="DIR")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--point", type=int, default=0, metavar="K")
    args, rest = parser.parse_known_args(words)
    experiment, _, stage = args.address.rpartition(":")
    seeds = None if args.seed is None else [args.seed]
    plan = load_plan(Path(experiment), scale=args.scale, results=args.results, seeds=seeds)
    run = ["alignlab", "run", experiment]
    for option, value in (("--scale", args.scale), ("--results", args.results)):
        run += [] if value is None else [option, str(value)]
    try:
        job = _job(plan, stage, args.seed, args.point, run)
        if job.lacks:
            raise ConfigError(job.lacks)
        if job.budget is not None and not plan.chosen(job):
            raise ConfigError(_not_tuned(plan, job, run))
        absent = _absent_inputs(plan, job, rest, run)
        begins = _beginnings(plan, absent) if command == "plan" else {}
        _check_made(plan, [each for each in absent if str(plan.folder(each)) not in begins], run)
    except ConfigError as error:
        raise ConfigError(f"{args.address}: {error}") from None
    print(f"{args.address}: {job.name}, with inputs from {plan.results}", file=sys.stderr)
    for made, source in begins.items():
        print(f"note: {made} does not exist yet; planned with {source}.", file=sys.stderr)
    file = folder / "stage.yaml"
    config = _replaced(plan.resolved(job)["config"], begins)
    file.write_text(overlay.write_yaml(config), encoding="utf-8")
    return ["--config", str(file), *rest]


def fit_words(command: str, words: Sequence[str], folder: Path) -> list[str]:
    """Prepare the words of ``alignlab fit`` for its parser: replace an address, check the files.

    An unreadable config is refused here, before the heavy imports, which take seconds.

    Raises:
        ConfigError: As ``as_config``; or a file is missing, unreadable, or only part of a stage.
    """
    words = list(words)
    if words and ":" in words[0] and not words[0].startswith("-"):
        words = as_config(command, words, folder)
    if words and words[0].endswith((".yaml", ".yml")):
        raise ConfigError(
            f"a stage's file needs --config. Call: alignlab {command} --config {words[0]}"
        )
    words = with_installed(words)
    files = [file for word, file in itertools.pairwise([*words, ""]) if word == "--config"]
    if "" in files:
        raise ConfigError("--config needs a file, such as experiments/own_data/dpo.yaml.")
    keys = {key for file in files for key in overlay.read_yaml(Path(file))}
    beside = Path(files[0]).with_name("pipeline.yaml") if files else Path()
    if not {"model", "data"} <= keys and beside.is_file():
        raise ConfigError(
            f"{files[0]} is a part of a stage, without model or data: {beside} names the other "
            f"parts. Train the stage by its address, {beside.parent}:STAGE."
        )
    return words


def with_installed(words: Iterable[str]) -> list[str]:
    """Split ``--config=FILE`` into two words; use the installed file where FILE is missing."""
    apart: list[str] = []
    for word in words:
        option, equals, file = word.partition("=")
        apart += [option, file] if equals and option == "--config" else [word]
    return [
        str(found(Path(word))) if before == "--config" and word else word
        for before, word in itertools.pairwise(["", *apart])
    ]


def _job(plan: Plan, stage: str, seed: int | None, point: int, run: Sequence[str]) -> Job:
    if stage not in plan.stages:
        trained = [name for name, found in plan.stages.items() if "fit" in found.entry]
        scales = " or ".join(f"--scale {name}" for name in _scales_with(stage, plan.experiment))
        advice = f"Add {scales}." if scales else f"Stages that train: {', '.join(trained)}."
        raise ConfigError(f"{plan.name} has no stage {stage!r}. {advice}")
    entry = plan.stages[stage].entry
    if "call" in entry:
        command = shlex.join([*run, "--only", stage])
        raise ConfigError(f"a call of {entry['call']} trains nothing. Run it with: {command}")
    if seed is not None and not entry.get("per_seed"):
        raise ConfigError(f"it runs once for all seeds. Give --seed_everything {seed} instead.")
    own = [job for job in plan.jobs.values() if job.stage == stage]
    points = [job for job in own if job.seed in (None, plan.seeds[0])]
    if not 0 <= point < len(points):
        listed = ", ".join(f"{k} {job.hparams or job.key}" for k, job in enumerate(points))
        raise ConfigError(f"there is no grid point {point}. Points: {listed}.")
    return points[point]


def _not_tuned(plan: Plan, job: Job, run: Sequence[str]) -> str:
    if plan.choices(job):
        return f"no trial reached KL {job.budget:g}, so {job.name} has no settings. Take a --point."
    command = shlex.join([*run, "--only", job.stage])
    return f"its settings are found by trials, which have not been run. Run: {command}"


def _scales_with(stage: str, experiment: Path) -> Iterable[str]:
    for path in sorted((experiment / "scales").glob("*.yaml")):
        real = "." not in path.stem and path.stem != SMOKE
        if real and (overlay.read_yaml(path).get("stages") or {}).get(stage):
            yield path.stem


def _absent_inputs(plan: Plan, job: Job, options: Iterable[str], run: Sequence[str]) -> list[Job]:
    """The missing inputs of a training run that ``options`` do not replace."""
    config = overlay.merge({}, job.spec["config"])
    for word in options:
        if word.startswith("--"):
            with contextlib.suppress(ConfigError):  # the parser will report an unknown key
                overlay.set_dotted(config, word[2:].partition("=")[0], None)
    standing = Standing(plan)
    absent: dict[str, Job] = {}

    def look(name: str) -> str:
        if name == "out":
            raise ConfigError(
                f"its config names {{out}}, the folder of the pipeline's own run. Set each key "
                f"with {{out}} to another value by an option, or train it with: "
                f"{shlex.join([*run, '--only', job.stage])}"
            )
        needed = [plan.jobs[need] for need in job.needs.get(name, ())]
        absent.update({need.name: need for need in needed if not standing.done(need.name)})
        return ""

    overlay.fill(config, look)
    return list(absent.values())


def _check_made(plan: Plan, absent: Sequence[Job], run: Sequence[str]) -> None:
    if absent:
        seeds = {str(each.seed) for each in absent if each.seed is not None}
        command = [*run, *(["--seeds", ",".join(sorted(seeds))] if seeds else [])]
        command += ["--only", ",".join(dict.fromkeys(each.stage for each in absent))]
        raise ConfigError(
            f"it reads the output of {', '.join(each.name for each in absent)}. {plan.results} has "
            f"none with the experiment's present settings. Make it with: {shlex.join(command)}"
        )


def _beginnings(plan: Plan, absent: Iterable[Job]) -> dict[str, str]:
    """For each absent stage, folder -> the model that it starts from."""
    found, standing = {}, Standing(plan)
    for job in absent:
        settings = plan.resolved(job).get("config", {}).get("model", {}).get("init_args", {})
        model = settings.get("policy") or settings.get("model")
        model = model if isinstance(model, dict) else {}
        source = (model.get("init_args") or model).get("source")
        names = itertools.chain(*job.needs.values())
        needed = [plan.jobs[name] for name in names if not standing.done(name)]
        source = _beginnings(plan, needed).get(str(source), source)
        if source is not None and source not in [str(plan.folder(each)) for each in needed]:
            found[str(plan.folder(job))] = source
    return found


def _replaced(value: Any, known: Mapping[str, str]) -> Any:
    """``value`` with each string that is a key of ``known`` replaced by its value."""
    if isinstance(value, dict):
        return {key: _replaced(each, known) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, known) for each in value]
    return known.get(value, value) if isinstance(value, str) else value
