"""Validation metrics of scorers are those of all rows at once, however they are cut."""

import math
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from alignlab.data.loader import TreeLoader
from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError
from alignlab.objectives.kwise_rm import KWiseRewardModel
from alignlab.objectives.regression import Regression
from alignlab.objectives.rm import RewardModel
from alignlab.objectives.scored import ScoreObjective
from tests.objectives.scorers import fixed

ADAM = partial(torch.optim.AdamW, lr=1e-2)
SCORES = [0.0, 0.0, 0.0, 1.3, -0.7, 0.2, 2.9, 0.2, -1.1, 0.6]  # by a completion's first token
PAIRS = [((3,), (4, 2)), ((5, 2), (7,)), ((4,), (6, 6, 2)), ((9, 2, 2), (8,)), ((6, 2), (5, 2))]
# Pairs of these rankings: 1, 3, 3, 1, 1.
RANKED = [
    (((3,), (4, 2)), (0, 1)),
    (((5, 2), (7,), (8, 2, 2)), (1, 0, 2)),
    (((4,), (6, 6, 2), (9,), (3, 2)), (2, 0, 2, 2)),
    (((9, 2, 2), (8,)), (1, 0)),
    (((6, 2), (5, 2)), (0, 1)),
]


def pair_trees() -> list[PromptTree]:
    return [PromptTree(i, f"p{i}", (1,), pair) for i, pair in enumerate(PAIRS)]


def validated(module: ScoreObjective, trees: list[PromptTree], size: int) -> dict[str, float]:
    """What a real trainer logs of ``trees`` in batches of ``size``."""
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    loader = TreeLoader(trees, batch_size=size, shuffle=False)
    (found,) = trainer.validate(module, loader, verbose=False)
    return {name.removeprefix("val/"): value for name, value in found.items()}


def scorer() -> Any:
    return fixed(SCORES, by_token=True, dtype=torch.float64)


def by_hand_of_pairs() -> dict[str, float]:
    scored = [(SCORES[chosen[0]], SCORES[rejected[0]]) for chosen, rejected in PAIRS]
    gaps = [a - b for a, b in scored]
    sure = [1 / (1 + math.exp(-abs(gap))) for gap in gaps]
    hits = [1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in gaps]
    by_bin: dict[int, float] = {}
    for p, hit in zip(sure, hits, strict=True):
        by_bin[int((p - 0.5) / 0.05)] = by_bin.get(int((p - 0.5) / 0.05), 0.0) + p - hit
    lengths = [len(c) for pair in PAIRS for c in pair]
    flat = [score for pair in scored for score in pair]
    return {
        "loss": sum(math.log1p(math.exp(-gap)) for gap in gaps) / 5,
        "accuracy": sum(hits) / 5,
        "margin": sum(gaps) / 5,
        "score": sum(flat) / 10,
        "calibration_error": sum(map(abs, by_bin.values())) / 5,
        "length_correlation": float(np.corrcoef(flat, lengths)[0, 1]),
    }


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Lightning's advice on loaders
@pytest.mark.parametrize("size", [5, 4, 2, 1])
def test_pairs_in_uneven_batches(size):
    """Five pairs, the last batch smaller: a mean of batch means would be another number."""
    expected = by_hand_of_pairs()
    assert expected["accuracy"] == (1 + 1 + 0.5 + 0 + 1) / 5
    found = validated(RewardModel(scorer(), ADAM), pair_trees(), size)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_rankings_in_uneven_batches():
    trees = [
        PromptTree(i, f"p{i}", (1,), texts, labels=tuple(map(float, ranks)))
        for i, (texts, ranks) in enumerate(RANKED)
    ]
    whole, cut = (validated(KWiseRewardModel(scorer(), ADAM), trees, size) for size in (5, 2))
    assert cut == pytest.approx(whole, abs=1e-6)
    hits = []
    for texts, ranks in RANKED:
        gaps = [
            SCORES[a[0]] - SCORES[b[0]]
            for a, i in zip(texts, ranks, strict=True)
            for b, j in zip(texts, ranks, strict=True)
            if i < j
        ]
        hits.append(sum((np.sign(gap) + 1) / 2 for gap in gaps) / len(gaps))
    assert whole["accuracy"] == pytest.approx(sum(hits) / 5, abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_ratings_in_uneven_batches():
    ratings = [0.5, -1.0, 2.0, 0.0, 3.0]
    trees = [
        PromptTree(i, f"r{i}", (1,), (pair[0],), labels=(rating,))
        for i, (pair, rating) in enumerate(zip(PAIRS, ratings, strict=True))
    ]
    scores = [SCORES[pair[0][0]] for pair in PAIRS]
    for size in (5, 2):
        found = validated(Regression(scorer(), ADAM), trees, size)
        squares = [(s - r) ** 2 for s, r in zip(scores, ratings, strict=True)]
        assert found["loss"] == pytest.approx(sum(squares) / 5, abs=1e-6)
        expected = float(np.corrcoef(scores, ratings)[0, 1])
        assert found["rating_correlation"] == pytest.approx(expected, abs=1e-6)


def test_a_model_of_several_scores_is_refused():
    model = fixed(SCORES)
    model.outputs = 3
    with pytest.raises(ConfigError, match=r"RewardModel fits one score, its model has 3.*outputs"):
        RewardModel(model, ADAM)
