"""A small training of every objective, as jobs of a pipeline: what the kills are tried on."""

import json
from pathlib import Path
from typing import Any

from alignlab.files import sha_of
from alignlab.plan.experiment import Job, Plan
from alignlab.rewards.rule import ToySentiment
from alignlab.worlds.toy import make_demonstrations, split_prompts, tokenizer

STEPS = 9  # of 21 rows in steps of 4: an epoch and a half; three rollout phases and a bit
EVERY = 3  # steps between two evaluations
OBJECTIVES = "alignlab.objectives."
DATA = "alignlab.data.modules."
DIVERGENCES = "alignlab.functional.divergences."
MODEL = {
    "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 24, "num_key_value_heads": 1, "max_position_embeddings": 64,
    "initializer_range": 0.2,
}  # fmt: skip
PAIRS: dict[str, tuple[str, dict[str, Any]]] = {  # name -> class, its settings
    "dpo": ("dpo.DPO", {"beta": 0.3}),
    "ipo": ("ipo.IPO", {}),
    "simpo": ("simpo.SimPO", {"gamma_beta_ratio": 0.5}),
    "robust_dpo": ("robust_dpo.RobustDPO", {"label_smoothing": 0.1}),
    "rdpo": ("rdpo.RDPO", {}),
    "lndpo": ("lndpo.LNDPO", {}),
    "wpo": ("wpo.WPO", {}),
    "dpop": ("dpop.DPOP", {}),
    "ld_dpo": ("ld_dpo.LDDPO", {}),
    "sampo": ("sampo.SamPO", {"beta": 0.3}),
    "tr_dpo": ("tr_dpo.TRDPO", {"beta": 0.3, "tau": 2}),
    "alphapo": ("simpo.SimPO", {"gamma_beta_ratio": 0.5, "alpha": 0.25}),
    "discopop": ("discopop.DiscoPOP", {}),
    "cal_dpo": ("cal_dpo.CalDPO", {}),
    "beta_dpo": ("beta_dpo.BetaDPO", {"beta": 0.3}),
    "orpo": ("orpo.ORPO", {}),
    "cpo": ("cpo.CPO", {}),
    "slic": ("slic.SLiC", {}),
    "hinge": ("hinge.Hinge", {}),
    "unlikelihood": ("unlikelihood.Unlikelihood", {}),
    "kto": ("kto.KTO", {"beta": 0.3}),
    "f_dpo": ("f_dpo.FDPO", {"divergence": {"class_path": DIVERGENCES + "ForwardKL"}}),
    "exo": ("exo.EXO", {}),
    "nca": ("nca.NCA", {}),
    "bco": ("bco.BCO", {"beta": 0.3}),
    "sppo": ("sppo.SPPO", {}),
    "apo": ("apo.APO", {}),
    "dpo_lora": ("dpo.DPO", {}),
    "dpo_cached": ("dpo.DPO", {"reference": "cached"}),
}
SCORERS = {
    "rm": ("rm.RewardModel", "PreferenceData"),
    "kwise_rm": ("kwise_rm.KWiseRewardModel", "RankingData"),
    "plackett_luce": ("plackett_luce.PlackettLuce", "RankingData"),
    "regression": ("regression.Regression", "RatingData"),
    "classify": ("classify.Classify", "LabelledData"),
}
CANDIDATES = {"qrpo": ("qrpo.QRPO", {"beta": 0.3}), "ddo_rm": ("ddo_rm.DDORM", {"beta": 0.5})}
STEERED = {"kl_target": 0.5, "kl_horizon": 50}
ON_POLICY: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("ppo.PPO", STEERED),
    "ppo_ptx": ("ppo.PPO", {"ptx_coef": 0.5, **STEERED}),
    "grpo": ("grpo.GRPO", {"clip_epsilon": 0.2, **STEERED}),
    "gspo": ("gspo.GSPO", STEERED),
    "cispo": ("cispo.CISPO", STEERED),
    "rloo": ("rloo.RLOO", STEERED),
    "reinforce": ("reinforce.REINFORCE", STEERED),
    "reinforce_pp": ("reinforce_pp.REINFORCEPlusPlus", STEERED),
    "awr": ("awr.AWR", {"beta": 1.0, "kl_coef": 0.1}),
    "astar_po": ("astar_po.AStarPO", {"beta": 0.5}),
    "online_dpo": ("online_dpo.OnlineDPO", {"labels": "sampled", "beta": 0.3}),
}
# The first of a short run are of different kinds.
FIRST = ("ppo", "dpo", "rm", "sft", "grpo", "classify", "dpo_cached", "kto", "online_dpo", "lm")
NAMES = tuple(dict.fromkeys((*FIRST, *ON_POLICY, *PAIRS, *CANDIDATES, *SCORERS)))


