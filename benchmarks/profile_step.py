"""Where the processor time of a training step goes: PyTorch's operations, most expensive first.

    python benchmarks/profile_step.py NAME ... [options of fit] [--out FILE.md]

A name is a case of ``bench.py`` (``dpo-cold-300+40-fp32``), or a stage of an experiment
(``experiments/quickstart:dpo``, whose inputs ``alignlab run experiments/quickstart --only pairs``
makes). Options of fit concern stages; ``--config FILE`` in place of names is a config of fit.
Of a case four steps are profiled after two, of a stage ten after twenty, without probe, logs and
checkpoints. A step of on-policy objectives is a whole phase in cases, and a minibatch in stages.
One thread. ``--out`` writes the tables to a Markdown file.
"""

import argparse
import itertools
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench import prepare
from bench_report import machine
from lightning.pytorch import Callback
from sides.alignlab_side import train
from sides.cases import CASES
from sides.work import Meter
from torch.profiler import ProfilerActivity, profile

from alignlab.plan.address import fit_words
from alignlab.training import fit

ROWS = 14
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
NOTE = (
    "`Optimizer.step` contains Python's own time of the whole step, which Lightning computes "
    "inside of it; `aten::_fused_adamw_` is the update of the weights."
)
KNOWN = {case.name: case for case in CASES}


class Profiled(Callback):
    """Profiles optimizer steps, rollouts between them included.

    Args:
        first: Steps before them.
        steps: Number of profiled steps.
    """

    def __init__(self, first: int, steps: int) -> None:
        self.first, self.steps = first, steps
        self.profile = profile(activities=[ProfilerActivity.CPU])
        self.running = False

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Start before the first of them, and stop before the step behind them."""
        done = trainer.global_step - self.first
        if done == 0 and not self.running:
            self.profile.start()
            self.running = True
        elif done == self.steps and self.running:
            self.profile.stop()
            self.running = False

    def table(self) -> list[str]:
        """Markdown rows: operation, share of the time, milliseconds and calls of a step."""
        events = sorted(self.profile.key_averages(), key=lambda each: -each.self_cpu_time_total)
        total = sum(each.self_cpu_time_total for each in events)
        products = sum(each.self_cpu_time_total for each in events if each.key in PRODUCTS) / total
        lines = [
            f"{total / self.steps / 1e3:.1f} ms a step, of which matrix products {products:.0%}.",
            "",
            "| operation | share | ms | calls |",
            "|---|---|---|---|",
        ]
        for each in events[:ROWS]:
            took = each.self_cpu_time_total
            of_step = f"{took / self.steps / 1e3:.2f} | {each.count / self.steps:.0f}"
            lines.append(f"| `{each.key}` | {took / total:.0%} | {of_step} |")
        return lines


def of_case(name: str, folder: Path) -> Profiled:
    """Train on a case's rows as ``bench.py`` does."""
    callback = Profiled(first=2, steps=4)
    case = replace(KNOWN[name], warmup=callback.first, steps=callback.steps + 1)
    prepare(case, folder)
    train(case, folder, Meter(case.warmup), callbacks=[callback])
    return callback


def of_stage(words: Sequence[str], folder: Path) -> Profiled:
    """Train with the words of a command line of ``alignlab fit``."""
    callback = Profiled(first=20, steps=10)
    settings = [
        f"--trainer.default_root_dir={folder}",
        f"--trainer.max_steps={callback.first + callback.steps + 1}",
        "--trainer.logger=false", "--trainer.enable_progress_bar=false", "--probe=null",
        "--trainer.callbacks=null",
    ]  # fmt: skip
    fit.run_fit(fit.build([*fit_words("fit", words, folder), *settings], [callback]))
    return callback


def main() -> None:
    """Train, profile, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    args, words = parser.parse_known_args()
    torch.set_num_threads(1)
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    options = words[len(names) :]
    call = f"Made by `python {shlex.join(sys.argv)}`."
    pages = ["# Profiles of training steps", f"{call} {machine()}", NOTE]
    for name in names or [""]:
        with tempfile.TemporaryDirectory() as folder:
            if name in KNOWN:
                found = of_case(name, Path(folder))
            else:
                found = of_stage([*filter(None, [name]), *options], Path(folder))
        pages += [f"## {name or shlex.join(options)}", "\n".join(found.table())]
        print("\n\n".join(pages[-2:]), flush=True)
    if args.out is not None:
        args.out.write_text("\n\n".join(pages) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
