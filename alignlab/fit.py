"""One training (or validation) from YAML: LightningCLI with alignlab's defaults and plain errors.

``alignlab fit`` and the pipeline's workers both come through here, so a stage behaves the same
from either. Importing this module costs seconds (torch, lightning): import it late.
"""

import contextlib
import logging
import sys
import time
import warnings
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import SIGTERMException

from alignlab.callbacks import checkpoints, logs
from alignlab.callbacks.resume import Resume, run_folder, state_in
from alignlab.data.modules import TreeData
from alignlab.errors import ConfigError, DataError
from alignlab.objectives.base import Objective
from alignlab.objectives.schedule import planned_steps
from alignlab.parser_errors import in_one_line
from alignlab.pipeline.identity import check_same, identity_of

SIGTERM_STATUS = 143  # 128 + SIGTERM: what a shell reports for a terminated command

TRAINER_DEFAULTS: dict[str, Any] = {
    "accelerator": "auto",
    "devices": 1,
    "deterministic": "warn",  # bit-exact on a CPU; some CUDA kernels have no such form
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "log_every_n_steps": 10,
}


class Command(LightningCLI):
    """LightningCLI over objectives and data modules; it parses and builds but runs nothing.

    Args:
        args: Command-line words, such as ``["--config", "stage.yaml"]``.
        callbacks: Added to those of the config.
    """

    def __init__(
        self, args: Sequence[str] | dict[str, Any], callbacks: Sequence[Callback] = ()
    ) -> None:
        self._extra = list(callbacks)
        super().__init__(
            Objective,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults=TRAINER_DEFAULTS,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"exit_on_error": False},
            args=args if isinstance(args, dict) else list(args),
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Settings of the command itself."""
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="Checkpoint to continue from."
        )
        parser.add_argument(
            "--threads", type=int, default=1, help="CPU threads of this process (default: 1)."
        )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with the config's callbacks and those that every training has.

        Raises:
            ConfigError: A precision that would also round the batches' log-probs and rewards.
        """
        precision = str(self.config.trainer.precision)
        if precision.endswith("-true") and precision != "32-true":
            raise ConfigError(
                f"trainer.precision {precision} converts batches, too, whose numbers need float32. "
                "Set model.init_args.policy.dtype (or model.dtype) to bfloat16 for weights, or "
                "trainer.precision to bf16-mixed."
            )
        wanted = self.config.trainer.enable_progress_bar
        added = list(self._extra)
        kwargs["enable_progress_bar"] = wanted is not False and sys.stderr.isatty()
        if kwargs["enable_progress_bar"]:
            added.append(TQDMProgressBar())
        elif wanted is not False:
            added.append(ProgressLines())
        if not any(isinstance(c, Resume) for c in self.config_init.trainer.callbacks or []):
            added.append(Resume())
        self.trainer_defaults = {"callbacks": added}  # LightningCLI appends them
        return super().instantiate_trainer(**kwargs)

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
    except Exception as error:
        own = own_error(error)
        if own is None:
            raise
        raise own from error


def own_error(error: BaseException | None) -> ConfigError | DataError | None:
    """The ``ConfigError`` or ``DataError`` that ``error`` is wrapped around, if any."""
    while error is not None:
        if isinstance(error, (ConfigError, DataError)):
            return error
        error = error.__cause__ or error.__context__
    return None


def build(args: Sequence[str], callbacks: Sequence[Callback] = ()) -> Command:
    """Parse ``args`` and construct model, data and trainer.

    Raises:
        ConfigError: An unknown key, a wrong type, an impossible value, an unreadable file.
        DataError: Input that cannot be used.
    """
    files = " ".join(a for a in args if a.endswith((".yaml", ".yml")))
    with input_errors(files or "arguments"), _quiet():
        return Command(args, callbacks)


def check(config: dict[str, Any]) -> None:
    """Read ``config`` against the signatures of what it names, and ask their constructors.

    No model is built and no file read.

    Raises:
        ConfigError: An unknown key, a wrong type, a class that is not there, an impossible value.
    """
    from alignlab.pipeline.stand_ins import try_constructors

    with input_errors("config"), _quiet():
        try_constructors(_Parsed(config))


def run_fit(command: Command) -> None:
    """Train; continue from ``--ckpt_path`` when it is given.

    Raises:
        ConfigError: The checkpoint is none, is damaged, or is of another config.
        SystemExit: 143 after SIGTERM, with a checkpoint of the last finished step on disk.
    """
    checkpoint = _continued(command)
    torch.set_num_threads(command.config.threads)
    _read_data(command)
    try:
        with _quiet():
            command.trainer.fit(
                command.model,
                command.datamodule,
                ckpt_path=checkpoint,
                weights_only=True,
            )
    except SIGTERMException:
        raise SystemExit(SIGTERM_STATUS) from None


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
    with _quiet():
        command.trainer.validate(
            command.model,
            command.datamodule,
            ckpt_path=command.config.ckpt_path,
            weights_only=True,
        )


def _check_checkpoint(path: str | None) -> None:
    """Refuse what is no checkpoint before anything is written."""
    if path is not None and not Path(path).is_file():
        what = "not a checkpoint of a training" if Path(path).exists() else "no such file"
        raise ConfigError(f"--ckpt_path {path}: {what}. Check the path.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the news and warnings that nobody who reads them could act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # We do pass words on purpose, whatever the process was called with.
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        # How Lightning itself uses jsonargparse and torch's pytree; our loaders need no workers.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"lightning\.")
        warnings.filterwarnings("ignore", message=".*LeafSpec")
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        # Rollouts have no validation rows: probes measure them.
        warnings.filterwarnings("ignore", message="You passed in a `val_dataloader`")
        yield
