"""Checks before the first step: values, constructors, the trainer, data, folders."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType, TracebackType
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.cli import LightningCLI

from alignlab.callbacks.probe import FrontierProbe
from alignlab.data.modules import TreeData
from alignlab.errors import ConfigError, DataError, is_full
from alignlab.files import check_writable
from alignlab.names import find
from alignlab.parser_errors import null_for_value

MANY = 16  # processes on a CPU that are not yet a mistake, however few cores there are

BOUND, ABOVE = "must be -1 for no bound, or above 0, got {}", "must be above 0, got {}"
Fits = Callable[[Any, Any], bool]  # of a value and the trainer's settings
VALUES: list[tuple[str, Fits, str]] = [  # that no library refuses, or only late
    # Lightning draws a seed by chance for true, and none for false.
    ("seed_everything", lambda n, _: type(n) is int, "must be a whole number, got {}"),
    ("seed_everything", lambda n, _: 0 <= n < 2**32, "must be 0 to 4294967295, got {}"),
    ("threads", lambda n, _: (n or 0) >= 1, "must be at least 1, got {}"),
    (
        "trainer.precision",
        lambda name, _: name == "32-true" or not str(name).endswith(("64", "-true")),
        "{} converts batches too, and their numbers need float32. Set model.init_args.policy.dtype "
        "(or model.dtype) to bfloat16 or float64 for weights, or trainer.precision to bf16-mixed",
    ),
    (
        "trainer.strategy",
        lambda name, _: not any(way in str(name) for way in ("spawn", "fork", "notebook")),
        "{}: processes that are forked or spawned keep the trained weights to themselves. Use ddp "
        "or fsdp",
    ),
    ("trainer.max_steps", lambda n, _: n not in (0, None), BOUND),
    ("trainer.max_epochs", lambda n, _: n != 0, BOUND),
    (
        "trainer.min_steps",
        lambda n, trainer: trainer.max_steps < 0 or (n or 0) <= trainer.max_steps,
        "must be at most trainer.max_steps, {trainer.max_steps}, got {}",
    ),
    (
        "trainer.min_epochs",
        lambda n, trainer: (trainer.max_epochs or -1) < 0 or (n or 0) <= trainer.max_epochs,
        "must be at most trainer.max_epochs, {trainer.max_epochs}, got {}",
    ),
    ("trainer.val_check_interval", lambda n, _: n != 0, ABOVE),
    (
        "trainer.check_val_every_n_epoch",
        lambda n, _: n is None or n >= 1,
        "must be at least 1, or null to count batches over epochs, got {}",
    ),
    ("trainer.limit_train_batches", lambda n, _: n != 0, ABOVE),
    ("trainer.gradient_clip_val", lambda n, _: (n or 0) >= 0, "must be 0 or above, got {}"),
    ("trainer.log_every_n_steps", lambda n, _: (n or 0) >= 0, "must be 0 (never) or above, got {}"),
    (
        "trainer.overfit_batches",
        lambda n, _: not n,
        "has no effect on these loaders, which shuffle by themselves. Set data.init_args.limit to "
        "train on a few rows",
    ),
]
NEEDS: dict[str, tuple[str, Callable[[Any], bool]]] = {  # settings that act only beside another
    "validation_limit": ("validation_source", lambda source: source is not None),
    "validation_split": ("validation_source", lambda source: source is not None),
    "reference_cache": ("reference", lambda kind: kind == "cached"),
    "floor": ("decay", lambda kind: kind != "constant"),
    "total_steps": ("decay", lambda kind: kind != "constant"),
    "warmup": ("warmup_steps", bool),
    "warmup_start": ("warmup_steps", bool),
    "kl_horizon": ("kl_target", lambda target: target is not None),
    "detach_value": ("value", lambda value: value is None),
    "gae_lambda": ("n_steps", lambda steps: steps is None),
    "gae_lambda_value": ("n_steps", lambda steps: steps is None),
    "gae_lambda_policy": ("n_steps", lambda steps: steps is None),
    "length_adaptive_alpha": ("n_steps", lambda steps: steps is None),
}


def own_error(error: BaseException | None) -> ConfigError | DataError | None:
    """The ``ConfigError`` or ``DataError`` that ``error`` is wrapped around, if any."""
    for each in _chain(error):
        if isinstance(each, (ConfigError, DataError)):
            return each
    return None


def refuse_nulls(config: Namespace) -> None:
    """Refuse ``null`` where a class needs a value: jsonargparse lets it pass for any default.

    Raises:
        ConfigError: A null whose type does not allow it; names the key.
    """
    for where, found, arguments in _classes(config):
        if wrong := null_for_value(found, arguments):
            raise ConfigError(f"{where}.init_args.{wrong}.")


def check_values(config: Namespace) -> None:
    """Refuse values of the trainer and the command that ``VALUES`` does not allow.

    Raises:
        ConfigError: Such a value; names its key.
    """
    trainer = config.trainer
    if not isinstance(trainer, Namespace):  # the parser accepts a single word for the whole group
        got = "null" if trainer is None else trainer
        raise ConfigError(f"trainer must hold settings, got {got}. Take the key out for defaults.")
    for key, fits, sentence in VALUES:
        if not fits(config[key], trainer):
            said = sentence.format(config[key], trainer=trainer)
            raise ConfigError(f"{key} {said}.")


def construct(command: LightningCLI, *keys: str) -> Namespace:
    """Construct what a config names below ``keys``, or all of it.

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

    parser, config = command.parser, command.config
    parser.add_instantiator(make, object, subclasses=True)
    wanted = Namespace(**{key: config[key] for key in keys}) if keys else config
    try:
        return parser.instantiate(wanted)
    except Exception as error:
        failed = [*first, error]
        raise construction_error(next(filter(own_error, failed), failed[0]), config) from error


