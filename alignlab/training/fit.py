"""One training or validation run from YAML: parse, check, build, train, print the model's path.

``alignlab fit`` and the pipeline's workers both come through here, so a stage behaves the same
from either. Importing this module costs seconds (torch, lightning): import it late.
"""

import contextlib
import copy
import logging
import math
import os
import re
import shlex
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from alignlab.callbacks.alarms import Alarms
from alignlab.callbacks.interrupt import Interrupt
from alignlab.callbacks.journal import Journal, Origin, ProgressLines
from alignlab.callbacks.kl_bound import in_order
from alignlab.callbacks.loggers import LateRuns, end_runs
from alignlab.callbacks.meter import Bar, Meter
from alignlab.callbacks.non_finite import NonFinite, Then
from alignlab.callbacks.probe import FrontierProbe, means_at
from alignlab.callbacks.resume import Resume, known_folder, run_folder
from alignlab.data.modules import TreeData
from alignlab.distributed import cause_of
from alignlab.errors import ConfigError, in_a_line
from alignlab.files import seal
from alignlab.names import present, present_in
from alignlab.objectives.base import Objective
from alignlab.parser_errors import in_one_line
from alignlab.plan.meaning import check_meaning, check_words
from alignlab.results.run_folder import MODEL, evaluations_in
from alignlab.rewards.spec import options_with_classes, with_classes
from alignlab.training import before_start
from alignlab.training.before_start import own_error
from alignlab.training.continuing import (
    continued,
    how_to_go_on,
    in_folder_of,
    of_objective,
    with_config_of,
)
from alignlab.training.identity import identity_of
from alignlab.training.loggers import WithWords, loggers_of
from alignlab.training.refused import nothing_left
from alignlab.training.stand_ins import try_out

_read = jsonargparse.get_loader("yaml")
jsonargparse.set_loader(
    "yaml", lambda text: with_classes(present_in(_read(text))), (yaml.YAMLError,)
)

SIGTERM_STATUS = 143  # 128 + SIGTERM: what a shell reports for a terminated command
TRAINER_DEFAULTS: dict[str, Any] = {
    "accelerator": "auto",
    "devices": 1,
    "deterministic": "warn",  # bit-exact on a CPU; some CUDA kernels have no such form
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "log_every_n_steps": 10,
    "accumulate_grad_batches": None,  # the micro-batches that the data make of a step
}
SETTINGS = ("model", "data", "trainer", "seed_everything")  # what loggers list of the config
NOT_SHOWN: tuple[dict[str, Any], ...] = (  # warnings that users cannot act on
    # How Lightning itself uses jsonargparse and torch's pytree; our loaders need no workers.
    {"category": DeprecationWarning, "module": r"lightning\."},
    {"message": ".*LeafSpec"},
    {"message": ".*does not have many workers"},
    # References and scorers are read, not trained.
    {"message": r"Found \d+ module\(s\) in eval mode"},
    # Lightning counts the batches of one epoch; the interval continues over epochs.
    {"message": ".*smaller than the logging interval"},
    # Rollouts have no validation rows: probes measure them.
    {"message": "You passed in a `val_dataloader`"},
)


