"""The report's tables: the numbers of the figure as text, and those it does not show."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from alignlab.evaluation.power import POWER, Spread, enough
from alignlab.report.gather import Findings, key_of
from alignlab.report.look import Look
from alignlab.report.table import (
    FEWER,
    MISSING,
    PLUS_MINUS,
    RULE,
    SHOWN,
    Grid,
    grid,
    has_fewer_seeds,
)
from alignlab.report.win_rates import percent
from alignlab.results.tables import Comparison, FrontierRow, Point

SHOWN_RUNS = 200  # rows of the table of runs; the figure has them all


class Section(NamedTuple):
    """A table with its heading.

    Attributes:
        title: The heading.
        caption: What the numbers are.
        rows: What the rows are of.
        columns: Name of a column -> its cell for one of ``rows``.
        keys: For each row the checkpoint whose completions it offers to read, if any were kept.
        bold: Row and column of the cells that stand out.
    """

    title: str
    caption: str
    rows: Sequence[Any]
    columns: Mapping[str, Callable[[Any], str | int]]
    keys: Sequence[str | None] = ()
    bold: frozenset[tuple[int, int]] = frozenset()

    @property
    def cells(self) -> list[list[str]]:
        """The text of every cell, row by row."""
        return [[str(cell(row)) for cell in self.columns.values()] for row in self.rows]

    @property
    def kinds(self) -> list[str]:
        """A class for each column: words stand to the left, numbers to the right."""
        columns = zip(*self.cells, strict=True) if self.rows else [()] * len(self.columns)
        return ["text" if any(cell[:1].isalpha() for cell in cells) else "" for cells in columns]


def sections(found: Findings, listed: Sequence[FrontierRow]) -> list[Section]:
    """Every table below the figure; ``listed`` are the frontier's rows at the table's budgets."""
    trials = Section(
        "Trials that did not complete",
        "Evaluations before the end of a trial that stopped, was pruned or passed the bound on KL "
        "count in the frontier; of a run that failed or was not finite there are none.",
        found.trials,
        {
            "trial": lambda trial: trial["slot"],
            "state": lambda trial: trial["state"],
            "arm": lambda trial: trial["arm"],
            "parameters": lambda trial: _parameters(trial["params"]),
            "why": lambda trial: trial["note"] or "-",
        },
    )
    rates = _win_rates(found)
    objectives, settings = _of_objectives(found, listed), _of_hyperparameters(found)
    tables = (*objectives, rates, *settings, _runs(found), trials)
    return [table for table in tables if table.rows]


def _frontiers(found: Findings, listed: Sequence[FrontierRow]) -> list[Section]:
    """The printed tables: one of rewards, one of shares of the optimum's gain."""
    fewer = f" {FEWER}" if has_fewer_seeds(found.look.shown(listed)) else ""
    made = []
    for title, share in (("Frontier", False), ("Share of the optimum's gain", True)):
        table = grid(listed, found.look, share=share)
        known = [i for i, cells in enumerate(table.cells) if {*cells} != {MISSING}]
        columns: dict[str, Callable[[int], str]] = {"objective": table.labels.__getitem__}
        for j, budget in enumerate(table.columns):
            columns[f"KL {budget}"] = partial(_grid_cell, table, j)
        what = "Share" if share else "Reward"
        made.append(
            Section(
                title,
                f"{what} within a KL budget, {SHOWN}. {RULE}{fewer}",
                known,
                columns,
                bold=frozenset((known.index(i), j + 1) for i, j in table.bold),
            )
        )
    return made


def _grid_cell(table: Grid, column: int, row: int) -> str:
    return table.cells[row][column].replace(PLUS_MINUS, f" {PLUS_MINUS} ")


def _of_objectives(found: Findings, listed: Sequence[FrontierRow]) -> list[Section]:
    look = found.look
    shown = {row.objective for row in look.shown(listed)}
    return [
        *_frontiers(found, listed),
        Section(
            "Which is above which",
            "Difference of two frontiers on the same prompts and, where both have them, seeds; "
            "95 % interval. About one interval in twenty misses the true difference. The last "
            f"column is for a true difference of the size found and a power of {100 * POWER:g} %.",
            [row for row in found.comparisons if {row.objective, row.other} <= shown],
            {
                "objectives": lambda row: f"{look.label(row.objective)} - {look.label(row.other)}",
                "KL budget": lambda row: f"{row.kl_budget:g}",
                "difference": lambda row: _interval(row.difference, row.lo, row.hi),
                "verdict": lambda row: _verdict(row, look),
                "seeds": lambda row: row.n_seeds,
                "prompts": lambda row: row.n_prompts,
                "to resolve it": lambda row: _to_resolve(row, found.comparisons[row]),
            },
        ),
        Section(
            "Hypervolume",
            "Area between frontier and reference up to each budget, of the objectives that reach "
            "it, with 95 % interval. In order of names, not of size.",
            look.shown(found.hypervolumes),
            {
                "objective": lambda row: look.label(row.objective),
                "up to KL": lambda row: f"{row.kl_max:g}",
                "reward x nats": lambda row: _interval(row.hypervolume, row.lo, row.hi),
                "seeds": lambda row: row.n_seeds,
            },
        ),
    ]


