import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from alignlab.errors import DataError
from alignlab.rewards.ngrams import (
    NgramScorer,
    calibrate,
    fit_nbsvm,
    frequent_ngrams,
    log_count_ratios,
    ngrams,
    words,
)


def small_scorer() -> NgramScorer:
    scorer = NgramScorer(["bad", "good", "not good"])
    scorer.weight.copy_(torch.tensor([-2.0, 1.0, -3.0]))
    scorer.bias.fill_(0.5)
    return scorer


def test_words_keep_contractions_numbers_and_marks() -> None:
    assert words("I DON'T like it... 8/10, really?!") == [
        *("i", "don't", "like", "it", "8", "10", "really", "?", "!")
    ]


def test_ngrams_are_distinct_and_no_longer_than_asked() -> None:
    assert ngrams(["a", "b", "a", "b"], 1) == ["a", "b"]
    assert ngrams(["a", "b", "a", "b"], 3) == ["a", "b", "a b", "b a", "a b a", "b a b"]
    assert ngrams([], 2) == []


def test_scores_worked_by_hand() -> None:
    """Bias 0.5; "not GOOD": 1 - 3; "good" counts once; "goods" is another word."""
    scores = small_scorer()(["Not GOOD.", "good good good", "bad, good", "goods", ""])
    assert_close(scores, torch.tensor([-1.5, 1.5, -0.5, 0.5, 0.5], dtype=torch.float64))


def test_a_score_does_not_depend_on_its_batch() -> None:
    texts = ["good bad", "", "not good at all", "bad"]
    scorer = small_scorer()
    assert torch.equal(scorer(texts), torch.cat([scorer([text]) for text in texts]))
    assert scorer([]).shape == (0,)


def test_vocabulary_counts_texts_not_occurrences() -> None:
    texts = [["a", "a", "b"], ["a", "b"], ["c"]]
    assert frequent_ngrams(texts, longest=2, min_count=2) == ["a", "a b", "b"]


def test_log_count_ratios_worked_by_hand() -> None:
    """Positive {a, b}, {a}: 1 + (2, 1) of 5. Negative {b}: 1 + (0, 1) of 3."""
    ids, offsets = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 2, 3])
    ratios = log_count_ratios(ids, offsets, torch.tensor([1.0, 1.0, 0.0]), 2)
    expected = [math.log((3 / 5) / (1 / 3)), math.log((2 / 5) / (2 / 3))]
    assert_close(ratios, torch.tensor(expected, dtype=torch.float64))


def test_fit_ends_where_the_gradient_of_the_stated_loss_is_zero() -> None:
    whole = [["good", "film"], ["good", "fun"], ["bad", "film"], ["bad", "fun", "bad"]]
    crops = [["good"], ["fun"], ["film"], ["bad"]]
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0])
    scorer = NgramScorer(["bad", "film", "fun", "good"], longest=1)
    fit_nbsvm(scorer, whole, labels, crops, labels, l2=0.1, max_steps=200)
    # "good" is in 2 positive and 0 negative texts; every side counts 4 + 4 tokens.
    ratios = {"bad": math.log(1 / 3), "film": 0.0, "fun": 0.0, "good": math.log(3)}
    weights = dict(zip(scorer.vocabulary, scorer.weight.tolist(), strict=True))
    gradient = dict.fromkeys(ratios, 0.0)
    gradient_of_bias = 0.0
    for tokens, label in zip(whole + crops, [*labels.tolist()] * 2, strict=True):
        logit = scorer.bias.item() + sum(weights[word] for word in set(tokens))
        residual = (1 / (1 + math.exp(-logit)) - label) / 8
        gradient_of_bias += residual
        for word in set(tokens):
            gradient[word] += residual * ratios[word]
    for word, ratio in ratios.items():
        penalty = 0.1 * weights[word] / ratio if ratio else 0.0
        assert gradient[word] + penalty == pytest.approx(0, abs=1e-6)
    assert gradient_of_bias == pytest.approx(0, abs=1e-6)
    assert weights["good"] > 0.5
    assert weights["film"] == 0


def test_calibration_is_the_likeliest_line() -> None:
    """At the optimum residuals are orthogonal to 1 and to the old logit, and scores are folded."""
    scorer = small_scorer()
    texts = [["good"], ["good"], ["good"], ["bad"], ["bad"], ["other"], ["other"]]
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    before = scorer.score(texts)
    slope, offset = calibrate(scorer, texts, labels).tolist()
    after = scorer.score(texts)
    assert_close(after, slope * before + offset)
    residuals = after.sigmoid() - labels
    assert residuals.sum().item() == pytest.approx(0, abs=1e-6)
    assert (residuals * before).sum().item() == pytest.approx(0, abs=1e-6)


def test_saved_scorer_is_the_same_and_the_same_bytes(tmp_path: Path) -> None:
    small_scorer().save(tmp_path / "one")
    loaded = NgramScorer.load(tmp_path / "one")
    loaded.save(tmp_path / "two")
    assert torch.equal(loaded(["not good", "bad"]), small_scorer()(["not good", "bad"]))
    for name in ("weights.safetensors", "vocabulary.json.gz", "config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_loading_the_wrong_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no config\.json.*fitted n-gram scorer"):
        NgramScorer.load(tmp_path)
    small_scorer().save(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(DataError, match=r"LlamaForCausalLM.*not an NgramScorer"):
        NgramScorer.load(tmp_path)