def fit(
    words: Sequence[str],
    resume: Path | None = None,
    typed: Sequence[str] = (),
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train with the options of a command line, save the model, and print its path.

    Args:
        words: The options.
        resume: As in ``build``.
        typed: The command as it was given, for the run's record.
        callbacks: Added to those of the config.
    """
    origin = Origin(["alignlab", *(typed or ["fit", *words])])
    command = build(words, [origin, *callbacks], resume)
    run_fit(command)
    if command.trainer.is_global_zero:
        folder = run_folder(command.trainer) / MODEL
        command.model.save(folder)
        seal(folder)
        print("\n".join(closing(command)))


def closing(command: "Command") -> list[str]:
    """The last lines of a finished run: its result, its alarms, its files, and the next command."""
    trainer, folder = command.trainer, run_folder(command.trainer)
    trained = command.resume.begun
    done = f"Trained {trainer.global_step} steps" if trained else nothing_to_train(command)
    said = [f"{done}. Model: {folder / MODEL}"]
    found = means_at(trainer, trainer.global_step)
    if found is not None:
        said.append(f"Probe: KL {found['kl']:.4g} nats, reward {found['reward']:.4g}")
    elif phase := getattr(command.model, "phase", None):
        said.append(f"Last rollouts: KL {phase['kl']:.4g} nats, score {phase['score']:.4g}")
    said += losses_line(command)
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    alarms = next(each.fired for each in callbacks if isinstance(each, Alarms))
    said += [f"Alarm at step {each['step']}: {each['message']}" for each in alarms]
    named = shlex.quote(str(folder))
    if evaluations_in(folder):
        return [*said, f"Files: {folder}", f"Reward against KL: alignlab frontier {named}"]
    return [*said, f"Files: {folder}", f"With a model card: alignlab export {named}"]


def nothing_to_train(command: "Command") -> str:
    """Why no batch was trained, and how to train further."""
    trainer = command.trainer
    step = trainer.global_step
    for name, count in {"max_steps": step, "max_epochs": trainer.current_epoch}.items():
        limit = getattr(trainer, name)
        if limit is not None and 0 <= limit <= count:
            return (
                f"Nothing was left to train: {command.config.ckpt_path} is of step {step}, and "
                f"trainer.{name} is {limit}. To train further, set a larger trainer.{name}"
            )
    return f"Nothing was trained: trainer.max_time or a callback ended the run at step {step}"


def losses_line(command: "Command") -> list[str]:
    """The line with the last losses; none for a policy gradient, whose loss is not a quality."""
    found, model = command.resume.metrics, command.model
    if "train/loss" not in found or hasattr(model, "phase"):
        return []
    said = f"Loss: {found['train/loss']:.4g} in the last step"
    if "val/loss" in found:
        said += f", {found['val/loss']:.4g} in the last validation"
        said += f" (perplexity {math.exp(found['val/loss']):.4g})" if model.nats_per_token else ""
    return [said]


class Command(LightningCLI):
    """The config of a training run, checked against the signatures of its classes.

    Args:
        args: Command-line words, such as ``["--config", "stage.yaml"]``, or a config.

    Raises:
        ConfigError: An unknown key, a wrong type, null where a value is needed, an impossible
            value.
    """

    def __init__(self, args: Sequence[str] | dict[str, Any]) -> None:
        super().__init__(
            Objective,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_class=WithWords,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            trainer_defaults=TRAINER_DEFAULTS,
            parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
            args=copy.deepcopy(args) if isinstance(args, dict) else _as_meant(args),
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The keys beside model, data and trainer."""
        add = parser.add_argument
        add("--probe", type=FrontierProbe | None, default=None, help="Evaluates the policy.")
        add("--ckpt_path", type=str | None, default=None, help="Checkpoint to continue from.")
        add("--parent", type=dict[str, str] | None, default=None, help="Set by alignlab fork.")
        add("--non_finite", type=Then, default="stop", help="What to do with a step whose loss or "
            "gradient is not finite: stop or skip.")  # fmt: skip
        add("--threads", type=int, default=1, help="CPU threads of this process (default: 1).")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the options; an error is one sentence."""
        try:
            read = parser.parse_object if isinstance(args, dict) else parser.parse_args
            self.config = read(args)
        except ArgumentError as error:
            options = [action.dest for action in parser._actions]
            raise own_error(error) or ConfigError(in_one_line(str(error), options)) from error
        if not isinstance(args, dict):
            check_words(args, self.config)
        before_start.refuse_nulls(self.config)
        before_start.check_values(self.config)

    def instantiate_classes(self) -> None:
        """Do nothing after parsing; ``build`` constructs the objects."""

    @property
    def resume(self) -> Resume:
        """The callback that keeps ``last.ckpt`` and the clock."""
        return next(c for c in self.trainer.checkpoint_callbacks if isinstance(c, Resume))


def _as_meant(args: Sequence[str]) -> list[str]:
    """Prepare options for the parser: rewards, present names of moved code, explicit nulls."""
    words: list[str] = []
    for word in options_with_classes(args):
        option, equals, value = word.rpartition("=")
        value = present(value)
        words += [option, value] if equals and value == "null" else [option + equals + value]
        nested = _NESTED.fullmatch("=".join(words[-2:]))
        if nested:  # the parser takes a bare word for text there
            keys = nested[2].split(".")
            inner = "".join(f'{{"{key}": ' for key in keys) + "null" + "}" * len(keys)
            words[-2:] = [nested[1], inner]
    return words


_NESTED = re.compile(r"(--(?:model|data)\.init_args\.\w+)\.([\w.]+)=null")


def build(
    args: Sequence[str], callbacks: Sequence[Callback] = (), resume: Path | None = None
) -> Command:
    """Parse ``args`` and construct model, data and trainer.

    Args:
        args: Command-line words, such as ``["--config", "stage.yaml"]``.
        callbacks: Added to those of the config.
        resume: Folder of a run to continue, with its own config unless ``args`` name one. An empty
            path means the newest run of the config.

    Raises:
        ConfigError: An unknown key, a wrong type, an impossible value, an unreadable file.
        DataError: Input that cannot be used.
    """
    with plain_errors():
        command = Command(args if resume is None else with_config_of(resume, args))
        built = before_start.construct(command)
        command.model, command.datamodule = built.model, built.data
        command.trainer = _trainer(command, built, callbacks)
        if resume is not None:
            command.config.ckpt_path = str(in_folder_of(resume, command.trainer))
    return command


def _trainer(command: Command, built: Namespace, callbacks: Sequence[Callback]) -> Trainer:
    """The trainer, with the config's callbacks before those of every run."""
    config, settings = command.config, dict(vars(built.trainer))
    root = Path(settings["default_root_dir"] or os.getcwd())
    settings["logger"] = loggers_of(settings["logger"], root)
    given = [*in_order(built.probe, settings["callbacks"]), *callbacks]
    shown, terminal = settings["enable_progress_bar"] is not False, sys.stderr.isatty()
    given.append(meter := Meter())
    if shown:
        given.append(Bar(meter) if terminal else ProgressLines(meter))
    if not any(isinstance(callback, Resume) for callback in given):
        given.append(Resume())
    given.append(journal := Journal({key: _plain(command)[key] for key in SETTINGS}))
    given.append(LateRuns(journal.settings))
    given.append(NonFinite(config.non_finite))
    if not any(isinstance(callback, Alarms) for callback in given):
        given.append(Alarms())
    if not settings["fast_dev_run"]:
        given.append(SaveConfigCallback(command.parser, config, overwrite=True))
    settings |= {"callbacks": given, "enable_progress_bar": shown and terminal}
    trainer = before_start.make_trainer(settings, config)
    if config.trainer.accumulate_grad_batches is None:  # the saved config says what was done
        data = command.datamodule
        found = data.micro_batches(trainer.world_size) if isinstance(data, TreeData) else 1
        trainer.accumulate_grad_batches = found
        config.trainer.accumulate_grad_batches = found
    return trainer


def _plain(command: Command) -> dict[str, Any]:
    """The config with all defaults, as plain values."""
    return yaml.safe_load(command.parser.dump(command.config, skip_validation=True))


def check(config: dict[str, Any], *, here: bool = True, evaluated: bool = False) -> None:
    """Check ``config`` against the signatures of its classes, and call their constructors.

    No model is built and no file read.

    Args:
        config: Of one training run.
        here: It will run on this machine, so its devices have to be there.
        evaluated: Its evaluations will be points of a frontier.

    Raises:
        ConfigError: An unknown key, a wrong type, a class that is not there, an impossible value.
    """
    with plain_errors():
        command = Command(config)
        check_meaning(config, command.config)
        try_out(command, here=here, evaluated=evaluated)


def run_fit(command: Command) -> None:
    """Train; continue from ``--ckpt_path`` when it is given.

    Raises:
        ConfigError: The file is not a checkpoint, is damaged, or belongs to another config.
        SystemExit: 143 after SIGTERM; ``Resume`` prints the step that is then on disk.
    """
    trainer, path = command.trainer, command.config.ckpt_path
    command.resume.identity = identity_of(_plain(command))
    checkpoint = continued(trainer, command.resume, Path(path)) if path else None
    if checkpoint is None:  # one that continues has passed its checks
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        next(each for each in callbacks if isinstance(each, LateRuns)).withhold(trainer)
    torch.set_num_threads(command.config.threads)
    with nothing_left(trainer, command.resume):
        before_start.check_run(command)
        _train(command, checkpoint)


def _train(command: Command, checkpoint: Path | None) -> None:
    trainer = command.trainer
    with Interrupt() as ctrl_c, plain_errors():
        try:
            trainer.fit(command.model, command.datamodule, ckpt_path=checkpoint, weights_only=True)
        except (SIGTERMException, SystemExit):  # Lightning makes a SystemExit of Ctrl-C
            if ctrl_c.hit:
                raise KeyboardInterrupt(how_to_go_on(trainer)) from None
            raise SystemExit(SIGTERM_STATUS) from None
        except Exception as error:
            if (cause := cause_of(error, trainer, known_folder(trainer))) is error:
                raise
            raise cause from error
        finally:
            end_runs(trainer.loggers)


def validate(words: Sequence[str], resume: Path | None = None) -> None:
    """Validate by the words of a command line, from ``--ckpt_path`` when it is given.

    Raises:
        ConfigError: The file is not a checkpoint, is damaged or is of another objective, or there
            are no rows to validate on.
    """
    command = build(words, resume=resume)
    asked, objective = command.config.ckpt_path, command.config.model.class_path
    path = None if asked is None else of_objective(Path(asked), objective)
    torch.set_num_threads(command.config.threads)
    before_start.read_data(command)
    if isinstance(command.datamodule, TreeData) and not command.datamodule.validation_trees:
        raise ConfigError(
            "there are no rows to validate on. Set data.init_args.validation_source or "
            "validation_share."
        )
    with plain_errors():
        command.trainer.validate(
            command.model, command.datamodule, ckpt_path=path, weights_only=True
        )


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what libraries raise over bad input into ``ConfigError``; silence ``NOT_SHOWN``."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # their reports
    with warnings.catch_warnings():
        for each in NOT_SHOWN:
            warnings.filterwarnings("ignore", **each)
        try:
            yield
        except Exception as error:
            own = own_error(error)
            if own is None and isinstance(error, MisconfigurationException):
                own = ConfigError(f"trainer: {in_a_line(error)}")
            if own in (None, error):
                raise
            raise own from error
