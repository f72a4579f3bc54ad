"""What the on-policy objectives share: rewards, ratios, the reference, and their own advantages."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from alignlab.data.rollouts import RolloutBatch
from alignlab.data.trees import PromptTree, StepTotals, collate
from alignlab.errors import ConfigError, DataError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import Scores
from alignlab.objectives import on_policy
from alignlab.objectives.awr import AWR
from alignlab.objectives.cispo import CISPO
from alignlab.objectives.grpo import GRPO
from alignlab.objectives.gspo import GSPO
from alignlab.objectives.metrics import Metric
from alignlab.objectives.on_policy import OnPolicyObjective, Sampling, Scored
from alignlab.objectives.online_dpo import OnlineDPO
from alignlab.objectives.ppo import PPO
from alignlab.objectives.reinforce import REINFORCE
from alignlab.objectives.reinforce_pp import REINFORCEPlusPlus
from alignlab.objectives.rloo import RLOO
from alignlab.rewards.base import Reward
from alignlab.rollouts.sampler import sample

Make = Callable[..., Any]
PROMPTS = [PromptTree(i, str(i), (1, 3 + i), ()) for i in range(4)]
# Two prompts with two completions each, of 3, 1, 2 and 3 tokens: length 1 and full length too.
TREES = collate(
    [PromptTree(0, "a", (1, 4), ((5, 6, 2), (2,))), PromptTree(1, "b", (1,), ((7, 2), (8, 9, 4)))]
)
BFLOAT16 = partial(torch.autocast, "cpu", torch.bfloat16)
RATIO = torch.tensor(  # log pi / pi_ref of each token
    [[0.2, -0.4, 1.0], [0.6, 0, 0], [-0.2, 0.1, 0], [0.3, 0.3, 0.3]], dtype=torch.float64
)
SCORES = torch.tensor([3.0, -1.0, 2.0, 0.0], dtype=torch.float64)


class Length(Reward):
    def __call__(self, prompts: Any, completions: Any) -> Tensor:
        return torch.tensor([float(len(text.split())) for text in completions])


@pytest.fixture(scope="module")
def start(build: Callable[..., Any]) -> Callable[[str], Any]:
    """A policy by its dtype, as it is at the start."""
    built = cache(lambda dtype: build("llama", dtype=dtype))
    return lambda dtype: deepcopy(built(dtype))


@pytest.fixture
def make(start: Callable[[str], Any]) -> Make:
    def objective(kind: type[OnPolicyObjective], **settings: Any) -> OnPolicyObjective:
        spec = settings.pop("spec", SamplingSpec())
        adam = partial(torch.optim.AdamW, lr=1e-2)
        policy = start(settings.pop("dtype", "float64"))
        names = {"drop_equal_groups", "ratio_cap"} & settings.keys()
        own = {name: settings.pop(name) for name in names}
        sampling = Sampling(6, spec, **own)
        return kind(policy, Length(), sampling, optimizer=adam, **settings)

    return objective


def scored() -> Scored:
    return Scored(TREES, RATIO - 1, torch.zeros_like(RATIO) - 1, SCORES)


def test_the_reward_stands_on_the_last_real_token_at_every_length(make: Make) -> None:
    free = make(REINFORCE, kl_coef=0.0)
    rewards = free.token_rewards(scored())
    assert rewards.nonzero().tolist() == [[0, 2], [1, 0], [2, 1]]  # completion 3 scored 0
    assert rewards[[0, 1, 2], [2, 0, 1]].tolist() == [3.0, -1.0, 2.0]
    priced = make(REINFORCE, kl_coef=0.5)
    assert_close(priced.token_rewards(scored()), rewards - 0.5 * RATIO)
    assert_close(priced.token_rewards(scored(), penalised=False), rewards)


def test_a_completions_reward_pays_for_all_its_tokens(make: Make) -> None:
    """3 - 0.5 * 0.8, -1 - 0.5 * 0.6, 2 + 0.5 * 0.1 and 0 - 0.5 * 0.9."""
    rewards = make(RLOO, kl_coef=0.5).completion_rewards(scored())
    assert_close(rewards, torch.tensor([2.6, -1.3, 2.05, -0.45], dtype=torch.float64))


def test_reinforce_takes_what_comes_after_a_token_less_the_mean(make: Make) -> None:
    """Returns 2.6, 2.7, 2.5 | -1.3 | 2.05, 1.95 | -0.45, -0.3, -0.15; their mean is 9.6 / 9."""
    batch = make(REINFORCE, kl_coef=0.5).advantages(scored())
    mean = 9.6 / 9
    returns = [[2.6, 2.7, 2.5], [-1.3, mean, mean], [2.05, 1.95, mean], [-0.45, -0.3, -0.15]]
    assert_close(batch.advantages, torch.tensor(returns, dtype=torch.float64) - mean)


@pytest.mark.parametrize("kind", [RLOO, partial(AWR, beta=1.0)])
def test_others_of_the_prompt_are_the_baseline(make: Make, kind: Any) -> None:
    """Of two completions the other one: 2.6 + 1.3 = 3.9 and 2.05 + 0.45 = 2.5."""
    batch = make(kind, kl_coef=0.5).advantages(scored())
    rows = [[3.9, 3.9, 3.9], [-3.9, 0, 0], [2.5, 2.5, 0], [-2.5, -2.5, -2.5]]
    assert_close(batch.advantages, torch.tensor(rows, dtype=torch.float64))


def test_grpo_keeps_the_penalty_out_of_the_reward(make: Make) -> None:
    """3 and -1 lie one deviation from 1; unscaled they lie 2 from it."""
    grpo = make(partial(GRPO, clip_epsilon=0.2), kl_coef=0.5)
    ones = [[1.0, 1, 1], [-1, 0, 0], [1, 1, 0], [-1, -1, -1]]
    batch = grpo.advantages(scored())
    assert_close(batch.advantages, torch.tensor(ones, dtype=torch.float64))
    assert_close(batch.ref_token_logps, torch.zeros_like(RATIO) - 1)
    unscaled = make(partial(GRPO, clip_epsilon=0.2), scale_by_std=False).advantages(scored())
    assert unscaled.advantages[:, 0].tolist() == [2.0, -2.0, 1.0, -1.0]


@pytest.mark.parametrize("kind", [partial(GRPO, clip_epsilon=0.2, kl_in="reward"), GSPO, CISPO])
def test_a_penalty_in_the_reward_is_standardised_with_it(make: Make, kind: Any) -> None:
    """2.6 and -1.3, 2.05 and -0.45, as RLOO's: half their differences, 1.95 and 1.25."""
    batch = make(kind, kl_coef=0.5, scale_by_std=False).advantages(scored())
    rows = [[1.95, 1.95, 1.95], [-1.95, 0, 0], [1.25, 1.25, 0], [-1.25, -1.25, -1.25]]
    assert_close(batch.advantages, torch.tensor(rows, dtype=torch.float64))
    ones = make(kind, kl_coef=0.5).advantages(scored()).advantages
    assert_close(ones, torch.tensor(rows, dtype=torch.float64).sign())


