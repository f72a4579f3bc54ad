"""PPO: the clipped loss, and what a phase of rollouts is turned into."""

import math
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import ScoreModel
from alignlab.objectives.on_policy import Sampling, Scored, adapted_kl_coef
from alignlab.objectives.ppo import PPO, ppo_loss
from alignlab.rewards.base import Reward

ADAM = partial(torch.optim.AdamW, lr=1e-3)


class Length(Reward):
    """Longer is better; a function of texts."""

    def __call__(self, prompts, completions):
        return torch.tensor([float(len(text.split())) for text in completions])


@pytest.fixture
def make(build, tmp_path):
    def ppo(**settings) -> PPO:
        policy = build("llama", dtype=settings.pop("dtype", "float64"))
        policy.save(tmp_path / "lm")
        value = ScoreModel(str(tmp_path / "lm"), dtype="float64", head_init="normal")
        names = "spec", "missing_eos_penalty", "centre_rewards", "old_logps"
        sampling = Sampling(6, **{name: settings.pop(name) for name in names if name in settings})
        return PPO(policy, Length(), sampling, ADAM, **({"value": value} | settings))

    return ppo


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.5, 2.0, -2.4, 0.0),  # good action, already far more likely: clipped at 1.2
        (0.5, 2.0, -1.0, -1.0),  # good action made unlikely: pushed back
        (1.5, -2.0, 3.0, 3.0),  # bad action made likely: pushed back
        (0.5, -2.0, 1.6, 0.0),  # bad action, already far less likely: clipped at 0.8
    ],
)
def test_four_quadrants_by_hand(ratio, advantage, loss, slope):
    """The slope is in the log-prob: d(-ratio * A) = -ratio * A."""
    logps = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    total, count = ppo_loss(
        logps,
        torch.zeros(1, 1, dtype=torch.float64),
        torch.tensor([[advantage]], dtype=torch.float64),
        torch.ones(1, 1, dtype=torch.bool),
        clip_epsilon=0.2,
    )
    total.backward()
    assert float(total.detach()) == pytest.approx(loss)
    assert logps.grad is not None
    assert float(logps.grad) == pytest.approx(slope)
    assert int(count) == 1


def test_masked_cells_never_matter():
    mask = torch.tensor([[True, False]])
    total, count = ppo_loss(
        torch.tensor([[0.0, torch.nan]]),
        torch.tensor([[0.0, 1.0]]),
        torch.tensor([[1.0, torch.inf]]),
        mask,
        clip_epsilon=0.2,
    )
    assert (float(total), int(count)) == (-1.0, 1)


def test_reward_stands_on_the_last_real_token_and_the_penalty_on_all(make):
    """discount 1, lambda 1, no whitening: the return at t is the score minus later penalties."""
    ppo = make(kl_coef=0.5, gae_lambda=1.0, whiten_advantages=False)
    trees = collate([PromptTree(0, "a", (1, 4), ((5, 6, 2), (7,)))])
    zero = torch.zeros(2, 3, dtype=torch.float64)
    ratio = torch.tensor([[0.2, -0.4, 1.0], [0.6, 0.0, 0.0]], dtype=torch.float64)
    scores = torch.tensor([3.0, -1.0], dtype=torch.float64)
    with torch.no_grad():
        batch = ppo.advantages(Scored(trees, ratio, zero, scores))
        values = ppo.value(trees)
    expected = torch.tensor(
        [[3 - 0.4, 3 - 0.3, 3 - 0.5], [-1 - 0.3, 0.0, 0.0]], dtype=torch.float64
    )
    assert_close(batch.returns, expected)
    assert_close(batch.advantages, (expected - values).masked_fill(~trees.loss_mask, 0))


def test_advantages_are_whitened_over_the_phase(make):
    ppo = make(whiten_advantages=True)
    prompts = [PromptTree(i, str(i), (1, 3 + i), ()) for i in range(8)]
    batch = ppo.collect(prompts, samples=4, rollout=0)
    inside = batch.advantages[batch.trees.loss_mask]
    assert float(inside.mean()) == pytest.approx(0, abs=1e-9)
    assert float(inside.var(unbiased=False)) == pytest.approx(1, abs=1e-9)


