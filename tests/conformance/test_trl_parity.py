"""TRL's losses on the same log-probs: equal where the definitions are, and where not, how not.

TRL 1.16 computes losses inside its trainers. Here its methods run on a stand-in trainer and a model
that returns given token log-probs, so that nothing but the loss is compared.
"""

import statistics
import warnings
from collections import defaultdict
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.reward_trainer import RewardTrainer

from alignlab.objectives.cpo import cpo_loss
from alignlab.objectives.dpo import dpo_loss
from alignlab.objectives.hinge import hinge_loss
from alignlab.objectives.ipo import ipo_loss
from alignlab.objectives.kto import kto_loss
from alignlab.objectives.lndpo import lndpo_loss
from alignlab.objectives.orpo import orpo_loss
from alignlab.objectives.rm import rm_loss
from alignlab.objectives.robust_dpo import robust_dpo_loss
from alignlab.objectives.simpo import simpo_loss

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TRL warns that its CPO and ORPO may change: so it is pinned
    from trl.experimental.cpo.cpo_trainer import CPOTrainer
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

PAIRS, PROMPT, LONGEST = 4, 2, 6
LENGTHS = torch.tensor([3, 6, 2, 5, 4, 1, 6, 3])  # chosen, then rejected, as TRL stacks them
EQUAL = torch.full((2 * PAIRS,), 4)
LAM = 0.3  # of ORPO


class Batch:
    """Two rows a pair, chosen ones first, with random token log-probs of policy and reference."""

    def __init__(self, lengths: Tensor = LENGTHS) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (2, 2 * PAIRS, PROMPT + LONGEST)
        logps = -2 * torch.rand(shape, generator=generator, dtype=torch.float64)
        place = torch.arange(PROMPT + LONGEST)
        self.mask = (place >= PROMPT) & (place < PROMPT + lengths[:, None])
        self.policy, self.ref = logps * self.mask  # 0 where a token does not count, as TRL's
        self.lengths = lengths.chunk(2)
        self.four = (*self.policy.sum(1).chunk(2), *self.ref.sum(1).chunk(2))

    def inputs(self) -> dict[str, Tensor]:
        ids = torch.zeros_like(self.mask, dtype=torch.long)
        _, _, ref_chosen, ref_rejected = self.four
        return {
            "input_ids": ids,
            "attention_mask": ids + 1,
            "completion_mask": self.mask.long(),
            "ref_chosen_logps": ref_chosen,
            "ref_rejected_logps": ref_rejected,
        }


def model_of(token_logps: Tensor) -> Any:
    """What TRL's fused head gives of rows ``[R, T]``: log-probs of all tokens but the first."""
    seen = token_logps[:, 1:]
    nothing = torch.zeros_like(seen)
    out = SimpleNamespace(
        log_probs=seen, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool()
    )
    return lambda **_: out


def stand_in(**settings: Any) -> Any:
    """A trainer on one process, in evaluation, with the metrics that TRL keeps on the way."""

    def same(x: Any) -> Any:
        return x

    return SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(
            device=torch.device("cpu"),
            gather=same,
            gather_for_metrics=same,
        ),
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        use_weighting=False,
        f_divergence_type="reverse_kl",
        **settings,
    )


def trl_dpo(batch: Batch, kinds: list[str], weights: list[float], **settings: float) -> Tensor:
    trainer = stand_in(
        loss_types=kinds, loss_weights=weights, **({"label_smoothing": 0.0} | settings)
    )
    loss: Tensor = DPOTrainer._compute_loss(trainer, model_of(batch.policy), batch.inputs(), False)
    return loss


@pytest.mark.parametrize(
    ("kind", "ours"),
    [
        ("sigmoid", lambda b: dpo_loss(*b.four, beta=0.3)),
        ("hinge", lambda b: hinge_loss(*b.four, beta=0.3)),
        ("ipo", lambda b: ipo_loss(*b.four, tau=0.3, lengths=b.lengths)),
        ("robust", lambda b: robust_dpo_loss(*b.four, beta=0.3, label_smoothing=0.2)),
        ("sigmoid_norm", lambda b: lndpo_loss(*b.four, *b.lengths, beta=0.3)),
    ],
)
def test_equal_losses(kind: str, ours: Any) -> None:
    batch = Batch()
    assert_close(
        trl_dpo(batch, [kind], [1.0], beta=0.3, label_smoothing=0.2), ours(batch).losses.mean()
    )


def test_trls_sigmoid_forgets_its_label_smoothing() -> None:
    batch = Batch()
    theirs = trl_dpo(batch, ["sigmoid"], [1.0], beta=0.3, label_smoothing=0.2)
    assert_close(theirs, dpo_loss(*batch.four, beta=0.3).losses.mean())
    ours = dpo_loss(*batch.four, beta=0.3, label_smoothing=0.2).losses.mean()
    assert abs(float(ours - theirs)) > 0.01


