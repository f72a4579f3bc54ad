"""TRL's side: its trainers on the same rows, without gradient checkpointing.

What differs from TRL's defaults: ``gradient_checkpointing=False`` (its default costs a forward
more), the given rows as they are instead of texts, in their own order, a constant learning rate,
float32 where the case says so, no checkpoints and no progress bar.
"""

from pathlib import Path
from typing import Any

import transformers.models.llama.modeling_llama  # noqa: F401  # counts as an import
from datasets import Dataset
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer

from sides.work import Case, Meter


class Steps(TrainerCallback):
    """Gives the meter every step."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """The Trainer's hook after the optimizer's step."""
        self.meter.step()


class GivenRows:
    """For a trainer: rows are taken as they are, in their own order, and losses are kept."""

    meter: Meter
    args: Any

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _get_train_sampler(self, dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(dataset if dataset is not None else self.train_dataset)  # type: ignore[attr-defined]

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """The step's loss is what comes back."""
        loss: Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.meter.losses.append(float(loss))
        return loss


class Dpo(GivenRows, DPOTrainer):
    """TRL's DPO."""


def settings_of(case: Case, folder: Path) -> dict[str, Any]:
    """What every trainer of a case is given."""
    return {
        "output_dir": str(folder / "trl"),
        "use_cpu": True,
        "bf16": case.bf16,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": case.batch,
        "num_train_epochs": 1,
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
        "max_length": None,
        "dataloader_pin_memory": False,
    }


def dpo(case: Case, folder: Path) -> Any:
    """A trainer of pairs."""
    rows = [
        {
            "prompt_ids": row["prompt"],
            "chosen_ids": row["completions"][0],
            "rejected_ids": row["completions"][1],
        }
        for row in case.rows
    ]
    settings = settings_of(case, folder) | {"beta": 0.1, "precompute_ref_log_probs": case.cached}
    return Dpo(
        model=AutoModelForCausalLM.from_pretrained(folder / "model"),
        args=DPOConfig(**settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
    )


TRAINERS = {"dpo": dpo}


def run(case: Case, folder: Path) -> dict[str, Any]:
    """Train and measure."""
    meter = Meter(case.warmup)
    trainer = TRAINERS[case.objective](case, folder)
    trainer.meter = meter
    trainer.add_callback(Steps(meter))
    trainer.train()
    return meter.result(case.batch * case.steps)
