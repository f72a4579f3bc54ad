"""The frontier's figure as Plotly's traces: bands, lines and checkpoints of every objective."""

import html
import math
from collections.abc import Sequence
from typing import Any

from alignlab.report.curve import Curve, curve_of, right_end, shares_of, start_of
from alignlab.report.figure import GREY, TICKS, style
from alignlab.report.look import EVERYTHING, Look
from alignlab.report.table import CURVES_WITHOUT_TRAINING
from alignlab.results.tables import FrontierRow, Point

SYMBOLS = {
    "o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down",
    "P": "cross", "X": "x", "*": "star",
}  # fmt: skip
DASHES = {
    "best_of_n": "dash", "best_of_n_gt": "dot", "reference": "dot",
    "oracle_proxy": "longdash", "dual_bound": "dot",
}  # fmt: skip
LOG_TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
PLOTLY_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}


def traces(
    rows: Sequence[FrontierRow],
    points: Sequence[Point],
    keys: Sequence[str],
    look: Look = EVERYTHING,
) -> list[dict[str, Any]]:
    """Traces in drawing order; those of one objective are hidden and shown together.

    Across is the square root of KL, in nats.

    Args:
        rows: Frontier rows.
        points: Checkpoints.
        keys: What a click on each of the points reports.
        look: The objectives to show, and their names.
    """
    names = _names(points, look)
    drawn = _curves(look.shown(rows), rows, names, look)
    for name in names:
        own = [(p, k) for p, k in zip(points, keys, strict=True) if p.objective == name]
        drawn.append(_marks(name, names, own))
    return drawn


def share_traces(
    rows: Sequence[FrontierRow], points: Sequence[Point], look: Look = EVERYTHING
) -> list[dict[str, Any]]:
    """The share of the optimum's gain, where it is known; at KL 0 there is no gain."""
    return _curves(shares_of(look.shown(rows)), (), _names(points, look), look)


def _names(points: Sequence[Point], look: Look) -> list[str]:
    return sorted({point.objective for point in look.shown(points)})


def _curves(
    rows: Sequence[FrontierRow], start: Sequence[FrontierRow], names: Sequence[str], look: Look
) -> list[dict[str, Any]]:
    drawn = []
    for name in dict.fromkeys(row.objective for row in rows):
        origin = None if name == "reference" else start_of(start)
        curve = curve_of(rows, name, math.inf, origin)
        if curve.budgets:
            drawn += _curve(name, curve, names, look.label(name))
    return drawn


def _curve(name: str, curve: Curve, names: Sequence[str], label: str) -> list[dict[str, Any]]:
    trained = name not in CURVES_WITHOUT_TRAINING
    colour = "#000000" if name in ("oracle", "oracle_proxy", "dual_bound") else GREY
    dash = DASHES.get(name, "solid")
    if trained:
        colour, _, own_dash = style(name, names)
        dash = PLOTLY_DASHES[own_dash]
        seeds = max(curve.seeds)
        label = f"{label} ({seeds} seed{'s' * (seeds != 1)})"
    label = as_text(label)
    line = {
        "type": "scatter", "mode": "lines", "name": label, "legendgroup": name,
        "x": _across(curve.budgets), "y": _short(curve.reward),
        "text": [f"{kl:.3g}" for kl in curve.budgets],
        "line": {"color": colour, "width": 2.5 if trained else 1.5, "dash": dash},
        "hovertemplate": f"{label}<br>KL %{{text}}<br>%{{y:.3g}}<extra></extra>",
    }  # fmt: skip
    if not trained:
        return [line]
    at: list[float | None] = []
    ends: list[float | None] = []
    for piece in curve.pieces():  # a polygon each, with a gap behind it
        across = _across(curve.budgets[piece])
        at += [*across, *across[::-1], None]
        ends += [*curve.high[piece], *curve.low[piece][::-1], None]
    band = {
        "type": "scatter", "mode": "lines", "legendgroup": name, "showlegend": False,
        "x": at, "y": _short(ends), "fill": "toself", "fillcolor": _faint(colour),
        "line": {"width": 1, "color": _faint(colour)}, "hoverinfo": "skip",
    }  # fmt: skip
    return [band, line]


def _marks(name: str, names: Sequence[str], own: Sequence[tuple[Point, str]]) -> dict[str, Any]:
    colour, marker, _ = style(name, names)
    return {
        "type": "scatter", "mode": "markers", "name": name, "legendgroup": name,
        "showlegend": False,
        "x": _across([point.kl for point, _ in own]), "y": _short([p.reward for p, _ in own]),
        "customdata": [key for _, key in own], "text": [_hover(*pair) for pair in own],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": colour, "symbol": SYMBOLS[marker], "size": 8, "opacity": 0.6,
                   "line": {"color": "#ffffff", "width": 0.7}},
    }  # fmt: skip


def _hover(point: Point, key: str) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in point.hparams.items())
    kl, reward = 1.96 * _known(point.kl_se), 1.96 * _known(point.reward_se)
    lines = [
        key,
        settings,
        f"KL {point.kl:.3g} ± {kl:.2g}",
        f"reward {point.reward:.3g} ± {reward:.2g}",
    ]
    return "<br>".join(as_text(line) for line in lines if line)


def as_text(text: str) -> str:
    """``text`` without a meaning for Plotly, which reads tags, and values in ``%{...}``."""
    return html.escape(text, quote=False).replace("%{", "%&#123;")


def axes(
    rows: Sequence[FrontierRow], points: Sequence[Point], look: Look = EVERYTHING
) -> dict[str, list[Any]]:
    """Ranges of the axes, ``x`` by the square root of KL and ``x_log`` by its logarithm; ticks."""
    right = right_end(rows, look)
    rows = look.shown(rows)
    inside = [point for point in look.shown(points) if point.kl <= right]
    smallest = min([0.1, *(point.kl for point in inside if point.kl > 0.001)])
    heights = [row.reward for row in rows if row.reward is not None and row.kl_budget <= right]
    low, high = min(heights), max([*heights, *(point.reward for point in inside)])
    spread = (high - low) or 1.0
    low = max(min([low, *(point.reward for point in inside)]), low - 0.5 * spread)
    shares = [r.reward for r in shares_of(rows) if r.reward is not None and r.kl_budget <= right]
    return {
        "x": [0.0, math.sqrt(right)],
        "x_log": [math.log10(smallest) / 2 - 0.05, math.log10(right) / 2],
        "y": [low - 0.05 * spread, high + 0.05 * spread],
        "y_share": [min([0.0, *shares]) - 0.03, max([1.0, *shares]) + 0.05],
        "ticks": _across(TICKS),
        "tick_texts": [f"{tick:g}" for tick in TICKS],
        "ticks_log": _across(LOG_TICKS),
        "tick_texts_log": [f"{tick:g}" for tick in LOG_TICKS],
    }


def _across(kls: Sequence[float]) -> list[float | None]:
    """Square roots, which the page's axis is in; an estimate of KL can be below 0."""
    return _short([math.copysign(math.sqrt(abs(kl)), kl) for kl in kls])


def _short(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else float(f"{value:.5g}") for value in values]


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"
