"""Win rates as a figure, as text and as a page with the texts side by side, from their tables."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from alignlab.files import atomic_write
from alignlab.pages import rendered
from alignlab.report.figure import GREY, KINDS, save, style
from alignlab.report.table import MISSING
from alignlab.results.csv_tables import read_table, read_typed
from alignlab.results.tables import WinRate

WIN_RATES, VERDICTS, TEXTS = "winrates.csv", "verdicts.csv", "winrate_texts.csv"
DIFFERENCES = "winrate_differences.csv"
PAGE = "winrate.html"
FLOOR = 0.05  # a lower rate shows that the judge recognises the policy, not how good it is
SETTINGS = {
    "svg.hashsalt": "alignlab",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # whole TrueType fonts, which publishers ask for
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # names are text, whatever characters they contain
}


def read_win_rates(folder: Path) -> list[WinRate]:
    """The rows of a folder's ``winrates.csv``; none where it has no such table."""
    path = folder / WIN_RATES
    return read_typed(path, WinRate) if path.exists() else []


def redraw_win_rates(folder: Path) -> None:
    """Draw again what the tables of a folder, and of folders in it, hold of win rates.

    The page needs the texts, which a committed folder may lack.
    """
    for own in (folder, *sorted(path.parent for path in folder.glob(f"*/{WIN_RATES}"))):
        if rows := read_win_rates(own):
            draw_win_rates(rows, own)
            if (own / TEXTS).exists():
                write_win_page(own)


