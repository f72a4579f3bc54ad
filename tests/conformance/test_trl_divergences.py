"""TRL 1.16's f-divergences, and its losses exo, nca, bco, sppo and apo, on the same log-probs."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close
from trl.trainer.dpo_trainer import DPOTrainer

from alignlab.functional.divergences import Alpha, ForwardKL, JensenShannon
from alignlab.objectives.apo import apo_loss
from alignlab.objectives.bco import bco_loss
from alignlab.objectives.exo import exo_loss
from alignlab.objectives.f_dpo import f_dpo_loss
from alignlab.objectives.nca import nca_loss
from alignlab.objectives.sppo import sppo_loss
from tests.conformance.test_trl_parity import Batch, model_of, stand_in

BETA = 0.3


def theirs(batch: Batch, kind: str, **settings: Any) -> torch.Tensor:
    trainer = stand_in(loss_types=[kind], loss_weights=[1.0], beta=BETA, label_smoothing=0.125)
    vars(trainer).update(settings)
    loss: torch.Tensor = DPOTrainer._compute_loss(
        trainer, model_of(batch.policy), batch.inputs(), False
    )
    return loss


@pytest.mark.parametrize(
    ("kind", "ours"),
    [
        ("exo_pair", lambda four: exo_loss(*four, beta=BETA, label_smoothing=0.125)),
        ("nca_pair", lambda four: nca_loss(*four, beta=BETA)),
        ("sppo_hard", lambda four: sppo_loss(*four, beta=BETA)),
        ("apo_zero", lambda four: apo_loss(*four, beta=BETA, raise_chosen=True)),
        ("apo_down", lambda four: apo_loss(*four, beta=BETA, raise_chosen=False)),
    ],
)
def test_equal_losses(kind: str, ours: Any) -> None:
    batch = Batch()
    assert_close(theirs(batch, kind), ours(batch.four).losses.mean(), rtol=1e-6, atol=0)


def test_trls_bco_has_no_shift() -> None:
    batch = Batch()
    pc, pr, rc, rr = batch.four
    ours = [
        bco_loss(pc, pr, rc, rr, torch.tensor(delta), beta=BETA).losses.mean()
        for delta in (0.0, 0.5)
    ]
    assert_close(theirs(batch, "bco_pair"), ours[0])
    assert abs(float(ours[0] - ours[1])) > 0.01


@pytest.mark.parametrize(
    ("name", "divergence"),
    [
        ("forward_kl", ForwardKL()),
        ("js_divergence", JensenShannon()),
        ("alpha_divergence", Alpha(0.7)),
    ],
)
def test_equal_divergences_but_for_the_end_from_which_alpha_counts(name, divergence) -> None:
    """TRL's alpha is 1 - alpha of the paper: its 1, not 0, is the reverse KL."""
    batch = Batch()
    batch.policy, batch.ref = batch.policy.float(), batch.ref.float()  # TRL knows no float64 here
    batch.four = tuple(x.float() for x in batch.four)
    found = theirs(batch, "sigmoid", f_divergence_type=name, f_alpha_divergence_coef=0.3)
    ours = f_dpo_loss(*batch.four, beta=BETA, divergence=divergence).losses.mean()
    assert_close(found, ours)
