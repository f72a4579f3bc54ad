"""The report's tables, as HTML: the numbers of the figure as text, and those it does not show."""

import html
import json
from collections.abc import Sequence

from alignlab.report.findings import Findings, key_of
from alignlab.report.table import CURVES_WITHOUT_TRAINING
from alignlab.results.tables import Comparison, FrontierRow, Point

SHOWN_RUNS = 200  # rows of the table of runs; the figure has them all


def all_sections(found: Findings, listed: Sequence[FrontierRow]) -> str:
    """Every section below the figure; ``listed`` are the frontier's rows at the table's budgets."""
    sections = [
        "<h2>Frontier</h2>" + _frontier(listed),
        _comparisons(found),
        _hypervolumes(found),
        _effects(found),
        _importances(found),
        _runs(found),
        _trials(found),
        _making(found),
    ]
    return "\n".join(section for section in sections if section)


def _comparisons(found: Findings) -> str:
    return _section(
        "Which is above which",
        "Difference of two frontiers on the same prompts and, where both have them, seeds; 95 % "
        "interval. Of many comparisons one in twenty is expected to miss.",
        ["objectives", "KL budget", "difference", "verdict", "seeds", "prompts"],
        [
            [
                f"{row.objective} - {row.other}",
                f"{row.kl_budget:g}",
                _interval(row.difference, row.lo, row.hi),
                _verdict(row),
                str(row.n_seeds),
                str(row.n_prompts),
            ]
            for row in found.comparisons
        ],
    )


def _hypervolumes(found: Findings) -> str:
    return _section(
        "Hypervolume",
        "Area between frontier and reference up to each budget, of the objectives that reach it, "
        "with 95 % interval. In order of names, not of size.",
        ["objective", "up to KL", "reward x nats", "seeds"],
        [
            [
                row.objective,
                f"{row.kl_max:g}",
                _interval(row.hypervolume, row.lo, row.hi),
                str(row.n_seeds),
            ]
            for row in found.hypervolumes
        ],
    )


def _effects(found: Findings) -> str:
    return _section(
        "What the hyperparameters did",
        "Mean and standard deviation over the runs with a value, after their last step.",
        ["objective", "hyperparameter", "value", "runs", "KL", "reward"],
        [
            [
                row.objective,
                row.hparam,
                row.value,
                str(row.n_runs),
                f"{row.kl:.3g} ± {row.kl_sd:.2g}",
                f"{row.reward:.3g} ± {row.reward_sd:.2g}",
            ]
            for row in found.effects
        ],
    )


def _importances(found: Findings) -> str:
    return _section(
        "Which of them mattered",
        "Omega squared: the share of the variance between runs that goes with a hyperparameter "
        "alone. The rest is interaction, seeds and noise.",
        ["objective", "of final", "hyperparameter", "share", "runs"],
        [
            [row.objective, row.metric, row.hparam, f"{row.importance:.2f}", str(row.n_runs)]
            for row in found.importances
        ],
    )


def _trials(found: Findings) -> str:
    return _section(
        "Trials that did not complete",
        "Evaluations before the end of a trial that stopped, was pruned or passed the bound on KL "
        "count in the frontier; of a run that failed or was not finite there are none.",
        ["trial", "state", "arm", "parameters", "why"],
        [
            [row["slot"], row["state"], row["arm"], _parameters(row["params"]), row["note"] or "-"]
            for row in found.trials
        ],
    )


def _parameters(text: str) -> str:
    """A trial's parameters by the last part of their names, where these differ."""
    params = json.loads(text)
    short = [name.rpartition("/")[2].rpartition(".")[2] for name in params]
    names = short if len(set(short)) == len(short) else list(params)
    return ", ".join(f"{k} {v}" for k, v in zip(names, params.values(), strict=True)) or "-"


def _making(found: Findings) -> str:
    configs = [
        f"<details><summary>{html.escape(name)}</summary><pre>{html.escape(text)}</pre></details>"
        for name, text in found.configs.items()
    ]
    environment = [list(item) for item in found.environment.items()]
    return "\n".join(
        [
            "<h2>How it was made</h2>",
            f"<pre>{html.escape(found.command)}</pre>",
            _table("Environment", ["what", "which"], environment),
            *configs,
        ]
    )


def _frontier(listed: Sequence[FrontierRow]) -> str:
    columns = ["objective", "KL budget", "reward", "share of the optimum's gain", "seeds"]
    rows = [
        [
            row.objective,
            f"{row.kl_budget:g}",
            _interval(row.reward, row.reward_lo, row.reward_hi),
            _interval(row.oracle_efficiency, row.efficiency_lo, row.efficiency_hi),
            str(row.n_seeds) if row.objective not in CURVES_WITHOUT_TRAINING else "-",
        ]
        for row in listed
        if row.reward is not None
    ]
    return _table("Reward within a KL budget, with 95 % intervals.", columns, rows)


def _runs(found: Findings) -> str:
    last: dict[str, Point] = {}
    for point in sorted(found.points, key=lambda p: p.order):
        last[point.run_id] = point
    shown = list(last.values())[:SHOWN_RUNS]
    more = f" The first {SHOWN_RUNS} of {len(last)}." if len(last) > SHOWN_RUNS else ""
    rows = [
        [
            point.run_id,
            ", ".join(f"{key} {value}" for key, value in point.hparams.items()) or "-",
            str(point.seed),
            str(point.step),
            f"{point.kl:.3g} ± {1.96 * point.kl_se:.2g}",
            f"{point.reward:.3g} ± {1.96 * point.reward_se:.2g}",
            f"{point.length:.3g}",
        ]
        for point in shown
    ]
    columns = ["run", "hyperparameters", "seed", "step", "KL", "reward", "length"]
    keys = [key_of(point) if key_of(point) in found.samples else None for point in shown]
    table = _table(f"After the last step, with 95 % intervals.{more}", columns, rows, keys)
    return f"<h2>Runs</h2>{table}"


def _section(title: str, note: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"<h2>{html.escape(title)}</h2>{_table(note, columns, rows)}" if rows else ""


def _table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    keys: Sequence[str | None] | None = None,
) -> str:
    """A table; ``keys`` are checkpoints that a row's last cell offers to read."""
    kinds = [_kind(cells) for cells in zip(*rows, strict=True)] or [""] * len(columns)
    head = "".join(
        f'<th scope="col"{kind}>{html.escape(name)}</th>'
        for kind, name in zip(kinds, columns, strict=True)
    )
    head += '<th scope="col">texts</th>' if keys else ""
    body = []
    for place, row in enumerate(rows):
        cells = "".join(
            f"<td{kind}>{html.escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)
        )
        if keys:
            key = keys[place]
            button = (
                f'<button type="button" data-key="{html.escape(key)}">read</button>' if key else ""
            )
            cells += f"<td>{button}</td>"
        body.append(f"<tr>{cells}</tr>")
    name = html.escape(caption)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{name}">'
        f"<table><caption>{name}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _kind(cells: Sequence[str]) -> str:
    """Words stand to the left, numbers to the right."""
    return ' class="text"' if any(cell[:1].isalpha() for cell in cells) else ""


def _interval(value: float | None, lo: float | None, hi: float | None) -> str:
    if value is None or lo is None or hi is None:
        return "-"
    return f"{value:.3g} [{lo:.3g}, {hi:.3g}]"


def _verdict(row: Comparison) -> str:
    if row.lo > 0:
        return f"{row.objective} above"
    return f"{row.other} above" if row.hi < 0 else "cannot tell"