def test_grpo_puts_the_penalty_in_one_place_only(make: Make) -> None:
    """In the reward it is not in the loss; in the loss it is k3, weighted or not."""
    batch = make(partial(GRPO, clip_epsilon=0.2)).advantages(scored())
    now = Scores(RATIO - 1, TREES.loss_mask, RATIO.sum(1), TREES.completion_lengths, TREES.group)
    stale = replace(batch, old_token_logps=batch.old_token_logps - math.log(1.1))

    def penalty(kl_in: str, **settings: Any) -> float:
        grpo = make(partial(GRPO, clip_epsilon=0.2), kl_in=kl_in, kl_coef=0.5, **settings)
        with_it = grpo.losses(stale, now)[0]
        grpo.kl_coef.fill_(0)
        return float(with_it - grpo.losses(stale, now)[0])

    k3 = [[math.exp(-x) - 1 + x for x in row] for row in RATIO.tolist()]
    by_hand = 0.5 * (sum(k3[0]) / 3 + k3[1][0] + sum(k3[2]) / 2 + sum(k3[3]) / 3)
    assert penalty("reward") == 0
    assert penalty("loss") == pytest.approx(by_hand)
    assert penalty("weighted_loss") == pytest.approx(1.1 * by_hand)
    assert penalty("loss", normaliser="tokens") == pytest.approx(0.5 * sum(map(sum, k3)))
    with pytest.raises(
        ConfigError, match="kl_in must be one of reward, loss, weighted_loss, got 'both'"
    ):
        penalty("both")


