"""The figure and the page beside the table of ``bench.py``."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sides.cases import SWEEP

PACKAGES = ("torch", "lightning", "transformers", "trl", "accelerate")
SIZES = {  # of the sweep, as its cases are named: the field of a case, and the axis
    "prompt": ("prompt", "prompt tokens"),
    "completion": ("completion", "completion tokens"),
    "k": ("k", "completions of a prompt (GRPO)"),
    "batch": ("batch", "prompts of a step"),
    "vocabulary": ("vocabulary", "vocabulary"),
    "width": ("hidden", "width of the model"),
}
BASE = "sweep-prompt-128"  # the others differ from it in one size; GRPO's from one another
Rows = Sequence[dict[str, Any]]


def write_report(folder: Path, rows: Rows) -> None:
    """Write ``README.md``, ``ratios.png`` and ``sweep.png`` of the rows of ``table.csv``."""
    draw(folder / "ratios.png", [row for row in rows if not row["case"].startswith("sweep")])
    draw_sweep(folder / "sweep.png", rows)
    lines = [
        "# alignlab beside its peers",
        "",
        "Made by `make bench` (`python benchmarks/bench.py --help` says what is compared and how).",
        "Ratios are the peer's processor seconds over alignlab's, the median over pairs of runs",
        "with its range; of `limit` the share of the necessary matrix products' time. Times are",
        "milliseconds a prompt, of rollouts a token.",
        "",
        f"Machine: {machine()}",
        "",
        "| case | peer | ratio | range | ours ms | peer ms | ours MB | peer MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['case']} | {row['peer']} | {float(row['cpu_ratio']):.2f} "
            f"| {row['cpu_ratio_least']}-{row['cpu_ratio_most']} | {row['ours_cpu_ms']} "
            f"| {row['peer_cpu_ms']} | {row['ours_peak_mb']} | {row['peer_peak_mb']} |"
        )
    (folder / "README.md").write_text("\n".join(lines).rstrip() + "\n")


def machine() -> str:
    """Processor, cores, memory and versions in a line."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    model, flags = processor()
    return (
        f"{model}, {os.cpu_count()} logical cores of which one is used, {pages:.0f} GiB, "
        f"instructions for bfloat16: {flags}; Python {platform.python_version()}, {packages}."
    )


def processor() -> tuple[str, str]:
    """Its name, and which of its instructions multiply bfloat16."""
    lines = Path("/proc/cpuinfo").read_text().split("\n")
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    known = {name.strip(): value.strip() for name, value in fields.items()}
    own = set(known.get("flags", "").split()) & {"avx512_bf16", "amx_bf16"}
    return known.get("model name", platform.processor()), ", ".join(sorted(own)) or "none"


def draw(path: Path, rows: Rows) -> None:
    """A bar for every case and peer, with its range; the limit as a mark."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    shown = [row for row in rows if row["peer"] not in ("limit", "prototype", "plain")]
    limits = {r["case"]: float(r["cpu_ratio"]) for r in rows if r["peer"] == "limit"}
    figure, axes = plt.subplots(figsize=(7, 0.28 * len(shown) + 1.2))
    for place, row in enumerate(reversed(shown)):
        ratio, least, most = (float(row[f"cpu_ratio{end}"]) for end in ("", "_least", "_most"))
        axes.barh(place, ratio, color="#4c72b0", xerr=[[ratio - least], [most - ratio]])
        if row["case"] in limits:
            axes.plot(ratio / limits[row["case"]], place, "k|", markersize=10)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [f"{r['case']} ({r['peer']})" for r in reversed(shown)])
    axes.set_xlabel("processor time of the peer over alignlab's\n(stroke: limit of products)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def swept(rows: Rows) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """For each size of the sweep that has rows of ``trl``: its values in order, with their rows."""
    known = {row["case"]: row for row in rows if row["peer"] == "trl"}
    found = {}
    for size, (field, _) in SIZES.items():
        own = [case for case in SWEEP if case.name.startswith(f"sweep-{size}-")]
        own += [case for case in SWEEP if case.name == BASE and size not in ("prompt", "k")]
        values = [(getattr(case, field), known[case.name]) for case in own if case.name in known]
        found[size] = sorted(values, key=lambda value: value[0])
    return {size: values for size, values in found.items() if values}


def draw_sweep(path: Path, rows: Rows) -> None:
    """The ratio to TRL along each size that is swept; no figure where none was."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    found = swept(rows)
    if not found:
        return
    figure, axes = plt.subplots(2, 3, figsize=(8, 4.6), sharey=True)
    for (size, values), panel in zip(found.items(), axes.flat, strict=False):
        sizes = [value for value, _ in values]
        middle, least, most = (
            [float(row[f"cpu_ratio{end}"]) for _, row in values] for end in ("", "_least", "_most")
        )
        panel.plot(sizes, middle, "o-", color="#4c72b0", markersize=4)
        panel.fill_between(sizes, least, most, alpha=0.3, color="#4c72b0")
        panel.axhline(1, color="grey", linewidth=0.8)
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, list(map(str, sizes)))
        panel.set_xlabel(SIZES[size][1])
    axes.flat[0].set_ylim(bottom=0)
    figure.supylabel("processor time of TRL over alignlab's", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