def draw_win_rates(rows: Sequence[WinRate], out: Path) -> list[Path]:
    """Draw ``winrate.png``, ``.svg`` and ``.pdf``: win rate over temperature, a panel an opponent.

    Equal rows give equal files.

    Args:
        rows: Of ``winrates.csv``.
        out: Where the files go.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    opponents = list(dict.fromkeys(row.against for row in rows))
    with mpl.rc_context(SETTINGS):
        figure, grid = plt.subplots(
            1,
            len(opponents),
            figsize=(1.6 + 4.2 * len(opponents), 4.2),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axes, opponent in zip(grid.flat, opponents, strict=True):
            _panel(axes, opponent, rows)
        grid[0][0].set_ylabel(f"win rate ({', '.join(dict.fromkeys(r.judge for r in rows))})")
        known: dict[str, Any] = {}
        for axes in grid.flat:  # a policy may be missing from the first panel
            lines, names = axes.get_legend_handles_labels()
            known |= dict(zip(names, lines, strict=True))
        figure.legend(known.values(), known, loc="outside right upper", frameon=False, fontsize=10)
        note = "lines: means over seeds, ties one half · bands: 95 %, over prompts and seeds"
        figure.supxlabel(note, fontsize=8.5, color=GREY, x=0.01, ha="left")
        paths = [save(figure, out / f"winrate.{kind}") for kind in KINDS]
        plt.close(figure)
    return paths


def _panel(axes: Any, opponent: str, rows: Sequence[WinRate]) -> None:
    names = sorted({row.policy for row in rows})
    for name in names:
        own = [row for row in rows if (row.policy, row.against) == (name, opponent)]
        own.sort(key=lambda row: row.temperature)
        if not own:
            continue
        at = [row.temperature for row in own]
        colour, marker, dash = style(name, names)
        seeds = max(row.n_seeds for row in own)
        axes.fill_between(
            at, [r.lo for r in own], [r.hi for r in own], color=colour, alpha=0.16, linewidth=0
        )
        axes.plot(
            at,
            [row.rate for row in own],
            color=colour,
            marker=marker,
            markersize=5,
            linestyle=dash,
            label=f" {name} ({seeds} seed{'s' * (seeds != 1)})",
        )
    axes.axhline(0.5, color=GREY, linewidth=1, linestyle=":", zorder=1)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xticks(sorted({row.temperature for row in rows}))
    axes.set_xlabel("sampling temperature")
    axes.set_title(f"against {opponent}", loc="left", fontsize=12)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)


def win_rate_table(rows: Sequence[WinRate]) -> str:
    """The rows as aligned text, a line each."""
    header = [
        "policy",
        "against",
        "T",
        "win rate [95 %]",
        "length-controlled",
        "ties",
        "consistency",
    ]
    lines = [
        [
            row.policy,
            row.against,
            f"{row.temperature:g}",
            _rate(row),
            percent(row.length_controlled, row.length_controlled_lo, row.length_controlled_hi),
            f"{row.ties / row.n_matches:.0%}",
            MISSING if row.consistency is None else f"{row.consistency:.0%}",
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*[header, *lines], strict=True)]
    padded = [map(str.ljust, line, widths) for line in (header, *lines)]
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _rate(row: WinRate) -> str:
    return percent(row.rate, row.lo, row.hi) + " floor" * (row.rate < FLOOR)


def percent(rate: float | None, lo: float | None, hi: float | None) -> str:
    """A rate with its interval, in per cent."""
    if rate is None or lo is None or hi is None:
        return MISSING
    return f"{100 * rate:.1f} [{100 * lo:.1f}, {100 * hi:.1f}]"


def win_rate_sentences(rows: Sequence[WinRate]) -> list[str]:
    """What is resolved, what more would resolve the rest, and what to be careful with.

    A difference to 50 % is resolved if both intervals exclude it: the bootstrap's has no width
    where all prompts agree, Wilson's does not count seeds. A rate below 5 % is a floor, on which
    policies and temperatures cannot be compared.
    """
    meetings: dict[str, list[WinRate]] = {}
    for row in rows:
        meetings.setdefault(f"{row.policy} against {row.against}", []).append(row)
    found = []
    for name, own in meetings.items():
        groups: dict[str, list[str]] = {}
        for row in own:
            groups.setdefault(_finding(row), []).append(f"{row.temperature:g}{_needs(row)}")
        parts = [f"{finding} at temperature {', '.join(at)}" for finding, at in groups.items()]
        found += [f"{name}: {'; '.join(parts)}.", *(doubt for row in own for doubt in _doubts(row))]
    return found


def _finding(row: WinRate) -> str:
    if row.rate < FLOOR:
        return f"floor (below {100 * FLOOR:.0f} %)"
    if min(row.lo, row.wilson_lo) > 0.5:
        return "above 50 %"
    return "below 50 %" if max(row.hi, row.wilson_hi) < 0.5 else "not resolved"


def _needs(row: WinRate) -> str:
    more = {"prompts": row.prompts_needed, "seeds": row.seeds_needed}
    known = [f"{number:,} {name}" for name, number in more.items() if number is not None]
    return f" (needs {' or '.join(known)})" if known and _finding(row) == "not resolved" else ""


def _doubts(row: WinRate) -> list[str]:
    found = []
    if row.consistency is not None and row.consistency < 0.7:
        found.append(
            f"At temperature {row.temperature:g}, {row.judge} gives the same verdict in both "
            f"orders for {row.consistency:.0%} of the pairs only; the text shown first wins "
            f"{row.first_position or 0:.0%}."
        )
    if row.left_out:
        found.append(
            f"At temperature {row.temperature:g}, {row.left_out:,} matches have no readable "
            "verdict."
        )
    return found


def write_win_page(folder: Path) -> Path:
    """Write ``winrate.html`` from the folder's tables and its figure."""
    rows = read_win_rates(folder)
    texts = read_table(folder / TEXTS)
    svg = (folder / "winrate.svg").read_text(encoding="utf-8")
    content = rendered(
        "report/win_rates.html",
        rows=[
            [
                row.policy,
                row.against,
                f"{row.temperature:g}",
                _rate(row),
                percent(row.rate, row.wilson_lo, row.wilson_hi),
                percent(row.length_controlled, row.length_controlled_lo, row.length_controlled_hi),
                f"{row.wins} / {row.ties} / {row.losses}",
                MISSING if row.consistency is None else f"{row.consistency:.2f}",
                MISSING if row.first_position is None else f"{row.first_position:.2f}",
                f"{row.length:.0f} / {row.against_length:.0f}",
                f"{row.n_prompts} / {row.n_seeds}",
            ]
            for row in rows
        ],
        sentences=win_rate_sentences(rows),
        judge=rows[0].judge,
        figure=svg[svg.index("<svg") :],
        prompts=[
            (place, own[0]["prompt"], own)
            for place, own in ((p, list(g)) for p, g in groupby(_by_prompt(texts), _place))
        ],
        verdict=_said,
    )
    path = folder / PAGE
    atomic_write(path, content.encode())
    return path


def _place(row: dict[str, str]) -> int:
    return int(row["place"])


def _by_prompt(texts: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(texts, key=_place)


def _said(value: str) -> str:
    share = float(value)
    return "tie" if share == 0.5 else ("won" if share > 0.5 else "lost")
