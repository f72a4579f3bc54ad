"""A run of ``alignlab fit`` as a results folder, so that ``alignlab frontier`` can read it.

The run's evaluations become ``points.csv`` and ``points/<run>.parquet``; the reference's samples,
which a pipeline draws in a stage of its own, are drawn once from what the run's config names.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError, DataError
from alignlab.results.run_folder import CONFIG, RunFolder, evaluations_in, lone_name
from alignlab.results.run_records import POINTS, table_of

POOL_FACTOR = 8  # the reference's samples of a prompt, for each of an evaluation's


def as_results(folders: Sequence[Path]) -> list[Path]:
    """``folders`` with every run of ``alignlab fit`` in them made a results folder.

    Args:
        folders: Results folders, which are left alone; runs; or folders with runs in
            ``lightning_logs``.
    """
    return [ready for folder in folders for ready in _ready(folder)]


def _ready(folder: Path) -> Iterator[Path]:
    runs = [folder] if _is_run(folder) else sorted(filter(_is_run, folder.glob("*/version_*")))
    whole = (folder / POINTS).exists() and not _is_run(folder)
    if not whole and not runs and (folder / CONFIG).is_file():
        raise ConfigError(
            f"{folder}: a run without an evaluation. Give its config a probe whose "
            "every_n_steps the run reaches."
        )
    if whole or not runs:
        yield folder
        return
    for run in runs:
        _collect(run)
        yield run


def _is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and bool(evaluations_in(folder))


def _collect(run: Path) -> None:
    """Write the tables of a run, and its pool unless it has one drawn with the same settings."""
    import yaml

    from alignlab.files import belongs, read_record, stamp, write_record
    from alignlab.results.pool import POOL_NAME, POOL_RECORD

    text = (run / CONFIG).read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    _write_points(run, config, hashlib.sha256(text.encode()).hexdigest()[:12])
    drawn_from = {key: config[key] for key in ("model", "probe") if config.get(key) is not None}
    drawn_from["trainer"] = {"callbacks": config["trainer"].get("callbacks")}
    wanted = hashlib.sha256(json.dumps(drawn_from, sort_keys=True).encode()).hexdigest()
    pool, record = run / POOL_NAME, run / POOL_RECORD
    drawn = (read_record(record) or {}).get("drawn_from")
    if drawn != wanted or not belongs(record, pool.name):
        _draw_pool(run)
        write_record(record, {"drawn_from": wanted, "files": {pool.name: stamp(pool)}})


def _write_points(run: Path, config: Mapping[str, Any], sha: str) -> None:
    from alignlab.files import read_record
    from alignlab.results.prompt_tables import collect
    from alignlab.results.tables import write_points

    origin = read_record(RunFolder(run).origin_file) or {}
    name = lone_name(run)  # figures of several are merged
    evaluations = evaluations_in(run)
    for damaged in (each for each in evaluations if not each.is_whole):
        raise DataError(f"{damaged.scores}: damaged, or not what the run wrote. Run it again.")
    points = collect(
        evaluations,
        table_of(run, name),
        objective=config["model"]["class_path"].rpartition(".")[2].lower(),
        run_id=name,
        seed=int(config.get("seed_everything") or 0),
        experiment="/".join(run.resolve().parts[-2:]),
        hparams=_hparams(config["model"]["init_args"]),
        config_sha=sha,
        git_sha=origin.get("git_sha", ""),
    )
    write_points(run / POINTS, points)


def _hparams(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers that an objective was given, and its learning rate."""
    own = {k: v for k, v in arguments.items() if isinstance(v, (int, float))}
    optimizer = arguments.get("optimizer") or {}
    return own | {"lr": (optimizer.get("init_args") or {}).get("lr")}


def _draw_pool(run: Path) -> None:
    from lightning.pytorch import Callback

    from alignlab.callbacks.probe import FrontierProbe
    from alignlab.results.pool import POOL_NAME
    from alignlab.stages.pool_sampling import build_pool
    from alignlab.training import fit

    command = fit.build(["--config", str(run / CONFIG)])
    callbacks: list[Callback] = command.trainer.callbacks  # type: ignore[attr-defined]
    probe = next(each for each in callbacks if isinstance(each, FrontierProbe))
    probe.prepare(command.model)
    assert probe.reference is not None
    samples = POOL_FACTOR * probe.samples
    print(f"{run}: sampling {samples} completions of the reference for each of "
          f"{len(probe.prompts)} prompts, once", flush=True)  # fmt: skip
    build_pool(
        probe.reference.to(command.trainer.strategy.root_device),
        probe.prompts,
        probe.reward,
        samples=samples,
        max_new_tokens=probe.max_new_tokens,
        seed=probe.seed,
        stop_ids=command.model.policy.stop_ids,
        proxy=probe.proxy,
        batch_size=probe.batch_size,
    ).save(run / POOL_NAME)