def test_trls_ipo_is_per_token_and_not_the_summed_one() -> None:
    batch = Batch()
    theirs = trl_dpo(batch, ["ipo"], [1.0], beta=0.3)
    assert abs(float(ipo_loss(*batch.four, tau=0.3).losses.mean() - theirs)) > 0.1


@pytest.mark.parametrize(("lengths", "equal"), [(EQUAL, True), (LENGTHS, False)])
def test_trls_likelihood_term_counts_tokens_where_ours_counts_completions(lengths, equal) -> None:
    """Its mean runs over all chosen tokens of the batch, so it is ours for equal lengths only."""
    batch = Batch(lengths)
    theirs = trl_dpo(batch, ["sigmoid", "sft"], [1.0, 0.5], beta=0.3)
    nll = -(batch.four[0] / batch.lengths[0]).mean()
    ours = dpo_loss(*batch.four, beta=0.3).losses.mean() + 0.5 * nll
    assert (abs(float(ours - theirs)) < 1e-12) == equal


def test_simpo_and_its_name_of_the_margin() -> None:
    batch = Batch()
    means = [x / n for x, n in zip(batch.four[:2], batch.lengths, strict=True)]
    trainer = stand_in(alpha=0.0, loss_type="simpo", simpo_gamma=0.6, beta=2.0, label_smoothing=0)
    theirs = CPOTrainer.cpo_loss(trainer, *means)
    ours = simpo_loss(*batch.four[:2], *batch.lengths, beta=2.0, gamma=0.6)
    for their, our in zip(theirs, ours, strict=True):
        assert_close(their, our)
    ratio = simpo_loss(*batch.four[:2], *batch.lengths, beta=2.0, gamma_beta_ratio=0.3)
    assert_close(theirs[0], ratio.losses)


def test_cpo_is_equal_but_for_the_scale_of_its_likelihood() -> None:
    """TRL's term is a mean over the batch's chosen tokens: ours with ``lam`` over their length."""
    batch = Batch()
    trainer = stand_in(alpha=0.0, loss_type="sigmoid", beta=0.3, label_smoothing=0, cpo_alpha=0.5)
    trainer.cpo_loss = partial(CPOTrainer.cpo_loss, trainer)
    chosen, rejected = batch.four[:2]
    for their, our in zip(
        trainer.cpo_loss(chosen, rejected), cpo_loss(chosen, rejected, beta=0.3, lam=0), strict=True
    ):
        assert_close(their, our)
    nll = -chosen.sum() / batch.lengths[0].sum()
    nowhere = torch.zeros(PAIRS)
    forward = (chosen, rejected, nowhere, nowhere, nll)
    trainer.concatenated_forward = lambda model, inputs: forward
    theirs, _ = CPOTrainer.get_batch_loss_metrics(trainer, None, {}, "eval")
    per_token = cpo_loss(chosen, rejected, beta=0.3, lam=0.5 / 4).losses.mean()  # of 4 tokens each
    assert_close(theirs, per_token)
    assert abs(float(cpo_loss(chosen, rejected, beta=0.3, lam=0.5).losses.mean() - theirs)) > 1


def test_orpo_is_equal_but_for_where_the_likelihood_is_averaged() -> None:
    """TRL: a mean over the batch's tokens, prompts included. The odds ratio is the same."""
    batch = Batch()
    chosen, rejected = batch.four[:2]
    means = [x / n for x, n in zip((chosen, rejected), batch.lengths, strict=True)]
    ratio, *_ = ORPOTrainer.odds_ratio_loss(stand_in(beta=0.3), *means)  # lam * log sigmoid
    ours = orpo_loss(chosen, rejected, *batch.lengths, lam=0.3)
    assert_close((-means[0] - ratio).float(), ours.losses.float(), atol=1e-6, rtol=0)


def test_kto_with_trls_divergence_of_the_batch_at_hand() -> None:
    """TRL's rows meet the completion of the row before; the estimate is used at once."""
    batch, others = Batch(), Batch(LENGTHS.roll(1))
    others.policy, others.ref = others.ref, others.policy
    label = torch.tensor([True, True, True, False, False, True, False, False])
    inputs = batch.inputs() | {
        "KL_input_ids": batch.inputs()["input_ids"],
        "KL_attention_mask": batch.inputs()["attention_mask"],
        "KL_completion_mask": others.mask.long(),
        "label": label,
        "ref_logps": batch.ref.sum(1),
        "ref_KL_logps": others.ref.sum(1),
    }
    del inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
    trainer = stand_in(
        calculate_KL=True,
        loss_type="kto",
        beta=0.3,
        desirable_weight=1.5,
        undesirable_weight=0.7,
    )
    trainer._compute_kl_logps = lambda model, rows: others.policy.sum(1)
    theirs = KTOTrainer._compute_loss(trainer, model_of(batch.policy), inputs, False)
    kl = (others.policy - others.ref).sum(1).mean()
    assert kl > 0.1  # so it is not the floor at 0 that is compared
    losses, _ = kto_loss(
        batch.policy.sum(1), batch.ref.sum(1), label, kl, beta=0.3, lambda_d=1.5, lambda_u=0.7
    )
    assert_close(theirs, losses.mean())


