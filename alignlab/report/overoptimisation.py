"""The figure of over-optimisation: a panel per curve, a function of its two tables alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.evaluation.overoptimisation import Form, terms
from alignlab.report.figure import GREY, KINDS, MARKERS, PALETTE, SETTINGS, save
from alignlab.results.csv_tables import read_table

SCORES = {"gold": (PALETTE[0], "-"), "proxy": (PALETTE[1], "--")}
COLUMNS = 4


def draw_overoptimisation(tables: Path, out: Path, *, reward_label: str) -> list[Path]:
    """Draw ``overoptimisation.png``, ``.svg`` and ``.pdf`` from the tables in a folder.

    Across is d, the square root of KL. Marks are checkpoints, one marker for each seed, lines the
    mean fits up to the d that was reached; the learned reward has an axis of its own on the right,
    because its unit is arbitrary. The band is the interval of the gold reward's peak. Equal tables
    give equal files.

    Args:
        tables: Folder of ``overoptimisation.csv`` and ``fits.csv``.
        out: Where the files go.
        reward_label: Name and unit of the gold reward.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    points = read_table(tables / "overoptimisation.csv")
    fits = {(row["curve"], row["score"]): row for row in read_table(tables / "fits.csv")}
    names = list(dict.fromkeys(row["curve"] for row in points))
    depth = -(-len(names) // COLUMNS)
    with mpl.rc_context({**SETTINGS, "font.size": 8}):
        figure, grid = plt.subplots(
            depth,
            min(COLUMNS, len(names)),
            figsize=(2.6 * min(COLUMNS, len(names)), 0.6 + 2.0 * depth),
            squeeze=False,
            layout="constrained",
        )
        for axes in grid.flat[len(names) :]:
            axes.set_axis_off()
        for axes, name in zip(grid.flat, names, strict=False):
            _panel(axes, name, [row for row in points if row["curve"] == name], fits)
        figure.supylabel(f"gain in {reward_label} (blue, solid)", fontsize=8, color=PALETTE[0])
        figure.supxlabel(
            "d = sqrt(KL(policy ‖ reference)) · orange, dashed, right: gain in learned reward\n"
            "marks: checkpoints, a marker for each seed · lines: fits · band: interval of the peak",
            fontsize=8,
            color=GREY,
        )
        paths = [save(figure, out / f"overoptimisation.{kind}") for kind in KINDS]
        plt.close(figure)
    return paths


def _panel(
    axes: Any,
    name: str,
    points: Sequence[Mapping[str, str]],
    fits: Mapping[tuple[str, str], Mapping[str, str]],
) -> None:
    axes.set_title(name, fontsize=8, loc="left")
    axes.axhline(0.0, color="#DDDDDD", linewidth=0.8, zorder=0)
    seeds = sorted({row["seed"] for row in points}, key=int)
    for score, (colour, dash) in SCORES.items():
        own = fits.get((name, score))
        if own is None:
            continue
        on = axes if score == "gold" else axes.twinx()
        on.tick_params(axis="y", labelcolor=colour)
        on.spines["right"].set_visible(score == "proxy")
        for row in points:
            place = seeds.index(row["seed"]) % len(MARKERS)
            gain = float(row[f"{score}_gain"])
            on.plot(float(row["d"]), gain, MARKERS[place], color=colour, markersize=2.5, alpha=0.6)
        reached = float(own["d_reached"])
        d = np.linspace(0, reached, 60)
        form: Form = "best_of_n" if own["form"] == "best_of_n" else "rl"
        curve = terms(form, d) @ [float(own["alpha"]), float(own["beta"])]
        on.plot(d, curve, dash, color=colour, linewidth=1.4)
        if score == "gold" and own["peak_resolved"] == "yes":
            ends = float(own["peak_lo"]), float(own["peak_hi"])
            on.axvspan(*ends, color=colour, alpha=0.12, linewidth=0)
    axes.set_xlim(left=0)
