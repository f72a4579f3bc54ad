from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.testing import assert_close
from transformers import (
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

from alignlab.data.blocks import tokenise_labelled
from alignlab.data.rows import LabelledText, RowReport
from alignlab.data.trees import collate
from alignlab.errors import ConfigError, DataError
from alignlab.models import Lora, Policy, ScoreModel
from alignlab.objectives.classify import Classify
from alignlab.rewards.base import Reward
from alignlab.rewards.classifier import ClassifierReward
from alignlab.stages.scorers import fetch_classifier, make_up_classifier

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "a", "good", "bad", "film", "not"]


def save_tiny_roberta(folder: Path, labels: list[str]) -> None:
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )
    tokenizer.save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=20,
        pad_token_id=1,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    torch.manual_seed(0)
    RobertaForSequenceClassification(config).save_pretrained(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny_roberta(tmp_path, ["NEGATIVE", "POSITIVE"])
    return tmp_path


PROMPTS = ["a film", "not", "a", "bad"]
COMPLETIONS = [" good good film", " good", " bad film a film a film", ""]


def test_score_is_the_log_odds_of_one_text_at_a_time(folder: Path) -> None:
    model = RobertaForSequenceClassification.from_pretrained(folder).eval()
    expected = []
    for text in ["a film good good film", "not good", "a bad film a film a film", "bad"]:
        ids = [0, *(WORDS.index(word) for word in text.split()), 2]
        with torch.no_grad():
            log_probs = model(torch.tensor([ids])).logits.log_softmax(-1)[0]
        expected.append((log_probs[1] - log_probs[0]).item())
    for batch_size in (1, 3, 64):
        reward = ClassifierReward(str(folder), batch_size=batch_size, device="cpu")
        assert_close(reward(PROMPTS, COMPLETIONS), torch.tensor(expected), atol=1e-5, rtol=0)
    assert isinstance(reward, Reward)
    assert len(set(expected)) == 4


def test_classes_are_found_by_name_in_either_order(folder: Path, tmp_path: Path) -> None:
    usual = ClassifierReward(str(folder), device="cpu")(PROMPTS, COMPLETIONS)
    save_tiny_roberta(tmp_path / "swapped", ["Positive", "Negative"])
    swapped = ClassifierReward(str(tmp_path / "swapped"), device="cpu")(PROMPTS, COMPLETIONS)
    assert_close(swapped, -usual)


def test_long_texts_are_read_from_the_start(folder: Path) -> None:
    reward = ClassifierReward(str(folder), max_length=5, device="cpu")
    long, cut = reward(["a good film", "a good film"], [" bad bad not", ""])
    assert_close(long, cut)


def test_a_model_without_these_classes_is_named(tmp_path: Path) -> None:
    save_tiny_roberta(tmp_path, ["LABEL_0", "LABEL_1"])
    with pytest.raises(ConfigError, match=r"no classes 'POSITIVE' and.*LABEL_0, LABEL_1"):
        ClassifierReward(str(tmp_path))
    named = ClassifierReward(str(tmp_path), positive="label_1", negative="label_0", device="cpu")
    assert named(["a"], [" film"]).shape == (1,)


def test_a_made_up_classifier_has_opinions_and_can_be_fetched(tmp_path: Path) -> None:
    make_up_classifier(out=tmp_path / "made")
    fetch_classifier(out=tmp_path / "fetched", source=str(tmp_path / "made"))
    texts = (["A", "A", "This"], [" film", " naïve 🎬 film", " film " * 400])
    made, fetched = (
        ClassifierReward(str(tmp_path / name), device="cpu")(*texts) for name in ("made", "fetched")
    )
    assert_close(made, fetched)
    assert len(set(made.tolist())) == 3


def test_a_text_that_is_given_again_has_the_same_score(folder: Path) -> None:
    completions = [" good" + " film" * (i % 7) for i in range(28)]
    scores = ClassifierReward(str(folder), batch_size=3, device="cpu")(["a"] * 28, completions)
    assert all(torch.equal(scores[:7], scores[n : n + 7]) for n in (7, 14, 21))


def test_a_text_that_cannot_be_read_is_named(folder: Path) -> None:
    reward = ClassifierReward(str(folder), device="cpu")
    with pytest.raises(DataError, match=r"has 32 tokens, and the model has room for 18"):
        reward(["a film"], [" film" * 28])  # and three that the tokenizer adds
    reward.tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    with pytest.raises(DataError, match="the text '' has no tokens"):
        reward(["a", ""], ["", ""])
    reward.tokenizer.add_tokens(["<new>"])
    with pytest.raises(DataError, match=r"token 9 \('<new>'\), and the model has embeddings of 9"):
        reward(["a <new>"], [""])


def test_adapters_of_a_classifier_are_put_on_their_model(build: Any, tmp_path: Path) -> None:
    build("llama").save(tmp_path / "lm")
    trained = ScoreModel(str(tmp_path / "lm"), outputs=3, dtype="float64", lora=Lora(rank=2))
    with torch.no_grad():
        for name, weight in trained.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
    trained.save(tmp_path / "adapters")
    prompts, completions = ["w4 w5", "w6"], [" w7", " w8 w9 w10"]
    ids = [trained.tokenizer(p + c)["input_ids"] for p, c in zip(prompts, completions, strict=True)]
    with torch.no_grad():
        logits = [trained.model(torch.tensor([row])).logits[0] for row in ids]
    wanted = torch.stack([row[2] - row[0] for row in logits]).float()
    reward = ClassifierReward(str(tmp_path / "adapters"), "LABEL_2", "LABEL_0", device="cpu")
    assert_close(reward(prompts, completions), wanted, rtol=0, atol=1e-5)
    Policy(str(tmp_path / "lm"), lora=Lora(rank=2)).save(tmp_path / "policy")
    with pytest.raises(ConfigError, match="has no complete classifier"):
        ClassifierReward(str(tmp_path / "policy"))


def test_a_classifier_needs_a_trained_head_and_a_padding_token(folder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    RobertaForMaskedLM(RobertaConfig.from_pretrained(folder)).save_pretrained(folder / "lm")
    tokenizer.save_pretrained(folder / "lm")
    with pytest.raises(ConfigError, match=r"has no complete classifier, .* random numbers"):
        ClassifierReward(str(folder / "lm"), "LABEL_1", "LABEL_0")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match="has no padding token"):
        ClassifierReward(str(folder))


@pytest.mark.parametrize("pad", ["<pad>", "<eos>"])
@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["full", "lora"])
def test_a_classifier_scores_texts_as_the_rows_that_it_was_trained_on(
    build: Any, tmp_path: Path, lora: Lora | None, pad: str
) -> None:
    """Begin-of-text first, end-of-text last and read, even where it is also the padding."""
    policy = build("llama")
    policy.tokenizer.pad_token = pad
    policy.save(tmp_path / "lm")
    trained = ScoreModel(str(tmp_path / "lm"), outputs=3, dtype="float64", lora=lora)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in trained.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3, generator=generator)
    Classify(trained, torch.optim.AdamW).save(tmp_path / "classifier")
    texts = [LabelledText(str(k), t, 0.0) for k, t in enumerate([" w4 w5 w7", " w6 w8 w9 w10"])]
    report = RowReport("texts", seen=2)
    trees = tokenise_labelled(texts, trained.tokenizer, report, max_length=32)
    logits = trained.eval().scores(collate(trees)).detach()
    reward = ClassifierReward(str(tmp_path / "classifier"), "LABEL_2", "LABEL_0", device="cpu")
    found = reward([" w4 w5", " w6"], [" w7", " w8 w9 w10"])
    assert_close(found, (logits[:, 2] - logits[:, 0]).float(), rtol=0, atol=1e-5)
    assert reward([], []).shape == (0,)