def texts_of(prompts: list[int], completions: list[int]) -> dict[str, Tensor]:
    """Chosen or rejected rows of prompt and completion as TRL's ORPO collates them: padded right.

    Random ids of 1 to 4; the prompt and the padding are no labels.
    """
    generator = torch.Generator().manual_seed(sum(completions))
    width = max(p + c for p, c in zip(prompts, completions, strict=True))
    ids = torch.randint(1, 5, (len(prompts), width), generator=generator)
    place, starts = torch.arange(width), torch.tensor(prompts)[:, None]
    real = place < starts + torch.tensor(completions)[:, None]
    return {
        "input_ids": ids.masked_fill(~real, 0),
        "attention_mask": real.long(),
        "labels": ids.masked_fill(~real | (place < starts), -100),
    }


def trl_orpo(
    prompts: list[int], chosen: list[int], rejected: list[int]
) -> tuple[Tensor, list[list[float]], list[list[float]]]:
    """TRL's loss, and the log-probs of each chosen row's tokens and each rejected one's, by loop.

    The prompt's tokens come first, but for the text's very first, which nothing predicts.
    """
    sides = {"chosen": texts_of(prompts, chosen), "rejected": texts_of(prompts, rejected)}
    logits: list[Tensor] = []

    def model(ids: Tensor, **_: Any) -> Any:
        generator = torch.Generator().manual_seed(0)
        logits.append(2 * torch.randn(*ids.shape, 5, generator=generator, dtype=torch.float64))
        return SimpleNamespace(logits=logits[0])

    trainer = stand_in(is_encoder_decoder=False, padding_value=0, beta=LAM)
    for name in ("concatenated_forward", "odds_ratio_loss"):
        setattr(trainer, name, partial(getattr(ORPOTrainer, name), trainer))
    for name in ("concatenated_inputs", "get_batch_logps"):
        setattr(trainer, name, getattr(ORPOTrainer, name))
    batch = {f"{side}_{key}": x for side, rows in sides.items() for key, x in rows.items()}
    loss, _ = ORPOTrainer.get_batch_loss_metrics(trainer, model, batch, "eval")
    logps = logits[0].log_softmax(-1)

    def by_loop(first: int, side: str, lengths: list[int]) -> list[list[float]]:
        return [
            [
                float(logps[first + row, t - 1, sides[side]["input_ids"][row, t]])
                for t in range(1, prompt + length)
            ]
            for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
        ]

    return loss, by_loop(0, "chosen", chosen), by_loop(len(prompts), "rejected", rejected)


@pytest.mark.parametrize(
    ("prompts", "chosen", "equal"),
    [([3, 5, 4], [4, 2, 3], True), ([3, 5, 4], [4, 6, 1], False)],
)
def test_trls_orpo_imitates_prompts_too_and_averages_over_the_batchs_tokens(
    prompts: list[int], chosen: list[int], equal: bool
) -> None:
    """Ours with ``prompt_nll`` is a mean of rows' means: the same where all texts are as long."""
    rejected = [2, 5, 3]
    theirs, chosen_logps, rejected_logps = trl_orpo(prompts, chosen, rejected)

    def completions(rows: list[list[float]]) -> Tensor:
        sums = [sum(row[p - 1 :]) for row, p in zip(rows, prompts, strict=True)]
        return torch.tensor(sums, dtype=torch.float64)

    four = completions(chosen_logps), completions(rejected_logps)
    lengths = torch.tensor(chosen), torch.tensor(rejected)
    means = [-statistics.fmean(row) for row in chosen_logps]
    with_prompts = torch.tensor(means, dtype=torch.float64)
    ours = orpo_loss(*four, *lengths, lam=LAM, nll=with_prompts).losses.mean()
    assert (abs(float(ours - theirs)) < 1e-6) == equal
    every = [logp for row in chosen_logps for logp in row]
    contrast = orpo_loss(*four, *lengths, lam=LAM, nll=torch.zeros(3)).losses.mean()
    assert float(theirs) == pytest.approx(float(contrast) - statistics.fmean(every), abs=1e-6)
    without_prompts = orpo_loss(*four, *lengths, lam=LAM).losses.mean()
    assert abs(float(without_prompts - theirs)) > 0.01


@pytest.mark.parametrize("centre", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("margin", [None, [0.0, 1.5, 3.0, 0.5]])
def test_bradley_terry_reward_models_are_equal(margin: list[float] | None, centre: float) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = 2 * torch.randn(2 * PAIRS, generator=generator, dtype=torch.float64)
    trainer = stand_in(args=SimpleNamespace(center_rewards_coefficient=centre or None))
    inputs: dict[str, Any] = {} if margin is None else {"margin": torch.tensor(margin)}
    theirs = RewardTrainer.compute_loss(
        trainer, lambda **_: SimpleNamespace(logits=scores[:, None]), dict(inputs)
    )
    ours = rm_loss(*scores.chunk(2), margin=inputs.get("margin"), centre_coef=centre)
    assert_close(theirs, ours.losses.mean())
