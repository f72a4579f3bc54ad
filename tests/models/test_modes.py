"""Dropout that was asked for acts where something trains, and wherever something is read not."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.evaluation.scoring import completion_logps, evaluating
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import CachedReference, FrozenReference, Lora, Policy, ScoreModel
from alignlab.models.modes import reading
from alignlab.models.reference import make_reference
from alignlab.models.value import ValueFunction
from alignlab.objectives.dpo import DPO
from alignlab.objectives.kto import KTO
from alignlab.objectives.metrics import Metric
from alignlab.objectives.on_policy import Sampling
from alignlab.objectives.ppo import PPO
from alignlab.objectives.rm import RewardModel
from alignlab.rewards.base import Reward, checked_rewards
from alignlab.rewards.model import ModelReward, score_trees
from alignlab.rollouts.sampler import sample
from tests.rollouts.hf import generate

SGD = partial(torch.optim.SGD, lr=0.0)
TREES = [PromptTree(0, "a", (1, 5, 6), ((7, 8, 2), (9, 2))), PromptTree(1, "b", (1, 4), ((4,),))]
PROMPTS = [PromptTree(i, str(i), (1, 3 + i), ()) for i in range(4)]
DRAWS: dict[str, Any] = {"samples": 2, "max_new_tokens": 5, "seed": 0, "stop_ids": [2]}


class Network(nn.Module, Reward):
    """A user's own reward, in train mode as modules are when they are made."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def __call__(self, prompts: Any, completions: Any) -> Tensor:
        assert not self.training
        return self.drop(torch.ones(len(completions)))


