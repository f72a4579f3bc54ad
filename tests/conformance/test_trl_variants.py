"""DPO's variants in TRL 1.16 on the same log-probs, and what it moves of TR-DPO's reference."""

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from trl.trainer.callbacks import SyncRefModelCallback
from trl.trainer.dpo_trainer import DPOTrainer

from alignlab.models.sharding import mix_weights
from alignlab.objectives.discopop import discopop_loss
from alignlab.objectives.ld_dpo import ld_dpo_loss
from alignlab.objectives.simpo import simpo_loss
from alignlab.objectives.wpo import wpo_loss
from tests.conformance.test_trl_parity import Batch, model_of, stand_in

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TRL warns that its CPO may change
    from trl.experimental.cpo.cpo_trainer import CPOTrainer


def trl_dpo(batch: Batch, kind: str, **settings: Any) -> Tensor:
    trainer = stand_in(loss_types=[kind], loss_weights=[1.0], label_smoothing=0.0, beta=0.3)
    squares = settings.pop("squares", None)
    for name, value in settings.items():
        setattr(trainer, name, value)
    inner = model_of(batch.policy)

    def model(**rows: Tensor) -> SimpleNamespace:
        out: SimpleNamespace = inner(**rows)
        out.log_sum_sq_probs = squares
        return out

    loss: Tensor = DPOTrainer._compute_loss(trainer, model, batch.inputs(), False)
    return loss


def test_discopop_is_equal() -> None:
    batch = Batch()
    theirs = trl_dpo(batch, "discopop", args=SimpleNamespace(discopop_tau=0.4))
    assert_close(discopop_loss(*batch.four, beta=0.3, tau=0.4).losses.mean(), theirs)


def test_wpo_is_equal_without_a_cap() -> None:
    batch = Batch()
    generator = torch.Generator().manual_seed(1)
    squares = -2 * torch.rand(batch.policy[:, 1:].shape, generator=generator, dtype=torch.float64)
    theirs = trl_dpo(batch, "sigmoid", use_weighting=True, squares=squares)
    aligned = ((batch.policy[:, 1:] - squares) * batch.mask[:, 1:]).sum(1)
    log_weights = (aligned / torch.cat(batch.lengths)).chunk(2)
    assert_close(wpo_loss(*batch.four, *log_weights, beta=0.3).losses.mean(), theirs)
    capped = wpo_loss(*batch.four, *log_weights, beta=0.3, cap=1.0).losses.mean()
    assert abs(float(capped - theirs)) > 0.01


def test_ld_dpo_is_equal() -> None:
    """TRL discounts the reference too, in the step as here and when it computes it beforehand."""
    batch = Batch()
    shorter = torch.minimum(*batch.lengths).repeat(2)
    beyond = batch.mask.cumsum(1) > shorter[:, None]
    tails = ((batch.policy - batch.ref) * beyond).sum(1).chunk(2)
    ours = ld_dpo_loss(*batch.four, *tails, beta=0.3, alpha=0.4).losses.mean()
    discounted = Batch()
    ref = (batch.ref * torch.where(beyond, 0.4, 1.0)).sum(1).chunk(2)
    discounted.four = (*batch.four[:2], *ref)
    assert_close(ours, trl_dpo(discounted, "sigmoid", ld_alpha=0.4))


@pytest.mark.parametrize("alpha", [0.25, -0.5])
def test_alphapo_is_equal(alpha: float) -> None:
    batch = Batch()
    means = [x / n for x, n in zip(batch.four[:2], batch.lengths, strict=True)]
    trainer = stand_in(alpha=alpha, loss_type="simpo", simpo_gamma=0.6, beta=2.0, label_smoothing=0)
    theirs = CPOTrainer.cpo_loss(trainer, *means)
    ours = simpo_loss(*batch.four[:2], *batch.lengths, beta=2.0, gamma=0.6, alpha=alpha)
    for their, our in zip(theirs, ours, strict=True):
        assert_close(their, our)


def test_the_reference_of_tr_dpo_moves_as_trls() -> None:
    policy, *copies = (nn.Linear(3, 2, dtype=torch.float64) for _ in range(3))
    copies[1].load_state_dict(copies[0].state_dict())
    SyncRefModelCallback._sync_target_model(policy, copies[0], 0.6)
    mix_weights(copies[1], policy, 0.6)
    assert_close(copies[1].weight, copies[0].weight, rtol=0, atol=1e-14)
    assert_close(copies[1].bias, copies[0].bias, rtol=0, atol=1e-14)
