"""Every pair objective hands its loss the right log-probs, lengths and settings."""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError, DataError
from alignlab.functional.divergences import Alpha, ChiSquaredKL, ForwardKL, JensenShannon
from alignlab.objectives.apo import APO, apo_loss
from alignlab.objectives.bco import BCO, bco_loss
from alignlab.objectives.cal_dpo import CalDPO, cal_dpo_loss
from alignlab.objectives.cpo import CPO, cpo_loss
from alignlab.objectives.discopop import DiscoPOP, discopop_loss
from alignlab.objectives.dpo import DPO, dpo_loss
from alignlab.objectives.dpop import DPOP, dpop_loss
from alignlab.objectives.exo import EXO, exo_loss
from alignlab.objectives.f_dpo import FDPO, f_dpo_loss
from alignlab.objectives.hinge import Hinge, hinge_loss
from alignlab.objectives.ipo import IPO, ipo_loss
from alignlab.objectives.lndpo import LNDPO, lndpo_loss
from alignlab.objectives.nca import NCA, nca_loss
from alignlab.objectives.orpo import ORPO, orpo_loss
from alignlab.objectives.rdpo import RDPO, rdpo_loss
from alignlab.objectives.robust_dpo import RobustDPO, robust_dpo_loss
from alignlab.objectives.simpo import SimPO, simpo_loss
from alignlab.objectives.slic import SLiC, slic_loss
from alignlab.objectives.sppo import SPPO, sppo_loss
from alignlab.objectives.tr_dpo import TRDPO, tr_dpo_loss
from tests.objectives.direct import PAIRS, by_loop, moved

FOUR, LENGTHS, TWO = "policy and reference", "lengths", "policy"
CASES = [  # objective, its loss, settings that are no defaults, what the loss is given
    (DPO, dpo_loss, {"beta": 0.3, "label_smoothing": 0.2}, (FOUR,)),
    (RobustDPO, robust_dpo_loss, {"beta": 0.3, "label_smoothing": 0.2}, (FOUR,)),
    (Hinge, hinge_loss, {"beta": 0.03}, (FOUR,)),
    (LNDPO, lndpo_loss, {"beta": 0.3}, (FOUR, LENGTHS)),
    (FDPO, f_dpo_loss, {"beta": 0.3, "divergence": Alpha(0.3), "max_margin": 0.5}, (FOUR,)),
    (EXO, exo_loss, {"beta": 0.3, "label_smoothing": 0.2}, (FOUR,)),
    (NCA, nca_loss, {"beta": 0.3}, (FOUR,)),
    (BCO, partial(bco_loss, delta=torch.tensor(0.0)), {"beta": 0.3}, (FOUR,)),
    (SPPO, sppo_loss, {"beta": 0.3}, (FOUR,)),
    (APO, apo_loss, {"beta": 0.3, "raise_chosen": False}, (FOUR,)),
    (RDPO, rdpo_loss, {"beta": 0.3, "alpha": 0.2}, (FOUR, LENGTHS)),
    (DPOP, dpop_loss, {"beta": 0.3, "lam": 2.0}, (FOUR,)),
    (DiscoPOP, discopop_loss, {"beta": 0.03, "tau": 0.2}, (FOUR,)),
    (CalDPO, cal_dpo_loss, {"beta": 0.3, "cal_coef": 0.2}, (FOUR,)),
    (TRDPO, tr_dpo_loss, {"beta": 0.3}, (FOUR,)),
    (SimPO, simpo_loss, {"beta": 0.3, "gamma_beta_ratio": 0.2}, (TWO, LENGTHS)),
    (SimPO, simpo_loss, {"beta": 0.3, "gamma": 0.2, "alpha": 0.25}, (TWO, LENGTHS)),
    (ORPO, orpo_loss, {"lam": 0.3}, (TWO, LENGTHS)),
    (CPO, cpo_loss, {"beta": 0.3, "lam": 0.2}, (TWO,)),
    (SLiC, slic_loss, {"delta": 0.3, "lam": 0.2}, (TWO,)),
]


@pytest.mark.parametrize(("kind", "loss", "settings", "given"), CASES, ids=lambda x: str(x)[:20])
def test_the_loss_gets_what_a_slow_loop_finds(build, kind, loss, settings, given):
    policy = build("llama")
    objective = kind(policy, torch.optim.AdamW, **settings)
    ref, lengths = by_loop(policy, PAIRS)
    sums, _ = by_loop(moved(policy), PAIRS)
    said = {
        FOUR: [sums[::2], sums[1::2], ref[::2], ref[1::2]],
        TWO: [sums[::2], sums[1::2]],
        LENGTHS: [lengths[::2], lengths[1::2]],
    }
    expected = loss(*(x for name in given for x in said[name]), **settings)
    with torch.no_grad():
        losses, means = objective.losses(collate(PAIRS))
    assert_close(losses, expected.losses)
    margins = expected.chosen_rewards - expected.rejected_rewards
    assert_close(means["rewards/margins"], margins.mean())
    assert_close(means["logps/chosen"], sums[::2].mean())


