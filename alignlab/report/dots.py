"""The shares of all objectives at one KL as a dot plot that fits a column of a paper."""

from collections.abc import Sequence
from pathlib import Path

from alignlab.report.figure import GREY, PALETTE, SETTINGS, WIDTHS, save
from alignlab.report.look import EVERYTHING, Look
from alignlab.report.table import BOUNDS
from alignlab.results.tables import PRIMARY, SHORT, FrontierRow, OwnOptimum

KINDS = ("png", "pdf")
LINE = 0.145  # inches of an objective
WIDTH = WIDTHS["one-column"]


def draw_dots(
    rows: Sequence[FrontierRow],
    own: Sequence[OwnOptimum],
    base: str,
    out_dir: Path,
    look: Look = EVERYTHING,
) -> list[Path]:
    """Draw ``shares.png`` and ``shares.pdf``; equal tables give equal files.

    Objectives are sorted by their share of the optimum's gain at KL ``PRIMARY``, with its 95 %
    interval. A tick shows the share of an objective's own optimum, the band the interval of
    ``base``, the line at 1 the optimum.

    Args:
        rows: Frontier rows.
        own: Own optima.
        base: The objective of the band.
        out_dir: Where the files go.
        look: The arms and their names.

    Returns:
        The files; none where no objective reaches this KL.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    dots: list[tuple[float, float, float, str]] = []
    for row in look.shown(rows):
        known = row.kl_budget == PRIMARY and row.objective not in BOUNDS
        ends = row.oracle_efficiency, row.efficiency_lo, row.efficiency_hi
        value, low, high = (None if end is None else _as_written(end) for end in ends)
        if known and value is not None and low is not None and high is not None:
            dots.append((value, low, high, row.objective))
    dots.sort()
    if not dots:
        return []
    aims = {
        row.objective: _as_written(row.share)
        for row in own
        if row.kl_budget == PRIMARY and row.share is not None
    }
    with mpl.rc_context({**SETTINGS, "font.size": 7}):
        figure, axes = plt.subplots(figsize=(WIDTH, 0.62 + LINE * len(dots)), layout="constrained")
        for place, (value, low, high, name) in enumerate(dots):
            if name == base:
                axes.axvspan(low, high, color=PALETTE[0], alpha=0.15, linewidth=0)
            colour = PALETTE[0] if name == base else "black"
            axes.plot([low, high], [place, place], color=colour, linewidth=0.9)
            axes.plot([value], [place], "o", color=colour, markersize=2.8)
            if (aim := aims.get(name)) is not None:
                axes.plot([aim], [place], "|", color=PALETTE[1], markersize=6, mew=1.2)
        axes.axvline(1.0, color=GREY, linewidth=0.8, zorder=1)
        axes.set_yticks(range(len(dots)), [look.label(name) for *_, name in dots])
        axes.set_ylim(-0.7, len(dots) - 0.3)
        axes.set_xlabel(f"share of the optimum's gain at KL {PRIMARY:g}")
        axes.grid(axis="x", color="#DDDDDD", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        paths = [save(figure, out_dir / f"shares.{kind}", 300) for kind in KINDS]
        plt.close(figure)
    return paths


def _as_written(value: float) -> float:
    """The number that the tables hold, so that they give the same figure again."""
    return float(format(value, SHORT))