def write_ground(folder: Path) -> None:
    """A starting policy, and rows that serve as demonstrations, pairs, rankings and texts alike."""
    from alignlab.models import Policy

    tokenizer().save_pretrained(folder / "tokenizer")
    Policy(config=MODEL, tokenizer=str(folder / "tokenizer"), seed=1).save(folder / "lm")
    prompts, held_out = split_prompts(seed=0, train=21, evaluation=4)
    drawn = [row["completion"] for row in make_demonstrations(prompts, seed=0, rows=63)]
    rows = []
    for i, prompt in enumerate(prompts):
        three = [drawn[3 * i], f"{drawn[3 * i + 1]} , and", f" {drawn[3 * i + 2].split()[0]}"]
        rows.append(
            {
                "prompt": prompt,
                "completion": three[0],
                "chosen": three[0],
                "rejected": three[1],
                "text": f"{prompt} {three[0]}",
                "label": i % 2,
                "completions": three,
                "ranks": [i % 3, 1, 2],
                "ratings": ToySentiment()([prompt] * 3, three).tolist(),
                "rating": i % 5 - 2.5,
            }
        )
    for name, some in (("rows", rows), ("held_out", rows[:5])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    lines = [json.dumps({"id": f"e{i}", "prompt": p}) + "\n" for i, p in enumerate(held_out)]
    (folder / "prompts.jsonl").write_text("".join(lines))


def plan_of(name: str, ground: Path, results: Path) -> Plan:
    """A plan of one job: the training ``name``, on what ``write_ground`` wrote."""
    config = _config(name, str(ground), results / "stages" / name / "all" / "train")
    objective = None if name in SCORERS else name
    spec = {"config": config}
    job = Job(name, "all", None, {}, objective, spec, {}, sha_of(name))
    return Plan("kills", ground, results, (0,), {name: job}, {}, (), {})


def _config(name: str, ground: str, run: Path) -> dict[str, Any]:
    model, data = _model_and_data(name, ground)
    adam = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-2}}
    model["init_args"] |= {"optimizer": adam, "schedule": {"warmup_steps": 2, "decay": "cosine"}}
    probe = {
        "class_path": "alignlab.callbacks.probe.FrontierProbe",
        "init_args": {
            "prompts": f"{ground}/prompts.jsonl",
            "reference": f"{ground}/lm",
            "reward": {"class_path": "alignlab.rewards.rule.ToySentiment"},
            "samples": 2,
            "max_new_tokens": 6,
            "every_n_steps": EVERY,
        },
    }
    saving = {"class_path": "alignlab.callbacks.resume.Resume", "init_args": {"every_steps": 2}}
    loggers = [
        {
            "class_path": f"lightning.pytorch.loggers.{kind}",
            "init_args": {"save_dir": str(run), "name": "", "version": version},
        }
        for kind, version in (("TensorBoardLogger", ""), ("CSVLogger", "table"))
    ]
    return {
        "seed_everything": 0,
        "model": model,
        "data": data,
        "trainer": {
            "max_steps": STEPS,
            "log_every_n_steps": 2,
            "gradient_clip_val": 1.0,
            "accelerator": "cpu",
            "logger": loggers,
            "callbacks": [saving] if name in SCORERS else [probe, saving],
        },
    }


def _model_and_data(name: str, ground: str) -> tuple[dict[str, Any], dict[str, Any]]:
    lm, rows = {"source": f"{ground}/lm"}, {"source": f"{ground}/rows.jsonl"}
    batches = rows | {"batch_size": 4, "validation_source": f"{ground}/held_out.jsonl"}
    if name in ON_POLICY:
        kind, settings = ON_POLICY[name]
        data: dict[str, Any] = {**rows, "rollout_size": 8, "batch_size": 4}
        data |= {"samples_per_prompt": 2, "inner_epochs": 2}
        if name == "ppo_ptx":
            data["pretraining"] = _named(f"{DATA}DemonstrationData", rows | {"batch_size": 8})
        own: dict[str, Any] = {"policy": lm, "sampling": {"max_new_tokens": 6}, **settings}
        own["reward"] = {"class_path": "alignlab.rewards.rule.ToySentiment"}
        if kind == "ppo.PPO":
            own["value"] = lm | {"fresh_head": True}
        if name == "astar_po":
            own["pool"] = rows["source"]
        return _named(OBJECTIVES + kind, own), _named(
            "alignlab.data.rollout_data.RolloutData", data
        )
    if name in SCORERS:
        kind, module = SCORERS[name]
        scorer = lm | ({"outputs": 2} if name == "classify" else {})
        return _named(OBJECTIVES + kind, {"model": scorer}), _named(DATA + module, batches)
    if name in ("sft", "lm"):
        module = "DemonstrationData" if name == "sft" else "TextData"
        return _named(f"{OBJECTIVES}sft.SFT", {"policy": lm}), _named(DATA + module, batches)
    kind, settings = (PAIRS | CANDIDATES)[name]
    policy = lm | ({"lora": {"rank": 2}} if name == "dpo_lora" else {})
    cache = {"reference_cache": f"{ground}/cache"} if name == "dpo_cached" else {}
    own = {"policy": policy, **settings, **cache}
    module = "CandidateData" if name in CANDIDATES else "PreferenceData"
    return _named(OBJECTIVES + kind, own), _named(DATA + module, batches)


def _named(class_path: str, init_args: dict[str, Any]) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}
