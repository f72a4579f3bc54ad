"""Scorers read the right state, whatever the padding, and survive a round trip to disk."""

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification

from alignlab.data.trees import PromptTree, collate
from alignlab.models import ScoreModel

TREES = [
    PromptTree(0, "a", (1, 5, 6), ((7, 8, 2), (9,))),
    PromptTree(1, "b", (1,), ((4, 4, 4, 2), (3, 2))),
]


@pytest.fixture
def folder(build, tmp_path):
    build("llama", dtype="float64").save(tmp_path / "lm")
    return tmp_path / "lm"


@torch.no_grad()
def test_scores_are_read_after_the_last_real_token_and_values_before_each(folder):
    """Against the model's own states, one completion at a time."""
    model = ScoreModel(str(folder), dtype="float64")
    batch = collate(TREES)
    for layout in ("flat", "packed"):
        model.layout = layout
        scores, values = model.scores(batch), model.values(batch)
        rows = [(tree.prompt, c) for tree in TREES for c in tree.completions]
        for m, (prompt, completion) in enumerate(rows):
            ids = torch.tensor([[*prompt, *completion]])
            states = model.backbone(input_ids=ids)[0][0] @ model.head.weight[0]
            assert float(scores[m]) == pytest.approx(float(states[-1]), abs=1e-10)
            for t in range(len(completion)):
                expected = float(states[len(prompt) - 1 + t])
                assert float(values[m, t]) == pytest.approx(expected, abs=1e-10)
            assert not values[m, len(completion) :].any()


@pytest.mark.parametrize("size", [1, 2])
def test_scores_do_not_depend_on_company_or_on_what_pads(folder, size):
    model = ScoreModel(str(folder), dtype="float64")
    together = model.scores(collate(TREES))
    parts = [model.scores(collate(TREES[i : i + size])) for i in range(0, 2, size)]
    assert_close(torch.cat(parts), together, rtol=0, atol=1e-12)
    batch = collate(TREES)
    batch.completion_ids[~batch.token_mask] = 2  # padded with the end-of-text token
    assert torch.equal(model.scores(batch), together)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(("outputs", "columns"), [(1, ()), (3, (3,))])
def test_a_batch_of_one_keeps_its_dimension(folder, size, outputs, columns):
    model = ScoreModel(str(folder), outputs=outputs)
    batch = collate([PromptTree(i, "a", (1, 5), ((7, 8, 2),)) for i in range(size)])
    assert model.scores(batch).shape == (size, *columns)
    if outputs == 1:
        assert model.values(batch).shape == (size, 3)


@pytest.mark.parametrize("pad", [2, 0, 8])
def test_no_token_is_taken_for_padding(build, tmp_path, pad):
    """Whichever id the tokenizer and the config pad with, the end-of-text token's among them."""
    policy = build("llama", dtype="float64")
    policy.save(tmp_path / "lm")
    plain = ScoreModel(str(tmp_path / "lm"), dtype="float64").scores(collate(TREES))
    policy.tokenizer.pad_token_id, old = pad, policy.tokenizer.pad_token_id
    policy.save(tmp_path / "other")
    policy.tokenizer.pad_token_id = old
    model = ScoreModel(str(tmp_path / "other"), dtype="float64")
    model.model.config.pad_token_id = pad
    assert model.tokenizer.pad_token_id == pad
    assert torch.equal(model.scores(collate(TREES)), plain)


def test_hugging_face_reads_the_same_scores(folder, tmp_path):
    model = ScoreModel(str(folder), outputs=3, dtype="float32")
    model.save(tmp_path / "rm")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    logits = theirs(torch.tensor([[1, 5, 6, 7, 8, 2]])).logits[0]
    assert_close(model.scores(collate(TREES))[0], logits, atol=1e-5, rtol=0)
    assert_close(
        ScoreModel.load(tmp_path / "rm", outputs=3).scores(collate(TREES)),
        model.scores(collate(TREES)),
    )


def test_the_shift_is_subtracted_and_saved(folder, tmp_path):
    model = ScoreModel(str(folder))
    before = model.scores(collate(TREES))
    model.shift = 1.25
    assert_close(model.scores(collate(TREES)), before - 1.25)
    model.save(tmp_path / "rm")
    assert_close(ScoreModel.load(tmp_path / "rm").scores(collate(TREES)), before - 1.25)


def test_the_scale_divides_what_is_left_and_is_saved(folder, tmp_path):
    model = ScoreModel(str(folder))
    before = model.scores(collate(TREES))
    model.shift, model.scale = 1.25, 4.0
    assert_close(model.scores(collate(TREES)), (before - 1.25) / 4)
    model.save(tmp_path / "rm")
    assert_close(ScoreModel.load(tmp_path / "rm").scores(collate(TREES)), (before - 1.25) / 4)


def test_fresh_heads_are_a_function_of_the_seed(folder):
    def head(**settings):
        return ScoreModel(str(folder), **settings).head.weight

    assert torch.equal(head(seed=3), head(seed=3))
    assert not torch.equal(head(seed=3), head(seed=4))
    assert not head(head_init="zero").any()
    spread = float(head(seed=1, outputs=500).detach().std())
    assert spread == pytest.approx(17**-0.5, rel=0.03)  # N(0, 1 / (d + 1)), d = 16
