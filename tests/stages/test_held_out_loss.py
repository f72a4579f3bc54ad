"""Log loss and accuracy against the scores themselves."""

from pathlib import Path

import numpy as np
import pytest
from transformers import LlamaForSequenceClassification

from alignlab.data.rows import PreferencePair
from alignlab.data.sources import write_rows
from alignlab.results.csv_tables import read_table
from alignlab.rewards.model import ModelReward
from alignlab.stages.held_out_loss import measure_log_loss
from tests.rewards.test_model import save_tiny


def test_log_loss_of_held_out_pairs(tmp_path: Path) -> None:
    pairs = [("a film", " good", " bad film"), ("not", " film", " good good")]
    write_rows(
        tmp_path / "pairs.jsonl",
        [PreferencePair(str(i), *pair) for i, pair in enumerate(pairs)],
    )
    folder = save_tiny(
        tmp_path / "kwise" / "s2", LlamaForSequenceClassification, num_labels=1, score_scale=1
    )
    measure_log_loss(
        out=tmp_path / "out", models={"kwise": [folder]}, pairs=str(tmp_path / "pairs.jsonl")
    )
    (row,) = read_table(tmp_path / "out" / "log_loss.csv")
    reward = ModelReward(folder, device="cpu")
    better, worse = (reward([p[0] for p in pairs], [p[k] for p in pairs]).numpy() for k in (1, 2))
    gaps = (better - worse).astype(float)
    assert (row["model"], row["run"], row["pairs"]) == ("kwise", "kwise-s2", "2")
    loss = np.mean([-np.log(1 / (1 + np.exp(-gap))) for gap in gaps])
    assert float(row["log_loss"]) == pytest.approx(loss, abs=1e-5)
    assert float(row["accuracy"]) == np.mean(gaps > 0)
