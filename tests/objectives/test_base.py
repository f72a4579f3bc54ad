"""What a validation epoch logs is the mean of its rows, however they are shared out."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from alignlab.data.loader import TreeLoader
from alignlab.data.trees import PromptTree, PromptTrees
from alignlab.objectives.base import TreeObjective

ROWS = [((3, 4, 5, 6, 7, 8), (9,)), ((3,),), ((4, 4),), ((5, 6), (7,), (8, 9)), ((3, 4, 5),)]


class FirstTokens(TreeObjective):
    """Its loss of a prompt, completion or token is a token id, so every mean can be counted."""

    @property
    def trained(self) -> Any:
        return None

    def losses(self, trees: PromptTrees) -> tuple[Tensor, dict[str, Tensor]]:
        ids = trees.completion_ids.double()
        each = {
            "prompts": torch.stack([ids[trees.group == p, 0].sum() for p in trees.group.unique()]),
            "completions": ids[:, 0],
            "tokens": ids[trees.loss_mask],
        }[self.unit]
        return each, {"loss": each.mean()}


def by_hand(unit: str) -> float:
    values = {
        "prompts": [sum(c[0] for c in row) for row in ROWS],
        "completions": [c[0] for row in ROWS for c in row],
        "tokens": [token for row in ROWS for c in row for token in c],
    }[unit]
    return sum(values) / len(values)


@pytest.mark.parametrize("unit", ["prompts", "completions", "tokens"])
@pytest.mark.parametrize(("size", "ranks"), [(5, 1), (2, 1), (4, 2), (2, 2)])
def test_validation_means_are_exact_over_uneven_batches_and_ranks(monkeypatch, unit, size, ranks):
    """Lightning sums value x batch_size over batches and ranks, then divides by all batch_size."""
    trees = [PromptTree(i, f"r{i}", (1,), row) for i, row in enumerate(ROWS)]
    monkeypatch.setattr(FirstTokens, "unit", unit, raising=False)
    total, weight = 0.0, 0
    for rank in range(ranks):
        objective = FirstTokens(partial(torch.optim.SGD, lr=0.1))

        def log(values: dict[str, Any], *, batch_size: int, sync_dist: bool, **_: Any) -> None:
            nonlocal total, weight
            assert sync_dist  # else every rank keeps its own rows' mean
            total, weight = total + float(values["val/loss"]) * batch_size, weight + batch_size

        monkeypatch.setattr(objective, "log_dict", log)
        loader = TreeLoader(trees, batch_size=size, shuffle=False, rank=rank, world_size=ranks)
        for number, batch in enumerate(loader):
            objective.validation_step(batch, number)
    assert total / weight == pytest.approx(by_hand(unit), abs=1e-12)
