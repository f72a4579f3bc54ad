"""What only a GPU can show: checks of exactness, then tokens/s, MFU and memory of every objective.

    python benchmarks/gpu.py [--out gpu] [--minutes 9] [--small] [--only check-qlora dpo-llama-8b]

Needs no network: weights are random, from the configs below, and the tokenizer is made here. Every
part is written to ``OUT/parts.jsonl`` as soon as it is known, the most wanted first, so that half a
run is worth something; a part that fails is written with its reason, and parts that no longer fit
in the time are named. ``--small`` does the same with tiny models on a CPU.

Tokens/s count each prompt + completion as a row of its own, as a trainer that pads sees them, so
that they can be compared with published ones; ``computed`` is the share of these tokens that
alignlab computes, which shares prompts. MFU counts what is necessary: computed tokens, forward and
backward (weights that adapters stand beside get no gradients: 4 FLOP a weight and token instead of
6), the reference's forward, and no recomputation.

Run so far: ``--small`` on a CPU. Nothing here has run on a GPU yet.
"""

import argparse
import json
import os
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for deterministic kernels

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy
from sides.alignlab_side import Rows, objective_of, trainer_of
from sides.work import SPECIAL_TOKENS, Case, Meter, resident, words
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from alignlab.data.loader import TreeLoader
from alignlab.data.trees import PromptTree, PromptTrees, collate
from alignlab.distributed import FSDP2
from alignlab.models import Lora, Policy, Quantised, ScoreModel
from alignlab.models.loading import build_model
from alignlab.models.quantised import layers_in_4_bits
from alignlab.training.fit import NOT_SHOWN
from alignlab.worlds.words import word_tokenizer

LLAMA_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
QWEN3_06B = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}
TINY = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
}
# Dense bfloat16 FLOP/s that the makers state, by a part of the device's name.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
SECONDS = 15.0  # of a measured case, at most
WANTED = ("dpo", "ppo", "rm", "sft", "simpo", "orpo", "kto", "grpo")
Setting = dict[str, Any]
MODELS: dict[str, Setting] = {
    # Rows of 1,024 tokens, four of them a step, with adapters.
    "llama-8b": {"config": LLAMA_8B, "length": 1024, "rows": 4, "lora": True},
    # 8,192 tokens a step, all weights: one text, or eight rows of 1,024 where pairs are needed.
    "qwen3-0.6b": {"config": QWEN3_06B, "length": 1024, "rows": 8, "lora": False},
}


class Bench:
    """Runs parts within a time, and writes each down.

    Args:
        out: Folder of what is written.
        minutes: When to stop starting parts.
        small: Tiny models, whatever the device.
    """

    def __init__(self, out: Path, minutes: float, small: bool) -> None:
        self.out, self.small = out, small
        self.ends = time.monotonic() + 60 * minutes
        self.gpu = torch.cuda.is_available()
        self.device = torch.device("cuda" if self.gpu else "cpu")
        self.models: dict[str, Policy] = {}
        out.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """One part, or why there is none of it."""
        began = time.monotonic()
        if began > self.ends - (SECONDS if not self.small else 0):
            found: dict[str, Any] = {"state": "no time left"}
        else:
            try:
                found = {"state": "done", **part()}
            except torch.OutOfMemoryError:
                found = {"state": "out of memory"}
            except Exception as error:
                traceback.print_exc()
                found = {"state": "failed", "why": f"{type(error).__name__}: {error}"[:500]}
        found = {"part": name, **found, "seconds": round(time.monotonic() - began, 1)}
        with (self.out / "parts.jsonl").open("a") as file:
            print(json.dumps(found), file=file, flush=True)
        print(json.dumps(found), flush=True)
        return found

    def policy(self, model: str, folder: Path) -> Policy:
        """The policy of ``model``; one is kept, since making it takes longer than a case."""
        if model not in self.models:
            self.models.clear()
            empty_cache(self.gpu)
            setting = MODELS[model]
            config = self.config(model)
            write_tokenizer(config, folder / model)
            more: Setting = {"lora": Lora(rank=16), "dtype": "bfloat16"} if setting["lora"] else {}
            with mock.patch("alignlab.models.policy.build_model", self.build):
                self.models[model] = Policy(config=config, tokenizer=str(folder / model), **more)
        return self.models[model]

    def scorer(self, model: str, folder: Path) -> ScoreModel:
        """A scorer of the same size, without a folder of weights between."""
        self.models.clear()
        empty_cache(self.gpu)
        config = self.config(model)
        write_tokenizer(config, folder / model)
        dtype: Any = "bfloat16" if MODELS[model]["lora"] else "float32"
        sizes = config | {"num_labels": 1, "pad_token_id": 0}
        kind = AutoModelForSequenceClassification
        lora = Lora(rank=16) if MODELS[model]["lora"] else None
        made = self.build(kind, sizes, seed=0, dtype=dtype, dropout=0.0)
        with mock.patch("alignlab.models.score.load_model", return_value=made):
            return ScoreModel(str(folder / model), lora=lora, dtype=dtype)

    def build(self, *args: Any, **settings: Any) -> Any:
        """Random weights, drawn on the device: on a CPU eight billion take minutes."""
        with torch.device(self.device):
            return build_model(*args, **settings)

    def config(self, model: str) -> Setting:
        """Sizes of the model."""
        full: Setting = MODELS[model]["config"]
        return {**full, **TINY} if self.small else full


