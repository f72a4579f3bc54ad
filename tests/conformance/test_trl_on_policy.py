"""TRL's GRPO and RLOO on a phase's rewards and log-probs: what is equal, and what differs how.

TRL 1.16 makes advantages and losses inside its trainers. Here those methods run on a stand-in that
"generates" given completions and whose models are tables of token log-probs.
"""

import statistics
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from trl.trainer import grpo_trainer, rloo_trainer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from alignlab.functional import group_normalise, kl_k1, leave_one_out
from alignlab.objectives.cispo import cispo_loss
from alignlab.objectives.grpo import grpo_loss
from alignlab.objectives.gspo import gspo_loss
from alignlab.objectives.on_policy import Sampling
from alignlab.objectives.rloo import RLOO

REWARDS = [[3.0, -1.0, 0.5, 0.25], [2.0, 2.0, 2.0, 2.0], [1e-4, -2e-4, 0.0, 1e-4]]
K = 4  # completions a prompt
LENGTHS = [3, 6, 2, 5, 4, 1, 6, 3, 2, 4, 5, 1]
PADDING = -5.0  # what stands where no token is


class Phase:
    """Twelve completions of three prompts: log-probs of the policy now, then, of the reference."""

    def __init__(self, lengths: list[int]) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (3, len(lengths), max(lengths))
        logps = -2 * torch.rand(shape, generator=generator, dtype=torch.float64)
        self.lengths = torch.tensor(lengths)
        self.mask = torch.arange(max(lengths)) < self.lengths[:, None]
        self.now, self.then, self.ref = torch.where(self.mask, logps, PADDING)
        self.rewards = torch.tensor(REWARDS, dtype=torch.float64).flatten()
        self.group = torch.arange(len(REWARDS)).repeat_interleave(K)


def model_of(token_logps: Tensor) -> Any:
    return SimpleNamespace(training=False, is_gradient_checkpointing=False, logps=token_logps)


def generated(phase: Phase) -> tuple[list[list[int]], list[list[int]], list[str]]:
    """Ids of prompts and completions, and texts, which nobody reads."""
    rows = phase.lengths.tolist()
    return [[8, 9] for _ in rows], [[7] * n for n in rows], ["" for _ in rows]


def trainer_of(phase: Phase, **settings: Any) -> Any:
    """A trainer of one process, in evaluation, whose completions were sampled by ``phase.then``."""
    prompts, completions, texts = generated(phase)

    def same(x: Any, **_: Any) -> Any:
        return x

    def logps_of(model: Any, *_: Any, **__: Any) -> Any:
        return model.logps, torch.zeros_like(model.logps), None

    defaults = {
        "_generate": lambda _: (prompts, completions, None, texts, None, {}, None, None),
        "_calculate_rewards": lambda *_: phase.rewards[:, None],
        "_get_per_token_logps_and_entropies": logps_of,
        "model": model_of(phase.then),
        "ref_model": model_of(phase.ref),
        "accelerator": SimpleNamespace(
            device=torch.device("cpu"),
            gather=same,
            reduce=same,
            num_processes=1,
            process_index=0,
        ),
        "args": SimpleNamespace(
            per_device_eval_batch_size=len(texts),
            gradient_checkpointing_kwargs=None,
            steps_per_generation=2,  # more than one step a phase: log-probs of then are needed
            gradient_accumulation_steps=1,
            use_bias_correction_kl=settings.pop("use_bias_correction_kl", False),
            delta=None,
        ),
        "_tokenizer": SimpleNamespace(pad_token_id=0),
        "_metrics": {"eval": defaultdict(list)},
        "_logs": defaultdict(list) | {"rewards": defaultdict(list), "extra": {}},
        "_pending_extra_logs": {},
        "_pending_metrics": {},
        "reward_weights": torch.ones(1),
        "reward_func_names": ["reward"],
        "multi_objective_aggregation": "sum_then_normalize",
        "num_generations_eval": K,
        "num_iterations": 1,
        "importance_sampling_level": "token",
        "top_entropy_quantile": 1.0,
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
    }
    off = (
        "environment_factories", "environments", "tools", "pad_to_multiple_of", "use_vllm",
        "mask_truncated_completions", "off_policy_mask_threshold", "_entropy_bonus_enabled",
        "aux_loss_enabled", "reward_clip_range", "normalize_advantages",
    )  # fmt: skip
    return SimpleNamespace(**dict.fromkeys(off) | defaults | settings)


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gathering over processes gives what there is, without asking which hardware there is."""
    for module in (grpo_trainer, rloo_trainer):
        for name in ("gather", "gather_object"):
            monkeypatch.setattr(module, name, lambda x: x)


def inputs_of(phase: Phase) -> list[dict[str, str]]:
    return [{"prompt": "p"} for _ in phase.lengths]


def trl_grpo(phase: Phase, **settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Its advantages ``[M]``, its loss, and the loss's gradient in the token log-probs."""
    trainer = trainer_of(phase, **settings)
    made = GRPOTrainer._generate_and_score_completions(trainer, inputs_of(phase))
    now = phase.now.clone().requires_grad_()
    loss = GRPOTrainer._compute_loss(trainer, model_of(now), made)
    return made["advantages"], loss.detach(), torch.autograd.grad(loss, now)[0]


