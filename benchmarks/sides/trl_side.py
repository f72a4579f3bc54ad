"""TRL's side: its trainers on the same rows, without gradient checkpointing.

What differs from TRL's defaults: ``gradient_checkpointing=False`` (its default costs a forward
more), the given rows as they are instead of texts, in their own order, a constant learning rate,
float32 where the case says so, no checkpoints and no progress bar. Where its loss is another one,
the setting or the class below says how it is made the same.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers.models.llama.modeling_llama  # noqa: F401  # counts as an import
from datasets import Dataset
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from sides.plain_side import logps
from sides.work import PACK, Case, Meter, Row, changes, reward_of, units_of


class Steps(TrainerCallback):
    """Gives the meter every step and the loss of all its micro-batches."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """The Trainer's hook after the optimizer's step."""
        self.trainer.meter.losses.append(sum(self.trainer.parts))
        self.trainer.parts.clear()
        self.trainer.meter.step()


class GivenRows:
    """For a trainer: rows are taken as they are, in their own order, and losses are kept."""

    meter: Meter
    parts: list[float]

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _get_train_sampler(self, dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(dataset if dataset is not None else self.train_dataset)  # type: ignore[attr-defined]

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """The step's loss is what comes back."""
        loss: Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.parts.append(float(loss))
        return loss


class GivenPairs(GivenRows):
    """For the two trainers that tokenise texts of pairs row by row."""

    def tokenize_row(self, row: Row, *args: Any) -> Row:
        """The keys that their collator reads."""
        out: Row = {}
        for name in ("chosen", "rejected"):
            prompt, completion = row["prompt_ids"], row[f"{name}_ids"]
            out[f"{name}_input_ids"] = [*prompt, *completion]
            out[f"{name}_attention_mask"] = [1] * len(out[f"{name}_input_ids"])
            out[f"{name}_labels"] = [-100] * len(prompt) + completion
        return out


class Dpo(GivenRows, DPOTrainer):
    """TRL's DPO."""


class Simpo(GivenPairs, CPOTrainer):
    """TRL's CPO with SimPO's loss."""