def test_reinforce_pp_whitens_penalised_returns_of_the_whole_phase(make: Make) -> None:
    """Centred rewards 2, -2 | 1, -1 less 0.5 * RATIO from there on; mean 0.6 / 9, variance 2.23."""
    batch = make(REINFORCEPlusPlus, kl_coef=0.5).advantages(scored())
    returns = torch.tensor(
        [[1.6, 1.7, 1.5], [-2.3, 0, 0], [1.05, 0.95, 0], [-1.45, -1.3, -1.15]], dtype=torch.float64
    )
    whitened = ((returns - 0.6 / 9) / math.sqrt(2.23)).masked_fill(~TREES.loss_mask, 0)
    assert_close(batch.advantages, whitened)


@pytest.mark.parametrize(
    "kind", [PPO, partial(GRPO, clip_epsilon=0.2), partial(GSPO, clip_epsilon=0.2),
             REINFORCEPlusPlus]
)  # fmt: skip
@pytest.mark.parametrize(("high", "weight"), [(0.28, 1.25), (None, 1.2)])
@torch.no_grad()
def test_the_range_upwards_may_be_wider(
    make: Make, kind: Any, high: float | None, weight: float
) -> None:
    """Every token became 1.25 times as likely, and all have advantage 1."""
    objective = make(kind, clip_epsilon_high=high, kl_coef=0.0)
    now = objective.policy(TREES, objective.want)
    mask = TREES.loss_mask
    old = now.token_logps.detach() - math.log(1.25) * mask
    batch = RolloutBatch(TREES, old, mask.double(), 0 * old, 0 * old, old)
    means = objective.losses(batch, now)[1]
    loss = means["policy_loss"]
    assert float(loss.value if isinstance(loss, Metric) else loss) == pytest.approx(-weight)
    share = means["clip_fraction"]
    assert float(share.value if isinstance(share, Metric) else share) == (high is None)


def test_the_mean_over_tokens_is_over_those_of_the_step(make: Make) -> None:
    """A micro-batch's sum is divided by the tokens of the whole step, not by its completions."""
    objective = make(partial(GRPO, clip_epsilon=0.2), normaliser="tokens")
    objective.log_step = lambda means, weight: None
    objective.normalised = lambda loss_sum, total: torch.tensor(float(total))
    batch = objective.collect(PROMPTS, 2, 0)
    batch.trees.totals = StepTotals(prompts=10, completions=20, tokens=300)
    assert float(objective.training_step(batch, 0)) == 300


class Given(Reward):
    """Four prompts with two completions each; those of the first and the third are equal."""

    def __call__(self, prompts: Any, completions: Any) -> Tensor:
        return torch.tensor([1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 0.0, 5.0])


DROPPING = [
    RLOO, partial(AWR, beta=1.0), partial(GRPO, clip_epsilon=0.2), GSPO, CISPO, REINFORCEPlusPlus,
    partial(GRPO, clip_epsilon=0.2, normaliser="tokens"),
]  # fmt: skip


