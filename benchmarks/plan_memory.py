"""What ``alignlab plan`` predicts of a run's memory, and what the run takes on this CPU.

    python benchmarks/plan_memory.py [--only dpo_lora]

Seven configurations of a model with 110 M parameters. Each is trained for three steps in a process
of its own; what counts is its largest resident memory above what it has after its imports, before
the checkpoint at its end. The C library gives freed memory back
(``MALLOC_MMAP_THRESHOLD_``); without that it keeps several times what a run needs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import yaml

RESUME = "alignlab.callbacks.resume.Resume"
STEPS, BATCH, PROMPT, COMPLETION = 3, 4, 96, 32
MODEL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 2048,
    "vocab_size": 16000,
}
LORA = {"class_path": "alignlab.models.loading.Lora", "init_args": {"rank": 16}}
POLICY = {"config": MODEL, "tokenizer": "tokenizer"}
SCORER = {"source": "model", "outputs": 1}
PAIRS = {
    "class_path": "alignlab.data.modules.PreferenceData",
    "init_args": {"source": "pairs.jsonl"},
}
DEMONSTRATIONS = {
    "class_path": "alignlab.data.modules.DemonstrationData",
    "init_args": {"source": "pairs.jsonl"},
}
ROLLOUTS = {
    "class_path": "alignlab.data.rollout_data.RolloutData",
    "init_args": {"source": "prompts.jsonl", "rollout_size": BATCH * STEPS, "inner_epochs": 1},
}
PPO = {
    "policy": POLICY,
    "value": SCORER,
    "reward": {"class_path": "alignlab.rewards.model.ModelReward", "init_args": {"path": "scorer"}},
    "sampling": {"max_new_tokens": COMPLETION, "stop_at_eos": False},
}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sft": ("sft.SFT", {"policy": POLICY}, DEMONSTRATIONS),
    "dpo_frozen": ("dpo.DPO", {"policy": POLICY}, PAIRS),
    "dpo_lora": ("dpo.DPO", {"policy": {**POLICY, "lora": LORA["init_args"]}}, PAIRS),
    "dpo_checkpointed": (
        "dpo.DPO",
        {"policy": {**POLICY, "activation_checkpointing": True}},
        PAIRS,
    ),
    "dpo_bfloat16": ("dpo.DPO", {"policy": {**POLICY, "dtype": "bfloat16"}}, PAIRS),
    "reward_model": ("rm.RewardModel", {"model": SCORER}, PAIRS),
    "ppo_value": ("ppo.PPO", PPO, ROLLOUTS),
}


def config_of(case: str) -> dict[str, Any]:
    """A stage's config, as ``alignlab fit --config`` takes it."""
    objective, model, data = CASES[case]
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-5}}
    batch = 1 if case == "dpo_bfloat16" else BATCH  # its matmuls take 50 times as long on some CPUs
    return {
        "model": {
            "class_path": f"alignlab.objectives.{objective}",
            "init_args": {**model, "optimizer": optimizer},
        },
        "data": {
            **data,
            "init_args": {**data["init_args"], "batch_size": batch, "max_length": 256},
        },
        "trainer": {
            "max_steps": STEPS,
            "logger": False,
            "enable_progress_bar": False,
            # No checkpoint between the steps, however slow they are.
            "callbacks": [{"class_path": RESUME, "init_args": {"every_seconds": 1e6}}],
        },
    }


def prepare(folder: Path) -> None:
    """Write a tokenizer, rows of equal lengths, a model and a scorer into ``folder``."""
    import torch

    from alignlab.models import Policy, ScoreModel
    from alignlab.worlds.words import word_tokenizer

    words = ["".join(letters) for letters in product("abcdefghij", repeat=3)]
    word_tokenizer(words).save_pretrained(folder / "tokenizer")
    torch.manual_seed(0)

    def text(n: int) -> str:
        return " ".join(words[i] for i in torch.randint(1000, (n,)).tolist())

    rows = [
        {
            "prompt": text(PROMPT - 1),
            "chosen": text(COMPLETION - 1),
            "rejected": text(COMPLETION - 1),
        }
        for _ in range(BATCH * STEPS)
    ]
    for name, keys in (("pairs", ("prompt", "chosen", "rejected")), ("prompts", ("prompt",))):
        lines = (json.dumps({key: row[key] for key in keys}) for row in rows)
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    Policy(config=MODEL, tokenizer=str(folder / "tokenizer")).save(folder / "model")
    ScoreModel(str(folder / "model")).save(folder / "scorer")
    for case in CASES:
        (folder / f"{case}.yaml").write_text(yaml.safe_dump(config_of(case)))


def measured(case: str) -> int:
    """Train here, in the current folder; the most bytes that were resident above the imports."""
    import peft  # noqa: F401  # what the run would import on its way counts as imports
    import torch._dynamo  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401
    from lightning.pytorch import Callback

    from alignlab.training.fit import build, run_fit

    class Steps(Callback):
        """Reads the peak after the last step, before the checkpoint that ends a run."""

        peak = 0

        def on_train_batch_end(self, *_: Any) -> None:
            self.peak = resident("VmHWM")

    steps, before = Steps(), resident("VmRSS")
    run_fit(build(["--config", f"{case}.yaml"], [steps]))
    return steps.peak - before


def resident(name: str) -> int:
    """Bytes of this process that the kernel has under ``name``."""
    lines = Path("/proc/self/status").read_text().split("\n")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def predicted(case: str) -> dict[str, float]:
    """By part, what a plan says for one CPU, in the current folder."""
    from alignlab.capacity.memory import Placement, memory_of
    from alignlab.capacity.setup import read_setup

    setup = read_setup(["--config", f"{case}.yaml"])
    return memory_of(setup, Placement("one", 1, gpu=False))


def main() -> None:
    """Measure the cases one after the other and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=CASES, action="append")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keep the models there")
    args = parser.parse_args()
    if args.part:
        what, case = args.part
        print(json.dumps({"measured": measured, "predicted": predicted}[what](case)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not (folder / "prompts.jsonl").exists():
            folder.mkdir(exist_ok=True)
            prepare(folder)
        print("| configuration | predicted MB | measured MB | ratio |\n|---|---|---|---|")
        for case in args.only or CASES:
            parts, took = (in_a_process(what, case, folder) for what in ("predicted", "measured"))
            total = sum(parts.values())
            row = (case, f"{total / 1e6:,.0f}", f"{took / 1e6:,.0f}", f"{total / took:.3f}")
            print(f"| {' | '.join(row)} |", flush=True)
            shown = {part: round(size / 1e6) for part, size in parts.items() if size}
            print(shown, file=sys.stderr)


def in_a_process(what: str, case: str, folder: Path) -> Any:
    """``measured`` or ``predicted`` of a case, in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--part", what, case]
    setting = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=os.environ | setting, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.strip().split("\n")[-1])


if __name__ == "__main__":
    main()
