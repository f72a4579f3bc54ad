"""Model cards of runs that are written down by hand."""

from pathlib import Path
from typing import Any

import yaml

from alignlab.results.model_card import Exported, Run, card, settings_of

CONFIG: dict[str, Any] = {
    "seed_everything": 7,
    "model": {
        "class_path": "alignlab.objectives.rloo.RLOO",
        "init_args": {
            "policy": {"class_path": "alignlab.models.Policy", "init_args": {"source": "start",
                       "lora": {"rank": 4, "alpha": None}, "layout": "auto"}},
            "reward": {"class_path": "my_reward.MyReward", "init_args": {"most": 30, "n": None}},
            "kl_coef": 0.5,
            "sampling": {"max_new_tokens": 8},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1, "eps": 1e-8}},
            "schedule": {"warmup_steps": 5},
        },
    },
    "data": {"class_path": "x.RolloutData", "init_args": {"source": "a|b.jsonl", "limit": None}},
    "trainer": {"max_steps": 4, "devices": 1},
}  # fmt: skip


def card_of(config: dict[str, Any], tmp_path: Path) -> str:
    made = Exported(
        folder="mine", step=None, architecture="Llama", auto_class="AutoModelForCausalLM",
        base=None, quantised=None, adds_tokens=False, dtype="float32", outputs=0, is_chat=False,
        begins="<bos>", shift=0.0, scale=1.0, said="Checked.",
    )  # fmt: skip
    run = Run(tmp_path / "run", tmp_path, tmp_path, True, config, {"config_sha": "abc"})
    return card(run, made)


def test_settings_are_those_that_shape_what_is_learned() -> None:
    """Without unset values, and without what only says how a run is carried out."""
    assert settings_of(CONFIG) == {
        "seed_everything": 7,
        "kl_coef": 0.5,
        "policy.lora.rank": 4,
        "reward.most": 30,
        "optimizer": "AdamW",
        "optimizer.lr": 0.1,
        "schedule.warmup_steps": 5,
        "trainer.max_steps": 4,
    }


def test_a_text_begins_as_in_training(tmp_path: Path) -> None:
    assert "inputs = tokenizer('<bos>...', return_tensors='pt')" in card_of(CONFIG, tmp_path)


def test_the_card_names_the_reward_that_was_trained_on(tmp_path: Path) -> None:
    text = card_of(CONFIG, tmp_path)
    record = yaml.safe_load(text.split("---")[1])["alignlab"]
    assert record["reward"] == "my_reward.MyReward"
    assert "| reward | my_reward.MyReward |\n" in text
    assert (record["objective"], record["run"], record["config_sha"]) == ("RLOO", "run", "abc")
    assert "| data | a\\|b.jsonl |\n" in text
    of_pairs = {**CONFIG, "model": {"class_path": "x.DPO", "init_args": {"policy": "start"}}}
    of_pairs["model"]["init_args"] = {"policy": CONFIG["model"]["init_args"]["policy"]}
    assert "reward" not in card_of(of_pairs, tmp_path)