def dropping(make: Make, kind: Any) -> tuple[Any, dict[str, Metric]]:
    """An objective outside a trainer, and what it logs."""
    objective, logged = make(kind, kl_coef=0.3), dict[str, Metric]()
    objective.reward = Given()
    objective.sampling = replace(objective.sampling, drop_equal_groups=True)
    objective.log_step = lambda means, weight: logged.update(means)
    objective.normalised = lambda loss_sum, total: loss_sum
    return objective, logged


@pytest.mark.parametrize("kind", DROPPING, ids=str)
def test_groups_with_equal_rewards_do_not_train(make: Make, kind: Any) -> None:
    """What is left has the loss that it has alone, and the share that is kept is reported."""
    objective, logged = dropping(make, kind)
    batch = objective.collect(PROMPTS, 2, 0)
    assert objective.phase["kept"] == 0.5
    assert batch.trees.loss_mask.any(1).tolist() == [False, False, True, True] * 2
    with torch.no_grad():  # stale samples
        objective.policy.model.get_output_embeddings().weight.mul_(1.05)
    found = objective.training_step(batch, 0)
    means = {name: float(metric.value) for name, metric in logged.items()}
    alone = objective.training_step(batch.select(torch.tensor([1, 3])), 0)
    assert_close(found, alone)
    assert means == pytest.approx({name: float(metric.value) for name, metric in logged.items()})


@pytest.mark.parametrize("kind", DROPPING, ids=str)
def test_a_micro_batch_of_dropped_groups_only_moves_nothing(make: Make, kind: Any) -> None:
    """Its loss and gradients are 0 and not missing: other ranks wait for them."""
    objective, logged = dropping(make, kind)
    batch = objective.collect(PROMPTS, 2, 0).select(torch.tensor([0, 2]))
    batch.first = True
    loss = objective.training_step(batch, 0)
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(float(metric.value) == 0 for metric in logged.values())
    for weight in objective.policy.parameters():
        assert weight.grad is not None
        assert not weight.grad.any()


@pytest.mark.parametrize("kind", [REINFORCE, PPO, partial(OnlineDPO, labels="soft")], ids=str)
def test_dropping_groups_needs_an_objective_that_compares_them(make: Make, kind: Any) -> None:
    with pytest.raises(ConfigError, match=r"Leave out model\.init_args\.sampling\.drop_equal"):
        make(kind, drop_equal_groups=True)


def test_a_cap_that_an_objective_does_not_read_is_refused(make: Make) -> None:
    make(RLOO, ratio_cap=2.0)
    make(REINFORCE, ratio_cap=2.0)
    with pytest.raises(
        ConfigError, match=r"PPO does not cap importance weights, got ratio_cap 2\.0"
    ):
        make(PPO, ratio_cap=2.0)


@pytest.mark.parametrize(
    "kind", [RLOO, partial(AWR, beta=1.0), partial(GRPO, clip_epsilon=0.2)], ids=str
)
def test_groups_need_two_completions(
    make: Make, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """In a group of one every advantage is 0: nothing would be learned, and nothing said."""
    monkeypatch.setattr(on_policy, "sample", None)  # nothing is sampled before that is known
    with pytest.raises(ConfigError, match=r"at least 2 .*got 1\. Set data.*samples_per_prompt"):
        make(kind).collect(PROMPTS, 1, 0)


def test_approx_kl_has_the_divergence_from_the_old_policy_as_its_mean(make: Make) -> None:
    """Over every token that the old policy could have drawn, at its probability."""
    objective, said = make(REINFORCE), dict[str, Metric]()
    objective.log_step = lambda means, weight: said.update(means)
    objective.normalised = lambda loss_sum, total: loss_sum
    vocabulary = range(objective.policy.model.config.vocab_size)
    every = collate([PromptTree(0, "a", (1, 3), tuple((token,) for token in vocabulary))])
    with torch.no_grad():
        old = objective.policy(every).token_logps[:, 0]
        for weight in objective.policy.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        new = objective.policy(every).token_logps[:, 0]
    mean = 0.0
    for token in vocabulary:
        tree = collate([PromptTree(0, "a", (1, 3), ((token,),))])
        objective.training_step(
            RolloutBatch(tree, old[token].view(1, 1), torch.zeros(1, 1)), batch_idx=0
        )
        mean += float(old[token].exp() * said["approx_kl"].value)
    expected = float((old.exp() * (old - new)).sum())
    assert expected > 0.01
    assert float((new.exp() * (new - old)).sum()) != pytest.approx(expected, rel=0.01)
    assert mean == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("kind", "weight"), [(RLOO, 8.0), (REINFORCE, 2.0)])
