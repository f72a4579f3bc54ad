"""The frontier's figure as Plotly's traces: bands, lines and checkpoints of every objective."""

import math
from collections.abc import Sequence
from typing import Any

from alignlab.report.figure import GREY, style
from alignlab.report.table import CURVES_WITHOUT_TRAINING
from alignlab.results.tables import FrontierRow, Point

SYMBOLS = {
    "o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down",
    "P": "cross", "X": "x", "*": "star",
}  # fmt: skip
DASHES = {"best_of_n": "dash", "best_of_n_gt": "dot", "reference": "dot"}
PLOTLY_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}


def traces(
    rows: Sequence[FrontierRow], points: Sequence[Point], keys: Sequence[str]
) -> list[dict[str, Any]]:
    """Traces in drawing order; those of one objective are hidden and shown together.

    Args:
        rows: Frontier rows.
        points: Checkpoints.
        keys: What a click on each of the points reports.
    """
    names = sorted({point.objective for point in points})
    origin = next((row.reward for row in rows if row.objective == "reference"), None)
    drawn: list[dict[str, Any]] = []
    for name in dict.fromkeys(row.objective for row in rows):
        own = sorted(
            (row for row in rows if row.objective == name and row.reward is not None),
            key=lambda row: row.kl_budget,
        )
        if own:
            drawn += _curve(name, own, origin, names)
    for name in names:
        drawn.append(_marks(name, names, [(p, k) for p, k in zip(points, keys, strict=True)
                                          if p.objective == name]))  # fmt: skip
    return drawn


def _curve(
    name: str, rows: Sequence[FrontierRow], origin: float | None, names: Sequence[str]
) -> list[dict[str, Any]]:
    trained = name not in CURVES_WITHOUT_TRAINING
    colour = "#000000" if name == "oracle" else GREY
    dash = DASHES.get(name, "solid")
    if trained:
        colour, _, own_dash = style(name, names)
        dash = PLOTLY_DASHES[own_dash]
    start = [] if origin is None or name == "reference" else [(0.0, origin)]
    at = [kl for kl, _ in start] + [row.kl_budget for row in rows]
    seeds = max(row.n_seeds for row in rows)
    label = f"{name} ({seeds} seed{'s' * (seeds != 1)})" if trained else name
    line = {
        "type": "scatter", "mode": "lines", "name": label, "legendgroup": name,
        "x": _short(at), "y": _short([r for _, r in start] + [row.reward for row in rows]),
        "line": {"color": colour, "width": 2.5 if trained else 1.5, "dash": dash},
        "hovertemplate": f"{label}<br>KL %{{x:.3g}}<br>reward %{{y:.3g}}<extra></extra>",
    }  # fmt: skip
    if not trained:
        return [line]
    low = [r for _, r in start] + [row.reward_lo for row in rows]
    high = [r for _, r in start] + [row.reward_hi for row in rows]
    band = {
        "type": "scatter", "mode": "lines", "legendgroup": name, "showlegend": False,
        "x": _short([*at, *at[::-1]]), "y": _short([*high, *low[::-1]]), "fill": "toself",
        "fillcolor": _faint(colour), "line": {"width": 0}, "hoverinfo": "skip",
    }  # fmt: skip
    return [band, line]


def _marks(name: str, names: Sequence[str], own: Sequence[tuple[Point, str]]) -> dict[str, Any]:
    colour, marker, _ = style(name, names)
    return {
        "type": "scatter", "mode": "markers", "name": name, "legendgroup": name,
        "showlegend": False,
        "x": _short([point.kl for point, _ in own]), "y": _short([p.reward for p, _ in own]),
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
    return "<br>".join(line for line in lines if line)


def axes(
    rows: Sequence[FrontierRow], points: Sequence[Point]
) -> tuple[list[float], list[float], list[float]]:
    """Ranges of the linear and the logarithmic KL axis (in powers of ten) and of the reward."""
    reached = [r.kl_budget for r in rows if r.reward is not None
               and r.objective not in CURVES_WITHOUT_TRAINING]  # fmt: skip
    right = 1.05 * max([1.0, *reached])
    inside = [point for point in points if point.kl <= right]
    smallest = min([0.1, *(point.kl for point in inside if point.kl > 0.001)])
    heights = [row.reward for row in rows if row.reward is not None and row.kl_budget <= right]
    low, high = min(heights), max([*heights, *(point.reward for point in inside)])
    spread = (high - low) or 1.0
    low = max(min([low, *(point.reward for point in inside)]), low - 0.5 * spread)
    return (
        [0.0, right],
        [math.log10(smallest) - 0.1, math.log10(right)],
        [low - 0.05 * spread, high + 0.05 * spread],
    )


def _short(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else float(f"{value:.5g}") for value in values]


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"
