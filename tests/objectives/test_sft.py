"""Maximum likelihood: value, count, gradient by hand."""

from dataclasses import replace
from functools import partial

import torch
from torch.testing import assert_close
from transformers import AutoTokenizer

from alignlab.data.rows import Demonstration, RowReport
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import collate
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import Policy
from alignlab.objectives.sft import SFT, sft_loss
from alignlab.rollouts.sampler import sample
from tests.tiny import FAMILIES


def test_sum_and_count_by_hand():
    """-(-1 - 2 - 4) = 7 over 3 tokens; the masked cells hold nonsense."""
    logps = torch.tensor([[-1.0, -2.0, torch.nan], [-4.0, 99.0, torch.inf]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    for form in (mask, mask.int(), mask.float()):
        assert [float(x) for x in sft_loss(logps, form)] == [7, 3]
    total, count = sft_loss(logps, mask)
    assert (float(total), int(count)) == (7.0, 3)


def test_a_token_of_probability_one_still_counts():
    total, count = sft_loss(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    assert (float(total), int(count)) == (0.0, 2)


def test_gradient_is_minus_one_under_the_mask():
    logps = torch.full((2, 2), -1.0, requires_grad=True)
    mask = torch.tensor([[True, False], [True, True]])
    sft_loss(logps, mask)[0].backward()
    assert_close(logps.grad, -mask.float())


def test_a_policy_learns_to_stop_though_pad_is_eos(words, tmp_path):
    """The end-of-text token is counted and gets gradient; after 60 steps every reply ends."""
    tokenizer = AutoTokenizer.from_pretrained(words)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path)
    config = {"model_type": "llama"} | FAMILIES["llama"]
    policy = Policy(config=config, tokenizer=str(tmp_path))
    assert policy.tokenizer.pad_token_id == policy.tokenizer.eos_token_id
    rows = [Demonstration(str(k), f"w{3 + k}", " w10 w11") for k in range(6)]
    trees = tokenise(rows, policy.tokenizer, RowReport("rows", seen=6))
    batch = collate(trees)
    objective = SFT(policy, partial(torch.optim.AdamW, lr=3e-2))
    optimizer = objective.make_optimizer(objective.parameter_groups())
    for step in range(60):
        optimizer.zero_grad()
        losses, _ = objective.losses(batch)
        (losses / batch.totals.tokens).backward()
        if step == 0:
            head = policy.model.get_output_embeddings().weight.grad
            assert float(head[policy.tokenizer.eos_token_id].abs().max()) > 0
        optimizer.step()
    greedy = SamplingSpec(temperature=0)
    drawn = sample(
        policy, trees, samples=1, max_new_tokens=8, spec=greedy, seed=0, stop_ids=policy.stop_ids
    )
    assert drawn.trees == [replace(tree, loss_masks=None) for tree in trees]
    assert drawn.finished == [[True]] * 6