def test_an_importance_weight_can_be_capped(make: Make, kind: Any, weight: float) -> None:
    """Every token became twice as likely, a completion of three 8 times; capped, both weigh 1.5."""
    tree = collate([PromptTree(0, "a", (1, 3), ((4, 5, 6),))])
    logps = torch.full((1, 3), -1.0)
    batch = RolloutBatch(tree, logps - math.log(2), torch.ones(1, 3))
    now = Scores(logps, tree.loss_mask, logps.sum(1), tree.loss_mask.sum(1), tree.group)
    free, capped = make(kind), make(kind)
    capped.sampling = replace(capped.sampling, ratio_cap=1.5)
    loss, limited = free.losses(batch, now)[0], capped.losses(batch, now)[0]
    assert float(loss) == pytest.approx(weight * 3)
    assert float(limited) == pytest.approx(1.5 * 3)


@pytest.mark.parametrize(
    "setting",
    [
        {"max_new_tokens": 0},
        {"score_batch_size": 0},
        {"batch_size": -1},
        {"ratio_cap": 0.0},
        {"ratio_cap": math.nan},
        {"missing_eos_penalty": -1.0},
        {"spec": SamplingSpec(temperature=0.0)},
    ],
    ids=str,
)
def test_sampling_that_cannot_work_is_refused(setting: dict[str, Any]) -> None:
    name = "spec.temperature" if "spec" in setting else next(iter(setting))
    with pytest.raises(ConfigError, match=rf"sampling\.{name} >"):
        Sampling(**{"max_new_tokens": 4} | setting)


@pytest.mark.parametrize("number", [-1.0, math.nan])
def test_a_penalty_below_zero_names_its_key(make: Make, number: float) -> None:
    with pytest.raises(ConfigError, match=r"model\.init_args\.kl_coef"):
        make(RLOO, kl_coef=number)
    with pytest.raises(ConfigError, match=r"model\.init_args\.kl_target"):
        make(RLOO, kl_target=number)


class Wrong(Reward):
    def __init__(self, scores: Any) -> None:
        self.scores = scores

    def __call__(self, prompts: Any, completions: Any) -> Tensor:
        return self.scores


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (torch.zeros(1), r"scores of shape \(1,\) for 8"),
        (torch.zeros(8, 1), r"scores of shape \(8, 1\) for 8"),
        ([0.0] * 8, "scores are a list"),
        (torch.tensor([0.0, math.nan] * 4), "4 of 8 scores are not finite, e.g. nan"),
    ],
    ids=["one", "column", "list", "nan"],
)
def test_a_reward_that_breaks_its_word_is_named(make: Make, scores: Any, said: str) -> None:
    objective = make(RLOO)
    objective.reward = Wrong(scores)
    with pytest.raises(DataError, match=f"Wrong: {said}"):
        objective.collect(PROMPTS, 2, 0)


def first_step(objective: OnPolicyObjective) -> None:
    """One step on fresh rollouts, outside a trainer."""
    objective.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    objective.normalised = lambda loss_sum, total: loss_sum / total  # type: ignore[method-assign]
    batch = objective.collect(PROMPTS, 2, 0)
    batch.first = True
    objective.training_step(batch, 0).backward()


