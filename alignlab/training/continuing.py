"""Continue a run: find it, check its checkpoint, and restore its logs in its own folder."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from alignlab.callbacks import checkpoints, logs
from alignlab.callbacks.loggers import take_up_runs
from alignlab.callbacks.resume import LAST, Resume, run_folder, state_in
from alignlab.errors import ConfigError
from alignlab.results.run_folder import CONFIG
from alignlab.training.identity import check_objective, check_same

NEWEST = Path()  # to resume: the run that was saved last


def with_config_of(resume: Path, args: Sequence[str]) -> list[str]:
    """``args`` with the config of the run in ``resume``, unless they name a config themselves.

    Raises:
        ConfigError: There is no run in ``resume``.
    """
    config = resume / CONFIG
    if resume != NEWEST and not config.is_file():
        raise ConfigError(f"--resume {resume}: no run there (no {CONFIG}). Check the path.")
    own = resume == NEWEST or any(word.startswith("--config") for word in args)
    return [*args] if own else ["--config", str(config), *args]


def in_folder_of(resume: Path, trainer: Trainer) -> Path:
    """Let ``trainer`` write into the folder of an earlier run; returns its checkpoint.

    Raises:
        ConfigError: There is none, or the trainer's logger cannot write there.
    """
    roots = {logger: Path(str(getattr(logger, "root_dir", "."))) for logger in trainer.loggers}
    if resume == NEWEST:
        found = [*Path(trainer.default_root_dir).glob(LAST)]
        found += [path for root in roots.values() for path in root.glob(f"*/{LAST}")]
        if not found:
            raise ConfigError(
                f"--resume: no run with a {LAST} in {trainer.default_root_dir}. Name its folder."
            )
        resume = max(found, key=lambda path: path.stat().st_mtime).parent
    for logger, root in roots.items():
        if root.resolve() == resume.resolve().parent:
            logger._version = resume.resolve().name  # type: ignore[attr-defined]
    if run_folder(trainer).resolve() != resume.resolve():
        raise ConfigError(
            f"--resume {resume}: these settings write to {run_folder(trainer)} instead. Give the "
            "folder that the run printed first, and call from the same working directory."
        )
    if not any((resume / name).exists() for name in (LAST, checkpoints.PREVIOUS)):
        raise ConfigError(f"--resume {resume}: no {LAST} there. Start again without --resume.")
    return resume / LAST


def continued(trainer: Trainer, resume: Resume, asked: Path) -> Path:
    """Find the checkpoint to continue from, check it, and cut the run's logs back to its step.

    Raises:
        ConfigError: The file is not a checkpoint, is damaged, or belongs to another config.
    """
    path, content = _whole(asked)
    state = state_in(content)
    if "identity" in state:
        check_same(state["identity"], resume.identity, path)
    else:
        _note_unknown(path)
    folder = run_folder(trainer)
    own = path.name in (checkpoints.LAST, checkpoints.PREVIOUS)
    if own and path.parent.resolve() == folder.resolve() and trainer.is_global_zero:
        logs.cut(trainer, folder, state.get("logs", {}))
        take_up_runs(trainer.loggers, state.get("service_runs", {}))
    return path


def of_objective(asked: Path, class_path: str) -> Path:
    """The checkpoint whose weights to validate, found whole and of the objective ``class_path``.

    Raises:
        ConfigError: The file is not a checkpoint, is damaged, or is of another objective.
    """
    path, content = _whole(asked)
    check_weights(content, class_path, path)
    return path


def check_weights(content: Mapping[str, Any], class_path: str, path: Path) -> None:
    """Refuse the weights in a checkpoint that another objective than ``class_path`` trained.

    Raises:
        ConfigError: It did.
    """
    state = state_in(content)
    if "identity" in state:
        check_objective(state["identity"], class_path, path)
    else:
        _note_unknown(path)


def _whole(asked: Path) -> tuple[Path, dict[str, Any]]:
    checkpoints.refuse_shards(asked)
    path = checkpoints.whole_or_previous(asked)
    content = checkpoints.read(path)
    if path != asked:
        step = content["global_step"]
        print(f"{asked} is damaged; {path} of step {step} is taken instead", file=sys.stderr)
    return path, content


def _note_unknown(path: Path) -> None:
    print(f"note: {path} does not record its config, so it is not compared", file=sys.stderr)


def how_to_go_on(trainer: Trainer) -> str:
    """The message after Ctrl-C: what was saved, and the command that continues."""
    folder = run_folder(trainer)
    if not (folder / LAST).exists():
        return "interrupted before a checkpoint was saved; start again"
    step = checkpoints.read(folder / LAST)["global_step"]  # the last one may have come too late
    return (
        f"interrupted after step {step}; continue with: "
        f"alignlab fit --resume {shlex.quote(str(folder))}"
    )
