"""What a training compares itself with is computed in the training's own precision."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from alignlab.data.modules import PreferenceData
from alignlab.data.rollout_data import RolloutData
from alignlab.data.rollouts import RolloutBatch
from alignlab.data.trees import collate
from alignlab.errors import ConfigError
from alignlab.models import CachedReference, Policy, ScoreModel
from alignlab.objectives.awr import AWR
from alignlab.objectives.dpo import DPO
from alignlab.objectives.grpo import GRPO
from alignlab.objectives.on_policy import OnPolicyObjective, Sampling
from alignlab.objectives.online_dpo import OnlineDPO
from alignlab.objectives.ppo import PPO
from alignlab.objectives.reinforce import REINFORCE
from alignlab.objectives.rloo import RLOO
from alignlab.rewards.base import Reward
from alignlab.rollouts.sampler import sample

ADAM = partial(torch.optim.AdamW, lr=1e-2)
ON_POLICY: dict[str, Callable[..., OnPolicyObjective]] = {
    "ppo": PPO,
    "reinforce": REINFORCE,
    "rloo": RLOO,
    "grpo": partial(GRPO, clip_epsilon=0.2),
    "awr": partial(AWR, beta=1.0),
    "online_dpo": partial(OnlineDPO, labels="soft"),
}


class Count(Reward):
    """Counts words, and remembers whether it was asked inside autocast."""

    def __init__(self) -> None:
        self.autocast: set[bool] = set()

    def __call__(self, prompts: Any, completions: Any) -> Tensor:
        self.autocast.add(torch.is_autocast_enabled("cpu"))
        return torch.tensor([float(len(text.split())) for text in completions])


class FirstBatch(L.Callback):
    """Keeps the first batch, and what the policy says of it in bfloat16 and in float32."""

    batch: RolloutBatch
    mixed: Tensor
    exact: Tensor

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 0:
            self.batch = batch
            with torch.no_grad():
                self.exact = module.policy(batch.trees).token_logps
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    self.mixed = module.policy(batch.trees).token_logps
                    if isinstance(module, PPO):
                        self.value = module.value(batch.trees)


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": " ".join(f"w{3 + (5 * i + j) % 27}" for j in range(3))} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def fit(
    objective: Any, data: Any, folder: Path, *callbacks: L.Callback, precision: Any = "bf16-mixed"
) -> None:
    trainer = L.Trainer(
        max_steps=3,
        precision=precision,
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(objective, data)


@pytest.fixture
def start(build: Any, tmp_path: Path) -> str:
    build("llama", dtype="float32").save(tmp_path / "lm")
    return str(tmp_path / "lm")


def away(first: Tensor, second: Tensor) -> float:
    return float((first - second).square().mean().sqrt())


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Lightning's advice on loggers and loaders
@pytest.mark.parametrize("name", ON_POLICY)
def test_a_rollout_is_scored_in_the_precision_of_the_step(
    start: str, prompts: str, tmp_path: Path, name: str
) -> None:
    """The policy's and the reference's log-probs and the values are the step's own in bf16-mixed.

    Old and reference log-probs are of one batch and one model, so they agree to the last bit.
    """
    reward, seen = Count(), FirstBatch()
    value = {"value": ScoreModel(start)} if name == "ppo" else {}
    objective = ON_POLICY[name](
        Policy(source=start), reward, Sampling(6, stop_at_eos=False), optimizer=ADAM, **value
    )
    data = RolloutData(prompts, 8, 4, 2, inner_epochs=1)
    fit(objective, data, tmp_path, seen)
    old, ref = seen.batch.old_token_logps, seen.batch.ref_token_logps
    assert ref is not None
    assert away(seen.exact, seen.mixed) > 5e-3
    assert away(old, seen.mixed) < 0.2 * away(seen.exact, seen.mixed)
    assert torch.equal(old, ref)
    assert reward.autocast == {False}  # same texts, same scores, whatever the trainer does
    if name == "ppo":
        assert seen.batch.old_values is not None
        with torch.no_grad():
            assert away(seen.batch.old_values, seen.value) < 1e-2 * float(seen.value.std())


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_drawn_log_probs_are_of_the_precision_of_the_step_too(
    start: str, prompts: str, tmp_path: Path
) -> None:
    seen = FirstBatch()
    sampling = Sampling(6, stop_at_eos=False, old_logps="sampled")
    objective = RLOO(Policy(source=start), Count(), sampling, optimizer=ADAM)
    fit(objective, RolloutData(prompts, 8, 4, 2, inner_epochs=1), tmp_path, seen)
    old = seen.batch.old_token_logps
    assert away(old, seen.mixed) < away(old, seen.exact)
    assert old.sum() != seen.exact.sum()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_sampling_in_bfloat16_leaves_the_log_probs_to_the_step(
    start: str, prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = list[Any]()

    def kept(*args: Any, **settings: Any) -> Any:
        drawn.append(sample(*args, **settings))
        return drawn[-1]

    monkeypatch.setattr("alignlab.objectives.on_policy.sample", kept)
    seen, sampling = FirstBatch(), Sampling(6, stop_at_eos=False, precision="bf16")
    objective = RLOO(Policy(source=start), Count(), sampling, optimizer=ADAM)
    data = RolloutData(prompts, 8, 4, 2, inner_epochs=1)
    fit(objective, data, tmp_path, seen, precision="32-true")
    logps = torch.stack([row for rows in drawn[0].token_logps for row in rows])
    old = seen.batch.old_token_logps  # of the first minibatch: some of the phase's rows
    assert away(old, seen.exact) < 1e-5
    nearest = (logps[:, None] - old[None]).abs().amax(2).amin(0)  # each row beside its sampler's
    assert 1e-4 < float(nearest.mean()) < 0.1
    with pytest.raises(ConfigError, match="needs old_logps auto or rescored, got sampled"):
        Sampling(6, precision="bf16", old_logps="sampled")


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_cached_reference_is_of_the_precision_of_the_step(start: str, tmp_path: Path) -> None:
    """A file of its own for each; implicit rewards begin at 0, up to the rounding of a batch."""
    rows = [{"prompt": f"w{i}", "chosen": f" w{i + 1} w9", "rejected": " w4 w5 w6"}
            for i in range(3, 11)]  # fmt: skip
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cache = tmp_path / "cache"
    found = {}
    for precision in ("bf16-mixed", "32-true"):
        dpo = DPO(
            Policy(source=start), partial(torch.optim.SGD, lr=0.0), reference="cached",
            reference_cache=str(cache),
        )  # fmt: skip
        fit(dpo, PreferenceData(str(source), 8), tmp_path, precision=precision)
        assert isinstance(dpo.reference, CachedReference)
        found[precision] = dpo.reference.table
    assert len(list(cache.glob("*.safetensors"))) == 2
    data = PreferenceData(str(source), 8)
    policy = Policy(source=start)
    data.connect(policy.tokenizer)
    data.setup()
    trees = collate(data.train_trees)
    with torch.no_grad():
        exact = policy(trees).token_logps[trees.loss_mask]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = policy(trees).token_logps[trees.loss_mask]
    assert away(found["32-true"], exact) < 1e-5
    assert away(exact, mixed) > 5e-3
    assert away(found["bf16-mixed"], mixed) < 0.2 * away(exact, mixed)


class ImplicitRewards(L.Callback):
    """Keeps the implicit rewards that were logged after every batch."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        names = ("train/rewards/chosen", "train/rewards/rejected")
        self.seen += [float(trainer.callback_metrics[name]) for name in names]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("seed", [0, 1])
