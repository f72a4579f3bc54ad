"""What a training reports to the pipeline, and when it stops for it."""

import io
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from alignlab.pipeline import training
from alignlab.pipeline.messages import Reporter


def test_each_evaluation_is_reported_once_and_a_request_to_stop_ends_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "planned_steps", lambda trainer: 4)
    found = {2: {"kl": 0.5}}
    monkeypatch.setattr(training, "evaluation_at", lambda trainer, step: found.get(step))
    strategy = SimpleNamespace(reduce_boolean_decision=lambda told, all: told)
    trainer = SimpleNamespace(global_step=2, should_stop=False, strategy=strategy)
    out = io.StringIO()
    reporter = Reporter(out)
    callback = training.Progress("dpo", reporter)
    callback.on_train_start(cast(Any, trainer), cast(Any, None))  # continued behind an evaluation
    for _ in range(2):  # two micro-batches of one step
        callback.on_train_batch_end(cast(Any, trainer), cast(Any, None), None, None, 0)
    assert not trainer.should_stop
    reporter.stop("dpo", "pruned at step 2")
    callback.on_train_batch_end(cast(Any, trainer), cast(Any, None), None, None, 0)
    assert trainer.should_stop
    sent = [json.loads(line) for line in out.getvalue().split("\n")[:-1]]
    evaluated = {"event": "evaluated", "step": 2, "metrics": {"kl": 0.5}}
    assert [message for message in sent if message["event"] == "evaluated"] == [evaluated]