class Orpo(GivenPairs, ORPOTrainer):
    """TRL's ORPO, which imitates the chosen completion alone, as the paper says.

    Its own imitates the tokens of prompt and completion; that loss is computed and not used.
    """

    def concatenated_forward(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The last of what it gives is the loss of imitation."""
        *rest, _ = super().concatenated_forward(*args, **kwargs)
        return *rest, -rest[0].mean()


class Rm(GivenRows, RewardTrainer):
    """TRL's reward model."""


class Sft(GivenRows, SFTTrainer):
    """TRL's SFT."""


class Kto(GivenRows, KTOTrainer):
    """TRL's KTO. It estimates the divergence on the step itself, ours on the one before."""


class Given:
    """For a trainer that samples, in the check: its rows' own completions are what it samples."""

    case: Case
    meter: Meter

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """The callback counts steps; losses of different samples are not compared."""
        loss: Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.parts: list[float] = []
        return loss

    def _own(self, prompt_ids: list[list[int]]) -> list[list[int]]:
        rows = [row for batch in self.case.batches for row in batch]
        known = {tuple(row["prompt"]): list(row["completions"]) for row in rows}
        return [known[tuple(ids)].pop(0) for ids in prompt_ids]


class Rloo(Given, RLOOTrainer):
    """TRL's RLOO."""

    def _generate_single_turn(self, prompt_ids: Any, *args: Any) -> Any:
        if not self.case.given:
            return super()._generate_single_turn(prompt_ids, *args)
        return self._own(prompt_ids)


class Grpo(Given, GRPOTrainer):
    """TRL's GRPO."""

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.case.given:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        return self._own(prompt_ids), None


def pair_rows(case: Case) -> list[Row]:
    """Rows of DPO, SimPO and ORPO."""
    return [
        {
            "prompt_ids": row["prompt"],
            "chosen_ids": row["completions"][0],
            "rejected_ids": row["completions"][1],
            "prompt": "",
            "chosen": "",
            "rejected": "",
        }
        for batch in case.batches
        for row in batch
    ]


def scored_rows(case: Case) -> list[Row]:
    """Rows of a reward model: whole texts."""
    return [
        {f"{name}_ids": row["prompt"] + row["completions"][i] for i, name in enumerate(names)}
        for names in [("chosen", "rejected")]
        for batch in case.batches
        for row in batch
    ]


def demonstration(row: Row) -> tuple[list[int], list[int]]:
    """Ids and labels of a prompt with its completion."""
    prompt, completion = row["prompt"], row["completions"][0]
    return prompt + completion, [-100] * len(prompt) + completion


def demonstrations(case: Case) -> list[Row]:
    """Rows of SFT."""
    both = (demonstration(row) for batch in case.batches for row in batch)
    return [{"input_ids": ids, "labels": labels} for ids, labels in both]


def packs(case: Case) -> list[Row]:
    """Rows of SFT with packing: the texts of a pack side by side, as its own packing makes them."""
    out: list[Row] = []
    for batch in case.batches:
        own: list[Row] = [
            {"input_ids": [], "labels": [], "seq_lengths": []} for _ in range(case.batch)
        ]
        for row in batch:
            ids, labels = demonstration(row)
            own[row["pack"]]["input_ids"] += ids
            own[row["pack"]]["labels"] += labels
            own[row["pack"]]["seq_lengths"].append(len(ids))
        out += own
    return out


def judged_rows(case: Case) -> list[Row]:
    """Rows of KTO; a completion also stands behind the next prompt of its step."""
    rows = []
    for batch in case.batches:
        for i, row in enumerate(batch):
            other = batch[(i + 1) % len(batch)]["completions"][0]
            rows.append(
                {
                    "prompt_ids": row["prompt"],
                    "completion_ids": row["completions"][0],
                    "KL_completion_ids": other,
                    "label": len(rows) % 2 == 0,
                }
            )
    return rows


def prompt_rows(case: Case, tokenizer: Any) -> list[Row]:
    """Texts of prompts, for the trainers that sample."""
    prompts = [row["prompt"] for batch in case.batches for row in batch]
    return [{"prompt": tokenizer.decode(ids)} for ids in prompts]


def rewards(prompts: list[str], completions: list[str], **kwargs: Any) -> list[float]:
    """The rows' reward."""
    return [reward_of(text) for text in completions]


def settings_of(case: Case, folder: Path) -> dict[str, Any]:
    """What every trainer of a case is given."""
    return {
        "output_dir": str(folder / "trl"),
        "use_cpu": True,
        "bf16": case.bf16,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": case.batch,
        "max_steps": len(case.batches),
        "learning_rate": case.lr,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "logging_steps": 10,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }


SAMPLING = {"top_k": 0, "top_p": 1.0, "temperature": 1.0, "shuffle_dataset": False}
SIMPO = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0, "simpo_gamma": 0.5}
# Class, its config, what makes its rows, and what it is given beside the common settings.
TRAINERS: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "dpo": (Dpo, DPOConfig, pair_rows, {"beta": 0.1, "max_length": None}),
    "simpo": (Simpo, CPOConfig, pair_rows, SIMPO | {"max_length": 4096}),
    "orpo": (Orpo, ORPOConfig, pair_rows, {"beta": 0.1, "max_length": 4096}),
    "rm": (Rm, RewardConfig, scored_rows, {"max_length": None}),
    "sft": (Sft, SFTConfig, demonstrations, {"max_length": None}),
    "chat": (
        Sft,
        SFTConfig,
        packs,
        {"max_length": PACK, "packing": True, "per_device_train_batch_size": 1},
    ),
    "kto": (Kto, KTOConfig, judged_rows, {"beta": 0.1, "max_length": None}),
    "rloo": (Rloo, RLOOConfig, prompt_rows, {**SAMPLING, "beta": 0.05}),
    "grpo": (
        Grpo,
        GRPOConfig,
        prompt_rows,
        {**SAMPLING, "beta": 0.04, "loss_type": "grpo", "scale_rewards": "none"},
    ),
}


def trainer_of(case: Case, folder: Path) -> Any:
    """The case's trainer."""
    kind, config, make_rows, own = TRAINERS["chat" if case.ragged else case.objective]
    settings = settings_of(case, folder) | own
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    loader: Any = AutoModelForCausalLM
    source, more = folder / "model", {}
    if case.objective == "rm":
        loader, source = AutoModelForSequenceClassification, folder / "scorer"
    if case.ragged:
        settings["gradient_accumulation_steps"] = case.batch
    if case.cached:
        settings["precompute_ref_log_probs"] = True
    if case.samples:
        make_rows = partial(make_rows, tokenizer=tokenizer)
        more["reward_funcs"] = rewards
        settings |= {
            "per_device_train_batch_size": case.batch * case.k,
            "num_generations": case.k,
            "max_completion_length": case.completion,
        }
    trainer = kind(
        model=loader.from_pretrained(source),
        args=config(**settings),
        train_dataset=Dataset.from_list(make_rows(case)),
        processing_class=tokenizer,
        **more,
    )
    trainer.case, trainer.parts = case, []
    return trainer


def run(case: Case, folder: Path) -> dict[str, Any]:
    """Train and measure."""
    meter = Meter(case.warmup)
    trainer = trainer_of(case, folder)
    trainer.meter = meter
    trainer.add_callback(Steps(trainer))
    watched = [(row["prompt"], c) for row in case.batches[0][:2] for c in row["completions"]]
    before = given_logps(trainer, watched) if case.given else []
    trainer.train()
    if case.given:
        meter.losses = changes(before, given_logps(trainer, watched))
    elif case.samples:
        meter.losses = []
    return meter.result(units_of(case))


@torch.no_grad()
def given_logps(trainer: Any, rows: list[tuple[list[int], list[int]]]) -> list[float]:
    """Summed log-probs of completions."""
    return logps(trainer.model, rows).tolist()
