"""Sentiment of film reviews as a reward: the log-odds that a text is positive, from its words."""

import csv
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from alignlab.bounds import Count, Seed, Share
from alignlab.data.files import read_lines
from alignlab.data.imdb import read_imdb
from alignlab.data.rows import LabelledText, split_by_prompt
from alignlab.errors import ConfigError, DataError
from alignlab.rewards.base import Reward
from alignlab.rewards.build import build_reward
from alignlab.rewards.ngrams import NgramScorer, calibrate, fit_nbsvm, frequent_ngrams, words

PROBABILITY_BINS = 10


class SentimentReward(Reward):
    """Log-odds (the logit, in nats) that prompt + completion, read as one text, is positive.

    The classifier of the DPO paper reads the whole text too (arXiv:2305.18290, appendix C.1).
    Within a prompt its own share is nearly a constant, so it cancels from comparisons. The score
    is calibrated on excerpts of 16-64 words: 0 is even odds, its sigmoid is a probability.

    Args:
        path: Folder of a fitted :class:`NgramScorer`, as ``fit_sentiment`` writes it.
    """

    def __init__(self, path: str | Path) -> None:
        self.scorer = NgramScorer.load(path)

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float64 logits; texts are joined as they are."""
        return self.scorer([p + c for p, c in zip(prompts, completions, strict=True)])


def fit_sentiment(
    *,
    out: str | Path,
    source: str,
    half: Literal["a", "b"] = "a",
    longest: Count = 2,
    min_count: Count = 3,
    crops: Count = 3,
    crop_words: tuple[int, int] = (16, 64),
    l2: float = 3e-4,
    max_steps: Count = 60,
    calibration_share: Share = 0.1,
    seed: Seed = 0,
) -> None:
    """Stage: fit a gold scorer, or its watchdog, to labelled reviews and measure it on others.

    Writes the scorer's folder and ``metrics.json``: accuracy, area under the ROC curve, log loss,
    Brier score and calibration error on whole test reviews and on one random excerpt of each.
    The two halves share no text, so gold and watchdog share no label.

    Args:
        out: Folder to write.
        source: IMDB as a file or hub id, see ``alignlab.data.imdb``.
        half: Which half of the training labels; the watchdog takes the half that gold does not see.
        longest: Words in the longest n-gram.
        min_count: Texts that must hold an n-gram for it to get a weight.
        crops: Random excerpts of each review that are fitted beside the whole, so that the scorer
            knows texts as short as those it will score.
        crop_words: Fewest and most words of an excerpt.
        l2: See ``fit_nbsvm``.
        max_steps: See ``fit_nbsvm``.
        calibration_share: Share of reviews kept out of the fit for Platt scaling on excerpts.
        seed: Of the excerpts and of the share that is kept out.
    """
    if crops < 1 or not 0 < calibration_share < 1 or not 1 <= crop_words[0] <= crop_words[1]:
        raise ConfigError(
            "fit_sentiment needs crops >= 1, 0 < calibration_share < 1 and 1 <= crop_words[0] <= "
            f"crop_words[1], got {crops}, {calibration_share}, {tuple(crop_words)}."
        )
    rng = random.Random(seed)
    labelled, _ = read_imdb(source, "train", half=half)
    fitted, held_out = split_by_prompt(labelled, calibration_share, seed)
    texts, labels = _tokenised(fitted)
    scorer = NgramScorer(
        frequent_ngrams(texts, longest=longest, min_count=min_count), longest=longest
    )
    excerpts = [crop(tokens, crop_words, rng) for _ in range(crops) for tokens in texts]
    fit_nbsvm(scorer, texts, labels, excerpts, labels.repeat(crops), l2=l2, max_steps=max_steps)
    texts, labels = _tokenised(held_out)
    excerpts = [crop(tokens, crop_words, rng) for _ in range(crops) for tokens in texts]
    slope, offset = calibrate(scorer, excerpts, labels.repeat(crops)).tolist()
    scorer.save(out)

    texts, labels = _tokenised(read_imdb(source, "test")[0])
    excerpts = [crop(tokens, crop_words, rng) for tokens in texts]
    metrics = {
        "half": half,
        "reviews_fitted": len(fitted),
        "reviews_for_calibration": len(held_out),
        "ngrams": len(scorer.vocabulary),
        "platt_slope": slope,
        "platt_offset": offset,
        "test_reviews": measure(scorer.score(texts), labels),
        "test_excerpts": measure(scorer.score(excerpts), labels),
    }
    (Path(out) / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


def crop(tokens: Sequence[str], lengths: tuple[int, int], rng: random.Random) -> Sequence[str]:
    """A random run of words, its length even in ``lengths``; the whole of a shorter text."""
    length = rng.randint(*lengths)
    start = rng.randint(0, max(0, len(tokens) - length))
    return tokens[start : start + length]


def measure(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """How well float64 ``logits`` ``[N]`` tell labels 0 and 1 apart, and how honest they are.

    ``calibration_error`` is the mean gap between probability and frequency over ten bins of equal
    width, weighted by texts; ``logit_sd`` is the spread of the score over these texts.
    """
    positive = labels == 1
    ranks = torch.from_numpy(rankdata(logits.numpy()))  # ties share their mean rank
    n = int(positive.sum())
    above = float(ranks[positive].sum()) - n * (n + 1) / 2
    probability = logits.sigmoid()
    bins = (probability * PROBABILITY_BINS).long().clamp(max=PROBABILITY_BINS - 1)
    gaps = torch.zeros(PROBABILITY_BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, probability - labels)
    return {
        "texts": len(labels),
        "accuracy": float(((logits > 0) == positive).double().mean()),
        "auc": above / (n * (len(labels) - n)),
        "log_loss": float(F.binary_cross_entropy_with_logits(logits, labels)),
        "brier": float((probability - labels).square().mean()),
        "calibration_error": float(gaps.abs().sum()) / len(labels),
        "logit_mean": float(logits.mean()),
        "logit_sd": float(logits.std(correction=0)),
    }


def _tokenised(rows: Sequence[LabelledText]) -> tuple[list[list[str]], Tensor]:
    labels: list[Any] = [row.label for row in rows]
    return [words(row.text) for row in rows], torch.tensor(labels, dtype=torch.float64)


def compare_scorers(
    *,
    out: str | Path,
    gold: Mapping[str, Any],
    watchdog: Mapping[str, Any],
    runs: Sequence[str | Sequence[str]],
) -> None:
    """Stage: do gains on the gold scorer hold on one whose labels nobody optimised?

    Reads the texts that the probe kept (``points/step-<n>.texts.jsonl``) below each run's folder
    and writes ``watchdog.csv``: mean log-odds and mean probability of both scorers, a row per run
    and step. Where gold goes up and the watchdog does not, the gold scorer's mistakes are learned.

    Args:
        out: Folder to write.
        gold: ``class_path`` and ``init_args`` of the scorer that was optimised, a log-odds.
        watchdog: The same of the other one.
        runs: Folders of runs, or lists of them.

    Raises:
        DataError: No run has kept texts.
    """
    folders = [Path(f) for item in runs for f in ([item] if isinstance(item, str) else item)]
    scorers = {"gold": build_reward(gold), "watchdog": build_reward(watchdog)}
    rows = []
    for folder in folders:
        for path in sorted(folder.rglob("points/step-*.texts.jsonl")):
            kept = read_lines(path)
            row: dict[str, Any] = {
                "run": f"{folder.parent.name}-{folder.name}",
                "step": int(path.name.split("-")[1].split(".")[0]),
                "texts": len(kept),
            }
            for name, scorer in scorers.items():
                logits = scorer([k["prompt"] for k in kept], [k["completion"] for k in kept])
                row[f"{name}_logit"] = round(float(logits.mean()), 6)
                row[f"{name}_probability"] = round(float(logits.sigmoid().mean()), 6)
            rows.append(row)
    if not rows:
        raise DataError(
            f"none of {len(folders)} runs has kept texts (points/step-<n>.texts.jsonl). Compare "
            "runs that were evaluated by FrontierProbe."
        )
    Path(out).mkdir(parents=True, exist_ok=True)
    with (Path(out) / "watchdog.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(sorted(rows, key=lambda row: (row["run"], row["step"])))
