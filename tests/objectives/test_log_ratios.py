"""Policy against reference: nothing but training may set them apart, and log-probs are sums."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.models import FrozenReference, Lora, Policy
from alignlab.objectives.dpo import DPO
from tests.tiny import FAMILIES, VOCABULARY

PAIRS = [
    PromptTree(0, "a", (1, 5, 6), ((7, 8, 2), (9, 2))),
    PromptTree(1, "b", (1,), ((4, 4, 4, 2), (3, 10))),
]
ADAM = partial(torch.optim.AdamW, lr=1e-3)
HALF: dict[str, dict[str, Any]] = {
    "gpt2": {f"{place}_pdrop": 0.5 for place in ("resid", "embd", "attn")},
    "llama": {"attention_dropout": 0.5},
}


@pytest.fixture
def noisy(words, tmp_path) -> Callable[[str], str]:
    """The folder of a model whose own config drops half of everything while it trains."""

    def make(family: str) -> str:
        config = {"model_type": family, "initializer_range": 0.4} | FAMILIES[family] | HALF[family]
        Policy(config=config, tokenizer=str(words), dropout=None).save(tmp_path / family)
        return str(tmp_path / family)

    return make


@pytest.mark.parametrize(
    ("family", "kind"), [("gpt2", "frozen"), ("llama", "frozen"), ("llama", "adapter_off")]
)
def test_before_any_step_every_implicit_reward_is_exactly_zero(noisy, family, kind):
    """In train mode, where dropout would act on policy and reference one by one."""
    lora = Lora(rank=2) if kind == "adapter_off" else None
    objective = DPO(Policy(noisy(family), lora=lora), ADAM, reference=kind).train()
    losses, means = objective.losses(collate(PAIRS))
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
        assert float(means[name]) == 0.0
    assert float(means["rewards/accuracies"]) == 0.5
    assert_close(losses.detach(), torch.full((2,), math.log(2)))


@torch.no_grad()
def test_a_frozen_reference_never_drops_out_even_if_the_policy_does(noisy):
    batch, folder = collate(PAIRS), noisy("gpt2")
    objective = DPO(Policy(folder, dropout=0.5), ADAM, reference="frozen")
    assert objective.policy.train()(batch).logps[0] != objective.policy(batch).logps[0]
    exact = Policy(folder).eval()(batch).token_logps
    for _ in range(2):
        assert_close(objective.reference.token_logps(batch), exact, rtol=0, atol=0)


def one_likely_token(hidden: torch.Tensor) -> torch.Tensor:
    """Logits under which token 7 has probability 1/2 and each of the 31 others 1/62."""
    logits = hidden.new_zeros(len(hidden), VOCABULARY)
    logits[:, 7] = math.log(VOCABULARY - 1)
    return logits


def uniform(hidden: torch.Tensor) -> torch.Tensor:
    return hidden.new_zeros(len(hidden), VOCABULARY)


@torch.no_grad()
def test_log_probs_are_sums_over_tokens_in_policy_and_reference(build, monkeypatch):
    """A token of the chosen completion gains log(1/2 * 32) = log 16, of the other log(32/62).

    Chosen has 2 tokens, rejected 3, and the second pair is the first one twice over.
    """
    objective = DPO(build("llama"), ADAM, beta=0.5)
    assert isinstance(objective.reference, FrozenReference)
    monkeypatch.setattr(objective.policy, "head", one_likely_token)
    monkeypatch.setattr(objective.reference.policy, "head", uniform)
    trees = [
        PromptTree(0, "a", (1,), ((7, 7), (8, 8, 8))),
        PromptTree(1, "b", (1,), ((7,) * 4, (8,) * 6)),
    ]
    batch = collate(trees)
    scores = objective.policy(batch)
    gain, loss = math.log(16), math.log(32 / 62)
    expected = [-2 * math.log(2), -3 * math.log(62), -4 * math.log(2), -6 * math.log(62)]
    assert scores.logps.tolist() == pytest.approx(expected, abs=1e-9)
    assert scores.lengths.tolist() == [2, 3, 4, 6]
    rewards = objective.pair_loss(batch, scores)
    assert rewards.chosen_rewards.tolist() == pytest.approx([gain, 2 * gain], abs=1e-9)
    assert rewards.rejected_rewards.tolist() == pytest.approx([1.5 * loss, 3 * loss], abs=1e-9)


@torch.no_grad()
def test_a_token_of_probability_one_still_counts(build, monkeypatch):
    """Lengths come from the mask: here every log-prob is exactly 0."""
    policy = build("llama")
    certain = torch.full((VOCABULARY,), -1e9, dtype=torch.float64)
    certain[5] = 0
    monkeypatch.setattr(policy, "head", lambda hidden: certain.expand(len(hidden), -1))
    scores = policy(collate([PromptTree(0, "a", (1,), ((5, 5), (5, 5, 5)))]))
    assert scores.logps.tolist() == [0, 0]
    assert scores.lengths.tolist() == [2, 3]
