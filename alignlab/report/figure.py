"""The frontier as a picture: reward against KL, a function of the tables alone."""

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.errors import ConfigError
from alignlab.files import atomic_write
from alignlab.report.curve import (
    Curve,
    curve_of,
    end_of_panels,
    has_share,
    last_budgets,
    right_end,
    shares_of,
    start_of,
)
from alignlab.report.look import EVERYTHING, Look
from alignlab.report.table import CURVES_WITHOUT_TRAINING
from alignlab.results.tables import FrontierRow, Point

# Okabe and Ito's colour-blind safe palette; yellow is left out, it cannot be read on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", ":", "-.")  # a colour's second use is dashed
FIXED = {"dpo": 0, "ppo": 1, "ppo_gt": 2}  # the same colours in every figure
TICKS = (0, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20)
GREY = "#555555"
CROWD_NOTE = (
    "across: KL(policy ‖ reference) in nats (square-root scale) · black: the optimum\n"
    "dashed, dotted: best of n by the learned, by the gold reward · grey: the others\n"
)
UNTRAINED: dict[str, dict[str, Any]] = {
    "oracle": {"color": "black", "linestyle": "-"},
    "dual_bound": {"color": "black", "linestyle": ":", "linewidth": 0.8},
    "oracle_proxy": {"color": "black", "linestyle": (0, (7, 2))},
    "best_of_n": {"color": GREY, "linestyle": (0, (5, 2))},
    "best_of_n_gt": {"color": GREY, "linestyle": (0, (1.5, 1.5))},
}
KINDS = {  # of files, and what is left out of each
    "png": ("Software",),
    "svg": ("Date", "Creator"),
    "pdf": ("CreationDate", "Creator", "Producer"),
}
SETTINGS = {
    "svg.hashsalt": "alignlab",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # whole TrueType fonts, which publishers ask for
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # names are text, whatever characters they contain
}
CROWD = 8  # with more trained objectives than this, each has its own panel
PANELS = {"screen": 5, "one-column": 3, "two-column": 5}  # side by side, of a crowd
WIDTHS = {"one-column": 3.25, "two-column": 6.75}  # inches, as conferences' columns are


