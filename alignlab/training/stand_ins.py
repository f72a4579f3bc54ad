"""Validate constructor arguments without building a model.

A sweep's inputs take hours, so a negative ``beta`` should be reported before they are made.
Objective and data are built with stand-ins for models and rewards that hold no weights and read no
file.
"""

from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch.cli import LightningCLI
from torch import nn

from alignlab.callbacks.kl_bound import in_order
from alignlab.callbacks.probe import FrontierProbe
from alignlab.errors import ConfigError
from alignlab.models.adapters import OWN
from alignlab.models.loading import attention, may_be_made
from alignlab.models.policy import Policy, check_policy
from alignlab.models.score import ScoreModel, check_scorer
from alignlab.rewards.base import Reward
from alignlab.rewards.given import FunctionReward
from alignlab.training.before_start import (
    construct,
    make_trainer,
    own_error,
)

REAL = (FunctionReward,)  # a function of the user's costs nothing, and is often misspelt


class _Model(nn.Module):
    """A fake of a Hugging Face model, with what constructors of objectives read."""

    dtype = torch.float32

    def __init__(self, outputs: int, *, adapted: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace()
        self.score = SimpleNamespace(out_features=outputs)
        if adapted:
            self.disable_adapter = None

    def get_output_embeddings(self) -> nn.Linear:
        """A head of one weight."""
        return nn.Linear(1, 1)

    def add_adapter(self, name: str, config: Any) -> None:
        """Do nothing: the fake has no layers to adapt."""


class _Policy(Policy):
    def __init__(
        self,
        source: str | None = None,
        config: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        lora: Any = None,
        prompt_tuning: Any = None,
        quantised: Any = None,
        attn_implementation: str | None = None,
        **_: Any,
    ) -> None:
        nn.Module.__init__(self)
        known = None if may_be_made(source) else quantised
        check_policy(source, config, tokenizer, lora, prompt_tuning, known)
        attention(attn_implementation)
        self.model = _Model(1, adapted=lora is not None or prompt_tuning is not None)
        if lora is not None or prompt_tuning is not None or source is not None:  # or adapters there
            own = SimpleNamespace(is_prompt_learning=prompt_tuning is not None)
            self.model.peft_config = {OWN: own}


class _ScoreModel(ScoreModel):
    def __init__(
        self,
        source: str,
        outputs: int = 1,
        lora: Any = None,
        quantised: Any = None,
        attn_implementation: str | None = None,
        **_: Any,
    ) -> None:
        nn.Module.__init__(self)
        check_scorer(source, outputs, lora, None if may_be_made(source) else quantised)
        attention(attn_implementation)
        self.model = _Model(outputs, adapted=False)


class _Reward(Reward):
    def __init__(self, **_: Any) -> None:
        pass

    def __call__(self, prompts: Any, completions: Any) -> Any:
        raise NotImplementedError


def try_out(command: LightningCLI, *, here: bool, evaluated: bool) -> None:
    """Construct all objects that a parsed command names, and discard them.

    Errors that only mean that there is no real model are ignored.

    Args:
        command: Parsed.
        here: Its devices have to be on this machine.
        evaluated: Its evaluations will be points of a frontier.

    Raises:
        ConfigError: A constructor refuses a value, or there is no probe where one is needed.
    """
    for kind, stand_in in ((Policy, _Policy), (ScoreModel, _ScoreModel), (Reward, _Reward)):
        command.parser.add_instantiator(
            lambda kind, *_, _stand_in=stand_in, **settings: (
                kind(**settings) if kind in REAL else _stand_in(**settings)
            ),
            kind,
            subclasses=True,
        )
    try:
        construct(command, "model", "data")
    except Exception as error:
        if isinstance(own := own_error(error.__cause__), ConfigError):
            raise own from error
    built = construct(command, "trainer", "probe")
    callbacks = in_order(built.probe, built.trainer.callbacks)
    settings = vars(built.trainer) | {"callbacks": callbacks}
    if isinstance(settings["logger"], str):  # a word, whose loggers would open files
        settings["logger"] = False
    make_trainer(settings, command.config, here=here)
    if evaluated and not any(isinstance(callback, FrontierProbe) for callback in callbacks):
        raise ConfigError(
            "its stage has an 'objective', so its evaluations are to be points of the frontier, "
            "but it has no probe. Add a FrontierProbe under the key probe, or leave 'objective' "
            "out."
        )