def make_trainer(settings: dict[str, Any], config: Namespace, *, here: bool = True) -> Trainer:
    """Make the trainer of ``settings``; unless ``here``, its devices need not exist.

    Raises:
        ConfigError: The trainer refuses a value, or its processes cannot work.
    """
    if not here:
        settings |= {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
    if settings["accumulate_grad_batches"] is None:
        settings["accumulate_grad_batches"] = 1
    try:
        trainer = Trainer(**settings)
    except Exception as error:
        raise construction_error(error, config) from error
    bearable = max(MANY, os.cpu_count() or 1)
    if here:
        _check_machines(trainer)
    if here and isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > bearable:
        raise ConfigError(
            f"trainer.devices {trainer.num_devices}: too many processes for the "
            f"{os.cpu_count()} cores of this machine. Use at most {bearable}."
        )
    return trainer


def _check_machines(trainer: Trainer) -> None:
    """Refuse several machines if nothing starts the training on the others.

    Raises:
        ConfigError: The training would wait for them without end.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    alone = isinstance(environment, LightningEnvironment) and "NODE_RANK" not in os.environ
    if trainer.num_nodes > 1 and alone:
        raise ConfigError(
            f"trainer.num_nodes {trainer.num_nodes}: nothing starts this run on the other "
            "machines, so it would wait forever. Start it on each machine by torchrun --nnodes "
            f"{trainer.num_nodes} --nproc_per_node {trainer.num_devices} --rdzv_backend c10d "
            "--rdzv_endpoint FIRST_MACHINE:29500 -m alignlab.cli fit ..., or by srun in a SLURM "
            "job of as many nodes."
        )


def check_run(command: LightningCLI) -> None:
    """Read the data and check the run before any file is written.

    Raises:
        ConfigError: A setting that the data or the model do not allow; a folder that cannot be
            written.
        DataError: Data that cannot be used.
    """
    read_data(command)
    if isinstance(command.datamodule, TreeData) and command.datamodule.validation_trees:
        check_validation(command.datamodule, command.trainer)
    tell_unused(command.config)
    for callback in command.trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, FrontierProbe):
            callback.prepare(command.model)
    check_writable(Path(command.trainer.default_root_dir), "trainer.default_root_dir ")


def read_data(command: LightningCLI) -> None:
    """Read and tokenise now, so that unusable data are found before a log is opened."""
    if isinstance(command.datamodule, TreeData):
        command.datamodule.connect(command.model.tokenizer)
        command.datamodule.setup("fit")


def tell_unused(config: Namespace) -> None:
    """Print a note about each setting that has no effect together with the others."""
    notes, steps = [], config.trainer.max_steps
    for where, found, given in _classes(config):
        defaults = inspect.signature(found).parameters
        for name, (other, acts) in NEEDS.items():
            if {name, other} <= set(given) and given[name] != defaults[name].default:
                idle = f"{name} {given[name]} has no effect where {other} is {given[other]}"
                notes += [] if acts(given[other]) else [f"{where}.init_args.{idle}"]
        if 0 < steps <= given.get("warmup_steps", 0):
            notes.append(
                f"{where}: warmup_steps {given['warmup_steps']} cover all {steps} steps of the run"
            )
    for note in notes:
        print(f"note: {note}.", file=sys.stderr)


def construction_error(error: Exception, config: Namespace) -> Exception:
    """The error to raise after a constructor of ``config`` raised ``error``.

    A parser that tries several types reports all of them; the constructor's own error is at the end
    of the chain.
    """
    own = own_error(error)
    if own is not None:
        return own
    root = next(e for e in reversed(list(_chain(error))) if isinstance(e, Exception))
    if is_full(root) or isinstance(root, (MemoryError, torch.OutOfMemoryError)):
        return root  # caused by the machine, not by the config
    owner = _constructor(root.__traceback__)
    text = " ".join(str(root).split())
    plain = text and isinstance(root, (ValueError, MisconfigurationException))
    said = text if plain else f"{type(root).__name__}: {text}"
    if owner is None or issubclass(owner, Trainer):
        return ConfigError(f"{'trainer: ' if owner else ''}{said} (--debug shows where)")
    where = next((f"{where}: " for where, found, _ in _classes(config) if found is owner), "")
    place = f"{where}{owner.__name__}"
    return ConfigError(f"{place} cannot be made: {said.rstrip('.')}. (--debug shows where)")


def check_validation(data: TreeData[Any], trainer: Trainer) -> None:
    """Print a note if validation rows will never be evaluated.

    Raises:
        ConfigError: An interval of batches that no epoch has.
    """
    interval, every = trainer.val_check_interval, trainer.check_val_every_n_epoch
    if trainer.world_size > 1:
        return
    batches, each = len(data.train_dataloader()), trainer.accumulate_grad_batches
    if isinstance(interval, int) and every is not None and interval > batches:
        raise ConfigError(
            f"trainer.val_check_interval {interval}: an epoch has {batches} batches. Lower it, or "
            "set trainer.check_val_every_n_epoch to null to count over epochs."
        )
    if isinstance(interval, float):
        interval = max(1, int(batches * interval))
    if not isinstance(interval, int) or trainer.max_steps < 0:
        return
    first = interval if every is None else (every - 1) * batches + interval
    epochs, steps = divmod(trainer.max_steps, -(-batches // each))
    off = trainer.limit_val_batches == 0
    if (off or first > epochs * batches + steps * each) and trainer.is_global_zero:
        late = f"the first validation is due after batch {first:,}, beyond the last step"
        print(
            f"note: the {len(data.validation_trees):,} validation rows are never evaluated: "
            f"{'trainer.limit_val_batches is 0' if off else late}. Change that, "
            "trainer.val_check_interval or max_steps.",
            file=sys.stderr,
        )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """``error`` and the chain of its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _constructor(traceback: TracebackType | None) -> type | None:
    """The outermost class whose ``__init__`` raised the error."""
    while traceback is not None:
        frame = traceback.tb_frame
        made = frame.f_locals.get("self")
        if frame.f_code.co_name == "__init__" and not isinstance(made, (NoneType, LightningCLI)):
            return type(made)
        traceback = traceback.tb_next
    return None


def _classes(node: Any, where: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Key, class and arguments of every ``class_path`` in ``node``."""
    values = vars(node) if isinstance(node, Namespace) else node
    if isinstance(values, list):
        values = dict(enumerate(values))
    if not isinstance(values, dict):
        return
    path, arguments = values.get("class_path"), values.get("init_args")
    if isinstance(path, str) and isinstance(arguments, Namespace):
        found = find(path)
        if isinstance(found, type):
            yield where, found, vars(arguments)
    for key, value in values.items():
        yield from _classes(value, f"{where}.{key}" if where else key)