def draw_frontier(
    rows: Sequence[FrontierRow],
    points: Sequence[Point],
    out_dir: Path,
    *,
    title: str = "",
    reward_label: str = "gold reward",
    look: Look = EVERYTHING,
) -> list[Path]:
    """Draw ``frontier.png``, ``frontier.svg`` and ``frontier.pdf``.

    KL is on a square-root scale: the optimum starts like sqrt(KL), so curves start as straight
    lines and small budgets stay readable. A band is cut where the number of seeds changes, because
    the mean then is over other seeds. More than ``CROWD`` trained objectives are drawn as small
    panels, each with one of them over the others in grey; where a curve goes on beyond the KL
    axis, its panel's head says how far. Equal tables give equal files.

    A figure for a paper has its column's width, axes in 4:3, and neither title nor note.

    Args:
        rows: Frontier rows; the more budgets, the smoother the curves.
        points: Checkpoints, drawn faintly.
        out_dir: Where the files go.
        title: Above the figure.
        reward_label: Name (and unit) of the vertical axis.
        look: The arms, their names, the figure's size and its second panel.

    Returns:
        The three files.

    Raises:
        ConfigError: A panel of shares was asked for, and there is no room or no share for it.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    for_paper = look.size in WIDTHS
    settings = {**SETTINGS, "font.size": 8 if for_paper else 11}
    crowded = len(_trained(look.shown(rows))) > CROWD
    _check_share(look.shown(rows), look, crowded=crowded)
    with mpl.rc_context(settings):
        draw = _panels if crowded else _one_or_two
        figure, hidden = draw(plt, rows, points, reward_label, look)
        if not for_paper:
            note = CROWD_NOTE if crowded else ""
            note += "lines: frontier over seeds, with 95 % bands · faint marks: checkpoints"
            if hidden:
                note += f" ({hidden} below the axis)"
            figure.suptitle(title, x=0.01, ha="left", fontsize=12)
            figure.supxlabel(note, fontsize=8.5, color=GREY, x=0.01, ha="left")
        dpi = 300 if for_paper else 130
        paths = [save(figure, out_dir / f"frontier.{kind}", dpi) for kind in KINDS]
        plt.close(figure)
    return paths


def _check_share(rows: Sequence[FrontierRow], look: Look, *, crowded: bool) -> None:
    if look.share and crowded:
        raise ConfigError(f"--share: there is room for {CROWD} objectives. Choose them by --arms.")
    if look.share and not any(has_share(row) for row in rows):
        raise ConfigError(
            "--share: the share of the optimum's gain is not known for any of these objectives. "
            "Leave --share out, or name other objectives in --arms."
        )


def _one_or_two(
    plt: Any, rows: Sequence[FrontierRow], points: Sequence[Point], reward_label: str, look: Look
) -> tuple[Any, int]:
    """All curves in one panel, and with ``look.share`` their shares in a second one."""
    narrow, panels = look.size == "one-column", 1 + look.share
    across = "KL(policy ‖ reference), nats" + (" per completion" if panels == 1 else "")
    if look.size in WIDTHS:
        width = WIDTHS[look.size]
        height = 2.95 * panels if narrow else (5.0, 3.0)[look.share]
    else:
        width, height, across = 8.6 + 4.4 * look.share, 4.8, f"{across} (square-root scale)"
    figure, all_axes = plt.subplots(
        *((panels, 1) if narrow else (1, panels)),
        figsize=(width, height),
        layout="constrained",
        squeeze=False,
    )
    axes = all_axes.flat[0]
    hidden = _draw(axes, rows, points, look)
    axes.set_ylabel(reward_label)
    if look.share:
        _draw_shares(all_axes.flat[1], rows, points, look)
    for each in all_axes.flat:
        each.set_xlabel(across)
        if look.size in WIDTHS:
            each.set_box_aspect(3 / 4)
    handles, labels = axes.get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "outside right upper", "fontsize": 10}
    if look.size in WIDTHS:
        place = {"loc": "outside lower center", "ncols": 2 if narrow else 4, "fontsize": 7}
    figure.legend(handles, labels, frameon=False, **place)
    return figure, hidden


def _draw(
    axes: Any, rows: Sequence[FrontierRow], points: Sequence[Point], look: Look = EVERYTHING
) -> int:
    """Draw everything; return how many checkpoints lie below the axis."""
    right, start = right_end(rows, look), start_of(rows)
    rows, points = look.shown(rows), look.shown(points)
    names = sorted({point.objective for point in points})
    for name in dict.fromkeys(row.objective for row in rows):
        curve = curve_of(rows, name, right, start)
        if curve.budgets:
            _line(axes, name, curve, style(name, names), look.label(name))
    bottom, top = _vertical(rows, points, right)
    for name in names:
        own_points = [point for point in points if point.objective == name]
        colour, marker, _ = style(name, names)
        _marks(axes, own_points, colour, marker, size=26 if look.size == "screen" else 9)
    _frame(axes, right, bottom, top)
    return sum(point.reward < bottom for point in points if point.kl <= right)


def _draw_shares(
    axes: Any, rows: Sequence[FrontierRow], points: Sequence[Point], look: Look
) -> None:
    """The share of the optimum's gain, which is not defined at KL 0, where nothing is gained."""
    right = right_end(rows, look)
    rows = look.shown(rows)
    names = sorted({point.objective for point in look.shown(points)})
    ends = [0.0, 1.0]
    shares = shares_of(rows)
    for name in dict.fromkeys(row.objective for row in shares):
        curve = curve_of(shares, name, right, None)
        if curve.budgets:
            _line(axes, name, curve, style(name, names), look.label(name))
            ends += curve.reward
    axes.axhline(1.0, color="black", linewidth=1, zorder=1)
    spread = max(ends) - min(ends)
    _frame(axes, right, min(ends) - 0.02 * spread, max(ends) + 0.08 * spread)
    axes.set_ylabel("share of the optimum's gain")


