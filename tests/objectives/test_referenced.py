"""The reference of pair objectives: what the policy was, whichever way it is kept."""

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import collate
from alignlab.errors import ConfigError
from alignlab.models import AdapterOffReference, FrozenReference, Lora, Policy
from alignlab.objectives.lndpo import LNDPO
from tests.objectives.direct import PAIRS, by_loop, moved


def test_training_moves_the_policy_and_not_the_reference(build):
    objective = LNDPO(build("llama"), torch.optim.AdamW)
    trees = collate(PAIRS)
    before = objective.four_logps(trees, objective.policy(trees))
    assert_close(before[:2], before[2:])
    optimizer = torch.optim.SGD(objective.parameter_groups(), lr=0.1)
    objective.losses(trees)[0].sum().backward()
    optimizer.step()
    after = objective.four_logps(trees, objective.policy(trees))
    assert_close(after[2:], before[2:], rtol=0, atol=0)
    assert (after[0] > before[0]).any()


def test_chosen_and_rejected_of_policy_and_reference_in_this_order(build):
    objective = LNDPO(build("llama"), torch.optim.AdamW)
    ref, _ = by_loop(objective.policy, PAIRS)
    sums, _ = by_loop(moved(objective.policy), PAIRS)
    trees = collate(PAIRS)
    with torch.no_grad():
        four = objective.four_logps(trees, objective.policy(trees))
    assert_close(four, (sums[::2], sums[1::2], ref[::2], ref[1::2]))


def test_auto_takes_the_adapter_off_where_there_is_one(build, tmp_path):
    build("llama", dtype="float32").save(tmp_path)
    adapted = LNDPO(Policy(source=str(tmp_path), lora=Lora(rank=2)), torch.optim.AdamW)
    assert isinstance(adapted.reference, AdapterOffReference)
    assert isinstance(LNDPO(build("llama"), torch.optim.AdamW).reference, FrozenReference)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, r"LNDPO needs beta > 0, got 0\.0\. Set model\.init_args\.beta"),
        ({"reference": "cached"}, r"model\.init_args\.reference_cache"),
        ({"reference": "adapter_off"}, "needs a policy with lora"),
    ],
)
def test_impossible_settings_name_their_key(build, settings, message):
    with pytest.raises(ConfigError, match=message):
        LNDPO(build("llama"), torch.optim.AdamW, **settings)
