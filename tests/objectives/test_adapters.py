"""Every objective trains adapters, on weights in full precision and in 4 bits, as it trains all.

A cell trains, is stopped and continued, and is saved and loaded again. New adapters change nothing,
so that the first loss is that of full training (in 4 bits: of the decoded weights).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from bitsandbytes.optim import PagedAdamW8bit
from torch.testing import assert_close

from alignlab.data.modules import (
    CandidateData,
    DemonstrationData,
    LabelledData,
    PreferenceData,
    RankingData,
    RatingData,
)
from alignlab.data.rollout_data import RolloutData
from alignlab.data.trees import PromptTree, collate
from alignlab.models import Lora, Policy, Quantised, ScoreModel
from alignlab.models.quantised import dequantise, layers_in_4_bits
from alignlab.objectives.awr import AWR
from alignlab.objectives.cispo import CISPO
from alignlab.objectives.classify import Classify
from alignlab.objectives.dpo import DPO
from alignlab.objectives.grpo import GRPO
from alignlab.objectives.gspo import GSPO
from alignlab.objectives.ipo import IPO
from alignlab.objectives.kto import KTO
from alignlab.objectives.kwise_rm import KWiseRewardModel
from alignlab.objectives.on_policy import Sampling
from alignlab.objectives.online_dpo import OnlineDPO
from alignlab.objectives.orpo import ORPO
from alignlab.objectives.plackett_luce import PlackettLuce
from alignlab.objectives.ppo import PPO
from alignlab.objectives.qrpo import QRPO
from alignlab.objectives.regression import Regression
from alignlab.objectives.reinforce import REINFORCE
from alignlab.objectives.reinforce_pp import REINFORCEPlusPlus
from alignlab.objectives.rloo import RLOO
from alignlab.objectives.rm import RewardModel
from alignlab.objectives.sft import SFT
from alignlab.objectives.simpo import SimPO
from tests.cells import Made, WordCount, rows_file
from tests.objectives.test_training import fit

STEPS = 4
TREES = collate([PromptTree(0, "a", (1, 5, 6), ((7, 8, 2), (9,)))])
POLICIES: dict[str, tuple[Any, Any]] = {
    "sft": (SFT, DemonstrationData),
    "dpo": (DPO, PreferenceData),
    "ipo": (partial(IPO, tau=0.1), PreferenceData),
    "simpo": (partial(SimPO, beta=2.0, gamma=0.5), PreferenceData),
    "orpo": (partial(ORPO, lam=0.1), PreferenceData),
    "kto": (KTO, PreferenceData),
    "qrpo": (partial(QRPO, beta=0.3), CandidateData),
}
SCORERS: dict[str, tuple[Any, Any]] = {
    "reward_model": (RewardModel, PreferenceData),
    "kwise_rm": (KWiseRewardModel, RankingData),
    "plackett_luce": (PlackettLuce, RankingData),
    "regression": (Regression, RatingData),
    "classify": (partial(Classify, alpha=0.5), LabelledData),
}
ON_POLICY: dict[str, Any] = {
    "ppo": PPO,
    "ppo_network": PPO,
    "ppo_adapter": partial(PPO, value="adapter"),
    "rloo": RLOO,
    "grpo": partial(GRPO, clip_epsilon=0.2),
    "gspo": GSPO,
    "cispo": CISPO,
    "reinforce": REINFORCE,
    "reinforce_pp": REINFORCEPlusPlus,
    "awr": partial(AWR, beta=1.0, kl_coef=0.1),
    "online_dpo": partial(OnlineDPO, labels="sampled"),
}
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"lora": Lora(rank=2)},
    "dora": {"lora": Lora(rank=2, dora=True)},
    "qlora": {"lora": Lora(rank=2), "quantised": Quantised()},
}
QUICK = {
    ("sft", "dora"), ("sft", "qlora"), ("dpo", "lora"), ("dpo", "qlora"), ("kto", "qlora"),
    ("reward_model", "lora"), ("reward_model", "qlora"), ("kwise_rm", "dora"),
    ("classify", "qlora"), ("ppo_network", "qlora"), ("ppo_adapter", "dora"), ("grpo", "lora"),
}  # fmt: skip
CELLS = [
    pytest.param(name, kind, marks=() if (name, kind) in QUICK else pytest.mark.slow)
    for name in (*POLICIES, *SCORERS, *ON_POLICY)
    for kind in KINDS
    if (name, kind) != ("ppo_adapter", "full")  # refused, see test_value
]


@pytest.fixture(scope="module")
def ground(tmp_path_factory, build) -> tuple[str, str]:
    """A data file and the folder of a starting policy."""
    folder = tmp_path_factory.mktemp("ground")
    build("llama", dtype="float32", spread=0.2).save(folder / "lm")
    return rows_file(folder / "rows.jsonl"), str(folder / "lm")


@pytest.fixture
def make(ground) -> Callable[..., Made]:
    """Objective and data by the names of a cell."""
    source, start = ground

    def made(name: str, kind: str, *, decoded: bool = False) -> Made:
        optimizer = partial(torch.optim.AdamW if kind != "qlora" else PagedAdamW8bit, lr=1e-2)

        def model(of: Any, **settings: Any) -> Any:
            made = of(start, **KINDS[kind], **settings)
            if decoded:
                dequantise(made.model.get_base_model())
            return made

        if name in POLICIES:
            objective, data = POLICIES[name]
            return objective(model(Policy), optimizer=optimizer), data(source, 4)
        if name in SCORERS:
            objective, data = SCORERS[name]
            scorer = model(ScoreModel, outputs=2 if name == "classify" else 1)
            return objective(scorer, optimizer=optimizer), data(source, 4)
        value = {"value": model(ScoreModel)} if name == "ppo_network" else {}
        sampling = Sampling(6)
        objective = ON_POLICY[name](
            model(Policy), WordCount(), sampling, optimizer=optimizer, **value
        )
        return objective, RolloutData(source, 8, 4, 2)

    return made


class Losses(L.Callback):
    """Keeps the losses of a run."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.seen.append(float(outputs["loss"]))