@pytest.mark.parametrize("old_logps", ["rescored", "sampled"])
def test_a_temperature_in_one_place_only_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch, old_logps: Any
) -> None:
    """The sampler at 1 and the scoring at 0.7: what reports negative divergences elsewhere."""
    objective = make(RLOO)
    objective.sampling = Sampling(6, SamplingSpec(temperature=0.7), old_logps=old_logps)
    first_step(objective)

    def plain(*args: Any, **settings: Any) -> Any:
        return sample(*args, **(settings | {"spec": SamplingSpec()}))

    monkeypatch.setattr("alignlab.objectives.on_policy.sample", plain)
    objective = make(RLOO)
    objective.sampling = Sampling(6, SamplingSpec(temperature=0.7), old_logps=old_logps)
    with pytest.raises(ConfigError, match="sampled from another distribution than is trained"):
        objective.collect(PROMPTS, 2, 0)


@pytest.mark.parametrize(("precision", "forwards"), [(nullcontext, [1, 0]), (BFLOAT16, [1, 1])])
def test_old_log_probs_are_the_samplers_where_they_are_exact(
    make: Make, monkeypatch: pytest.MonkeyPatch, precision: Any, forwards: list[int]
) -> None:
    """The first phase is compared with the forward; in bfloat16 each phase is rescored by it."""
    objective, drawn, found = make(RLOO, dtype="float32"), list[Any](), list[int]()
    objective.own_precision = precision
    calls = list[int]()
    objective.policy.register_forward_hook(lambda *_: calls.append(1))

    def spy(*args: Any, **settings: Any) -> Any:
        drawn.append(sample(*args, **settings))
        return drawn[-1]

    monkeypatch.setattr(on_policy, "sample", spy)
    for rollout in range(2):
        batch = objective.collect(PROMPTS, 2, rollout)
        found.append(len(calls) - sum(found))
    assert found == forwards
    own = torch.cat([logps for row in drawn[-1].token_logps for logps in row])
    old = batch.old_token_logps[batch.trees.loss_mask]
    assert torch.equal(old, own) == (forwards[1] == 0)
    assert_close(old, own, atol=0.2, rtol=0)


def test_a_policy_that_moves_between_rollout_and_update_is_refused(make: Make) -> None:
    objective = make(RLOO)
    collect = objective.collect

    def moved(*args: Any) -> Any:
        batch = collect(*args)
        with torch.no_grad():
            objective.policy.model.get_output_embeddings().weight.mul_(1.1)
        return batch

    objective.collect = moved
    with pytest.raises(FloatingPointError, match="see different models"):
        first_step(objective)


@pytest.mark.parametrize("spec", [SamplingSpec(top_k=8), SamplingSpec(0.7, top_p=0.9)], ids=str)
@pytest.mark.parametrize(
    "kind", [RLOO, partial(GRPO, clip_epsilon=0.2), partial(OnlineDPO, labels="soft")], ids=str
)
def test_samples_of_some_tokens_only_are_refused_at_the_start(
    make: Make, kind: Any, spec: SamplingSpec
) -> None:
    """A token that is dropped after an update, or by the reference, would have log-prob -inf."""
    with pytest.raises(ConfigError, match=r"cannot learn .* Set top_k to 0 and top_p to 1 in mod"):
        make(kind, spec=spec)


@pytest.mark.parametrize("kind", [REINFORCE, RLOO])
def test_stale_minibatches_are_weighted_by_their_ratio(make: Make, kind: Any) -> None:
    """Halving the old probability of every token doubles a token's term, 2^n a completion's."""
    objective = make(kind)
    batch = objective.collect(PROMPTS, 2, 0)
    scores = objective.policy(batch.trees)
    stale = replace(batch, old_token_logps=batch.old_token_logps - math.log(2))
    terms = batch.advantages * scores.token_logps
    terms = terms.sum(1) * 2.0**batch.trees.completion_lengths if kind is RLOO else 2 * terms
    assert_close(objective.losses(stale, scores)[0], -terms.sum())
    assert_close(objective.losses(batch, scores)[0], -(batch.advantages * scores.token_logps).sum())