def our_grpo(
    phase: Phase, advantages: Tensor, kl_coef: float, normaliser: Any = None, **settings: Any
) -> tuple[Tensor, Tensor]:
    """The loss and its gradient."""
    return our(
        grpo_loss, phase, phase.ref, advantages[:, None].expand_as(phase.now), phase.mask,
        **{"clip_epsilon": 0.2, "kl_coef": kl_coef, "normaliser": normaliser} | settings,
    )  # fmt: skip


def our(function: Any, phase: Phase, *rest: Tensor, **settings: Any) -> tuple[Tensor, Tensor]:
    """A loss of the policy's log-probs, now and then, and its gradient."""
    now = phase.now.clone().requires_grad_()
    total, count = function(now, phase.then, *rest, **settings)
    loss = total / count
    return loss.detach(), torch.autograd.grad(loss, now)[0]


@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
@pytest.mark.parametrize(("kind", "normaliser"), [("grpo", None), ("dr_grpo", 8.0)])
def test_grpos_losses_are_equal_where_rewards_are_not_scaled(
    kind: str, normaliser: float | None, kl_coef: float
) -> None:
    """Centring, each token's clip, k3, and both divisors: TRL's constant is its longest length."""
    phase = Phase(LENGTHS)
    ratio = (phase.now - phase.then).exp()[phase.mask]
    assert ratio.min() < 0.8
    assert ratio.max() > 1.2
    advantages, loss, gradient = trl_grpo(
        phase, loss_type=kind, scale_rewards="none", beta=kl_coef, max_completion_length=8
    )
    ours = group_normalise(phase.rewards, phase.group, scale=False)
    assert_close(advantages, ours)
    our_loss, our_gradient = our_grpo(phase, ours, kl_coef, normaliser)
    assert_close(loss, our_loss)
    assert_close(gradient, our_gradient)


def test_trls_deviation_is_the_samples_and_has_an_epsilon() -> None:
    """Theirs is ours times sqrt(3 / 4) times s / (s + 1e-4), s the sample's deviation.

    Of rewards around 1 that is sqrt(3 / 4) to four digits. Of rewards around 1e-4 it is a factor of
    more than two beside it: TRL's advantages depend on the rewards' unit, ours do not.
    """
    phase = Phase(LENGTHS)
    theirs, *_ = trl_grpo(phase, loss_type="grpo", scale_rewards="group", beta=0.0)
    ours = group_normalise(phase.rewards, phase.group)
    shrunk = []
    for row, their, our in zip(REWARDS, theirs.view(-1, K), ours.view(-1, K), strict=True):
        mean, sample, population = (
            statistics.fmean(row),
            statistics.stdev(row),
            statistics.pstdev(row),
        )
        assert their.tolist() == pytest.approx([(r - mean) / (sample + 1e-4) for r in row])
        if population == 0:
            assert our.tolist() == their.tolist() == [0.0] * K
            continue
        assert our.tolist() == pytest.approx([(r - mean) / population for r in row])
        shrunk.append(float(their[0] / our[0]) / (3 / 4) ** 0.5)
    assert shrunk[0] == pytest.approx(1, abs=1e-4)
    assert 0.5 < shrunk[1] < 0.6
    larger = group_normalise(1e4 * phase.rewards, phase.group)
    assert_close(larger, ours)


@pytest.mark.parametrize(("lengths", "equal"), [([4] * 12, True), (LENGTHS, False)])
def test_trls_default_averages_over_tokens_and_has_no_penalty(
    lengths: list[int], equal: bool
) -> None:
    """Its ``dapo`` is the mean over the phase's tokens: ours for completions of equal length."""
    assert (GRPOConfig.loss_type, GRPOConfig.scale_rewards) == ("dapo", "group")
    assert (GRPOConfig.beta, GRPOConfig.epsilon) == (0.0, 0.2)
    phase = Phase(lengths)
    trainer = {"loss_type": GRPOConfig.loss_type, "scale_rewards": "none", "beta": 0.0}
    advantages, loss, _ = trl_grpo(phase, **trainer)
    our_loss, _ = our_grpo(phase, advantages, kl_coef=0.0)
    assert (abs(float(loss - our_loss)) < 1e-12) == equal
    if not equal:
        by_token, _ = our_grpo(phase, advantages, kl_coef=0.0, normaliser=sum(lengths) / 12)
        assert_close(loss, by_token)


