"""Where the processor time of a training step goes: PyTorch's operations, most expensive first.

    python benchmarks/profile_step.py CONFIG_OR_ADDRESS [options of fit] [--out FILE.md]

For example ``experiments/quickstart:dpo``, whose inputs ``alignlab run experiments/quickstart``
makes. Steps 20 to 30 are profiled, without probe, logs and checkpoints. One thread. With ``--out``
the table is appended to a Markdown file under the name of the config.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback
from torch.profiler import ProfilerActivity, profile

from alignlab.plan.address import fit_words
from alignlab.training import fit

FIRST, STEPS, ROWS = 20, 10, 14


class Profiled(Callback):
    """Profiles ``STEPS`` micro-batches, rollouts between them included."""

    def __init__(self) -> None:
        self.profile = profile(activities=[ProfilerActivity.CPU])

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Start, and stop ``STEPS`` later."""
        if trainer.global_step == FIRST:
            self.profile.start()
        elif trainer.global_step == FIRST + STEPS:
            self.profile.stop()


def table(found: profile) -> list[str]:
    """Markdown rows: operation, share of the time, milliseconds and calls of a step."""
    events = sorted(found.key_averages(), key=lambda each: -each.self_cpu_time_total)
    total = sum(each.self_cpu_time_total for each in events)
    lines = [f"{total / STEPS / 1e3:.1f} ms a step.", "", "| operation | share | ms | calls |"]
    lines.append("|---|---|---|---|")
    for each in events[:ROWS]:
        share, spent = each.self_cpu_time_total / total, each.self_cpu_time_total / STEPS / 1e3
        lines.append(f"| `{each.key}` | {share:.0%} | {spent:.2f} | {each.count / STEPS:.0f} |")
    return lines


def main() -> None:
    """Train, profile, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    args, words = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = [
            f"--trainer.default_root_dir={folder}", f"--trainer.max_steps={FIRST + STEPS + 1}",
            "--trainer.logger=false", "--trainer.enable_progress_bar=false", "--probe=null",
            "--trainer.callbacks=null",
        ]  # fmt: skip
        callback = Profiled()
        fit.run_fit(fit.build([*fit_words("fit", words, Path(folder)), *settings], [callback]))
    text = "\n".join([f"## {words[0]}", "", *table(callback.profile), ""])
    print(text)
    if args.out is not None:
        with args.out.open("a", encoding="utf-8") as file:
            file.write(f"\n{text}")


if __name__ == "__main__":
    main()
