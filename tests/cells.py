"""Objectives with their data by name, on a tiny model: what trainers of all kinds are tried on."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch

from alignlab.data.modules import (
    CandidateData,
    DemonstrationData,
    LabelledData,
    PreferenceData,
    RankingData,
    RatingData,
    TextData,
)
from alignlab.data.rollout_data import RolloutData
from alignlab.models import Lora, Policy, Quantised, ScoreModel
from alignlab.objectives.astar_po import AStarPO
from alignlab.objectives.awr import AWR
from alignlab.objectives.base import Objective
from alignlab.objectives.bco import BCO
from alignlab.objectives.beta_dpo import BetaDPO
from alignlab.objectives.cispo import CISPO
from alignlab.objectives.classify import Classify
from alignlab.objectives.ddo_rm import DDORM
from alignlab.objectives.dpo import DPO
from alignlab.objectives.grpo import GRPO
from alignlab.objectives.gspo import GSPO
from alignlab.objectives.kto import KTO
from alignlab.objectives.kwise_rm import KWiseRewardModel
from alignlab.objectives.on_policy import Sampling
from alignlab.objectives.online_dpo import OnlineDPO
from alignlab.objectives.orpo import ORPO
from alignlab.objectives.ppo import PPO
from alignlab.objectives.qrpo import QRPO
from alignlab.objectives.regression import Regression
from alignlab.objectives.reinforce import REINFORCE
from alignlab.objectives.reinforce_pp import REINFORCEPlusPlus
from alignlab.objectives.rloo import RLOO
from alignlab.objectives.rm import RewardModel
from alignlab.objectives.sampo import SamPO
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.sft import SFT
from alignlab.objectives.simpo import SimPO
from alignlab.objectives.tr_dpo import TRDPO
from alignlab.objectives.unlikelihood import Unlikelihood
from alignlab.rewards.base import Reward

Made = tuple[Objective, L.LightningDataModule]


class WordCount(Reward):
    def __call__(self, prompts: Any, completions: Any) -> torch.Tensor:
        return torch.tensor([float(len(text.split())) for text in completions])


SCORERS: dict[str, tuple[Any, Any]] = {
    "reward_model": (RewardModel, PreferenceData),
    "kwise_rm": (KWiseRewardModel, RankingData),
    "regression": (Regression, RatingData),
}
DIRECT: dict[str, Any] = {
    "unlikelihood": partial(Unlikelihood, alpha=0.5),
    "kto": partial(KTO, beta=0.3),
    "bco": partial(BCO, beta=0.3),
}
CANDIDATES: dict[str, Any] = {
    "qrpo": partial(QRPO, beta=0.3),
    "ddo_rm": partial(DDORM, beta=0.5),
}
VARIANTS: dict[str, Any] = {  # of DPO, which keep something between steps or draw
    "tr_dpo": partial(TRDPO, beta=0.3, tau=3),
    "sampo": partial(SamPO, beta=0.3),
    "beta_dpo": partial(BetaDPO, beta=0.3, rho=0.7),
}
WITHOUT_REFERENCE: dict[str, Any] = {
    "simpo": partial(SimPO, gamma=0.5),
    "orpo": partial(ORPO, lam=0.5, prompt_nll=True),
}
STEERED = {"kl_target": 0.5, "kl_horizon": 50}
ON_POLICY: dict[str, dict[str, Any]] = {
    "ppo": {"kind": PPO, "value": "separate", "ptx_coef": 0.5, **STEERED},
    "ppo_warm": {"kind": PPO, "value": "separate", "value_warmup_steps": 6, **STEERED},
    "reinforce": {"kind": REINFORCE, **STEERED},
    "rloo": {"kind": RLOO, **STEERED},
    "grpo": {"kind": GRPO, "clip_epsilon": 0.2, **STEERED},
    "dapo": {"kind": GRPO, "clip_epsilon": 0.2, "normaliser": "tokens", "drop": True, **STEERED},
    "gspo": {"kind": GSPO, "kl_coef": 0.1, "drop": True},
    "cispo": {"kind": CISPO, "kl_coef": 0.1},
    "reinforce_pp": {"kind": REINFORCEPlusPlus, "drop": True, **STEERED},
    "awr": {"kind": AWR, "beta": 1.0, "kl_coef": 0.1},
    "astar_po": {"kind": AStarPO, "beta": 0.5},
    "online_dpo": {"kind": OnlineDPO, "labels": "sampled", "beta": 0.3},
}
VALUES: dict[str, dict[str, Any]] = {
    "ppo_shared": {"kind": PPO, "detach_value": False, **STEERED},
    "ppo_adapter": {"kind": PPO, "value": "adapter", **STEERED},
}
QLORA = ("dpo_qlora", "reward_model_qlora")  # weights in 4 bits
AGAIN = "_again"  # behind the name of a cell whose activations are computed again


def rows_file(path: Path, rows: int = 21) -> str:
    """Rows that serve as demonstrations, pairs, prompts and labelled texts alike."""
    words = [f"w{i}" for i in range(3, 30)]
    with path.open("w") as out:
        for i in range(rows):
            take = [words[(7 * i + 5 * j) % 27] for j in range(12)]
            said = [" " + " ".join(take[k : k + 2 + (i + k) % 3]) for k in (0, 4, 7)]
            row = {
                "prompt": " ".join(take[: 1 + i % 4]),
                "completion": " " + " ".join(take[4 : 6 + i % 3]),
                "chosen": " " + " ".join(take[4 : 6 + i % 5]),
                "rejected": " " + " ".join(take[8 : 10 + i % 3]),
                "text": " ".join(take[: 3 + i % 7]),
                "label": i % 2,
                "completions": said,
                "ranks": [i % 3, 1, 2],
                "ratings": [float(len(text.split())) for text in said],  # as ``WordCount``
                "rating": i % 5 - 2.5,
            }
            out.write(json.dumps(row) + "\n")
    return str(path)


def make_cell(
    name: str,
    source: str,
    start: str,
    cache: Path,
    schedule: Schedule,
    *,
    micro: int | None = None,
    batch: int = 4,
    dtype: Any = "float64",
    rate: float = 1e-2,
) -> Made:
    """Objective and data by name.

    Args:
        name: Of the cell.
        source: File of rows.
        start: Folder of a language model.
        cache: Folder of reference log-probs.
        schedule: Of the learning rate.
        micro: Rows a forward.
        batch: Rows of an optimizer step.
        dtype: Of the weights.
        rate: Learning rate.
    """
    again, name = name.endswith(AGAIN), name.removesuffix(AGAIN)
    adam = partial(torch.optim.AdamW, lr=rate)
    pairs = (CandidateData if name in CANDIDATES else PreferenceData)(source, batch, micro)

    adapted = name in ("dpo_lora", "ppo_adapter", *QLORA)
    settings: dict[str, Any] = {"dtype": dtype, "lora": Lora(rank=4) if adapted else None}
    settings["quantised"] = Quantised() if name in QLORA else None
    settings["activation_checkpointing"] = again

    def policy() -> Policy:
        return Policy(source=start, **settings)

    def scorer(outputs: int = 1) -> ScoreModel:
        return ScoreModel(start, outputs=outputs, **settings)

    if name in ON_POLICY or name in VALUES:
        given = dict(ON_POLICY.get(name, VALUES.get(name, {})))
        if given.get("value") == "separate":
            given["value"] = scorer()
        given |= {"pool": source} if name == "astar_po" else {}
        sampling = Sampling(6, drop_equal_groups=given.pop("drop", False))
        objective = given.pop("kind")(
            policy(), WordCount(), sampling, optimizer=adam, schedule=schedule, **given
        )
        mix = TextData(source, 2 * batch, max_length=8) if "ptx_coef" in given else None
        return objective, RolloutData(
            source, 2 * batch, batch, 2, inner_epochs=2, micro_batch_size=micro, pretraining=mix
        )
    if name == "lm":
        return SFT(policy(), adam, schedule), TextData(source, batch, micro, max_length=8)
    if name in ("sft", "sft_on_prompts"):
        data = DemonstrationData(source, batch, micro, train_on_prompt=name == "sft_on_prompts")
        return SFT(policy(), adam, schedule), data
    if name in ("classify", "classify_tied", "classify_alone"):
        alpha = 0.0 if name == "classify_alone" else 0.5
        return Classify(scorer(2), adam, alpha, schedule), LabelledData(source, batch, micro)
    if name.removesuffix("_qlora") in SCORERS:
        scored, rows = SCORERS[name.removesuffix("_qlora")]
        return scored(scorer(), adam, schedule), rows(source, batch, micro)
    direct = DIRECT | CANDIDATES | VARIANTS | WITHOUT_REFERENCE
    if name in direct:
        return direct[name](policy(), adam, schedule=schedule), pairs
    kinds = {"dpo": "frozen", "dpo_cached": "cached"}
    kind: Any = kinds.get(name, "adapter_off")
    folder = str(cache) if kind == "cached" else None
    return DPO(
        policy(), adam, 0.3, reference=kind, reference_cache=folder, schedule=schedule
    ), pairs
