"""What the tests of direct objectives share: random log-probs, and log-probs by a slow loop."""

from typing import Any

import torch
from torch import Tensor

from alignlab.data.trees import PromptTree
from alignlab.models import Policy

PAIRS = [
    PromptTree(0, "a", (1, 5, 6), ((7, 8, 2), (9,))),
    PromptTree(1, "b", (1,), ((4, 4), (5, 6, 7, 2)), ((True, True), (True, False, True, True))),
    PromptTree(2, "c", (1, 3), ((6, 2), (7, 7))),
]


def random_logps(seed: int, count: int = 4) -> Any:
    """``count`` float64 tensors ``[5]`` of log-probs."""
    generator = torch.Generator().manual_seed(seed)
    return [-10 * torch.rand(5, generator=generator, dtype=torch.float64) for _ in range(count)]


def column(*values: float) -> Any:
    """Each value as a float64 tensor ``[1]``."""
    return [torch.tensor([value], dtype=torch.float64) for value in values]


@torch.no_grad()
def distributions(policy: Policy, trees: list[PromptTree]) -> list[list[tuple[int, Tensor]]]:
    """The counted tokens of each completion, each with the log-probs ``[V]`` that it came from.

    One forward of the bare model per completion.
    """
    found = []
    for tree in trees:
        for k, completion in enumerate(tree.completions):
            ids = torch.tensor([(*tree.prompt, *completion)])
            logps = policy.model(ids, use_cache=False).logits[0].log_softmax(-1)
            masks = tree.loss_masks[k] if tree.loss_masks else (True,) * len(completion)
            first = policy.virtual_tokens + len(tree.prompt) - 1
            found.append(
                [(token, logps[first + t]) for t, token in enumerate(completion) if masks[t]]
            )
    return found


def tokens_by_loop(policy: Policy, trees: list[PromptTree]) -> list[list[float]]:
    """Log-probs of the counted tokens of each completion."""
    return [[float(row[token]) for token, row in each] for each in distributions(policy, trees)]


def by_loop(policy: Policy, trees: list[PromptTree]) -> tuple[Tensor, Tensor]:
    """Summed log-probs and counted tokens ``[M]``."""
    found = tokens_by_loop(policy, trees)
    sums = torch.tensor([sum(each) for each in found], dtype=torch.float64)
    return sums, torch.tensor([len(each) for each in found])


def moved(policy: Policy, by: float = 0.3) -> Policy:
    """The policy itself with every trained weight shifted, as if by training."""
    with torch.no_grad():
        for i, weight in enumerate(p for p in policy.parameters() if p.requires_grad):
            weight.add_(by * torch.sin(torch.arange(weight.numel()) + i).view_as(weight))
    return policy
