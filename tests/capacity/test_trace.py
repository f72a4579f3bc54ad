"""Allocations counted by hand."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig

from alignlab.capacity.models import ModelSpec, make_fake, on_meta
from alignlab.capacity.trace import Allocations, Call, Pass, traced
from alignlab.models.attention import branches_of
from tests.capacity.examples import CONFIG, HIDDEN, PARAMETERS, VOCABULARY


def test_the_peak_is_the_most_that_was_alive_at_once() -> None:
    with FakeTensorMode(), Allocations(nn.Module(), ()) as seen:
        first, second = torch.empty(10), torch.empty(20)
        del first
        third = torch.empty(15)
        del second, third
        torch.empty(5)
    assert seen.whole == {"activations": 4 * 35}
    assert seen.live == {"activations": 0}


def test_views_and_weights_take_nothing() -> None:
    with FakeTensorMode():
        layer = nn.Linear(4, 6, bias=False)
        with Allocations(layer, ()) as seen:
            states = torch.empty(3, 4)
            out = states.view(4, 3).T @ layer.weight.T
    assert seen.whole == {"activations": 4 * (3 * 4 + 3 * 6)}
    assert out.shape == (3, 6)


def test_gradients_logits_and_the_rest_are_told_apart() -> None:
    with FakeTensorMode():
        layer = nn.Linear(4, 6, bias=False)
        with Allocations(layer, (6,)) as seen:
            layer.weight.register_post_accumulate_grad_hook(seen.is_gradient)
            logits = layer(torch.empty(3, 4))
            logits.sum().backward()
    assert seen.besides["logits"] == 4 * 18
    assert seen.live["gradients"] == 4 * 24


@pytest.fixture
def model():
    spec = ModelSpec("policy", AutoConfig.for_model(**CONFIG), False, torch.float32, trained=True)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield make_fake(on_meta(spec))


def test_a_training_step_holds_gradients_logits_and_activations(model) -> None:
    whole, besides = traced([model], [Pass(0, (Call(2, 8),), 10)])
    assert whole["gradients"] == 4 * PARAMETERS  # of the step before, still there
    # Log-probs are kept for the backward pass, beside the logits that they are made of.
    assert whole["logits"] == 2 * 4 * 10 * VOCABULARY
    assert whole["activations"] > 4 * 2 * 8 * HIDDEN
    assert sum(besides.values()) <= sum(whole.values())


def test_a_forward_without_gradients_keeps_no_activations(model) -> None:
    trained = traced([model], [Pass(0, (Call(8, 64),), 10)])[0]["activations"]
    reads, _ = traced([model], [Pass(0, (Call(8, 64),), 10, trained=False)])
    assert "gradients" not in reads
    assert reads["activations"] < trained / 4


def test_a_packed_row_takes_what_its_tokens_take(model) -> None:
    """It has 116 / 216 of the tokens; small masks and a copy of the prompt's keys come on top."""
    branches = branches_of([0, 0], [100], [8, 8])
    shared, flat = (
        traced([model], [Pass(0, (call,), 10)])[0]["activations"]
        for call in (Call(1, 116, branches), Call(2, 108))
    )
    assert 0.4 < shared / flat < 0.7


def test_tied_weights_stay_one() -> None:
    config = AutoConfig.for_model(**CONFIG, tie_word_embeddings=True)
    spec = ModelSpec("policy", config, False, torch.float32, trained=True)
    with FakeTensorMode():
        model = make_fake(on_meta(spec))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert sum(p.numel() for p in model.parameters()) == spec.size.parameters


def test_rows_twice_as_many_take_twice_the_activations(model) -> None:
    one, two = (traced([model], [Pass(0, (Call(n, 64),), 1)])[0]["activations"] for n in (8, 16))
    assert two == pytest.approx(2 * one, rel=0.02)
