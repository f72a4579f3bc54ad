"""What can be said of a training before its first step: values, constructors, what will run."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from types import NoneType, TracebackType
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch import nn

from alignlab.data.loader import micro_batches_of
from alignlab.data.modules import TreeData
from alignlab.data.rollout_data import RolloutData
from alignlab.errors import ConfigError, DataError, is_full
from alignlab.names import find
from alignlab.objectives.base import Objective
from alignlab.parser_errors import null_for_value

PARTS = ("model", "data", "trainer", "probe")  # of a config
MANY = 16  # processes on a CPU that are not yet a mistake, however few cores there are

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
    for key in PARTS:
        for where, found, arguments in _classes(config.get(key), key):
            if wrong := null_for_value(found, arguments):
                raise ConfigError(f"{where}.init_args.{wrong}.")


def tell_unused(config: Namespace) -> None:
    """Say which settings have no effect beside the others."""
    notes, steps = [], config.trainer.max_steps
    for key in PARTS:
        for where, found, given in _classes(config.get(key), key):
            defaults = inspect.signature(found).parameters
            for name, (other, acts) in NEEDS.items():
                if {name, other} <= set(given) and given[name] != defaults[name].default:
                    idle = f"{name} {given[name]} has no effect where {other} is {given[other]}"
                    notes += [] if acts(given[other]) else [f"{where}.init_args.{idle}"]
            if 0 < steps <= given.get("warmup_steps", 0):
                notes.append(f"{where}: all {steps} steps are warm-up, of {given['warmup_steps']}")
    for note in notes:
        print(f"note: {note}.", file=sys.stderr)


def construction_error(error: Exception, config: Namespace) -> Exception:
    """What to raise for ``error``, with which a constructor of ``config`` ended.

    A parser that tries several types reports all of them; the constructor's own error is at the end
    of the chain.
    """
    own = own_error(error)
    if own is not None:
        return own
    root = next(e for e in reversed(list(_chain(error))) if isinstance(e, Exception))
    if is_full(root) or isinstance(root, (MemoryError, torch.OutOfMemoryError)):
        return root  # the machine's fault, not the config's
    owner = _constructor(root.__traceback__)
    text = " ".join(str(root).split())
    plain = text and isinstance(root, (ValueError, MisconfigurationException))
    said = text if plain else f"{type(root).__name__}: {text}"
    if owner is None or issubclass(owner, Trainer):
        return ConfigError(f"{'trainer: ' if owner else ''}{said} (--debug shows where)")
    named = [each for key in PARTS for each in _classes(config.get(key), key)]
    where = next((f"{where}: " for where, found, _ in named if found is owner), "")
    place = f"{where}{owner.__name__}"
    return ConfigError(f"{place} cannot be made: {said.rstrip('.')}. (--debug shows where)")


def check_optimizer(model: Objective) -> None:
    """Refuse settings that the optimizer itself refuses, before it is given the weights.

    Raises:
        ConfigError: Such a setting.
    """
    try:
        model.make_optimizer([nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"model.init_args.optimizer: {error}.") from error


def check_settings(config: Namespace) -> None:
    """Refuse values of the trainer and the command that no library refuses, or only late.

    Raises:
        ConfigError: Such a value.
    """
    trainer, seed = config.trainer, config.seed_everything
    if not isinstance(trainer, Namespace):  # the parser lets a word pass for the whole group
        got = "null" if trainer is None else trainer
        raise ConfigError(f"trainer must hold settings, got {got}. Take the key out for defaults.")
    if type(seed) is not int:  # Lightning draws one by chance for true, and none for false
        raise ConfigError(f"seed_everything must be a whole number, got {seed}.")
    precision = str(trainer.precision)
    if precision == "64" or (precision.endswith("-true") and precision != "32-true"):
        raise ConfigError(
            f"trainer.precision {precision} converts batches, too, whose numbers need float32. "
            "Set model.init_args.policy.dtype (or model.dtype) to bfloat16 or float64 for "
            "weights, or trainer.precision to bf16-mixed."
        )
    wrong = {
        "threads": config.threads < 1 and "at least 1",
        "seed_everything": not 0 <= seed < 2**32 and "0 to 4294967295",
        "trainer.max_steps": trainer.max_steps == 0 and "-1 for no bound, or above 0",
        "trainer.max_epochs": trainer.max_epochs == 0 and "-1 for no bound, or above 0",
        "trainer.min_steps": (trainer.min_steps or 0) > abs(trainer.max_steps) > 1
        and f"at most trainer.max_steps, {trainer.max_steps}",
        "trainer.min_epochs": (trainer.min_epochs or 0) > abs(trainer.max_epochs or -1) > 1
        and f"at most trainer.max_epochs, {trainer.max_epochs}",
        "trainer.val_check_interval": trainer.val_check_interval == 0 and "above 0",
        "trainer.check_val_every_n_epoch": trainer.check_val_every_n_epoch is not None
        and trainer.check_val_every_n_epoch < 1
        and "at least 1, or null to count batches over epochs",
        "trainer.limit_train_batches": trainer.limit_train_batches == 0 and "above 0",
        "trainer.gradient_clip_val": (trainer.gradient_clip_val or 0) < 0 and "0 or above",
        "trainer.log_every_n_steps": (trainer.log_every_n_steps or 0) < 0 and "0 (never) or above",
    }
    for key, wanted in wrong.items():
        if wanted:
            got = config[key]
            raise ConfigError(f"{key} must be {wanted}, got {got}.")
    if trainer.overfit_batches:
        raise ConfigError(
            "trainer.overfit_batches has no effect on these loaders, which shuffle by themselves. "
            "Set data.init_args.limit to train on a few rows."
        )


def check_devices(trainer: Trainer) -> None:
    """Refuse processes that cannot work, before any of them is started.

    Raises:
        ConfigError: More processes than a machine bears, or a way of starting them that does not
            bring the trained weights back.
    """
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ConfigError(
            "trainer.strategy: processes that are forked or spawned keep the trained weights to "
            "themselves. Use ddp or fsdp."
        )
    bearable = max(MANY, os.cpu_count() or 1)
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > bearable:
        raise ConfigError(
            f"trainer.devices {trainer.num_devices}: that many processes on the "
            f"{os.cpu_count()} cores of this machine. Use at most {bearable}."
        )


def micro_batches(data: Any, trainer: Trainer) -> int | None:
    """How many micro-batches a step of ``data`` has on one rank, if it says so."""
    if not isinstance(data, TreeData):
        return None
    return micro_batches_of(data.batch_size, data.micro_batch_size, trainer.world_size)


def check_validation(data: Any, trainer: Trainer) -> None:
    """Say so where held-out rows will never be evaluated.

    Raises:
        ConfigError: An interval of batches that no epoch has.
    """
    interval, every = trainer.val_check_interval, trainer.check_val_every_n_epoch
    if not isinstance(data, TreeData) or isinstance(data, RolloutData) or trainer.world_size > 1:
        return
    if not data.validation_trees:
        return
    batches = len(data.train_dataloader())
    each = trainer.accumulate_grad_batches
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
        why = "trainer.limit_val_batches is 0"
        late = f"the first validation is due after batch {first:,}, beyond the last step"
        print(
            f"note: the {len(data.validation_trees):,} validation rows are never evaluated: "
            f"{why if off else late}. Change that, trainer.val_check_interval or max_steps.",
            file=sys.stderr,
        )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """``error``, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _constructor(traceback: TracebackType | None) -> type | None:
    """The class in whose ``__init__`` an error began, seen from outside."""
    while traceback is not None:
        frame = traceback.tb_frame
        made = frame.f_locals.get("self")
        if frame.f_code.co_name == "__init__" and not isinstance(made, (NoneType, LightningCLI)):
            return type(made)
        traceback = traceback.tb_next
    return None


def _classes(node: Any, where: str) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Key, class and arguments of every ``class_path`` below ``node``."""
    if isinstance(node, list):
        for i, each in enumerate(node):
            yield from _classes(each, f"{where}.{i}")
    values = vars(node) if isinstance(node, Namespace) else node
    if not isinstance(values, dict):
        return
    path, arguments = values.get("class_path"), values.get("init_args")
    if isinstance(path, str) and isinstance(arguments, Namespace):
        found = find(path)
        if isinstance(found, type):
            yield where, found, vars(arguments)
    for key, value in values.items():
        yield from _classes(value, f"{where}.{key}")
