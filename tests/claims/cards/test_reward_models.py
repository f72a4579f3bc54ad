"""Reward models on held-out pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from alignlab.claims.card import DIALOGUES, OURS, REVIEWS, SUMMARIES, TOY
from alignlab.claims.finding import FAILED, HELD, NOT_RUN, UNRESOLVED
from alignlab.results.csv_tables import write_table
from tests.claims.decided import NUDGE, SEEDS, values, verdicts


def test_rankings(tmp_path: Path) -> None:
    """Together 0.50 after one epoch and 0.55 after four, shuffled 0.52 and 0.60."""
    losses = {"kwise": {1: 0.50, 4: 0.55}, "shuffled": {1: 0.52, 4: 0.60}}
    rows = [
        {"model": name, "run": f"{name}-max_epochs{epochs}-s{s}", "log_loss": loss + NUDGE[s] / 10}
        for name, own in losses.items()
        for epochs, loss in own.items()
        for s in SEEDS
    ]
    write_table(tmp_path / OURS / "log_loss.csv", rows)
    assert verdicts(tmp_path, "C7") == [HELD, HELD]
    assert values(tmp_path, "C7") == pytest.approx([-0.02, -0.03])


def accuracies(model: str, accuracy: float, nudge: Sequence[float] = NUDGE) -> list[dict[str, Any]]:
    """Of five seeds, against labels and, far better, against gold."""
    return [
        {"model": f"{model}-s{s}", "against": against, "accuracy": accuracy + x + more}
        for s, x in enumerate(nudge)
        for against, more in (("labels", 0.0), ("gold", 0.2 * (accuracy > 0.6)))
    ]


def implicit(policy: str, accuracy: float, nudge: Sequence[float] = NUDGE) -> list[dict[str, Any]]:
    return [
        {"policy": f"{policy}-s{s}", "reward": reward, "accuracy": accuracy + x + more}
        for s, x in enumerate(nudge)
        for reward, more in (("log_ratio", 0.0), ("mean_logp", 0.3))
    ]


def test_more_data_and_larger_models(tmp_path: Path) -> None:
    many, same, few = 0.7, 0.6, 0.5
    rows = [*accuracies("reward_model-limit4000", many), *accuracies("reward_model-limit1000", few)]
    write_table(tmp_path / "hh-small" / "accuracy.csv", rows)
    rows = [
        *accuracies("reward_model_8192", same, NUDGE[::-1]),
        *accuracies("reward_model_256", same),
        *accuracies("reward_model", few),
        *accuracies("reward_model_8", many),
    ]
    write_table(tmp_path / TOY / "reward_model_accuracy.csv", rows)
    assert verdicts(tmp_path, "C8") == [HELD, UNRESOLVED, NOT_RUN, FAILED, NOT_RUN]
    dialogues, toy, _, size, _ = values(tmp_path, "C8")
    assert dialogues == pytest.approx(0.2 / 2)  # two doublings
    assert toy == pytest.approx(0.0)
    assert size == pytest.approx(-0.2 / 3)


def test_explicit_and_implicit_rewards(tmp_path: Path) -> None:
    for folder, own in (
        (TOY, implicit("dpo-beta0.1", 0.55)),
        (REVIEWS, implicit("dpo-beta0.1", 0.65)),
        (SUMMARIES, implicit("dpo-beta0.5", 0.6, NUDGE[::-1])),
    ):
        rows = accuracies("reward_model", 0.6)
        write_table(tmp_path / folder / "reward_model_accuracy.csv", rows)
        write_table(tmp_path / folder / "implicit_accuracy.csv", own)
    rows = accuracies("reward_model-limit2048", 0.6)
    write_table(tmp_path / DIALOGUES / "accuracy.csv", rows)
    rows = [*implicit("dpo-beta0.05", 0.5), *implicit("simpo-beta5.0", 0.9)]
    write_table(tmp_path / DIALOGUES / "policy_accuracy.csv", rows)
    assert verdicts(tmp_path, "C9") == [HELD, FAILED, UNRESOLVED, HELD, NOT_RUN]
    assert values(tmp_path, "C9")[:4] == pytest.approx([0.05, -0.05, 0.0, 0.1])