def test_ipo_is_per_token_unless_told_otherwise(build):
    policy = build("llama")
    per_token = IPO(policy, torch.optim.AdamW, tau=0.3)
    summed = IPO(policy, torch.optim.AdamW, tau=0.3, per_token=False)
    ref, lengths = by_loop(policy, PAIRS)
    sums, _ = by_loop(moved(policy), PAIRS)
    four = sums[::2], sums[1::2], ref[::2], ref[1::2]
    with torch.no_grad():
        mean_losses, _ = per_token.losses(collate(PAIRS))
        sum_losses, _ = summed.losses(collate(PAIRS))
    both = lengths[::2], lengths[1::2]
    assert_close(mean_losses, ipo_loss(*four, tau=0.3, lengths=both).losses)
    assert_close(sum_losses, ipo_loss(*four, tau=0.3).losses)


def test_dpo_adds_the_chosen_completions_likelihood_per_token(build):
    policy = build("llama")
    plain = DPO(policy, torch.optim.AdamW, beta=0.3)
    helped = DPO(policy, torch.optim.AdamW, beta=0.3, nll_coef=0.5)
    sums, lengths = by_loop(moved(policy), PAIRS)
    with torch.no_grad():
        added = helped.losses(collate(PAIRS))[0] - plain.losses(collate(PAIRS))[0]
    assert_close(added, -0.5 * sums[::2] / lengths[::2])


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        (DPO, math.log(2)),
        (partial(RobustDPO, label_smoothing=0.2), math.log(2)),
        (partial(RDPO, alpha=0.0), math.log(2)),
        (LNDPO, math.log(2)),
        (Hinge, 1.0),
        (partial(IPO, tau=0.25), 4.0),
        (DPOP, math.log(2)),
        (DiscoPOP, (1 + math.log(2)) / 2),
        (partial(CalDPO, beta=0.25), math.log(2) + 8),
        (TRDPO, math.log(2)),
        (partial(FDPO, divergence=ChiSquaredKL()), math.log(2)),
        (partial(EXO, label_smoothing=0.2), math.log(1.25)),  # log 0.5 less the mean of logs
        (NCA, 2 * math.log(2)),
        (BCO, 2 * math.log(2)),
        (partial(SPPO, beta=0.25), 8.0),
        (APO, 1.0),
        (partial(APO, raise_chosen=False), 1.0),
    ],
)
@pytest.mark.parametrize("pairs", [1, 3])
def test_before_training_policy_and_reference_agree(build, kind, start, pairs):
    """Rewards 0 and a finite loss at the first step, also of a single pair."""
    objective = kind(build("llama"), torch.optim.AdamW)
    losses, means = objective.losses(collate(PAIRS[:pairs]))
    assert_close(losses.detach(), torch.full((pairs,), start, dtype=torch.float64))
    assert means["rewards/accuracies"] == 0.5  # a tie is half a hit
    losses.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in objective.parameters())


@pytest.mark.parametrize(
    "loss",
    [
        partial(f_dpo_loss, divergence=ForwardKL()),
        partial(f_dpo_loss, divergence=JensenShannon()),
        partial(f_dpo_loss, divergence=Alpha(0.5)),
        partial(f_dpo_loss, divergence=ChiSquaredKL()),
        partial(f_dpo_loss, divergence=ChiSquaredKL(), max_margin=4.0),
        partial(exo_loss, label_smoothing=1e-3),
        nca_loss,
        partial(bco_loss, delta=torch.tensor(-50.0)),
        sppo_loss,
        partial(apo_loss, raise_chosen=True),
        partial(apo_loss, raise_chosen=False),
    ],
)
def test_losses_and_gradients_are_finite_at_log_ratios_of_200(loss):
    """In float32, where e^200 is none; ``beta`` 1 scales nothing down."""
    pairs = torch.cartesian_prod(*2 * [torch.tensor([-200.0, -20.0, 0.0, 20.0, 200.0])])
    chosen, rejected = pairs.T.clone().requires_grad_()
    losses = loss(chosen, rejected, torch.zeros(25), torch.zeros(25), beta=1.0).losses
    for side in torch.autograd.grad(losses.sum(), (chosen, rejected)):
        assert torch.isfinite(side).all()
    assert torch.isfinite(losses).all()


def test_a_batch_that_is_no_pairs_is_refused(build):
    three = PromptTree(0, "three", (1,), ((4,), (5,), (6,)))
    with pytest.raises(DataError, match="two completions per prompt"):
        DPO(build("llama"), torch.optim.AdamW).losses(collate([three]))


def test_three_and_one_are_not_two_pairs(build):
    """As many completions as two pairs have, of other prompts than a pair's."""
    trees = [PromptTree(0, "a", (1,), ((4,), (5,), (6,))), PromptTree(1, "b", (1,), ((7,),))]
    with pytest.raises(DataError, match="two completions per prompt"):
        DPO(build("llama"), torch.optim.AdamW).losses(collate(trees))


@pytest.mark.parametrize("gamma", [-0.5, math.nan])
def test_a_margin_below_zero_names_its_key(build, gamma):
    with pytest.raises(ConfigError, match=r"model\.init_args\.gamma"):
        SimPO(build("llama"), torch.optim.AdamW, gamma=gamma)
