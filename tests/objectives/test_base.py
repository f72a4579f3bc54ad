"""What a validation epoch logs is the mean of its rows, however they are shared out."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import lightning as L
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
    """Each rank adds up its own batches; here another adds to its sums what the others have."""
    trees = [PromptTree(i, f"r{i}", (1,), row) for i, row in enumerate(ROWS)]
    monkeypatch.setattr(FirstTokens, "unit", unit, raising=False)
    logged: dict[str, float] = {}
    others: list[Tensor] = []
    for rank in range(ranks):
        objective = FirstTokens(partial(torch.optim.SGD, lr=0.1))
        objective.on_validation_epoch_start()
        loader = TreeLoader(trees, batch_size=size, shuffle=False, rank=rank, world_size=ranks)
        for number, batch in enumerate(loader):
            objective.validation_step(batch, number)
        others.append(objective._held_out["loss"].sums)
    reduce = SimpleNamespace(reduce=lambda sums, reduce_op: torch.stack(others).sum(0))
    trainer = SimpleNamespace(world_size=ranks, strategy=reduce)
    monkeypatch.setattr(objective, "_trainer", trainer)
    monkeypatch.setattr(objective, "log", lambda name, value, **_: logged.update({name: value}))
    objective.on_validation_epoch_end()
    assert float(logged["val/loss"]) == pytest.approx(by_hand(unit), rel=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_processes_of_uneven_share_log_one_exact_mean(tmp_path, monkeypatch):
    """Five rows are one step of two ranks, 2 here and 3 there: their count does not halve."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # else Lightning sets it, for all later tests
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        use_distributed_sampler=False,
    )
    (found,) = trainer.validate(Sized(partial(torch.optim.SGD, lr=0.1)), verbose=False)
    assert found == {"val/loss": pytest.approx(by_hand("prompts"), rel=1e-6)}


class Sized(FirstTokens):
    """With rows of its own: the loader asks for its rank inside the process."""

    unit = "prompts"

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer)
        self.weight = torch.nn.Parameter(torch.zeros(()))  # DDP wants something to share

    def val_dataloader(self) -> TreeLoader:
        trees = [PromptTree(i, f"r{i}", (1,), row) for i, row in enumerate(ROWS)]
        return TreeLoader(trees, batch_size=4, shuffle=False)
