import json
import math
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.testing import assert_close

from alignlab.errors import ConfigError, DataError
from alignlab.results.csv_tables import read_table
from alignlab.results.run_folder import Evaluation, SampleText
from alignlab.rewards.base import Reward
from alignlab.rewards.ngrams import NgramScorer
from alignlab.rewards.sentiment import SentimentReward
from alignlab.stages.scorers import compare_scorers, crop, fit_sentiment, measure
from tests.data.files import jsonl

GOOD = ["great", "superb", "touching", "funny", "brilliant"]
BAD = ["awful", "boring", "dull", "a mess", "terrible"]
PLAIN = ["film", "plot", "actor", "scene", "music", "camera", "story", "ending"]


def write_reviews(folder: Path) -> str:
    """IMDB's columns; reviews of some 60 words that say their label a few times."""
    rng = random.Random(0)
    rows: dict[str, list[object]] = {"text": [], "label": [], "split": []}
    for split, count in (("train", 240), ("test", 80)):
        for i in range(count):
            words = [
                rng.choice(rng.choice([PLAIN, PLAIN, GOOD if i % 2 else BAD])) for _ in range(60)
            ]
            rows["text"].append(f"Review {split} {i}:<br /><br />" + " ".join(words))
            rows["label"].append(i % 2)
            rows["split"].append(split)
    path = folder / "imdb.parquet"
    pq.write_table(pa.table(rows), path)
    return str(path)


def test_fitted_scorer_tells_reviews_and_excerpts_apart(tmp_path: Path) -> None:
    source = write_reviews(tmp_path)
    fit_sentiment(out=tmp_path / "gold", source=source, crop_words=(4, 8))
    metrics = json.loads((tmp_path / "gold" / "metrics.json").read_text())
    assert metrics["test_reviews"]["texts"] == 80
    assert metrics["test_reviews"]["accuracy"] > 0.95
    assert 0.75 < metrics["test_excerpts"]["accuracy"] < metrics["test_reviews"]["accuracy"]
    reward = SentimentReward(tmp_path / "gold")
    assert isinstance(reward, Reward)
    scores = reward(["This film", "This film"], [" is superb and funny", " is boring, a mess"])
    assert scores.dtype == torch.float64
    assert scores[0] > 0 > scores[1]