def test_rollouts_of_a_uniform_policy_have_the_entropy_of_its_vocabulary(make: Make) -> None:
    objective = make(RLOO)
    objective.policy.model.lm_head.weight.data.zero_()
    objective.collect(PROMPTS, 2, rollout=0)
    assert objective.phase["entropy"] == pytest.approx(math.log(32))


def test_training_moves_the_policy_and_not_its_reference(make: Make) -> None:
    objective = make(RLOO, kl_coef=0.1)
    trees = collate([PromptTree(0, "a", (1, 4), ((5, 6, 2), (7,)))])
    before = objective.reference.token_logps(trees)
    first_step(objective)
    objective.make_optimizer(objective.parameter_groups()).step()
    with torch.no_grad():
        assert not torch.allclose(objective.policy(trees).token_logps, before, atol=1e-3)
    assert torch.equal(objective.reference.token_logps(trees), before)
    own = {p.data_ptr() for p in objective.policy.parameters()}
    assert not own & {p.data_ptr() for p in objective.reference.parameters()}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (REINFORCE, {"kl_coef": -0.1}, "kl_coef >= 0"),
        (RLOO, {"kl_target": 0.0}, "kl_target > 0"),
        (GRPO, {"clip_epsilon": 0.0}, "GRPO needs clip_epsilon > 0"),
        (GRPO, {"clip_epsilon": 0.2, "normaliser": -1.0}, "GRPO needs normaliser > 0"),
        (AWR, {"beta": 0.0}, "AWR needs beta > 0"),
        (AWR, {"beta": 1.0, "weight_cap": 0.0}, "AWR needs weight_cap > 0"),
    ],
)
def test_impossible_settings_name_their_key(
    make: Make, kind: Any, settings: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(kind, **settings)


def test_a_rank_samples_and_scores_its_own_prompts(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the second of two, whose first one draws the same here."""
    objective, asked, scored = make(RLOO), list[list[str]](), list[int]()

    def spy(policy: Any, prompts: Any, **settings: Any) -> Any:
        asked.append([tree.id for tree in prompts])
        return sample(policy, prompts, **settings)

    def count(part: Any) -> Tensor:
        scored.append(len(part.prompt_lengths))
        return objective.policy(part).token_logps

    monkeypatch.setattr(on_policy, "sample", spy)
    monkeypatch.setattr(on_policy, "own_share", lambda items: items[len(items) // 2 :])
    monkeypatch.setattr(on_policy, "from_all", lambda part: [part, part])
    monkeypatch.setattr(on_policy, "rows_of_all", lambda rows: torch.cat([rows, rows]))
    batch = objective.collect(PROMPTS, 2, 0)
    assert asked == [["2", "3"]]
    assert batch.trees.ids == ["2", "3"] * 2
    with torch.no_grad():
        objective.in_chunks(batch.trees, count)
    assert scored == [2]


@pytest.mark.parametrize("kind", [RLOO, PPO])
def test_a_reward_with_weights_is_no_part_of_what_is_trained(start: Make, kind: Any) -> None:
    """A module as an attribute of a module is one of its parts, for optimizers and checkpoints."""

    class Network(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(1, 1)
            self.register_buffer("table", torch.ones(2))

        def __call__(self, prompts: Any, completions: Any) -> Tensor:
            lengths = torch.tensor([[float(len(text))] for text in completions])
            return super().__call__(lengths)[:, 0].detach()

    reward = Network()
    objective = kind(start("float32"), reward, Sampling(4), partial(torch.optim.AdamW, lr=1e-3))
    groups = objective.parameter_groups()
    trained = [p for g in groups for p in (g["params"] if isinstance(g, dict) else [g])]
    assert not {*map(id, trained)} & {*map(id, reward.parameters())}
    assert not any(p.requires_grad for p in reward.parameters())
    assert not any(name.startswith("reward.") for name in objective.kept_names())
    assert "reward_mean" in objective.kept_names()
