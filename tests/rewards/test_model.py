from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from torch.testing import assert_close
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from alignlab.data.rows import Demonstration, RowReport, Turn
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import PromptTrees, collate
from alignlab.errors import ConfigError, DataError
from alignlab.rewards.base import Reward
from alignlab.rewards.model import ModelReward
from alignlab.rollouts.samples import Samples

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "a", "good", "bad", "film", "not"]


def save_tiny(folder: Path, model_class: type, **config: int) -> str:
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    model_class(
        LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            initializer_range=0.5,
            pad_token_id=0,
            **config,
        )
    ).save_pretrained(folder)
    return str(folder)


def test_conversations_are_scored_as_in_training(tmp_path: Path) -> None:
    """The same rows through the training's own tokens and, as a policy's samples, as texts."""
    folder = save_tiny(tmp_path, LlamaForSequenceClassification, num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }} {{ m.content }} "
        "{% if m.role == 'assistant' %}<eos>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}assistant {% endif %}"
    )
    tokenizer.save_pretrained(folder)
    said = [("film", "good"), ("good film", "not bad"), ("film", "bad")]
    rows = [
        Demonstration(f"{k}", (Turn("user", a),), (Turn("assistant", b),), ends=k != 1)
        for k, (a, b) in enumerate(said)
    ]
    trees = tokenise(rows, tokenizer, RowReport("rows", seen=3))
    reward = ModelReward(folder, device="cpu")
    with torch.no_grad():
        trained = reward.model.scores(collate(trees))
    drawn = Samples(trees, [], [[row.ends] for row in rows])
    assert_close(reward(*drawn.texts(tokenizer)), trained.float(), atol=1e-6, rtol=0)
    plain = reward([a for a, _ in said], [" " + b for _, b in said])
    assert float((plain - trained).abs().min()) > 1e-3


PROMPTS = ["a film", "not", "a", "bad", "a"]
COMPLETIONS = [" good good film", " good", " bad film a film a film", "", " good"]


@pytest.mark.parametrize(("append_eos", "tail"), [(True, [2]), (False, [])])
def test_scores_are_those_of_one_text_at_a_time(
    tmp_path: Path, append_eos: bool, tail: list[int]
) -> None:
    folder = save_tiny(tmp_path, LlamaForSequenceClassification, num_labels=1)
    model = LlamaForSequenceClassification.from_pretrained(folder).eval()
    expected = []
    for text in ["a film good good film", "not good", "a bad film a film a film", "bad", "a good"]:
        ids = [1, *(WORDS.index(word) for word in text.split()), *tail]
        with torch.no_grad():
            states = model.model(torch.tensor([ids])).last_hidden_state
            expected.append(model.score(states[0, -1]).item())
    for batch_size in (1, 2, 64):
        reward = ModelReward(folder, append_eos=append_eos, batch_size=batch_size, device="cpu")
        assert isinstance(reward, Reward)
        assert_close(reward(PROMPTS, COMPLETIONS), torch.tensor(expected), atol=1e-5, rtol=0)
    assert reward([], []).shape == (0,)


@pytest.mark.parametrize("texts", [1, 2, 3])
def test_one_text_has_one_score(tmp_path: Path, texts: int) -> None:
    reward = ModelReward(
        save_tiny(tmp_path, LlamaForSequenceClassification, num_labels=1), device="cpu"
    )
    reward.model.double()  # where the order of sums is not seen
    together = reward(PROMPTS, COMPLETIONS)
    alone = reward(PROMPTS[:texts], COMPLETIONS[:texts])
    assert alone.shape == (texts,)
    assert_close(alone, together[:texts], atol=1e-7, rtol=0)


@pytest.mark.parametrize("batch_size", [2, 3, 64])
def test_what_texts_of_one_prompt_begin_with_is_computed_once(
    tmp_path: Path, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny(tmp_path, LlamaForSequenceClassification, num_labels=1)
    reward = ModelReward(folder, append_eos=False, batch_size=batch_size, device="cpu")
    # The third completion merges with the prompt's last word, the fifth is the fourth again.
    prompts = ["a film not"] * 5 + ["a"]
    completions = [" good", " bad film", "good film", " bad", " bad", " film"]
    alone = torch.cat([reward([p], [c]) for p, c in zip(prompts, completions, strict=True)])
    cells: list[int] = []

    def counted(trees: PromptTrees) -> Tensor:
        cells.append(int(trees.prompt_lengths.sum() + trees.completion_lengths.sum()))
        return forward(trees)

    forward = reward.model.scores
    monkeypatch.setattr(reward.model, "scores", counted)
    assert_close(reward(prompts, completions), alone, atol=1e-5, rtol=0)
    # Tokens of <bos> a film | not good | not bad film | <unk> film | not bad, and so on.
    wanted = {2: (4 + 3) + (3 + 2 + 2) + 3, 3: (3 + 7) + (4 + 1) + 3, 64: (3 + 9) + 3}
    assert sum(cells) == wanted[batch_size]


def test_the_saved_shift_is_taken_off(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, LlamaForSequenceClassification, num_labels=1)
    plain = ModelReward(folder, device="cpu")(PROMPTS, COMPLETIONS)
    shifted = save_tiny(
        tmp_path / "shifted", LlamaForSequenceClassification, num_labels=1, score_shift=3
    )
    assert_close(ModelReward(shifted, device="cpu")(PROMPTS, COMPLETIONS), plain - 3)


def test_a_language_model_is_no_reward(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="LlamaForCausalLM has no trained score head"):
        ModelReward(save_tiny(tmp_path, LlamaForCausalLM))


def test_a_classifier_is_sent_to_its_own_reward(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gives 2.*ClassifierReward"):
        ModelReward(save_tiny(tmp_path, LlamaForSequenceClassification, num_labels=2))


def test_a_text_that_is_given_again_has_the_same_score(tmp_path: Path) -> None:
    """To the last bit, whatever stands between; beside other texts its rounding would differ."""
    reward = ModelReward(
        save_tiny(tmp_path, LlamaForSequenceClassification, num_labels=1), device="cpu"
    )
    completions = [" good" + " film" * (i % 7) for i in range(60)]
    scores = reward(
        ["a film"] * 30 + ["a"] * 30, completions[:30] + [" film" + c for c in completions[:30]]
    )
    assert torch.equal(scores[:30], scores[30:])
    assert torch.equal(scores[:7], scores[7:14])
    assert len(set(scores.tolist())) == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"the text '' has 0 tokens, and a scorer reads two or more"),
        ("film", r"the text 'film' has 1 tokens, and a scorer reads two or more"),
        ("film " * 30, r"has 30 tokens, and the model has room for 20: shorten it"),
        ("a <new>", r"has token 9 \('<new>'\), and the model has embeddings of 9 tokens"),
    ],
)
def test_a_text_that_cannot_be_read_is_named(tmp_path: Path, text: str, message: str) -> None:
    folder = save_tiny(
        tmp_path, LlamaForSequenceClassification, num_labels=1, max_position_embeddings=20
    )
    reward = ModelReward(folder, append_eos=False, device="cpu")
    reward.model.tokenizer.bos_token = None
    reward.model.tokenizer.add_tokens(["<new>"])
    with pytest.raises(DataError, match=message):
        reward(["a film", text], [" good", ""])


def test_texts_cannot_be_closed_without_an_end_of_text_token(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, LlamaForSequenceClassification, num_labels=1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"no end-of-text token to close .* append_eos to false"):
        ModelReward(folder, device="cpu")
    scores = ModelReward(folder, append_eos=False, device="cpu")(["a film"], [" good"])
    assert scores.shape == (1,)