def test_first_ratio_is_one_under_the_spec_that_was_sampled(make):
    ppo = make(spec=SamplingSpec(temperature=0.7))
    prompts = [PromptTree(i, str(i), (1, 3 + i), ()) for i in range(4)]
    batch = ppo.collect(prompts, samples=2, rollout=0)
    with torch.no_grad():
        logps = ppo.policy(batch.trees, spec=ppo.sampling.spec).token_logps
    assert_close(logps, batch.old_token_logps, atol=1e-10, rtol=0)
    sampled = make(spec=SamplingSpec(temperature=0.7), old_logps="sampled")
    again = sampled.collect(prompts, samples=2, rollout=0)
    assert_close(again.old_token_logps.double(), batch.old_token_logps, atol=1e-5, rtol=0)


def test_rewards_are_centred_once_and_missing_ends_are_penalised(make):
    ppo = make(missing_eos_penalty=4.0, centre_rewards=True, kl_coef=0.0)
    prompts = [PromptTree(i, str(i), (1, 3 + i), ()) for i in range(6)]
    with torch.no_grad():
        scored = ppo._score(prompts, 3, 0)
    lengths = scored.trees.completion_lengths
    ended = scored.trees.completion_ids[torch.arange(18), lengths - 1] == 2
    assert 0 < int(ended.sum()) < 18
    ids = scored.trees.completion_ids
    words = ((ids > 2) & scored.trees.token_mask).sum(1).double()  # specials are no words
    assert float(ppo.reward_mean) == pytest.approx(float(words.mean()))
    assert_close(scored.scores, words - words.mean() - 4.0 * (~ended).double())
    mean = float(ppo.reward_mean)
    ppo.collect(prompts, 3, 1)
    assert float(ppo.reward_mean) == mean


def test_rollouts_are_a_function_of_their_number(make):
    ppo = make()
    prompts = [PromptTree(i, str(i), (1, 3 + i), ()) for i in range(4)]
    first, again, other = (ppo.collect(prompts, 2, r) for r in (5, 5, 6))
    assert torch.equal(first.trees.completion_ids, again.trees.completion_ids)
    assert first.trees.completion_ids.tolist() != other.trees.completion_ids.tolist()


def test_adaptive_controller_by_hand():
    """Errors 1, -0.5, 0.1 and 0, held within 0.2; 256 of 10,000 episodes take 0.0256 of each."""
    step = partial(adapted_kl_coef, target=6.0, episodes=256, horizon=10_000)
    assert step(0.2, 12.0) == pytest.approx(0.201024)
    assert step(0.2, 3.0) == pytest.approx(0.198976)
    assert step(0.2, 6.6) == pytest.approx(0.200512)
    assert step(0.2, 6.0) == 0.2


def test_the_controller_moves_the_saved_coefficient(make):
    ppo = make(kl_coef=0.2, kl_target=1.0, kl_horizon=100)
    prompts = [PromptTree(i, str(i), (1, 3 + i), ()) for i in range(4)]
    ppo.collect(prompts, 2, 0)  # policy == reference: KL 0, far below the target
    assert float(ppo.kl_coef) == pytest.approx(0.1968)  # 0.2 less 20 % of 8 / 100
    assert "kl_coef" in ppo.state_dict()


def test_a_shared_head_reads_the_policys_states(make):
    ppo = make(value=None, detach_value=False)
    assert len(ppo.parameter_groups()) == 2
    prompts = [PromptTree(i, str(i), (1, 3 + i), ()) for i in range(3)]
    batch = ppo.collect(prompts, 2, 0)
    assert not batch.old_values.any()  # the head starts at zero
    scores = ppo.policy(batch.trees, ("hidden",))
    with torch.no_grad():
        ppo.value.head.weight.fill_(0.5)
    loss = ppo.value(batch.trees, scores.hidden).sum()
    grads = torch.autograd.grad(loss, ppo.policy.parameters(), allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in grads)


