"""What a training reports to the pipeline, and when it stops for it."""

from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from alignlab.callbacks import checkpoints
from alignlab.pipeline import training
from alignlab.pipeline.messages import Reporter
from alignlab.results.run_folder import Evaluation


def test_each_evaluation_is_reported_once_and_a_request_to_stop_ends_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "planned_steps", lambda trainer: 4)
    found = {2: {"kl": 0.5}}
    monkeypatch.setattr(training, "means_at", lambda trainer, step: found.get(step))
    strategy = SimpleNamespace(reduce_boolean_decision=lambda told, all: told)
    trainer = SimpleNamespace(global_step=2, should_stop=False, strategy=strategy)
    heard, out = Pipe(duplex=False)
    reporter = Reporter(out)
    callback = training.Progress("dpo", reporter)
    callback.on_train_start(cast(Any, trainer), cast(Any, None))  # continued behind an evaluation
    for _ in range(2):  # two micro-batches of one step
        callback.on_train_batch_end(cast(Any, trainer), cast(Any, None), None, None, 0)
    assert not trainer.should_stop
    reporter.stop("dpo", "pruned at step 2")
    callback.on_train_batch_end(cast(Any, trainer), cast(Any, None), None, None, 0)
    assert trainer.should_stop
    sent: list[dict[str, Any]] = []
    while heard.poll():
        sent.append(heard.recv())
    evaluated = {"event": "evaluated", "step": 2, "metrics": {"kl": 0.5}}
    assert [message for message in sent if message["event"] == "evaluated"] == [evaluated]


def test_only_an_evaluation_that_was_complete_and_changed_makes_a_training_start_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "newest", lambda run: (run / "last.ckpt", []))
    evaluation = Evaluation(tmp_path / "train", 20)
    evaluation.write_texts([])  # killed before the scores and the record: they are made again
    assert training._drop_damaged(tmp_path / "train") == []
    evaluation.scores.write_bytes(b"scores")
    evaluation.seal(1.0)
    assert training._drop_damaged(tmp_path / "train") == []
    evaluation.scores.write_bytes(b"others")
    (said,) = training._drop_damaged(tmp_path / "train")
    assert said == f"step-000020.json in {tmp_path / 'train'} is damaged; starting over"
    assert not evaluation.texts.exists()
