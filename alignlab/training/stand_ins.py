"""Validate constructor arguments without building a model.

A sweep's inputs take hours, and a negative ``beta`` should be reported before. So objective and
data are built with stand-ins for models and rewards, which have no weights and read no file.
"""

from types import SimpleNamespace
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from torch import nn

from alignlab.callbacks.kl_bound import in_order
from alignlab.callbacks.probe import FrontierProbe
from alignlab.errors import ConfigError
from alignlab.models.policy import Policy
from alignlab.models.score import ScoreModel
from alignlab.rewards.base import Reward
from alignlab.training.before_start import (
    check_devices,
    check_optimizer,
    construction_error,
    own_error,
)


class _Model(nn.Module):
    """As much of a Hugging Face model as objectives look at when they are built."""

    def __init__(self, outputs: int, *, adapted: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(hidden_size=1)
        self.score = SimpleNamespace(out_features=outputs)
        if adapted:
            self.disable_adapter = None


class _Policy(Policy):
    def __init__(self, lora: Any = None, prompt_tuning: Any = None, **_: Any) -> None:
        nn.Module.__init__(self)
        self.model = _Model(1, adapted=lora is not None or prompt_tuning is not None)


class _ScoreModel(ScoreModel):
    def __init__(self, outputs: int = 1, **_: Any) -> None:
        nn.Module.__init__(self)
        self.model = _Model(outputs, adapted=False)


class _Reward(Reward):
    def __init__(self, **_: Any) -> None:
        pass

    def __call__(self, prompts: Any, completions: Any) -> Any:
        raise NotImplementedError


def try_constructors(command: LightningCLI) -> None:
    """Build objective, data and optimizer of a parsed command, and forget them.

    Failures that only a real model would avoid are ignored; the run itself will report them.

    Raises:
        ConfigError: A constructor refuses a value.
    """
    for kind, stand_in in ((Policy, _Policy), (ScoreModel, _ScoreModel), (Reward, _Reward)):
        command.parser.add_instantiator(
            lambda _, *args, _stand_in=stand_in, **settings: _stand_in(**settings),
            kind,
            subclasses=True,
        )
    parsed = {key: command.config[key] for key in ("model", "data") if key in command.config}
    try:
        built = command.parser.instantiate(Namespace(**parsed))
    except Exception as error:
        own = own_error(error)
        if isinstance(own, ConfigError):
            raise own from error
        return
    check_optimizer(built.model)


def try_trainer(command: LightningCLI, *, here: bool, evaluated: bool) -> None:
    """Build the trainer and its callbacks, and forget them.

    Call it after ``try_constructors``, whose stand-ins it needs.

    Args:
        command: Parsed.
        here: Its devices have to be on this machine.
        evaluated: Its evaluations will be points of a frontier.

    Raises:
        ConfigError: One of them refuses a value, or there is no probe where one is needed.
    """
    try:
        parsed = Namespace(trainer=command.config.trainer, probe=command.config.probe)
        built = command.parser.instantiate(parsed)
        settings = vars(built.trainer)
        callbacks = in_order(built.probe, settings["callbacks"])
        if not here:
            settings |= {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
        settings["accumulate_grad_batches"] = settings["accumulate_grad_batches"] or 1
        trainer = Trainer(**settings | {"callbacks": callbacks})
    except Exception as error:
        raise construction_error(error, command.config) from error
    if here:
        check_devices(trainer)
    if evaluated and not any(isinstance(callback, FrontierProbe) for callback in callbacks):
        raise ConfigError(
            "its stage has an 'objective', so its evaluations are to be points of the frontier, "
            "and nothing evaluates it. Add a FrontierProbe under the key probe, or leave "
            "'objective' out."
        )
