"""The step on candidates: what a loss gets, what is logged, and what is refused."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError, DataError
from alignlab.objectives.ddo_rm import DDORM, ddo_rm_loss
from alignlab.objectives.qrpo import QRPO, log_partition, qrpo_loss, quantiles
from tests.objectives.direct import by_loop, moved

ADAM = partial(torch.optim.AdamW, lr=1e-2)
TREES = [
    PromptTree(0, "a", (1, 5), ((7, 2), (9,), (4, 4, 2)), labels=(2.0, -1.0, 0.5)),
    PromptTree(1, "b", (1, 3, 8), ((6, 2), (7, 7)), labels=(0.0, 3.0)),
]
GROUP = torch.tensor([0, 0, 0, 1, 1])
REWARDS = torch.tensor([2.0, -1.0, 0.5, 0.0, 3.0], dtype=torch.float64)


@pytest.mark.parametrize("kind", [QRPO, DDORM])
def test_the_loss_gets_what_a_slow_loop_finds(build, kind) -> None:
    objective = kind(build("llama"), ADAM, beta=0.4)
    ref, _ = by_loop(objective.policy, TREES)
    now, _ = by_loop(moved(objective.policy, 0.05), TREES)
    with torch.no_grad():
        losses, means = objective.losses(collate(TREES))
    if kind is QRPO:
        q = quantiles(REWARDS, GROUP).double()
        expected = qrpo_loss(now, ref, q, log_partition(q, GROUP, beta=0.4), beta=0.4)
    else:
        expected = ddo_rm_loss(now, ref, REWARDS, GROUP, beta=0.4)
    assert_close(losses, expected)
    assert_close(means["loss"], expected.mean())
    gain = 0.0  # of each prompt: the mean reward with weights policy / reference, less the mean
    for p, own in enumerate((slice(0, 3), slice(3, 5))):
        weights = [float((now - ref)[own][k].exp()) for k in range(len(REWARDS[own]))]
        rewards = REWARDS[own].tolist()
        gain += sum(w * r for w, r in zip(weights, rewards, strict=True)) / sum(weights)
        gain -= sum(rewards) / len(rewards)
        assert p == TREES[p].index
    assert means["gain"].value.item() == pytest.approx(gain / 2)


@pytest.mark.parametrize("kind", [QRPO, DDORM])
def test_before_any_step_the_policy_has_no_gain(build, kind) -> None:
    _, means = kind(build("llama"), ADAM, beta=1.0).losses(collate(TREES))
    assert means["gain"].value.item() == pytest.approx(0, abs=1e-9)


def test_what_it_cannot_use_is_refused(build) -> None:
    with pytest.raises(ConfigError, match=r"QRPO needs beta > 0, got 0\.0"):
        QRPO(build("llama"), ADAM, beta=0.0)
    bare = collate([PromptTree(0, "a", (1,), ((3,), (4,)))])
    with pytest.raises(DataError, match=r"DDORM needs rewards\. Use CandidateData"):
        DDORM(build("llama"), ADAM, beta=1.0).losses(bare)
