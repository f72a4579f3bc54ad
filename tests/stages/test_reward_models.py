import csv
from pathlib import Path

import numpy as np
import pytest
from transformers import LlamaForSequenceClassification

from alignlab.data.rows import RatedCompletion
from alignlab.data.sources import write_rows
from alignlab.errors import DataError
from alignlab.results.statistics import t_interval
from alignlab.rewards.model import ModelReward
from alignlab.stages.reward_models import compare_reward_models, measure
from tests.rewards.test_model import save_tiny


def rated(*rows: tuple[str, str, float]) -> list[RatedCompletion]:
    return [RatedCompletion(str(i), *row) for i, row in enumerate(rows)]


def test_accuracy_worked_by_hand() -> None:
    """Prompt a: 3 > 1 right, 3 > 2 tied, 2 > 1 right. Prompt b: equal ratings are no pair."""
    rows = rated(("a", "x", 3), ("b", "x", 1), ("a", "y", 1), ("a", "z", 2), ("b", "y", 1))
    found = measure(rows, np.array([5.0, 9.0, 1.0, 5.0, -9.0]))
    assert found["accuracy"] == pytest.approx(2.5 / 3)


def test_pairs_are_of_one_prompt_only() -> None:
    """Each prompt is ordered right, whatever lies between prompts."""
    rows = rated(("a", "x", 1), ("a", "y", 0), ("b", "x", 11), ("b", "y", 10))
    found = measure(rows, np.array([21.0, 20.0, 1.0, 0.0]))
    assert found["accuracy"] == 1
    assert found["correlation"] < 0
    assert found["correlation_within"] == pytest.approx(1)


def test_nothing_to_compare() -> None:
    with pytest.raises(DataError, match="no prompt has two completions with different ratings"):
        measure(rated(("a", "x", 1), ("b", "x", 2)), np.zeros(2))


def test_table_of_models_and_seeds(tmp_path: Path) -> None:
    rows = rated(
        ("a film", " good", 1.0),
        ("a film", " bad film", -1.0),
        ("not", " good good", 0.0),
        ("not", " a bad", 2.0),
        ("not", " film", 1.5),
    )
    write_rows(tmp_path / "gold.jsonl", rows)
    folders = [  # the second says the opposite of the first
        save_tiny(tmp_path / str(i), LlamaForSequenceClassification, num_labels=1, score_scale=sign)
        for i, sign in enumerate((1, -1))
    ]
    compare_reward_models(
        out=tmp_path / "out",
        models={"one": folders[0], "two": folders},
        source=str(tmp_path / "gold.jsonl"),
        batch_size=2,
    )
    with (tmp_path / "out" / "reward_models.csv").open() as file:
        one, two = csv.DictReader(file)
    reward = ModelReward(folders[0], device="cpu")
    scores = reward([str(r.prompt) for r in rows], [str(r.completion) for r in rows]).double()
    expected = measure(rows, scores.numpy())
    assert (one["model"], one["seeds"], one["completions"]) == ("one", "1", "5")
    for name, value in expected.items():
        assert float(one[name]) == pytest.approx(value, abs=1e-5)
        assert (one[f"{name}_lo"], one[f"{name}_hi"]) == ("", "")
        lo, hi = t_interval([value, 1 - value if name == "accuracy" else -value])
        assert lo < hi
        assert float(two[f"{name}_lo"]) == pytest.approx(lo, abs=1e-5)
        assert float(two[f"{name}_hi"]) == pytest.approx(hi, abs=1e-5)