@pytest.fixture(scope="module")
def folder(build: Callable[..., Policy], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("noisy")
    build("gpt2", dtype="float32").save(root / "base")
    adapted = Policy(str(root / "base"), lora=Lora(rank=2))
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.normal_(generator=torch.Generator().manual_seed(0))
    adapted.save(root / "adapted")
    return root


def noisy(folder: Path, name: str = "base", **settings: Any) -> Policy:
    """A policy that drops half of everything while it trains, in train mode."""
    return Policy(str(folder / name), dropout=0.5, **settings)


def referred(policy: Policy, _: Path) -> Tensor:
    return make_reference(policy, "auto").token_logps(collate(TREES))


def cached(policy: Policy, folder: Path) -> Tensor:
    return CachedReference(policy, TREES, folder / str(policy.training)).table


def drawn(policy: Policy, _: Path) -> Tensor:
    found = sample(policy, PROMPTS, spec=SamplingSpec(), **DRAWS)
    return torch.cat([x for row in found.token_logps for x in row])


def generated(policy: Policy, _: Path) -> Tensor:
    found = generate(policy, PROMPTS, spec=SamplingSpec(), **DRAWS)
    return torch.cat([x for row in found.token_logps for x in row])


def evaluated(policy: Policy, _: Path) -> Tensor:
    with evaluating(policy):
        return completion_logps(policy, TREES, spec=SamplingSpec(), batch_size=4)


def rolled_out(policy: Policy, _: Path) -> Tensor:
    """Old log-probs, the reference's and old values of a phase."""
    phase = PPO(policy, Network(), Sampling(5), SGD, detach_value=False)
    with torch.no_grad():
        phase.value.head.weight.fill_(0.3)
    batch = phase.collect(PROMPTS, 2, 0)
    assert batch.old_values is not None
    assert batch.ref_token_logps is not None
    return torch.stack([batch.old_token_logps, batch.ref_token_logps, batch.old_values])


def watched(policy: Policy, _: Path) -> Tensor:
    """KTO's divergence, here of the policy to itself."""
    objective = KTO(policy, SGD)
    objective._watch(collate(TREES))
    assert float(objective.kl_sums[0].abs()) < 1e-5
    return objective.kl_sums


READERS = [referred, cached, drawn, generated, evaluated, rolled_out, watched]


@pytest.mark.parametrize("read", READERS)
def test_what_is_read_is_read_without_dropout(folder: Path, tmp_path: Path, read: Any) -> None:
    """Equal to what a policy without any dropout says; and the policy trains on in train mode."""
    policy = noisy(folder)
    assert policy.has_dropout
    found = read(policy, tmp_path)
    assert all(module.training for module in policy.modules())
    assert not found.requires_grad
    assert torch.equal(found, read(Policy(str(folder / "base")).eval(), tmp_path))


@pytest.mark.parametrize(("name", "lora"), [("adapted", None), ("base", Lora(rank=2, dropout=0.5))])
def test_references_beside_adapters_have_no_dropout(
    folder: Path, tmp_path: Path, name: str, lora: Lora | None
) -> None:
    policy = noisy(folder, name, lora=lora)
    found = referred(policy, tmp_path)
    assert torch.equal(found, referred(Policy(str(folder / name)).eval(), tmp_path))
    assert all(module.training for module in policy.modules())


@pytest.mark.parametrize("layout", ["flat", "auto"])
def test_scorers_train_with_the_dropout_they_were_given_and_score_without(
    folder: Path, layout: Any
) -> None:
    scorer = ScoreModel(str(folder / "base"), dropout=0.5, layout=layout)
    assert all(module.training for module in scorer.modules())
    assert not torch.equal(scorer.scores(collate(TREES)), scorer.scores(collate(TREES)))
    exact = score_trees(ScoreModel(str(folder / "base"), layout=layout), TREES, 4)
    assert torch.equal(score_trees(scorer, TREES, 4), exact)
    scorer.save(folder / "rm")
    reward = ModelReward(str(folder / "rm"), device="cpu")
    texts = ["w4 w5", "w6"], [" w7", " w8 w9"]
    before = reward(*texts)
    reward.model.train()  # as training would leave it
    assert torch.equal(reward(*texts), before)


def test_a_users_own_network_is_read_in_eval_mode() -> None:
    reward = Network()
    assert checked_rewards(reward, ["a"] * 8, ["b"] * 8).tolist() == [1.0] * 8
    assert reward.training


class Loop:
    """As much of a trainer as the start of a training asks for."""

    train_dataloader = None


def start(objective: Any) -> None:
    objective._trainer = Loop()
    objective.on_train_start()


def test_what_trains_is_put_in_train_mode_and_the_reference_is_not(folder: Path) -> None:
    """Lightning leaves modes as they are: a policy in eval mode would train without its dropout."""
    objective = DPO(noisy(folder).eval(), SGD)
    start(objective)
    assert all(module.training for module in objective.policy.modules())
    assert isinstance(objective.reference, FrozenReference)
    assert not any(module.training for module in objective.reference.policy.modules())
    scorer = RewardModel(ScoreModel(str(folder / "base"), dropout=0.5).eval(), SGD)
    start(scorer)
    assert all(module.training for module in scorer.model.modules())
    network = ScoreModel(str(folder / "base"), dropout=0.5).eval()
    ppo = PPO(noisy(folder).eval(), Network(), Sampling(5), SGD, value=network)
    start(ppo)
    assert all(m.training for m in (*network.modules(), *ppo.policy.modules()))


def test_a_rollout_read_without_dropout_is_no_other_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first update of a phase is checked without dropout, and made with it."""
    objective = PPO(noisy(folder), Network(), Sampling(5), SGD)
    batch = objective.collect(PROMPTS, 2, 0)
    said: dict[str, Metric] = {}
    monkeypatch.setattr(objective, "log_step", lambda means, weight: said.update(means))
    scores = objective.policy(batch.trees)
    objective._check_ratio(batch, scores)
    assert float(said["first_log_ratio"].value) < 1e-4
    gap = (scores.token_logps.detach() - batch.old_token_logps)[scores.mask]
    assert float(gap.abs().max()) > 0.01
    with torch.no_grad():
        objective.policy.model.transformer.wte.weight.mul_(1.1)
    with pytest.raises(FloatingPointError, match="see different models"):
        objective._check_ratio(batch, scores)


def test_every_module_is_left_in_the_mode_that_it_had() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2)))
    model[1].eval()
    modes = [module.training for module in model.modules()]

    def fail() -> None:
        with reading(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"model_type": "opt", "layerdrop": 0.5, "dropout": 0.5}, ["layerdrop", "dropout"]),
        ({"model_type": "phimoe", "router_jitter_noise": 0.1}, ["router_jitter_noise"]),
        ({"model_type": "gemma3", "text_config": {"attention_dropout": 0.5}}, []),
    ],
)
def test_all_that_acts_at_random_in_training_is_overridden(
    config: dict[str, Any], names: list[str]
) -> None:
    from transformers import AutoConfig

    from alignlab.models.loading import without_dropout

    values = dict(config)
    settings = AutoConfig.for_model(values.pop("model_type"), **values)
    changed = without_dropout(settings, 0.0)
    assert [getattr(changed, name) for name in names] == [0.0] * len(names)
    assert changed.get_text_config().to_dict().get("attention_dropout", 0.0) == 0.0


def passes(kind: Any, source: str, **settings: Any) -> tuple[dict[str, Tensor], int]:
    """Gradients by name, with dropout drawn after a fixed seed, and forwards of the first layer."""
    calls: list[int] = []
    model = kind(source, **settings)
    layer = next(m for m in model.modules() if "Block" in type(m).__name__)
    layer.ln_1.register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(0)
    out = model(collate(TREES))
    (out.logps if kind is Policy else out).square().sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert any(bool(grad.any()) for grad in found.values())
    return found, len(calls)


@pytest.mark.parametrize("kind", [Policy, ScoreModel])
@pytest.mark.parametrize("lora", [None, Lora(rank=2, dropout=0.5)])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_activations_that_are_computed_again_give_the_same_gradients(
    folder: Path, kind: Any, lora: Lora | None, dropout: float
) -> None:
    settings = {"dtype": "float64", "layout": "flat", "lora": lora, "dropout": dropout}
    wanted, once = passes(kind, str(folder / "base"), **settings)
    found, twice = passes(kind, str(folder / "base"), activation_checkpointing=True, **settings)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12)
    assert twice == 2 * once


def test_activations_are_computed_again_with_the_adapters_of_their_forward(folder: Path) -> None:
    """Values read another set of adapters than the policy, which is in use by the backward pass."""
    found = []
    for again in (False, True):
        settings: Any = {"dtype": "float64", "lora": Lora(rank=2), "dropout": 0.5}
        policy = Policy(str(folder / "base"), activation_checkpointing=again, **settings)
        value = ValueFunction(policy, "adapter", detach=False)
        torch.nn.init.normal_(value.head.weight, generator=torch.Generator().manual_seed(0))
        for name, weight in policy.named_parameters():
            if "lora_" in name:
                generator = torch.Generator().manual_seed(sum(map(ord, name)))
                torch.nn.init.normal_(weight, std=0.3, generator=generator)
        torch.manual_seed(0)
        loss = policy(collate(TREES)).logps.sum() + value(collate(TREES)).square().sum()
        loss.backward()
        found.append({n: p.grad for n, p in policy.named_parameters() if p.grad is not None})
        assert all(bool(gradient.any()) for gradient in found[-1].values())
        assert all(p.requires_grad for n, p in policy.named_parameters() if "lora_" in n)
    assert sorted(found[0]) == sorted(found[1])
    for name, wanted in found[0].items():
        torch.testing.assert_close(found[1][name], wanted, rtol=0, atol=1e-12)


def test_activations_are_kept_where_nothing_trains(folder: Path, tmp_path: Path) -> None:
    """In rollouts and in the frozen reference; and a saved model does not ask for it."""
    policy = Policy(str(folder / "base"), activation_checkpointing=True)
    torch.testing.assert_close(drawn(policy, tmp_path), drawn(noisy(folder), tmp_path))
    referred(policy, tmp_path)
    policy.save(tmp_path)
    assert "checkpointing" not in (tmp_path / "config.json").read_text()
    assert not policy.model.transformer.wte._forward_hooks  # which make its output need gradients


def test_an_architecture_that_cannot_compute_again_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.GPT2LMHeadModel.supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError, match=r"activations of a GPT2LMHeadModel again\. Leave it out"):
        Policy(str(folder / "base"), activation_checkpointing=True)
