"""Runs in parallel coordinates: an axis per setting and result, a line per run."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from alignlab.evaluation.effects import last_points
from alignlab.report.figure import style
from alignlab.report.gather import Findings, key_of
from alignlab.results.tables import Point

MOST_RUNS = 1000  # lines that a browser draws without a pause
WIDE = 20.0  # a setting whose largest value is this many times its smallest is on a log scale
FEW = 6  # values up to which each has a tick


def parallel(found: Findings) -> dict[str, Any]:
    """Axes and runs, for the page's script: positions from 0 to 1, ``None`` for no value."""
    shown = found.look.shown(found.points)
    last = [point for own in last_points(shown).values() for point in own][:MOST_RUNS]
    names = sorted({point.objective for point in shown})
    axes = _axes(last, found)
    return {
        "axes": [{"name": name, "ticks": ticks} for name, ticks, _ in axes],
        "runs": [
            {
                "key": key_of(point),
                "run": point.run_id,
                "colour": style(point.objective, names)[0],
                "at": [at[i][0] for _, _, at in axes],
                "text": [at[i][1] for _, _, at in axes],
            }
            for i, point in enumerate(last)
        ],
        "more": len({(point.experiment, point.run_id) for point in shown}) - len(last),
    }


Ticks = list[tuple[float, str]]
Places = list[tuple[float | None, str]]


def _axes(last: Sequence[Point], found: Findings) -> list[tuple[str, Ticks, Places]]:
    """Objective, every setting that differs between runs, seed, KL, and reward last."""
    settings = list(dict.fromkeys(name for point in last for name in point.hparams))
    columns: list[tuple[str, Callable[[Point], Any]]] = [
        ("objective", lambda point: found.look.label(point.objective)),
        *((name, _setting(name)) for name in settings),
        ("seed", lambda point: point.seed),
    ]
    made = [(name, [value(point) for point in last]) for name, value in columns]
    differ = [(name, own) for name, own in made if len({str(value) for value in own}) > 1]
    results = [("KL", [point.kl for point in last]), ("reward", [point.reward for point in last])]
    return [(name, *placed(own)) for name, own in [*differ, *results]]


def _setting(name: str) -> Callable[[Point], Any]:
    return lambda point: point.hparams.get(name)


def placed(values: Sequence[Any]) -> tuple[Ticks, Places]:
    """Ticks of an axis, and the place and text of every value.

    Numbers are on a linear scale, or on a logarithmic one if they are positive and far apart;
    anything else is a word, and words are evenly spaced in order. ``None`` has no place.
    """
    known = [value for value in values if value is not None]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)
    if known and numeric and all(math.isfinite(value) for value in known):
        low, high = float(min(known)), float(max(known))
        log = low > 0 and high / low >= WIDE
        scale: Callable[[float], float] = math.log if log else float
        width = scale(high) - scale(low)

        def place(value: float) -> float:
            return (scale(value) - scale(low)) / width if width else 0.5

        ticks = sorted({*known})
        if len(ticks) > FEW:
            back: Callable[[float], float] = math.exp if log else float
            ticks = [back(scale(low) + width * k / 4) for k in range(5)]
        at: Places = [
            (None, "not set") if v is None else (_short(place(v)), f"{v:.4g}") for v in values
        ]
        return [(_short(place(tick)), f"{tick:.3g}") for tick in ticks], at
    words = sorted({str(value) for value in known})
    places = {
        word: _short(i / (len(words) - 1) if words[1:] else 0.5) for i, word in enumerate(words)
    }
    at = [(None, "not set") if v is None else (places[str(v)], str(v)) for v in values]
    return [(place, word) for word, place in places.items()], at


def _short(place: float) -> float:
    return min(1.0, max(0.0, round(place, 4)))