def first_loss(made: Made, folder: Path) -> float:
    losses = Losses()
    fit(made, folder, steps=1, callbacks=[losses])
    return losses.seen[0]


def read(model: Any) -> torch.Tensor:
    """Log-probs, or scores."""
    with torch.no_grad():
        model.eval()
        found: torch.Tensor = model(TREES).logps if isinstance(model, Policy) else model(TREES)
        return found


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # of Lightning, and paged states on a CPU
@pytest.mark.parametrize(("name", "kind"), CELLS)
def test_a_cell(make, tmp_path, name: str, kind: str) -> None:
    if name != "ppo_adapter":
        other = make(name, kind, decoded=True) if kind == "qlora" else make(name, "full")
        wanted = first_loss(other, tmp_path / "other")
        assert first_loss(make(name, kind), tmp_path / "first") == pytest.approx(wanted, rel=1e-5)
    objective, data = make(name, kind)
    model = objective.trained
    start = read(model)
    frozen = {n for n, p in objective.named_parameters() if not p.requires_grad}
    before = {n: p.clone() for n, p in objective.named_parameters()}
    whole = fit((objective, data), tmp_path / "whole", steps=STEPS)
    moved = {n for n, p in objective.named_parameters() if not torch.equal(p, before[n])}
    assert moved.isdisjoint(frozen)
    assert not torch.equal(read(model), start)
    if kind != "full":
        assert all("lora_" in n or "score" in n or "head" in n for n in moved)
        of_model = {n for n, p in model.named_parameters() if ".layers." in n and "lora_" not in n}
        assert of_model.isdisjoint(n for n, p in model.named_parameters() if p.requires_grad)
    _continued(make, tmp_path / "whole" / "two", name, kind, whole)
    model.save(tmp_path / "saved")
    again = type(model)(str(tmp_path / "saved"), **({"outputs": 2} if name == "classify" else {}))
    assert_close(read(again), read(model), rtol=0, atol=1e-5)
    assert bool(layers_in_4_bits(again.model)) == (kind == "qlora")
    assert (tmp_path / "saved" / "model.safetensors").exists() == (kind == "full")


def _continued(make: Any, folder: Path, name: str, kind: str, whole: dict[str, Any]) -> None:
    """Stopped after two steps and continued, it ends with the same bits."""
    fit(make(name, kind), folder, steps=2)
    resumed = fit(make(name, kind), folder, steps=STEPS, ckpt=folder / "last.ckpt")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