@pytest.mark.parametrize("weighted", [False, True])
def test_dapos_mean_and_range_and_the_weighted_penalty_are_equal(weighted: bool) -> None:
    """TRL weights the penalty by default (``use_bias_correction_kl``), since 1.10."""
    assert GRPOConfig.use_bias_correction_kl is True
    phase = Phase(LENGTHS)
    theirs = {"loss_type": "dapo", "epsilon_high": 0.28, "use_bias_correction_kl": weighted}
    advantages, *trl = trl_grpo(phase, scale_rewards="none", beta=0.3, **theirs)
    ours = our_grpo(phase, advantages, 0.3, "tokens", clip_epsilon_high=0.28, weighted_kl=weighted)
    assert_close(ours, tuple(trl))
    assert_close(ours[0] == our_grpo(phase, advantages, 0.3, "tokens")[0], torch.tensor(False))


def test_gspo_is_trls_completion_ratio_in_a_mean_over_completions() -> None:
    phase = Phase(LENGTHS)
    moved = ((phase.now - phase.then) * phase.mask).sum(1) / phase.lengths
    assert moved.min() < -0.2
    assert moved.max() > 0.2
    theirs = {"importance_sampling_level": "sequence", "epsilon_low": 0.1, "epsilon_high": 0.15}
    advantages, *trl = trl_grpo(phase, loss_type="grpo", scale_rewards="none", beta=0.0, **theirs)
    ours = our(gspo_loss, phase, advantages, phase.mask, clip_epsilon=0.1, clip_epsilon_high=0.15)
    assert_close(ours, tuple(trl))


@pytest.mark.parametrize("cap", [1.2, 5.0])
def test_cispos_cap_is_trls_epsilon_high(cap: float) -> None:
    """The largest weight itself: TRL's 5 is 5 here."""
    phase = Phase(LENGTHS)
    assert (phase.now - phase.then).exp()[phase.mask].max() > 5
    theirs = {"loss_type": "cispo", "epsilon_high": cap, "scale_rewards": "none", "beta": 0.0}
    advantages, *trl = trl_grpo(phase, **theirs)
    spread = advantages[:, None].expand_as(phase.now)
    assert_close(our(cispo_loss, phase, spread, phase.mask, weight_cap=cap), tuple(trl))


def rloo_phase() -> Phase:
    """Each completion's ratio is between 0.5 and 1.5, spread evenly over its tokens."""
    phase = Phase(LENGTHS)
    ratios = torch.tensor([1.5, 1.5, 1.0, 1.0, 0.5, 1.1, 1.1, 1.5, 0.5, 0.5, 1.5, 0.9])
    phase.rewards = torch.tensor([2.0, -1, 3, 0, 1, 0, 2, 4, 0, 6, 5, 1], dtype=torch.float64)
    per_token = ratios.double().log()[:, None] / phase.lengths[:, None]
    phase.now = torch.where(phase.mask, phase.then + per_token, PADDING + 3)
    return phase


def test_rloo_is_equal_but_for_trls_clip_on_the_completions_ratio() -> None:
    """Rewards less k1 less the others' mean are equal; so are gradients where nothing is clipped.

    TRL stops a completion's gradient where its ratio has left 0.8 to 1.2 on the side that its
    advantage pulls to; here it goes on, in proportion to the ratio.
    """
    assert (RLOOConfig.beta, RLOOConfig.epsilon) == (0.05, 0.2)
    phase, kl_coef = rloo_phase(), 0.3
    trainer = trainer_of(phase, beta=kl_coef)
    trainer._generate = lambda _: generated(phase)
    made = RLOOTrainer._generate_and_score_completions(trainer, inputs_of(phase))
    kl = kl_k1(phase.then, phase.ref).masked_fill(~phase.mask, 0).sum(1)
    ours = leave_one_out(phase.rewards - kl_coef * kl, phase.group)
    assert_close(made["advantages"], ours)
    now = phase.now.clone().requires_grad_()
    loss = RLOOTrainer._compute_loss(trainer, model_of(now), made)
    (theirs,) = torch.autograd.grad(loss, now)
    batch: Any = SimpleNamespace(
        trees=SimpleNamespace(loss_mask=phase.mask),
        old_token_logps=phase.then,
        advantages=ours[:, None].expand_as(now),
    )
    objective: Any = SimpleNamespace(sampling=Sampling(max_new_tokens=max(LENGTHS)))
    scores: Any = SimpleNamespace(token_logps=now)
    total, _ = RLOO.losses(objective, batch, scores)
    (gradient,) = torch.autograd.grad(total / len(now), now)
    seen = set()
    for row, (advantage, length) in enumerate(zip(ours.tolist(), LENGTHS, strict=True)):
        ratio = float((phase.now - phase.then)[row, :length].sum().exp())
        by_hand = [-ratio * advantage / 12] * length + [0.0] * (max(LENGTHS) - length)
        assert gradient[row].tolist() == pytest.approx(by_hand)
        clipped = (ratio > 1.2 and advantage > 0) or (ratio < 0.8 and advantage < 0)
        assert theirs[row].tolist() == pytest.approx([0.0] * max(LENGTHS) if clipped else by_hand)
        seen.add((round(ratio, 2), advantage > 0))
    assert seen >= {(1.5, True), (1.5, False), (0.5, True), (0.5, False), (1.0, True), (1.0, False)}
