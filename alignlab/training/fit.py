"""One training (or validation) from YAML: LightningCLI with alignlab's defaults and plain errors.

``alignlab fit`` and the pipeline's workers both come through here, so a stage behaves the same
from either. Importing this module costs seconds (torch, lightning): import it late.
"""

import contextlib
import copy
import json
import logging
import re
import shlex
import sys
import time
import warnings
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException

from alignlab.callbacks import checkpoints, logs
from alignlab.callbacks.interrupt import Interrupt
from alignlab.callbacks.journal import Journal
from alignlab.callbacks.kl_bound import in_order
from alignlab.callbacks.probe import FrontierProbe
from alignlab.callbacks.resume import LAST, Resume, run_folder, state_in
from alignlab.data.modules import TreeData
from alignlab.errors import ConfigError, DataError
from alignlab.files import check_writable
from alignlab.names import present, present_in
from alignlab.objectives.base import Objective
from alignlab.objectives.schedule import planned_steps
from alignlab.parser_errors import in_one_line
from alignlab.plan.meaning import check_meaning, check_words
from alignlab.training.before_start import (
    check_devices,
    check_optimizer,
    check_settings,
    check_validation,
    construction_error,
    micro_batches,
    own_error,
    refuse_nulls,
    tell_unused,
)
from alignlab.training.identity import check_same, identity_of
from alignlab.training.stand_ins import try_constructors, try_trainer

_read = jsonargparse.get_loader("yaml")
jsonargparse.set_loader("yaml", lambda text: present_in(_read(text)), (yaml.YAMLError,))

NEWEST = Path()  # to resume: the run that was saved last
SIGTERM_STATUS = 143  # 128 + SIGTERM: what a shell reports for a terminated command

TRAINER_DEFAULTS: dict[str, Any] = {
    "accelerator": "auto",
    "devices": 1,
    "deterministic": "warn",  # bit-exact on a CPU; some CUDA kernels have no such form
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "log_every_n_steps": 10,
    "accumulate_grad_batches": None,  # as many as the data make of a step
}


