"""Exact norms stand only where they are the norms they replace."""

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNormGated

from alignlab.data.trees import PromptTree, collate
from alignlab.models import Policy
from alignlab.models.precise import PreciseRMSNorm, make_precise, precise
from tests.tiny import SIZES, VOCABULARY


@pytest.mark.parametrize("family", ["gemma", "gemma2", "llama"])
def test_log_probs_in_float64_are_those_of_the_library(words, family):
    """Its own norms round to float32, which a difference of formula exceeds by far."""
    sizes = SIZES | {"intermediate_size": 24, "num_key_value_heads": 1, "head_dim": 8}
    config = {"model_type": family, "initializer_range": 0.4, **sizes}
    policy = Policy(config=config, tokenizer=str(words), dtype="float64").eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "norm" in name:
                p.normal_()
    settings = AutoConfig.for_model(vocab_size=VOCABULARY, **config)
    theirs = AutoModelForCausalLM.from_config(settings).double().eval()
    theirs.load_state_dict(policy.model.state_dict())
    tree = PromptTree(0, "a", (1, 5, 6), ((7, 8, 2),))
    with torch.no_grad():
        found = policy(collate([tree])).token_logps[0]
        logits = theirs(torch.tensor([[1, 5, 6, 7, 8, 2]]), use_cache=False).logits[0]
    wanted = logits.double().log_softmax(-1)[[2, 3, 4], [7, 8, 2]]
    assert_close(found, wanted, rtol=0, atol=1e-5)
    assert all(isinstance(m, PreciseRMSNorm) for n, m in policy.named_modules() if n[-4:] == "norm")


@pytest.mark.parametrize(("kind", "offset"), [(LlamaRMSNorm, 0.0), (GemmaRMSNorm, 1.0)])
def test_what_is_added_to_the_weight_is_found(kind, offset):
    norm = kind(8, eps=1e-5).double()
    exact = precise(norm)
    assert exact is not None
    assert (exact.offset, exact.weight is norm.weight) == (offset, True)
    hidden = torch.full((1, 8), 2e-3, dtype=torch.float64)  # mean square 4e-6, with eps 14e-6
    one_half = torch.full_like(norm.weight, 0.5 - offset)
    norm.weight.data.copy_(one_half)
    assert exact(hidden).flatten().tolist() == pytest.approx([0.5 * 2e-3 / 14e-6**0.5] * 8)


class SquaredRMSNorm(LlamaRMSNorm):
    """Where its weight starts, at 1, it is Llama's."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return super().forward(hidden_states) * self.weight


def test_other_norms_stay_and_a_line_says_so(caplog):
    """One with another formula, and one that takes a gate."""
    model = nn.Sequential(SquaredRMSNorm(8), Qwen3NextRMSNormGated(8), LlamaRMSNorm(8)).double()
    with caplog.at_level(logging.WARNING):
        make_precise(model)
    kinds = [type(child) for child in model]
    assert kinds == [SquaredRMSNorm, Qwen3NextRMSNormGated, PreciseRMSNorm]
    assert "Qwen3NextRMSNormGated, SquaredRMSNorm still rounds to float32" in caplog.text
