"""Maximum likelihood ends at the distribution of the demonstrations, ends of texts included."""

from collections.abc import Callable

import torch
from torch import Tensor

from alignlab.objectives.sft import sft_loss
from alignlab.worlds.enumerable import divergence, random_world
from tests.conformance.conftest import TinyWorld
from tests.conformance.preferences import minimise


def drawn_often(logps: Tensor, rows: int) -> Tensor:
    """``[P, S]`` how often each completion is in ``rows`` demonstrations of a prompt, >= 1."""
    torch.manual_seed(0)
    drawn = torch.multinomial(logps.exp(), rows, replacement=True)
    ones = torch.ones_like(drawn, dtype=torch.float64)
    return torch.ones_like(logps).scatter_add(1, drawn, ones)


def test_tabular() -> None:
    world, policy = random_world(0, vocabulary=4, length=3, prompts=2)
    often = drawn_often(world.optimum(0.5).logps, rows=400)
    mask = world.completions.mask

    def loss_of() -> Tensor:
        token_logps = policy.token_logps()
        sums = torch.stack(
            [sft_loss(token_logps[p, s : s + 1], mask[s : s + 1])[0]
             for p in range(2) for s in range(len(mask))]
        )  # fmt: skip
        return (often.flatten() * sums).sum() / often.sum()

    data = (often / often.sum(1, keepdim=True)).log()
    assert divergence(data, policy.sequence_logps().detach()) > 0.3
    minimise(policy.parameters(), loss_of)
    assert divergence(data, policy.sequence_logps().detach()) < 1e-6


def test_transformer(tiny_world: Callable[..., TinyWorld]) -> None:
    policy, trees, world = tiny_world(vocabulary=3, length=2, prompts=1)
    often = drawn_often(world.optimum(0.5).logps, rows=400).flatten()
    data = (often / often.sum()).log()[None]

    def logps_of() -> Tensor:
        return policy(trees).logps.view(1, -1)

    def loss_of() -> Tensor:
        token_logps = policy(trees).token_logps
        weighted = often[:, None] * token_logps
        total, _ = sft_loss(weighted, trees.loss_mask)
        return total / often.sum()

    assert divergence(data, logps_of().detach()) > 0.1
    minimise(policy.parameters(), loss_of)
    assert divergence(data, logps_of().detach()) < 1e-6