class Command(LightningCLI):
    """LightningCLI over objectives and data modules; it parses and builds but runs nothing.

    Args:
        args: Command-line words, such as ``["--config", "stage.yaml"]``.
        callbacks: Added to those of the config.
        resume: The folder of a run to go on with, in that folder.
    """

    def __init__(
        self,
        args: Sequence[str] | dict[str, Any],
        callbacks: Sequence[Callback] = (),
        resume: Path | None = None,
    ) -> None:
        self._extra = list(callbacks)
        self._continued = resume
        super().__init__(
            Objective,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults=TRAINER_DEFAULTS,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
            args=args if isinstance(args, dict) else list(args),
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The probe, and settings of the command itself."""
        parser.add_argument(
            "--probe", type=FrontierProbe | None, default=None, help="Evaluates the policy."
        )
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="Checkpoint to continue from."
        )
        parser.add_argument(
            "--threads", type=int, default=1, help="CPU threads of this process (default: 1)."
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read the words; what is wrong with them is one sentence.

        Raises:
            ConfigError: An unknown key, a wrong type, a null for a value.
        """
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            options = [action.dest for action in parser._actions]
            raise own_error(error) or ConfigError(in_one_line(str(error), options)) from error
        if not isinstance(args, dict):
            check_words(args, self.config)
        refuse_nulls(self.config)
        check_settings(self.config)

    def instantiate_classes(self) -> None:
        """Build data, model and trainer.

        Raises:
            ConfigError: A constructor failed over its arguments.
        """
        first: list[Exception] = []  # a parser that tries several types ends with another's error

        def make(found: type, *values: Any, **named: Any) -> Any:
            try:
                return found(*values, **named)
            except Exception as error:
                first.append(error)
                raise

        self.parser.add_instantiator(make, object, subclasses=True)
        try:
            super().instantiate_classes()
        except Exception as error:
            raise construction_error([*first, error][0], self.config) from error
        check_optimizer(self.model)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the config's callbacks, and those that every training has after them."""
        wanted = self.config.trainer.enable_progress_bar
        added = list(self._extra)
        kwargs["enable_progress_bar"] = wanted is not False and sys.stderr.isatty()
        if kwargs["enable_progress_bar"]:
            added.append(TQDMProgressBar())
        elif wanted is not False:
            added.append(ProgressLines())
        given = in_order(self.config_init.probe, self.config_init.trainer.callbacks)
        if not any(isinstance(c, Resume) for c in given):
            added.append(Resume())
        kwargs["callbacks"] = given
        settings = yaml.safe_load(self.parser.dump(self.config, skip_validation=True))
        added.append(Journal({key: settings[key] for key in ("model", "data")}))
        self.trainer_defaults = {"callbacks": added}  # LightningCLI appends them
        pieces = self.config.trainer.accumulate_grad_batches
        kwargs["accumulate_grad_batches"] = 1 if pieces is None else pieces
        trainer = super().instantiate_trainer(**kwargs)
        check_devices(trainer)
        if pieces is None:  # the config that is saved says what was done
            found = micro_batches(self.datamodule, trainer) or 1
            trainer.accumulate_grad_batches = found
            self.config.trainer.accumulate_grad_batches = found
        if self._continued is not None:
            self.config.ckpt_path = str(continue_in(trainer, self._continued))
        return trainer

    @property
    def resume(self) -> Resume:
        """The callback that keeps ``last.ckpt`` and the clock."""
        return next(c for c in self.trainer.checkpoint_callbacks if isinstance(c, Resume))


class ProgressLines(Callback):
    """A line now and then on standard error, where there is no terminal for a bar."""

    def __init__(self, every_seconds: float = 30.0) -> None:
        self.every_seconds = every_seconds
        self._began = self._spoke = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._began = self._spoke = time.monotonic()
        self._first_step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Say step, loss and time left, if the last line is old enough."""
        now, step = time.monotonic(), trainer.global_step
        if now - self._spoke < self.every_seconds or step == self._first_step:
            return
        self._spoke = now
        total = planned_steps(trainer)
        loss = trainer.callback_metrics.get("train/loss")
        said = f"step {step}" if total is None else f"step {step} of {total}"
        said += "" if loss is None else f", loss {float(loss):.4g}"
        if total is not None:
            left = (now - self._began) / (step - self._first_step) * (total - step)
            said += f", about {left:.0f} s left"
        print(said, file=sys.stderr, flush=True)


class _Parsed(Command):
    """A command that is only read, not built."""

    def instantiate_classes(self) -> None:
        """Leave it at the parsing."""


@contextlib.contextmanager
def input_errors(subject: str) -> Iterator[None]:
    """Turn what the parser and constructors raise over bad input into ``ConfigError``."""
    try:
        yield
    except (ConfigError, DataError):
        raise
    except ArgumentError as error:
        own = own_error(error)
        raise own or ConfigError(f"{subject}: {in_one_line(str(error))}") from error
    except MisconfigurationException as error:
        raise ConfigError(f"{subject}: {' '.join(str(error).split())}") from error
    except Exception as error:
        own = own_error(error)
        if own is None:
            raise
        raise own from error


def build(
    args: Sequence[str], callbacks: Sequence[Callback] = (), resume: Path | None = None
) -> Command:
    """Parse ``args`` and construct model, data and trainer.

    Args:
        args: Command-line words, such as ``["--config", "stage.yaml"]``.
        callbacks: Added to those of the config.
        resume: The folder of a run to go on with; its own config, where ``args`` name none. An
            empty path means the newest run of the config.

    Raises:
        ConfigError: An unknown key, a wrong type, an impossible value, an unreadable file.
        DataError: Input that cannot be used.
    """
    args = _with_nulls([_with_present_name(word) for word in args])
    if resume not in (None, NEWEST) and not (resume / "config.yaml").is_file():
        raise ConfigError(f"--resume {resume}: no run there (no config.yaml). Check the path.")
    if resume not in (None, NEWEST) and not any(a.startswith("--config") for a in args):
        args = ["--config", str(resume / "config.yaml"), *args]
    with input_errors("arguments"), _quiet():
        return Command(args, callbacks, resume)


def _with_present_name(word: str) -> str:
    option, equals, value = word.rpartition("=")
    return option + equals + present(value)


def _with_nulls(args: Sequence[str]) -> list[str]:
    """Nulls for arguments of an argument as mappings: the parser takes the bare word for text."""
    words: list[str] = []
    for word in args:
        option, equals, value = word.rpartition("=")
        words += [option, value] if equals and value == "null" else [word]
        if words[-1] == "null" and (nested := _NESTED.fullmatch(words[-2])):
            inner: Any = None
            for key in reversed(nested[2].split(".")):
                inner = {key: inner}
            words[-2:] = [nested[1], json.dumps(inner)]
    return words


_NESTED = re.compile(r"(--(?:model|data)\.init_args\.\w+)\.([\w.]+)")


def continue_in(trainer: Trainer, folder: Path) -> Path:
    """Let ``trainer`` write into the folder of an earlier run; returns its checkpoint.

    Raises:
        ConfigError: There is none, or the trainer's logger cannot write there.
    """
    if folder == NEWEST:
        roots = [Path(str(getattr(each, "root_dir", "."))) for each in trainer.loggers]
        found = [*Path(trainer.default_root_dir).glob(LAST)]
        found += [path for root in roots for path in root.glob(f"*/{LAST}")]
        if not found:
            raise ConfigError(
                f"--resume: no run with a {LAST} in {trainer.default_root_dir}. Name its folder."
            )
        folder = max(found, key=lambda path: path.stat().st_mtime).parent
    for logger in trainer.loggers:
        if Path(str(getattr(logger, "root_dir", ""))).resolve() == folder.resolve().parent:
            logger._version = folder.resolve().name  # type: ignore[attr-defined]
    if run_folder(trainer).resolve() != folder.resolve():
        raise ConfigError(
            f"--resume {folder}: with these settings files go to {run_folder(trainer)}. Give the "
            "folder that the run's first line named, from the same working directory."
        )
    if not any((folder / name).exists() for name in (LAST, checkpoints.PREVIOUS)):
        raise ConfigError(f"--resume {folder}: no {LAST} there. Start again without --resume.")
    return folder / LAST


def check(config: dict[str, Any], *, here: bool = True, evaluated: bool = False) -> None:
    """Read ``config`` against the signatures of what it names, and ask their constructors.

    No model is built and no file read.

    Args:
        config: Of one training.
        here: It will run on this machine, so its devices have to be there.
        evaluated: Its evaluations will be points of a frontier.

    Raises:
        ConfigError: An unknown key, a wrong type, a class that is not there, an impossible value.
    """
    with input_errors("config"), _quiet():
        parsed = _Parsed(copy.deepcopy(config))  # jsonargparse changes what it is given
        check_meaning(config, parsed.config)
        try_constructors(parsed)
        try_trainer(parsed, here=here, evaluated=evaluated)


def run_fit(command: Command) -> None:
    """Train; continue from ``--ckpt_path`` when it is given.

    Raises:
        ConfigError: The checkpoint is none, is damaged, or is of another config.
        SystemExit: 143 after SIGTERM, with a checkpoint of the last finished step on disk.
    """
    checkpoint = _continued(command)
    torch.set_num_threads(command.config.threads)
    _read_data(command)
    check_validation(command.datamodule, command.trainer)
    tell_unused(command.config)
    for callback in command.trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, FrontierProbe):
            callback.prepare(command.model)
    check_writable(Path(command.trainer.default_root_dir), "trainer.default_root_dir ")
    with Interrupt() as ctrl_c:
        try:
            with _quiet(), input_errors("trainer"):
                command.trainer.fit(
                    command.model,
                    command.datamodule,
                    ckpt_path=checkpoint,
                    weights_only=True,
                )
        except (SIGTERMException, SystemExit):  # Lightning makes a SystemExit of Ctrl-C
            if ctrl_c.hit:
                raise KeyboardInterrupt(_how_to_go_on(command.trainer)) from None
            raise SystemExit(SIGTERM_STATUS) from None


def _how_to_go_on(trainer: Trainer) -> str:
    folder = run_folder(trainer)
    if not (folder / LAST).exists():
        return "interrupted before a checkpoint was saved; start again"
    return (
        f"interrupted after step {trainer.global_step}; go on with: "
        f"alignlab fit --resume {shlex.quote(str(folder))}"
    )


def _continued(command: Command) -> Path | None:
    """The checkpoint to continue from, found whole and of this config; the logs cut back to it."""
    resume = command.resume
    plain = command.parser.dump(command.config, skip_validation=True)
    resume.identity = identity_of(yaml.safe_load(plain))
    if command.config.ckpt_path is None:
        return None
    asked = Path(command.config.ckpt_path)
    path = checkpoints.whole_or_previous(asked)
    content = checkpoints.read(path)
    state = state_in(content)
    if path != asked:
        print(
            f"{asked} is damaged; continuing from {path}, step {content['global_step']}",
            file=sys.stderr,
        )
    if "identity" in state:
        check_same(state["identity"], resume.identity, path)
    else:
        print(f"note: {path} does not say which config it is of", file=sys.stderr)
    folder = run_folder(command.trainer)
    own = path.name in (checkpoints.LAST, checkpoints.PREVIOUS)
    if own and path.parent.resolve() == folder.resolve() and command.trainer.is_global_zero:
        logs.cut(command.trainer, folder, state.get("logs", {}))
    return path


def _read_data(command: Command) -> None:
    """Read and tokenise now, so that unusable data stop before any log is begun."""
    if isinstance(command.datamodule, TreeData):
        command.datamodule.connect(command.model.tokenizer)
        command.datamodule.setup("fit")


def run_validate(command: Command) -> None:
    """Validate, from ``--ckpt_path`` when it is given.

    Raises:
        ConfigError: The checkpoint is none.
    """
    _check_checkpoint(command.config.ckpt_path)
    torch.set_num_threads(command.config.threads)
    _read_data(command)
    if isinstance(command.datamodule, TreeData) and not command.datamodule.validation_trees:
        raise ConfigError(
            "there are no rows to validate on. Set data.init_args.validation_source or "
            "validation_share."
        )
    with _quiet(), input_errors("trainer"):
        command.trainer.validate(
            command.model,
            command.datamodule,
            ckpt_path=command.config.ckpt_path,
            weights_only=True,
        )


def _check_checkpoint(path: str | None) -> None:
    """Refuse what is no checkpoint before anything is written."""
    if path is not None and not Path(path).is_file():
        what = "not a checkpoint of a training run" if Path(path).exists() else "no such file"
        raise ConfigError(f"--ckpt_path {path}: {what}. Check the path.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence messages and warnings that users cannot act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # The words are passed on purpose, instead of those of the process.
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        # How Lightning itself uses jsonargparse and torch's pytree; our loaders need no workers.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"lightning\.")
        warnings.filterwarnings("ignore", message=".*LeafSpec")
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        # References and scorers are read, not trained.
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
        # It counts the batches of one epoch; the interval continues over epochs.
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval")
        # Rollouts have no validation rows: probes measure them.
        warnings.filterwarnings("ignore", message="You passed in a `val_dataloader`")
        yield
