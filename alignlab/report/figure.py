"""The frontier as a picture: reward against KL, a function of the tables alone."""

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.files import atomic_write
from alignlab.report.table import CURVES_WITHOUT_TRAINING
from alignlab.results.tables import FrontierRow, Point

# Okabe and Ito's colour-blind safe palette; yellow is left out, it cannot be read on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":", "-.")  # a colour's second use is dashed
FIXED = {"dpo": 0, "ppo": 1, "ppo_gt": 2}  # the same colours in every figure
TICKS = (0, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20)
GREY = "#555555"
Curve = tuple[list[float], list[float], list[float], list[float]]  # KL, reward, its ends
UNTRAINED: dict[str, dict[str, Any]] = {
    "oracle": {"color": "black", "linestyle": "-"},
    "best_of_n": {"color": GREY, "linestyle": (0, (5, 2))},
    "best_of_n_gt": {"color": GREY, "linestyle": (0, (1.5, 1.5))},
}
CROWD = 8  # with more trained objectives than this, each has its own panel
COLUMNS = 5


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
    lines and small budgets stay readable. More than ``CROWD`` trained objectives are drawn as
    small panels, each with one of them over the others in grey. Equal tables give equal files.

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
        "text.parse_math": False,  # names are text, whatever characters they contain
    }
    with mpl.rc_context(settings):
        if len(_trained(rows)) > CROWD:
            figure, hidden = _panels(plt, rows, points, reward_label)
            figure.suptitle(title, x=0.01, ha="left", fontsize=12)
            note = (
                "across: KL(policy ‖ reference) in nats (square-root scale) · black: the optimum\n"
            )
            note += (
                "dashed, dotted: best of n by the learned, by the gold reward · grey: the others\n"
            )
        else:
            figure, axes = plt.subplots(figsize=(8.6, 4.8), layout="constrained")
            hidden = _draw(axes, rows, points)
            note = ""
            axes.set_xlabel("KL(policy ‖ reference), nats per completion (square-root scale)")
            axes.set_ylabel(reward_label)
            axes.set_title(title, loc="left", fontsize=12)
            figure.legend(loc="outside right upper", frameon=False, fontsize=10)
        note += "lines: frontier over seeds, with 95 % bands · faint marks: checkpoints"
        if hidden:
            note += f" ({hidden} below the axis)"
        figure.supxlabel(note, fontsize=8.5, color=GREY, x=0.01, ha="left")
        paths = [_save(figure, out_dir / "frontier.png"), _save(figure, out_dir / "frontier.svg")]
        plt.close(figure)
    return paths


def _draw(axes: Any, rows: Sequence[FrontierRow], points: Sequence[Point]) -> int:
    """Draw everything; return how many checkpoints lie below the axis."""
    right = _right(rows)
    for name in dict.fromkeys(row.objective for row in rows):
        own = [row for row in rows if row.objective == name and row.reward is not None]
        if min((row.kl_budget for row in own), default=math.inf) <= right:
            seeds = max(row.n_seeds for row in own)
            _line(axes, name, _curve(rows, name, right), seeds, points)
    bottom, top = _vertical(rows, points, right)
    names = sorted({point.objective for point in points})
    for name in names:
        own_points = [point for point in points if point.objective == name]
        colour, marker, _ = style(name, names)
        _marks(axes, own_points, colour, marker)
    _frame(axes, right, bottom, top)
    return sum(point.reward < bottom for point in points if point.kl <= right)