def test_prompt_and_completion_are_one_text(tmp_path: Path) -> None:
    scorer = NgramScorer(["not good", "not", "good"])
    scorer.weight.copy_(torch.tensor([-5.0, 0.25, 1.0]))
    scorer.save(tmp_path)
    reward = SentimentReward(tmp_path)
    scores = reward(["It is not", "It is", "It is not"], [" good", " good", "hing"])
    assert_close(scores, torch.tensor([-3.75, 1.0, 0.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="shorter"):
        reward(["It is not", "It is"], [" good"])


def test_halves_share_no_review_and_a_fit_repeats_itself(tmp_path: Path) -> None:
    source = write_reviews(tmp_path)
    for name, half in (("a", "a"), ("again", "a"), ("b", "b")):
        fit_sentiment(out=tmp_path / name, source=source, half=half)  # type: ignore[arg-type]
    seen = [
        json.loads((tmp_path / name / "metrics.json").read_text())["reviews_fitted"]
        + json.loads((tmp_path / name / "metrics.json").read_text())["reviews_for_calibration"]
        for name in ("a", "b")
    ]
    assert sum(seen) == 240
    for file in ("weights.safetensors", "vocabulary.json.gz", "metrics.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] != weights[1]


def test_measures_worked_by_hand() -> None:
    """Three positives at 2, 0 (a tie with a negative) and -1; negatives at 0 and -2.

    Pairs won: 2 beats both, 0 ties one and beats one, -1 beats one: (2 + 1.5 + 1) / 6 = 0.75.
    A logit of 0 is no positive call.
    """
    logits = torch.tensor([2.0, 0.0, -1.0, 0.0, -2.0], dtype=torch.float64)
    labels = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    found = measure(logits, labels)
    p = [1 / (1 + math.exp(-x)) for x in (2.0, 0.0, -1.0, 0.0, -2.0)]
    assert found["auc"] == pytest.approx(0.75)
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["log_loss"] == pytest.approx(
        -(math.log(p[0]) + 2 * math.log(0.5) + math.log(p[2]) + math.log(1 - p[4])) / 5
    )
    assert found["brier"] == pytest.approx(
        ((1 - p[0]) ** 2 + 2 * 0.25 + (1 - p[2]) ** 2 + p[4] ** 2) / 5
    )
    # Bins: 0.88 | 0.5, 0.5 | 0.27 | 0.12; the middle one is right on average.
    assert found["calibration_error"] == pytest.approx((1 - p[0] + 1 - p[2] + p[4]) / 5)
    assert found["logit_mean"] == pytest.approx(-0.2)


def test_crops_are_runs_of_every_length_and_place() -> None:
    rng = random.Random(0)
    tokens = list("abcdef")
    drawn = {"".join(crop(tokens, (2, 3), rng)) for _ in range(300)}
    runs = {"".join(tokens[i : i + n]) for n in (2, 3) for i in range(7 - n)}
    assert drawn == runs
    assert crop(["a"], (2, 3), rng) == ["a"]


@pytest.mark.parametrize(
    "setting", [{"crops": 0}, {"calibration_share": 1.0}, {"crop_words": (5, 4)}]
)
def test_impossible_settings_stop_before_any_work(tmp_path: Path, setting: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="fit_sentiment needs"):
        fit_sentiment(out=tmp_path / "gold", source="nowhere.parquet", **setting)  # type: ignore[arg-type]
    assert not (tmp_path / "gold").exists()


def save_scorer(folder: Path, word: str) -> dict[str, Any]:
    scorer = NgramScorer([word], longest=1)
    scorer.weight.fill_(2.0)
    scorer.save(folder)
    return {
        "class_path": "alignlab.rewards.sentiment.SentimentReward",
        "init_args": {"path": str(folder)},
    }


def test_scorers_are_compared_on_the_texts_that_runs_kept(tmp_path: Path) -> None:
    """Gold counts "good" and the watchdog "great", 2 each; sigmoid(2) = 0.880797."""
    for run, step, completions in (
        ("dpo/beta0.5-s0", 120, [" good", " great", " good great", " film"]),
        ("dpo/beta0.5-s0", 60, [" film"]),
        ("ppo/s1", 7, [" good"]),
    ):
        kept = [
            SampleText("p", "A", f"{text}\x85\u2028", 0.0, proxy_reward=None, kl=0.0, length=2)
            for text in completions
        ]
        Evaluation(tmp_path / run / "train", step).write_texts(kept)
    gold = save_scorer(tmp_path / "gold", "good")
    watchdog = save_scorer(tmp_path / "watchdog", "great")
    compare_scorers(
        out=tmp_path / "watch",
        gold=gold,
        watchdog=watchdog,
        runs=[[str(tmp_path / "dpo" / "beta0.5-s0")], str(tmp_path / "ppo" / "s1")],
    )
    assert (tmp_path / "watch" / "watchdog.csv").read_text().splitlines() == [
        "run,step,texts,gold_logit,gold_probability,watchdog_logit,watchdog_probability",
        "dpo-beta0.5-s0,60,1,0.0,0.5,0.0,0.5",
        "dpo-beta0.5-s0,120,4,1.0,0.690399,1.0,0.690399",
        "ppo-s1,7,1,2.0,0.880797,0.0,0.5",
    ]
    own = [{"prompt": "A", "completion": f" {word}"} for word in ("good", "film")]
    compare_scorers(
        out=tmp_path / "watch",
        gold=gold,
        watchdog=watchdog,
        runs=[str(tmp_path / "ppo" / "s1")],
        baseline=str(jsonl(tmp_path, own)),
    )
    first, _ = read_table(tmp_path / "watch" / "watchdog.csv")
    assert list(first.values())[:4] == ["reference", "0", "2", "1.0"]
    assert first["watchdog_logit"] == "0.0"
    with pytest.raises(DataError, match="none of 1 runs has kept texts"):
        compare_scorers(
            out=tmp_path / "none",
            gold=gold,
            watchdog=watchdog,
            runs=[str(tmp_path / "gold")],
        )
    assert not (tmp_path / "none").exists()