def empty_cache(gpu: bool) -> None:
    """Give back what a model took."""
    if gpu:
        torch.cuda.empty_cache()


def write_tokenizer(config: Setting, folder: Path) -> None:
    """A tokenizer of as many words as ``config`` has tokens, and what a scorer is read from."""
    if not folder.exists():
        word_tokenizer(words(config["vocab_size"])).save_pretrained(folder)
        AutoConfig.for_model(**config).save_pretrained(folder)


# Checks


def pairs(count: int = 12) -> list[PromptTree]:
    """Ragged pairs of the tiny vocabulary."""
    draw = torch.Generator().manual_seed(0)

    def ids(most: int) -> tuple[int, ...]:
        n = int(torch.randint(2, most, (1,), generator=draw))
        return tuple(torch.randint(SPECIAL_TOKENS, 128, (n,), generator=draw).tolist())

    return [PromptTree(i, str(i), ids(12), (ids(9), ids(9))) for i in range(count)]


def tiny_policy(bench: Bench, folder: Path, **settings: Any) -> Policy:
    """A new one; the same weights each time."""
    config = {"model_type": "llama", **TINY}
    write_tokenizer(config, folder / "tiny")
    return Policy(config=config, tokenizer=str(folder / "tiny"), **settings)


def fitted(bench: Bench, folder: Path, steps: int, ckpt: str | None = None, **settings: Any) -> Any:
    """DPO on ragged pairs; the objective after ``steps``."""
    trees = pairs()
    case = Case("check", "dpo", 8, 6, batch=3, steps=steps - 1, warmup=1, lr=1e-2)
    data = Rows(case)
    data.train_trees = trees
    objective = objective_of(case, tiny_policy(bench, folder), folder)
    loader = TreeLoader(trees, batch_size=3)
    data.train_dataloader = lambda: loader  # type: ignore[method-assign]
    meter = Meter(1)
    own = {"accelerator": "gpu" if bench.gpu else "cpu", "max_steps": steps, **settings}
    trainer_of(case, folder, meter, **own).fit(objective, datamodule=data, ckpt_path=ckpt)
    return objective, meter.losses


def weights_of(objective: Any) -> dict[str, Tensor]:
    """The policy's, on the CPU."""
    return {name: p.detach().cpu().clone() for name, p in objective.policy.named_parameters()}


def check_devices(bench: Bench, folder: Path) -> dict[str, Any]:
    """Log-probs on this device are those of the CPU, in float32."""
    policy, batch = tiny_policy(bench, folder).eval(), collate(pairs())
    with torch.no_grad():
        before = policy(batch).token_logps
        after = policy.to(bench.device)(batch.to(bench.device)).token_logps.cpu()
    error = float((before - after).abs().max())
    return {"error": error, "ok": error < 1e-4}


def check_resume(bench: Bench, folder: Path) -> dict[str, Any]:
    """Three steps, or two and one more from the checkpoint: the same bits."""
    save = ModelCheckpoint(folder / "steps", every_n_train_steps=2, save_top_k=-1)
    own = {"deterministic": True, "enable_checkpointing": True}
    whole, _ = fitted(bench, folder, 3, callbacks=[save], **own)
    ckpt = str(next((folder / "steps").glob("*step=2.ckpt")))
    parts, _ = fitted(bench, folder, 3, ckpt=ckpt, callbacks=[], **own)
    torch.use_deterministic_algorithms(False)
    one, other = weights_of(whole), weights_of(parts)
    differ = [name for name in one if not torch.equal(one[name], other[name])]
    return {"different": differ, "ok": not differ}