def _panels(
    plt: Any, rows: Sequence[FrontierRow], points: Sequence[Point], reward_label: str
) -> tuple[Any, int]:
    """A panel per trained objective; returns the figure and the checkpoints below its axes."""
    names, right = _trained(rows), _right(rows)
    # Wide bands of a few curves must not press all panels flat: they are cut.
    bottom, top = _vertical(
        [replace(row, reward_lo=None, reward_hi=None) for row in rows], points, right
    )
    depth = -(-len(names) // COLUMNS)
    figure, grid = plt.subplots(
        depth,
        COLUMNS,
        figsize=(2.0 * COLUMNS, 0.8 + 1.8 * depth),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    curves = {name: _curve(rows, name, right) for name in names}
    untrained = {name: _curve(rows, name, right) for name in UNTRAINED}
    colour = PALETTE[0]
    for axes, name in zip(grid.flat, names, strict=False):
        for other in names:
            axes.plot(*curves[other][:2], color="#D0D0D0", linewidth=0.7, zorder=1)
        for other, look in UNTRAINED.items():
            axes.plot(*untrained[other][:2], linewidth=1, zorder=2, **look)
        at, reward, low, high = curves[name]
        axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0, zorder=1.5)
        axes.plot(at, reward, color=colour, linewidth=1.8, zorder=3)
        _marks(axes, [p for p in points if p.objective == name], colour, "o", size=9)
        _frame(axes, right, bottom, top, ticks=(0, 0.5, 1, 2, 3, 5, 10, 20))
        axes.tick_params(labelsize=8.5)
        axes.set_title(name, fontsize=10, loc="left")
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for column in range(COLUMNS):  # the lowest panel of a column carries the numbers
        lowest = max(row for row in range(depth) if row * COLUMNS + column < len(names))
        grid[lowest][column].tick_params(labelbottom=True)
    figure.supylabel(reward_label, fontsize=11)
    return figure, sum(point.reward < bottom for point in points if point.kl <= right)


def _curve(rows: Sequence[FrontierRow], name: str, right: float) -> Curve:
    """An objective's budgets up to ``right``, its rewards, and both ends of its band.

    From KL 0 on, where every policy is the reference, if its reward is known.
    """
    at = [
        (row.kl_budget, row.reward, row.reward_lo, row.reward_hi)
        for row in rows
        if row.objective == name and row.reward is not None and row.kl_budget <= right
    ]
    at.sort(key=lambda four: four[0])
    start = next((row.reward for row in rows if row.objective == "reference"), None)
    if start is not None:
        at.insert(0, (0.0, start, start, start))
    kl, reward, low, high = ([four[i] for four in at] for i in range(4))
    return kl, reward, low, high  # type: ignore[return-value]  # rows without a reward are out


def _marks(
    axes: Any, points: Sequence[Point], colour: str, marker: str, *, size: float = 26
) -> None:
    axes.scatter(
        [point.kl for point in points],
        [point.reward for point in points],
        s=size,
        color=colour,
        marker=marker,
        alpha=0.45,
        edgecolors="white",
        linewidths=0.5 if size > 20 else 0.2,
        zorder=3.5,
    )


def _frame(
    axes: Any, right: float, bottom: float, top: float, *, ticks: Sequence[float] = TICKS
) -> None:
    axes.set_xscale("function", functions=(_sqrt, np.square))
    axes.set_xlim(0, right)
    axes.set_ylim(bottom, top)
    ticks = [tick for tick in ticks if tick <= right]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def _line(axes: Any, name: str, curve: Curve, seeds: int, points: Sequence[Point]) -> None:
    names = sorted({point.objective for point in points})
    colour, _, dash = style(name, names)
    at, reward, low, high = curve
    if name == "reference":
        axes.plot(at, reward, color=GREY, linewidth=1, linestyle=":", label=_legend(name), zorder=1)
        return
    look: dict[str, Any] = {"linewidth": 2, "color": colour, "linestyle": dash}
    label = name
    if name in CURVES_WITHOUT_TRAINING:
        look = {"linewidth": 1.6, **UNTRAINED[name]}
    else:
        label = f"{name} ({seeds} seed{'s' * (seeds != 1)})"
        axes.fill_between(at, low, high, color=colour, alpha=0.16, linewidth=0, zorder=1.5)
    axes.plot(at, reward, label=_legend(label), zorder=4 if name == "oracle" else 3, **look)


def _legend(name: str) -> str:
    """``name`` as a legend shows it: matplotlib leaves out what begins with an underscore."""
    return f" {name}" if name.startswith("_") else name


def style(name: str, names: Sequence[str]) -> tuple[str, str, str]:
    """Colour, marker and dash: fixed for the usual three, the rest in order of their names."""
    others = [other for other in names if other not in FIXED]
    place = FIXED.get(name, len(FIXED) + others.index(name) if name in others else 0)
    dash = DASHES[place // len(PALETTE) % len(DASHES)]
    return PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)], dash


def _trained(rows: Sequence[FrontierRow]) -> list[str]:
    names = dict.fromkeys(row.objective for row in rows)
    return [name for name in names if name not in CURVES_WITHOUT_TRAINING]


def _right(rows: Sequence[FrontierRow]) -> float:
    """The end of the KL axis: a little beyond the last budget that training reached."""
    return max([1.0, *(1.05 * x for x in _reached(rows))])


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
