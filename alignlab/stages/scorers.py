"""Stages for scorers: download, make up, fit to labels, or compare them."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from alignlab.bounds import Count, Seed, Share
from alignlab.data.rows import Demonstration, LabelledText, split_by_prompt
from alignlab.data.sources import read_rows
from alignlab.data.texts import completion_text, prompt_text
from alignlab.errors import ConfigError, DataError
from alignlab.functional import calibration_gaps
from alignlab.models.loading import build_model, load_model, load_tokenizer
from alignlab.results.csv_tables import write_table
from alignlab.results.run_folder import RunFolder
from alignlab.rewards import Reward
from alignlab.rewards.build import build_reward
from alignlab.rewards.ngrams import NgramScorer, calibrate, fit_nbsvm, frequent_ngrams, words
from alignlab.worlds.imdb import read_imdb


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
        source: IMDB as a file or hub id, see ``alignlab.worlds.imdb``.
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
    """How well float64 ``logits`` ``[N]`` separate labels 0 and 1, and how calibrated they are.

    ``calibration_error`` is the mean gap between probability and frequency over ten bins of equal
    width, weighted by texts; ``logit_sd`` is the spread of the score over these texts.
    """
    positive = labels == 1
    ranks = torch.from_numpy(rankdata(logits.numpy()))  # ties share their mean rank
    n = int(positive.sum())
    above = float(ranks[positive].sum()) - n * (n + 1) / 2
    probability = logits.sigmoid()
    gaps = calibration_gaps(probability, labels)
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
    baseline: str | None = None,
) -> None:
    """Stage: do gains on the gold scorer hold on one that was fitted to other labels?

    Reads the texts that the probe kept of each run and writes ``watchdog.csv``: mean log-odds and
    mean probability of both scorers, a row per run and step. Where gold rises and the watchdog does
    not, the policy exploits the gold scorer's mistakes.

    Args:
        out: Folder to write.
        gold: ``class_path`` and ``init_args`` of the scorer that was optimised, a log-odds.
        watchdog: ``class_path`` and ``init_args`` of the watchdog, a log-odds too.
        runs: Folders of runs, or lists of them.
        baseline: File of the reference's own completions, as demonstrations: the row ``reference``,
            from which gains are counted.

    Raises:
        DataError: No run has kept texts.
    """
    folders = [RunFolder(f) for item in runs for f in ([item] if isinstance(item, str) else item)]
    scorers = {"gold": build_reward(gold), "watchdog": build_reward(watchdog)}
    rows = []
    for folder in folders:
        for evaluation in folder.evaluations:
            kept = evaluation.read_texts()
            texts = [k.prompt for k in kept], [k.completion for k in kept]
            rows.append(_compared(folder.long_name, evaluation.step, scorers, *texts))
    if not rows:
        raise DataError(
            f"none of {len(folders)} runs has kept texts. Compare runs that "
            " were evaluated by FrontierProbe."
        )
    rows.sort(key=lambda row: (row["run"], row["step"]))
    if baseline is not None:
        found, report = read_rows(baseline, Demonstration)
        report.tell()
        prompts = [prompt_text(row.prompt) for row in found]
        answers = [completion_text(row.completion, row.ends) for row in found]
        rows.insert(0, _compared("reference", 0, scorers, prompts, answers))
    write_table(Path(out) / "watchdog.csv", rows, numbers="")


def _compared(
    run: str,
    step: int,
    scorers: Mapping[str, Reward],
    prompts: Sequence[str],
    completions: Sequence[str],
) -> dict[str, Any]:
    """A row of ``watchdog.csv``."""
    row: dict[str, Any] = {"run": run, "step": step, "texts": len(completions)}
    for name, scorer in scorers.items():
        logits = scorer(prompts, completions)
        row[f"{name}_logit"] = round(float(logits.mean()), 6)
        row[f"{name}_probability"] = round(float(logits.sigmoid().mean()), 6)
    return row


def fetch_classifier(*, out: str | Path, source: str) -> None:
    """Stage: put a classifier and its tokenizer into a folder, so that nothing after asks a hub.

    Args:
        out: Folder to write.
        source: Hub id or folder.
    """
    tokenizer = load_tokenizer(source, missing="a model")
    model = load_model(AutoModelForSequenceClassification, source, dtype="float32", dropout=None)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def make_up_classifier(*, out: str | Path, seed: Seed = 0) -> None:
    """Stage: a tiny untrained RoBERTa with the classes NEGATIVE and POSITIVE: for smoke runs.

    Args:
        out: Folder to write.
        seed: Decides the weights.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(["<s>", "<pad>", "</s>"])
    backend.add_tokens(pre_tokenizers.ByteLevel.alphabet())
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    values = {
        "model_type": "roberta",
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 514,
        "initializer_range": 1.0,  # an untrained head near 0 would score every text alike
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "id2label": {0: "NEGATIVE", 1: "POSITIVE"},
        "label2id": {"NEGATIVE": 0, "POSITIVE": 1},
    }
    model = build_model(
        AutoModelForSequenceClassification, values, seed=seed, dtype="float32", dropout=0.0
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