def check_strategy(bench: Bench, folder: Path, strategy: Callable[[], Any]) -> dict[str, Any]:
    """Losses under a sharding strategy with one rank are those without."""
    _, alone = fitted(bench, folder, 3)
    _, sharded = fitted(bench, folder, 3, strategy=strategy(), devices=1)
    error = max(abs(a - b) for a, b in zip(alone, sharded, strict=True))
    return {"error": error, "ok": error < 1e-5}


def check_fsdp1(bench: Bench, folder: Path) -> dict[str, Any]:
    """Lightning's FSDPStrategy, which refuses a CPU."""
    if not bench.gpu:
        return {"state": "needs a GPU"}
    return check_strategy(bench, folder, lambda: FSDPStrategy(state_dict_type="full"))


def check_qlora(bench: Bench, folder: Path) -> dict[str, Any]:
    """Gradients of adapters over 4-bit weights are those over the weights' decoded values."""
    from bitsandbytes.functional import dequantize_4bit

    tiny_policy(bench, folder).save(folder / "base")
    policy = Policy(str(folder / "base"), lora=Lora(rank=4), quantised=Quantised())
    policy = policy.to(bench.device)
    batch = collate(pairs()).to(bench.device)
    with torch.no_grad():
        for p in policy.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
        policy.eval()(batch)
    found = gradients(policy, batch)
    for name, layer in layers_in_4_bits(policy.model).items():
        plain = nn.Linear(layer.in_features, layer.out_features, bias=False)
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        plain.weight = nn.Parameter(weight.to(layer.compute_dtype), requires_grad=False)
        policy.model.set_submodule(name, plain)
    wanted = gradients(policy, batch)
    errors = [
        float((found[name] - wanted[name]).norm() / wanted[name].norm().clamp(min=1e-12))
        for name in wanted
    ]
    return {"error": max(errors), "ok": set(found) == set(wanted) and max(errors) < 1e-5}


def gradients(policy: Policy, batch: PromptTrees) -> dict[str, Tensor]:
    """Of the summed log-probs."""
    policy.zero_grad()
    policy.train()(batch).logps.sum().backward()
    return {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}


CHECKS: dict[str, Callable[[Bench, Path], dict[str, Any]]] = {
    "check-devices": check_devices,
    "check-qlora": check_qlora,
    "check-fsdp2": lambda bench, folder: check_strategy(bench, folder, FSDP2),
    "check-fsdp": check_fsdp1,
    "check-resume": check_resume,
}


# Speed and memory