@pytest.mark.parametrize("old_logps", ["auto", "rescored"])
def test_values_of_a_shared_head_come_with_the_samples(make, old_logps):
    """Where log-probs are the sampler's, so are values; no forward is made for them."""
    ppo = make(value=None, old_logps=old_logps)
    torch.nn.init.normal_(ppo.value.head.weight)
    plain, calls = ppo.policy.states, []

    def states(trees):
        calls.append(trees)
        return plain(trees)

    ppo.policy.states = states
    prompts = [PromptTree(i, str(i), (1, *range(3, 4 + i)), ()) for i in range(3)]
    batch = ppo.collect(prompts, 2, 0)
    assert bool(calls) == (old_logps == "rescored")
    with torch.no_grad():
        values = ppo.value(batch.trees)
    assert_close(batch.old_values, values, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip_epsilon": 0.0}, "clip_epsilon > 0"),
        ({"value_clip_epsilon": -1.0}, "value_clip_epsilon > 0"),
        ({"kl_coef": -0.1}, "kl_coef >= 0"),
        ({"kl_target": 0.0}, "kl_target > 0"),
        ({"n_steps": 0}, "n_steps > 0"),
        ({"ptx_coef": -1.0}, "ptx_coef >= 0"),
        ({"clip_epsilon": math.nan}, "clip_epsilon > 0"),
        ({"value_coef": -3.0}, "value_coef >= 0"),
        ({"value_lr": -1.0}, "value_lr > 0"),
        ({"gae_lambda": 1.5}, r"gae_lambda in \[0, 1\]"),
        ({"discount": -1.0}, r"discount in \[0, 1\]"),
        ({"gae_lambda_value": 1.5}, r"gae_lambda_value in \[0, 1\]"),
        ({"gae_lambda_policy": -0.1}, r"gae_lambda_policy in \[0, 1\]"),
        ({"length_adaptive_alpha": 0.0}, "length_adaptive_alpha > 0"),
        (
            {"length_adaptive_alpha": 0.2, "gae_lambda_policy": 0.5},
            r"gae_lambda_policy 0\.5 and length_adaptive_alpha 0\.2",
        ),
        ({"value_warmup_steps": -1}, "value_warmup_steps >= 0"),
        ({"kl_coef": math.nan}, "kl_coef >= 0"),
    ],
)
def test_impossible_settings_name_their_key(make, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(**settings)


@pytest.mark.parametrize(
    "settings", [{"gae_lambda_policy": 0.0}, {"gae_lambda": 0.0}, {"length_adaptive_alpha": 0.3}]
)
def test_policy_and_values_may_have_lambdas_of_their_own(make, settings):
    """No penalty: returns are the score (lambda 1), advantages one-step errors (lambda 0).

    With alpha 0.3 the three tokens of a completion are fewer than 1 / 0.3: lambda is 0, too.
    """
    ppo = make(kl_coef=0.0, whiten_advantages=False, gae_lambda_value=1.0, **settings)
    trees = collate([PromptTree(0, "a", (1, 4), ((5, 6, 2), (7,)))])
    zero = torch.zeros(2, 3, dtype=torch.float64)
    with torch.no_grad():
        batch = ppo.advantages(Scored(trees, zero, zero, torch.tensor([3.0, -1.0])))
        v = ppo.value(trees)
    expected = [[v[0, 1] - v[0, 0], v[0, 2] - v[0, 1], 3 - v[0, 2]], [-1 - v[1, 0], 0.0, 0.0]]
    assert_close(batch.advantages, torch.tensor(expected, dtype=torch.float64))
    wanted = torch.tensor([[3.0, 3.0, 3.0], [-1.0, 0.0, 0.0]], dtype=torch.float64)
    assert_close(batch.returns, wanted)


def test_the_controller_waits_for_the_warm_up(make):
    """In it the KL is 0, below every target, and says nothing of the coefficient."""
    ppo = make(kl_coef=0.2, kl_target=1.0, kl_horizon=100, value_warmup_steps=3)
    prompts = [PromptTree(i, str(i), (1, 3 + i), ()) for i in range(4)]
    ppo._trainer = SimpleNamespace(global_step=2, logger=None, precision_plugin=ppo)
    ppo.train_step_context = nullcontext
    ppo.collect(prompts, 2, 0)
    assert float(ppo.kl_coef) == 0.2
    ppo._trainer.global_step = 3
    ppo.collect(prompts, 2, 1)
    assert float(ppo.kl_coef) == pytest.approx(0.1968)


@pytest.mark.parametrize("steps", [8, 9])
def test_a_warm_up_that_is_the_whole_run_is_said(make, capsys, steps):
    ppo = make(value_warmup_steps=8)
    ppo._trainer = L.Trainer(max_steps=steps, logger=False, accelerator="cpu", barebones=True)
    ppo._trainer.datamodule = None
    ppo.on_fit_start()
    assert ("does not train the policy: the run's 8" in capsys.readouterr().err) == (steps == 8)


def test_the_pretraining_mix_adds_its_mean_loss(make):
    """With coefficient 2, twice the nats per token of the step's texts, whatever the rollouts."""
    losses = []
    texts = collate([PromptTree(0, "t", (1,), ((5, 6), (7,)))])
    for ptx_coef in (0.0, 2.0):
        ppo = make(ptx_coef=ptx_coef)
        ppo.log = lambda *args, **kwargs: None
        ppo.normalised = lambda loss, total: loss / total
        batch = ppo.collect([PromptTree(0, "0", (1, 3), ())], 2, 0)
        batch.pretraining = texts
        losses.append(ppo.training_step(batch, 0).detach())
    with torch.no_grad():
        nats = -ppo.policy(texts).token_logps.sum() / 3
    assert float(losses[1] - losses[0]) == pytest.approx(2 * float(nats))


def test_a_mix_without_texts_is_refused(make):
    ppo = make(ptx_coef=0.5)
    ppo._trainer = SimpleNamespace(train_dataloader=None, datamodule=SimpleNamespace())
    with pytest.raises(ConfigError, match=r"ptx_coef 0\.5 needs texts"):
        ppo.on_fit_start()


def test_a_penalty_in_the_loss_is_not_in_the_reward(make):
    """Gradients say so: only through the loss does the coefficient reach a fixed batch."""
    trees = collate([PromptTree(0, "a", (1, 4), ((5, 6, 2), (7,)))])
    ratio = torch.tensor([[0.2, -0.4, 1.0], [0.6, 0.0, 0.0]], dtype=torch.float64)
    scored = Scored(trees, ratio, torch.zeros_like(ratio), torch.tensor([3.0, -1.0]))
    settings = {"gae_lambda": 1.0, "whiten_advantages": False, "kl_estimator": "k2"}
    with torch.no_grad():
        in_loss = make(kl_coef=0.5, kl_in="loss", **settings)
        batch = in_loss.advantages(scored)
        free = make(kl_coef=0.0, **settings).advantages(scored)
        scores = in_loss.policy(trees, in_loss.want)
        with_penalty, _ = in_loss.losses(batch, scores)
        in_loss.kl_coef.fill_(0.0)
        without, _ = in_loss.losses(batch, scores)
    assert batch.returns[0].tolist() == pytest.approx([3.0, 3.0, 3.0])
    assert_close(batch.returns, free.returns)
    assert float(with_penalty - without) == pytest.approx(  # k2 to a reference of log-probs 0
        0.5 * float(scores.token_logps.square().sum()) / 2
    )


def test_the_reference_is_scored_under_the_spec_that_was_sampled(make):
    """The policy is still the reference, so their log-ratio is 0 at any temperature."""
    ppo = make(spec=SamplingSpec(temperature=0.7))
    with torch.no_grad():
        scored = ppo._score([PromptTree(0, "0", (1, 3), ())], 4, 0)
    assert_close(scored.kl, torch.zeros(4, dtype=torch.float64), atol=1e-10, rtol=0)


def test_one_step_advantages_look_one_value_ahead(make):
    """No penalty, no whitening: r_t + V_{t+1} - V_t, and nothing after the last token."""
    ppo = make(kl_coef=0.0, n_steps=1, whiten_advantages=False)
    trees = collate([PromptTree(0, "a", (1, 4), ((5, 6, 2), (7,)))])
    zero = torch.zeros(2, 3, dtype=torch.float64)
    with torch.no_grad():
        batch = ppo.advantages(Scored(trees, zero, zero, torch.tensor([3.0, -1.0])))
        v = ppo.value(trees)
    expected = [[v[0, 1] - v[0, 0], v[0, 2] - v[0, 1], 3 - v[0, 2]], [-1 - v[1, 0], 0.0, 0.0]]
    assert_close(batch.advantages, torch.tensor(expected, dtype=torch.float64))
