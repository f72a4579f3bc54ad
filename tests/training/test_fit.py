"""What a finished run says of its losses."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from alignlab.training.fit import losses_line


@pytest.mark.parametrize(
    ("found", "model", "said"),
    [
        ({"train/loss": 0.5, "val/loss": math.log(8)}, {"nats_per_token": True},
         ["Loss: 0.5 in the last step, 2.079 in the last validation (perplexity 8)"]),
        ({"train/loss": 0.5, "val/loss": math.log(8)}, {"nats_per_token": False},
         ["Loss: 0.5 in the last step, 2.079 in the last validation"]),
        ({"train/loss": 0.5}, {"nats_per_token": True}, ["Loss: 0.5 in the last step"]),
        ({"train/loss": 0.5}, {"nats_per_token": False, "phase": {}}, []),
        ({}, {"nats_per_token": True}, []),
    ],
)  # fmt: skip
def test_losses_and_the_perplexity_of_a_loss_per_token(
    found: dict[str, float], model: dict[str, Any], said: list[str]
) -> None:
    command: Any = SimpleNamespace(
        resume=SimpleNamespace(metrics=found), model=SimpleNamespace(**model)
    )
    assert losses_line(command) == said
