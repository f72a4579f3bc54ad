"""TRL's A*-PO (``trl.experimental.a2po``, 1.16) on given rewards and log-probs."""

import math
import warnings
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from torch.testing import assert_close

from alignlab.objectives.astar_po import astar_po_loss, optimal_value

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it is experimental
    from trl.experimental.a2po.a2po_trainer import A2POTrainer


def test_the_loss_is_trls() -> None:
    """Its beta2 is our beta, its beta1 our value_beta; the formula of V* is its, in one line."""
    logps, ref, rewards = -5 * torch.rand(3, 6, generator=torch.Generator().manual_seed(0))
    pool = [0.0, 1.0, 1.0, 0.0]
    v_star = 0.5 * (torch.logsumexp(torch.tensor(pool) / 0.5, dim=0) - math.log(4))
    value = optimal_value(pool, beta=0.5)
    assert_close(value, v_star.item())
    trainer: Any = SimpleNamespace(
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(beta2=0.1),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _get_sequence_logps=lambda *_: logps,
    )
    inputs = dict.fromkeys(("input_ids", "attention_mask", "logits_to_keep"))
    inputs |= {"ref_logps": ref, "rewards": rewards, "v_star": v_star.expand(6)}
    theirs = A2POTrainer.compute_loss(trainer, trainer.model, inputs)
    assert_close(astar_po_loss(logps, ref, rewards - value, beta=0.1).mean(), theirs)