def test_a_policy_that_has_not_moved_equals_its_cached_reference_exactly(
    start: str, tmp_path: Path, seed: int
) -> None:
    """Batches of 3 rows of unlike length; bfloat16 rounds other batches in another way.

    A second training with another order of the rows has a cache of its own.
    """
    rows = [{"prompt": f"w{i}", "chosen": " w9" * (1 + i % 5), "rejected": " w4 w5"}
            for i in range(3, 12)]  # fmt: skip
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for order in (1 - seed, seed):
        dpo = DPO(
            Policy(source=start), partial(torch.optim.SGD, lr=0.0), reference="cached",
            reference_cache=str(tmp_path / "cache"),
        )  # fmt: skip
        rewards = ImplicitRewards()
        fit(dpo, PreferenceData(str(source), 3, seed=order), tmp_path, rewards)
        assert rewards.seen == [0.0] * 6
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 2


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_temperature_of_the_step_alone_is_noticed_in_bfloat16(
    start: str, prompts: str, tmp_path: Path, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding is allowed for as much as it makes, and no more."""
    objective = RLOO(Policy(source=start, dtype=dtype), Count(), Sampling(6), optimizer=ADAM)
    forward = objective.policy.forward

    def warmer(trees: Any, want: Any = (), **settings: Any) -> Any:
        scores = forward(trees, want, **settings)
        if torch.is_grad_enabled():
            scores.token_logps = scores.token_logps * 0.9
        return scores

    monkeypatch.setattr(objective.policy, "forward", warmer)
    with pytest.raises(FloatingPointError, match="sampling and training see different models"):
        fit(objective, RolloutData(prompts, 8, 4, 2, inner_epochs=1), tmp_path)
