"""Classification with an auxiliary language-modelling loss: by hand, and one forward for both."""

import math

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError, DataError
from alignlab.models import Policy, ScoreModel
from alignlab.objectives.classify import Classify, classify_loss
from tests.tiny import FAMILIES

TEXTS = [  # the second text is cut in two pieces, the third has a token that does not count
    PromptTree(0, "a", (1,), ((7, 8, 9, 2),), labels=(1.0,)),
    PromptTree(1, "b", (1,), ((4, 4, 5), (6, 2)), labels=(0.0, 0.0)),
    PromptTree(2, "c", (1,), ((3, 9, 2),), ((True, False, True),), labels=(2.0,)),
]


def test_value_worked_by_hand():
    """Logits (0, log 3): the second class has 3/4. Two tokens of 6 nats in all: 3 nats each."""
    losses = classify_loss(
        torch.tensor([[0.0, math.log(3)]] * 2),
        torch.tensor([1, 0]),
        torch.tensor([6.0, 0.0]),
        torch.tensor([2, 0]),
        alpha=0.5,
    )
    assert losses.tolist() == pytest.approx([math.log(4 / 3) + 1.5, math.log(4)], abs=1e-6)


def test_gradients_worked_by_hand():
    """Softmax minus label, (1/4, 3/4 - 1), and alpha over the number of tokens, 0.5 / 2."""
    logits = torch.tensor([[0.0, math.log(3)]], requires_grad=True)
    lm_sum = torch.tensor([6.0], requires_grad=True)
    classify_loss(logits, torch.tensor([1]), lm_sum, torch.tensor([2]), alpha=0.5).backward()
    assert_close(logits.grad, torch.tensor([[0.25, -0.25]]))
    assert_close(lm_sum.grad, torch.tensor([0.25]))


@pytest.fixture(params=[("llama", True), ("llama", False), ("gpt2", True)])
def start(request, words, tmp_path):
    """The folder of a language model whose output layer is tied to its embeddings, or is not."""
    family, tied = request.param
    config = {"model_type": family, "initializer_range": 0.4, "tie_word_embeddings": tied}
    policy = Policy(config=config | FAMILIES[family], tokenizer=str(words), dtype="float64")
    policy.save(tmp_path / "lm")
    return str(tmp_path / "lm")


@torch.no_grad()
def test_one_forward_gives_what_two_models_would(start):
    """Class logits of the scorer alone, token losses of the language model alone, to 1e-12."""
    model = ScoreModel(start, outputs=3, dtype="float64")
    batch = collate(TEXTS)
    calls: list[int] = []
    hook = model.backbone.register_forward_hook(lambda *_: calls.append(1))
    logits = model.scores(batch)
    alone = len(calls)
    loss = Classify(model, torch.optim.AdamW, alpha=0.5).losses(batch)
    assert len(calls) == 2 * alone  # as many as the class logits take by themselves
    hook.remove()
    tokens = -Policy(start, dtype="float64")(batch).token_logps
    classes = -logits.log_softmax(-1)
    counts = (4, 3, 2, 2)
    for m, (label, count) in enumerate(zip((1, 0, 0, 2), counts, strict=True)):
        expected = float(classes[m, label]) + 0.5 * float(tokens[m].sum()) / count
        assert float(loss[0][m]) == pytest.approx(expected, abs=1e-12)
    assert float(loss[1]["lm_loss"].value) == pytest.approx(float(tokens.sum()) / 11, abs=1e-12)


def test_gradients_of_both_losses_add_up(start):
    """The trunk's gradient is the classifier's plus alpha times the language model's."""
    batch = collate(TEXTS)
    model = ScoreModel(start, outputs=3, dtype="float64")
    Classify(model, torch.optim.AdamW, alpha=0.5).losses(batch)[0].sum().backward()
    both = {name: p.grad.clone() for name, p in model.backbone.named_parameters()}
    task = ScoreModel(start, outputs=3, dtype="float64")
    torch.nn.functional.cross_entropy(
        task.scores(batch), torch.tensor([1, 0, 0, 2]), reduction="sum"
    ).backward()
    lm = Policy(start, dtype="float64")
    logps = lm(batch).logps
    (-0.5 * logps / torch.tensor([4, 3, 2, 2])).sum().backward()
    for (name, one), other in zip(
        task.backbone.named_parameters(), lm.backbone.parameters(), strict=True
    ):
        zero = torch.zeros_like(one)
        one_grad = zero if one.grad is None else one.grad
        assert_close(both[name], one_grad + other.grad, rtol=0, atol=1e-10, msg=name)


def test_a_tied_output_layer_stays_tied_and_an_own_one_is_not_saved(start, tmp_path):
    model = ScoreModel(start, outputs=2, dtype="float64")
    objective = Classify(model, torch.optim.AdamW, alpha=0.5)
    assert objective.lm_head is not None
    head, embeddings = objective.lm_head.output.weight, model.backbone.get_input_embeddings().weight
    tied = model.model.config.tie_word_embeddings
    assert (head is embeddings) == tied
    assert any(p is head for p in objective.parameter_groups())
    model.save(tmp_path / "classifier")
    again = ScoreModel(str(tmp_path / "classifier"), outputs=2, dtype="float64")
    if tied:
        assert Classify(again, torch.optim.AdamW, alpha=0.5).lm_head is not None
        return
    with pytest.raises(ConfigError, match="holds a scorer and no language model"):
        Classify(again, torch.optim.AdamW, alpha=0.5)


def test_without_alpha_nothing_is_added(start):
    model = ScoreModel(start, outputs=3, dtype="float64")
    objective = Classify(model, torch.optim.AdamW)
    assert objective.lm_head is None
    losses, means = objective.losses(collate(TEXTS))
    rows = model.scores(collate(TEXTS)).log_softmax(-1).tolist()
    expected = [-row[k] for row, k in zip(rows, (1, 0, 0, 2), strict=True)]
    assert losses.tolist() == pytest.approx(expected, abs=1e-12)
    assert "lm_loss" not in means


def test_negative_alpha_names_its_key(start):
    with pytest.raises(ConfigError, match=r"alpha >= 0, got -1\. Set model\.init_args\.alpha"):
        Classify(ScoreModel(start), torch.optim.AdamW, alpha=-1)


@pytest.mark.parametrize("label", [3.0, -1.0, 0.7])
def test_a_label_that_is_no_class_names_its_row(start, label):
    classify = Classify(ScoreModel(start, outputs=3), torch.optim.AdamW)
    wrong = PromptTree(3, "wrong", (1,), ((5, 2),), labels=(label,))
    with pytest.raises(DataError, match=rf"row 'wrong' has label {label:g}; .* from 0 to 2"):
        classify.losses(collate([TEXTS[0], wrong]))