class Clock(L.Callback):
    """Seconds and peak of the steps after the first; stops the training when they are enough."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.seconds = device, seconds
        self.took: list[float] = []
        self._last = self._now()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """After each optimizer step."""
        now = self._now()
        self.took.append(now - self._last)
        self._last = now
        trainer.should_stop = sum(self.took) > self.seconds and len(self.took) > 1

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def shape_of(bench: Bench, objective: str, model: str) -> Case:
    """The case's rows: all of one length, so that tokens/s mean the same everywhere."""
    setting = MODELS[model]
    length, rows = (16, 4) if bench.small else (setting["length"], setting["rows"])
    size = {"vocabulary": bench.config(model)["vocab_size"], "exact": True, "lr": 1e-5}
    steps = {"steps": 1 if bench.small else 40, "warmup": 1}
    if objective in ("ppo", "grpo"):
        k, new = (1, length // 8) if objective == "ppo" else (4, length // 8)
        return Case(
            f"{objective}-{model}", objective, length - new, new, k, rows // k, **steps, **size
        )
    if objective in ("sft", "kto"):
        if objective == "sft" and not setting["lora"]:  # one text
            length, rows = length * rows, 1
        half = length // 2
        return Case(
            f"{objective}-{model}", objective, half, half - 1, 1, max(rows, 1), **steps, **size
        )
    half = length // 2
    return Case(f"{objective}-{model}", objective, half, half - 1, 2, rows // 2, **steps, **size)


def necessary_flops(case: Case, config: Setting, *, adapters: bool) -> float:
    """Of one optimizer step, see the docstring above."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    queries, keys = heads * config["head_dim"], config["num_key_value_heads"] * config["head_dim"]
    weights = width * (2 * queries + 2 * keys + 3 * config["intermediate_size"])
    answer = case.completion if case.samples else case.completion + 1
    tokens = case.prompt + case.k * answer
    seen = case.prompt**2 / 2 + case.k * answer * (case.prompt + answer / 2)
    trunk = config["num_hidden_layers"] * (2 * weights * tokens + 4 * queries * seen)
    head = 0 if case.objective == "rm" else 2 * width * config["vocab_size"] * case.k * answer
    passes = 2.0 if adapters else 3.0  # forward, and gradients of states and of weights
    if case.objective in ("dpo", "kto", "ppo", "grpo"):
        passes += 1  # the reference
    if case.samples:
        passes += 1  # sampling
    return case.batch * passes * (trunk + head)


def measure(bench: Bench, folder: Path, case: Case, model: str) -> dict[str, Any]:
    """Tokens/s, MFU and peak of an objective's steps."""
    trained = (bench.scorer if case.objective == "rm" else bench.policy)(model, folder)
    objective = objective_of(case, trained, folder)
    # A training's end moves the model to the CPU, which takes longer than the case.
    objective.cpu = lambda: objective  # type: ignore[method-assign]
    if bench.gpu:
        torch.cuda.reset_peak_memory_stats()
    clock = Clock(bench.device, 0 if bench.small else SECONDS - 5)
    trainer = trainer_of(
        case,
        folder,
        Meter(1),
        accelerator="gpu" if bench.gpu else "cpu",
        precision="bf16-mixed" if bench.gpu else "32-true",
        deterministic=False,
        callbacks=[clock],
    )
    trainer.fit(objective, datamodule=Rows(case))
    answer = case.completion if case.samples else case.completion + 1
    tokens = case.batch * case.k * (case.prompt + answer)
    computed = case.batch * (case.prompt + case.k * answer)
    seconds = sum(clock.took[1:]) / len(clock.took[1:])
    flops = necessary_flops(case, bench.config(model), adapters=MODELS[model]["lora"])
    peak = torch.cuda.max_memory_allocated() if bench.gpu else resident("VmHWM")
    limit = peak_flops(bench)
    return {
        "tokens_per_second": round(tokens / seconds),
        "step_seconds": round(seconds, 4),
        "steps": len(clock.took) - 1,
        "tokens_per_step": tokens,
        "computed": round(computed / tokens, 3),
        "mfu": round(flops / seconds / limit, 4) if limit else None,
        "peak_gib": round(peak / 2**30, 2),
    }


def peak_flops(bench: Bench) -> float | None:
    """What the device could do in bfloat16, if its name is known."""
    name = torch.cuda.get_device_name() if bench.gpu else ""
    return next((flops for part, flops in PEAKS.items() if part in name), None)


def parts_of(bench: Bench, folder: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """All parts, the most wanted first; those of one model stand together, as it is made once."""
    yield "check-devices", partial(check_devices, bench, folder)
    for some in (WANTED[:4], WANTED[4:]):
        for model in MODELS:
            # The scorer takes the policy's place in memory, so it comes last.
            for objective in sorted(some, key=lambda name: name == "rm"):
                case = shape_of(bench, objective, model)
                yield case.name, partial(measure, bench, folder, case, model)
        if some == WANTED[:4]:
            for name, check in CHECKS.items():
                if name != "check-devices":
                    yield name, partial(check, bench, folder)


def header(bench: Bench) -> dict[str, Any]:
    """What ran this."""
    return {
        "device": torch.cuda.get_device_name() if bench.gpu else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "small": bench.small,
    }


def main(words: list[str] | None = None) -> list[dict[str, Any]]:
    """Run all parts that fit in the time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--only", nargs="+", default=[""], help="parts whose name begins so")
    args = parser.parse_args(words)
    for silenced in NOT_SHOWN:
        warnings.filterwarnings("ignore", **silenced)
    bench = Bench(args.out, args.minutes - 0.5, args.small)
    (args.out / "device.json").write_text(json.dumps(header(bench), indent=1) + "\n")
    found = []
    with tempfile.TemporaryDirectory() as name:
        for part, work in parts_of(bench, Path(name)):
            if part.startswith(tuple(args.only)):
                found.append(bench.run(part, work))
    return found


if __name__ == "__main__":
    main()