def _panels(
    plt: Any, rows: Sequence[FrontierRow], points: Sequence[Point], reward_label: str, look: Look
) -> tuple[Any, int]:
    """A panel per trained objective; returns the figure and the checkpoints below its axes."""
    right, start = end_of_panels(rows, look), start_of(rows)
    rows, points = look.shown(rows), look.shown(points)
    names = _trained(rows)
    # Wide bands of a few curves must not press all panels flat: they are cut.
    bottom, top = _vertical(
        [replace(row, reward_lo=None, reward_hi=None) for row in rows], points, right
    )
    columns = PANELS[look.size]
    depth = -(-len(names) // columns)
    wide = WIDTHS.get(look.size, 2.0 * columns)
    figure, grid = plt.subplots(
        depth,
        columns,
        figsize=(wide, 0.8 + 0.9 * depth * wide / columns),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    small = 1.0 if look.size == "screen" else 0.7
    lasts = last_budgets(rows)
    curves = {name: curve_of(rows, name, right, start) for name in names}
    untrained = {name: curve_of(rows, name, right, start) for name in UNTRAINED}
    colour = PALETTE[0]
    for axes, name in zip(grid.flat, names, strict=False):
        for other in names:
            axes.plot(*curves[other].line, color="#D0D0D0", linewidth=0.7, zorder=1)
        for other, kind in UNTRAINED.items():
            if untrained[other].budgets:
                axes.plot(*untrained[other].line, zorder=2, **{"linewidth": 1, **kind})
        _band(axes, curves[name], colour)
        axes.plot(*curves[name].line, color=colour, linewidth=1.8 * small, zorder=3)
        own_points = [point for point in points if point.objective == name]
        _marks(axes, own_points, colour, "o", size=9 * small)
        _frame(axes, right, bottom, top, ticks=_ticks_of_panel(right, look.size == "screen"))
        axes.tick_params(labelsize=8.5 * small)
        beyond = f" (to KL {lasts[name]:.0f})" if lasts.get(name, 0.0) > right else ""
        axes.set_title(look.label(name) + beyond, fontsize=10 * small, loc="left")
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for column in range(min(columns, len(names))):  # the lowest panel carries the numbers
        lowest = max(row for row in range(depth) if row * columns + column < len(names))
        grid[lowest][column].tick_params(labelbottom=True)
    figure.supylabel(reward_label, fontsize=11 * small)
    if look.size in WIDTHS:
        figure.supxlabel("KL(policy ‖ reference), nats", fontsize=8)
    return figure, sum(point.reward < bottom for point in points if point.kl <= right)


def _ticks_of_panel(right: float, is_screen: bool) -> list[float]:
    """KL of the ticks up to ``right``, the first ones first, if there is room for their numbers."""
    ticks: list[float] = []
    for tick in (0, 1, 3, 10, 0.5, 2, 5, 20) if is_screen else (0, 1, 3, 10):
        apart = min((abs(_sqrt(tick) - _sqrt(other)) for other in ticks), default=math.inf)
        if tick <= right and apart > 0.09 * _sqrt(right):
            ticks.append(tick)
    return sorted(ticks)


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


def _band(axes: Any, curve: Curve, colour: str) -> None:
    """The interval around a curve, in a piece for each number of seeds."""
    for piece in curve.pieces():
        low, high = ([float("nan") if x is None else x for x in ends[piece]] for ends in
                     (curve.low, curve.high))  # fmt: skip
        # The edge keeps a piece of a single budget visible.
        axes.fill_between(
            curve.budgets[piece], low, high, color=colour, alpha=0.16, linewidth=0.6, zorder=1.5
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


def _line(axes: Any, name: str, curve: Curve, drawn: tuple[str, str, str], label: str) -> None:
    colour, _, dash = drawn
    if name == "reference":
        look: dict[str, Any] = {"color": GREY, "linewidth": 1, "linestyle": ":", "zorder": 1}
    elif name in CURVES_WITHOUT_TRAINING:
        look = {"linewidth": 1.6, "zorder": 4 if name == "oracle" else 3, **UNTRAINED[name]}
    else:
        seeds = max(curve.seeds)
        label = f"{label} ({seeds} seed{'s' * (seeds != 1)})"
        look = {"linewidth": 2, "color": colour, "linestyle": dash, "zorder": 3}
        _band(axes, curve, colour)
    axes.plot(*curve.line, label=_legend(label), **look)


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


def save(figure: Any, path: Path, dpi: int = 130) -> Path:
    """Write a figure as one of ``KINDS``; equal figures give equal files."""
    buffer = io.BytesIO()
    kind = path.suffix[1:]
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=dict.fromkeys(KINDS[kind]))
    atomic_write(path, buffer.getvalue())
    return path
