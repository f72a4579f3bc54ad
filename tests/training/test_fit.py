"""What a finished run says of its losses, and one that had nothing to train."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from alignlab.training.fit import losses_line, nothing_to_train


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


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ((6, 9), "last.ckpt is of step 6, and trainer.max_steps is 6. To train further, set a "
         "larger trainer.max_steps"),
        ((-1, 2), "last.ckpt is of step 6, and trainer.max_epochs is 2. To train further, set a "
         "larger trainer.max_epochs"),
        ((7, None), "trainer.max_time or a callback ended the run at step 6"),
    ],
    ids=["steps", "epochs", "neither"],
)  # fmt: skip
def test_the_limit_that_left_nothing_to_train_is_named(
    limits: tuple[int, int | None], said: str
) -> None:
    """After 6 steps in 2 epochs."""
    trainer = SimpleNamespace(
        global_step=6, current_epoch=2, max_steps=limits[0], max_epochs=limits[1]
    )
    command: Any = SimpleNamespace(trainer=trainer, config=SimpleNamespace(ckpt_path="last.ckpt"))
    assert nothing_to_train(command).endswith(f": {said}")