def _win_rates(found: Findings) -> Section:
    return Section(
        "Win rates",
        "How often the judge prefers a policy, a tie one half, in per cent with 95 % interval. "
        "winrate.html has texts side by side.",
        found.win_rates,
        {
            "policy": lambda row: row.policy,
            "against": lambda row: row.against,
            "temperature": lambda row: f"{row.temperature:g}",
            "judge": lambda row: row.judge,
            "win rate": lambda row: percent(row.rate, row.lo, row.hi),
            "length-controlled": lambda row: percent(
                row.length_controlled, row.length_controlled_lo, row.length_controlled_hi
            ),
            "seeds": lambda row: row.n_seeds,
            "prompts": lambda row: row.n_prompts,
        },
    )


def _of_hyperparameters(found: Findings) -> list[Section]:
    look = found.look
    return [
        Section(
            "What the hyperparameters did",
            "Mean and standard deviation over the runs with a value, after their last step.",
            look.shown(found.effects),
            {
                "objective": lambda row: look.label(row.objective),
                "hyperparameter": lambda row: row.hparam,
                "value": lambda row: row.value,
                "runs": lambda row: row.n_runs,
                "KL": lambda row: f"{row.kl:.3g} ± {row.kl_sd:.2g}",
                "reward": lambda row: f"{row.reward:.3g} ± {row.reward_sd:.2g}",
            },
        ),
        Section(
            "Which of them mattered",
            "Omega squared: the share of the variance between runs that a hyperparameter alone "
            "explains. The rest is interaction, seeds and noise. Hyperparameters that divide the "
            "runs alike have one row.",
            look.shown(found.importances),
            {
                "objective": lambda row: look.label(row.objective),
                "of final": lambda row: row.metric,
                "hyperparameter": lambda row: row.hparam,
                "share": lambda row: f"{row.importance:.2f}",
                "runs": lambda row: row.n_runs,
            },
        ),
    ]


def _runs(found: Findings) -> Section:
    last: dict[str, Point] = {}
    for point in sorted(found.look.shown(found.points), key=lambda p: p.order):
        last[point.run_id] = point
    shown = list(last.values())[:SHOWN_RUNS]
    more = f" The first {SHOWN_RUNS} of {len(last)}." if len(last) > SHOWN_RUNS else ""
    return Section(
        "Runs",
        f"After the last step, with 95 % intervals.{more}",
        shown,
        {
            "run": lambda run: run.run_id,
            "hyperparameters": lambda run: (
                ", ".join(f"{k} {v}" for k, v in run.hparams.items()) or "-"
            ),
            "seed": lambda run: run.seed,
            "step": lambda run: run.step,
            "KL": lambda run: f"{run.kl:.3g} ± {1.96 * run.kl_se:.2g}",
            "reward": lambda run: f"{run.reward:.3g} ± {1.96 * run.reward_se:.2g}",
            "length": lambda run: f"{run.length:.3g}",
            **({"notes": lambda run: _notes(found, run)} if found.remarks else {}),
        },
        [key_of(point) if key_of(point) in found.samples else None for point in shown],
    )


def _notes(found: Findings, run: Point) -> str:
    return str(found.remarks.get(run.run_id, "")) or "-"


def _parameters(text: str) -> str:
    """A trial's parameters by the last part of their names, where these differ."""
    params = json.loads(text)
    short = [name.rpartition("/")[2].rpartition(".")[2] for name in params]
    names = short if len(set(short)) == len(short) else list(params)
    return ", ".join(f"{k} {v}" for k, v in zip(names, params.values(), strict=True)) or "-"


def _interval(value: float | None, lo: float | None, hi: float | None) -> str:
    if value is None or lo is None or hi is None:
        return "-"
    return f"{value:.3g} [{lo:.3g}, {hi:.3g}]"


def _to_resolve(row: Comparison, spread: Spread | None) -> str:
    """What would resolve a difference; unknown where tables without their pool are drawn again."""
    if not row.lo <= 0 <= row.hi:
        return "-"
    return "unknown" if spread is None else str(enough(spread))


def _verdict(row: Comparison, look: Look) -> str:
    if row.lo > 0:
        return f"{look.label(row.objective)} above"
    return f"{look.label(row.other)} above" if row.hi < 0 else "cannot tell"
