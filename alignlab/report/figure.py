"""The frontier as a picture: reward against KL, a function of the tables alone."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.evaluation.tables import FrontierRow, Point, atomic_write
from alignlab.report.table import CURVES_WITHOUT_TRAINING

# Okabe and Ito's colour-blind safe palette; yellow is left out, it cannot be read on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "osD^vPX*"
FIXED = {"dpo": 0, "ppo": 1, "ppo_gt": 2}  # the same colours in every figure
TICKS = (0, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20)
GREY = "#555555"


def draw_frontier(
    rows: Sequence[FrontierRow],
    points: Sequence[Point],
    out_dir: Path,
    *,
    title: str = "",
    reward_label: str = "gold reward",
) -> list[Path]:
    """Draw ``frontier.png`` and ``frontier.svg``.

    KL is on a square-root scale: the optimum starts like sqrt(KL), so curves start as straight
    lines and small budgets stay readable. Equal tables give equal files.

    Args:
        rows: Frontier rows; the more budgets, the smoother the curves.
        points: Checkpoints, drawn faintly.
        out_dir: Where the files go.
        title: Above the figure.
        reward_label: Name (and unit) of the vertical axis.

    Returns:
        The two files.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    settings = {
        "svg.hashsalt": "alignlab",
        "svg.fonttype": "path",
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(settings):
        figure, axes = plt.subplots(figsize=(8.6, 4.8), layout="constrained")
        hidden = _draw(axes, rows, points)
        axes.set_ylabel(reward_label)
        axes.set_title(title, loc="left", fontsize=12)
        figure.legend(loc="outside right upper", frameon=False, fontsize=10)
        note = "lines: frontier over seeds, with 95 % bands · faint marks: checkpoints"
        if hidden:
            note += f" ({hidden} below the axis)"
        figure.supxlabel(note, fontsize=8.5, color=GREY, x=0.01, ha="left")
        paths = [_save(figure, out_dir / "frontier.png"), _save(figure, out_dir / "frontier.svg")]
        plt.close(figure)
    return paths


def _draw(axes: Any, rows: Sequence[FrontierRow], points: Sequence[Point]) -> int:
    """Draw everything; return how many checkpoints lie below the axis."""
    right = max([1.0, *(1.05 * x for x in _reached(rows))])
    reference = next((row.reward for row in rows if row.objective == "reference"), None)
    origin = [] if reference is None else [(0.0, reference)]
    for name in dict.fromkeys(row.objective for row in rows):
        own = [row for row in rows if row.objective == name and row.reward is not None]
        own = sorted((row for row in own if row.kl_budget <= right), key=lambda r: r.kl_budget)
        if own:
            _line(axes, name, own, origin, points)
    bottom, top = _vertical(rows, points, right)
    names = sorted({point.objective for point in points})
    for name in names:
        own_points = [point for point in points if point.objective == name]
        colour, marker = style(name, names)
        axes.scatter(
            [point.kl for point in own_points],
            [point.reward for point in own_points],
            s=26,
            color=colour,
            marker=marker,
            alpha=0.45,
            edgecolors="white",
            linewidths=0.5,
            zorder=3.5,
        )
    axes.set_xscale("function", functions=(_sqrt, np.square))
    axes.set_xlim(0, right)
    axes.set_ylim(bottom, top)
    ticks = [tick for tick in TICKS if tick <= right]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("KL(policy ‖ reference), nats per completion (square-root scale)")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    return sum(point.reward < bottom for point in points if point.kl <= right)


def _line(
    axes: Any,
    name: str,
    rows: Sequence[FrontierRow],
    origin: list[tuple[float, float]],
    points: Sequence[Point],
) -> None:
    names = sorted({point.objective for point in points})
    colour, _ = style(name, names)
    at = [kl for kl, _ in origin] + [row.kl_budget for row in rows]
    reward = [r for _, r in origin] + [row.reward for row in rows]
    if name == "reference":
        axes.plot(at, reward, color=GREY, linewidth=1, linestyle=":", label=name, zorder=1)
        return
    look: dict[str, Any] = {"linewidth": 2, "color": colour}
    label = name
    if name in CURVES_WITHOUT_TRAINING:
        look["color"] = "black" if name == "oracle" else GREY
        dashes = {"best_of_n": (0, (5, 2)), "best_of_n_gt": (0, (1.5, 1.5))}
        look["linestyle"] = dashes.get(name, "-")
        look["linewidth"] = 1.6
    else:
        seeds = max(row.n_seeds for row in rows)
        label = f"{name} ({seeds} seed{'s' * (seeds != 1)})"
        low = [r for _, r in origin] + [row.reward_lo for row in rows]
        high = [r for _, r in origin] + [row.reward_hi for row in rows]
        axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0, zorder=1.5)
    axes.plot(at, reward, label=label, zorder=4 if name == "oracle" else 3, **look)


def style(name: str, names: Sequence[str]) -> tuple[str, str]:
    """Colour and marker: fixed for the usual three, the rest in order of their names."""
    others = [other for other in names if other not in FIXED]
    place = FIXED.get(name, len(FIXED) + others.index(name) if name in others else 0)
    return PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]


def _reached(rows: Sequence[FrontierRow]) -> list[float]:
    """Budgets at which some trained objective has a reward; any curve's, if none is trained."""
    trained = [row for row in rows if row.objective not in CURVES_WITHOUT_TRAINING]
    own = trained or [row for row in rows if row.objective != "reference"]
    return [row.kl_budget for row in own if row.reward is not None]


def _vertical(
    rows: Sequence[FrontierRow], points: Sequence[Point], right: float
) -> tuple[float, float]:
    """Limits that hold every curve, and checkpoints down to half the range below the lowest."""
    shown = [row for row in rows if row.kl_budget <= right and row.reward is not None]
    heights = [row.reward for row in shown if row.reward is not None] or [0.0, 1.0]
    bands = [row for row in shown if row.objective not in CURVES_WITHOUT_TRAINING]
    ends = [x for row in bands for x in (row.reward_lo, row.reward_hi) if x is not None]
    low, high = min(heights), max(heights)
    spread = (high - low) or 1.0
    near = [p.reward for p in points if p.kl <= right and p.reward > low - 0.5 * spread]
    low = max(min([low, *near, *ends]), low - 0.5 * spread)
    high = max([high, *near, *(min(end, high + 0.5 * spread) for end in ends)])
    margin = 0.05 * ((high - low) or 1.0)
    return low - margin, high + margin


def _sqrt(x: Any) -> Any:
    return np.sqrt(np.maximum(x, 0.0))  # matplotlib asks about places left of 0


def _save(figure: Any, path: Path) -> Path:
    buffer = io.BytesIO()
    kind = path.suffix[1:]
    # No date and no version, so that equal tables give equal files.
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=130, metadata=metadata)
    atomic_write(path, buffer.getvalue())
    return path
