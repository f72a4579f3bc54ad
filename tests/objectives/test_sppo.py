"""SPPO's loss by hand, with hard and with soft labels."""

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.objectives.sppo import SPPO, sppo_loss
from tests.objectives.direct import PAIRS, column


@pytest.mark.parametrize(
    ("chance", "loss", "slope"),
    [
        (1.0, 2.0, -2.0),  # log-ratios 1 and -1 where 2 and -2 are asked for
        (0.75, 0.0, 0.0),  # where they are what is asked for
        (0.25, 8.0, 4.0),  # where -1 and 1 are
    ],
)
def test_value_and_slope_worked_by_hand(chance, loss, slope):
    pc, pr, rc, rr = (x.requires_grad_() for x in column(-1, -4, -2, -3))
    losses, chosen, rejected = sppo_loss(pc, pr, rc, rr, beta=0.25, chance=chance)
    losses.backward()
    assert (losses.item(), chosen.item(), rejected.item()) == (loss, 0.25, -0.25)
    assert pc.grad is not None
    assert pc.grad.item() == slope
    assert_close(pr.grad, -pc.grad)


def test_soft_labels_are_the_margins_of_the_data(build):
    """A margin of log 3 is a chance of 3/4; of 0, one half: stay at the reference."""
    policy = build("llama")
    soft = SPPO(policy, torch.optim.AdamW, beta=0.25, soft=True)
    trees = [
        PromptTree(tree.index, tree.id, tree.prompt, tree.completions, labels=(margin, 0.0))
        for tree, margin in zip(PAIRS[::2], (1.0986123, 0.0), strict=True)
    ]
    losses, _ = soft.losses(collate(trees))
    assert losses.tolist() == pytest.approx([2.0, 0.0], abs=1e-5)


def test_soft_labels_without_margins_are_refused(build):
    soft = SPPO(build("llama"), torch.optim.AdamW, soft=True)
    with pytest.raises(ConfigError, match=r"'margin', or set model\.init_args\.soft to false"):
        soft.losses(collate(PAIRS))
