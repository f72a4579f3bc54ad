"""``alignlab frontier``: the tables, figures and report of results folders."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.errors import ConfigError
from alignlab.report.look import EVERYTHING, SIZES, Look, add_look, check_budgets, chosen_look
from alignlab.results.csv_tables import write_table
from alignlab.results.tables import (
    BUDGETS,
    Comparison,
    Effect,
    FrontierRow,
    Hypervolume,
    Importance,
    Point,
    write_rows,
)

if TYPE_CHECKING:
    from alignlab.evaluation.frontier import Frontier
    from alignlab.report.read import Results

EXAMPLE = "alignlab frontier results/quickstart"
CURVE_POINTS = 24  # budgets between those of the table, for smooth lines
LARGEST_SHOWN = 25.0  # nats; a run that left for KL 100 should not squeeze all others


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``alignlab frontier``."""
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULTS_DIR",
        help="folders with a points.csv, or runs of alignlab fit",
    )
    add_look(parser)
    parser.add_argument(
        "--size", choices=SIZES, default=SIZES[0], help="size of the figure (default: screen)"
    )
    parser.add_argument(
        "--share",
        action="store_true",
        help="add a panel with the share of the optimum's gain to the figure",
    )
    parser.add_argument(
        "--reward-label",
        default="gold reward",
        metavar="TEXT",
        help="name and unit of the reward (default: gold reward)",
    )
    parser.add_argument(
        "--base",
        metavar="ARM",
        help="test every other objective against this one at KL 1, with Holm's correction; also "
        "write own optima, costs and a figure of all shares",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="redraw report.html while alignlab run or sweep works in the folder",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where table and figures go (default: the folder; for several folders, 'frontier' "
        "beside the first)",
    )


def run(args: argparse.Namespace) -> int:
    """Carry out ``alignlab frontier``; returns the exit status."""
    look, label = chosen_look(args), args.reward_label
    if args.watch:
        return _watch(args.results, args.out, look, label)
    frontier_command(args.results, args.out, look, reward_label=label, base=args.base)
    return 0


def _watch(dirs: Sequence[Path], out: Path | None, look: Look, reward_label: str) -> int:
    """Draw the report alone, while runs are made in the one folder."""
    from alignlab.report.gather import Findings, gather
    from alignlab.report.live import watch
    from alignlab.report.read import read_results

    if len(dirs) > 1:
        raise ConfigError(f"--watch: one folder at a time, got {len(dirs)}. Name one.")
    page = (out or dirs[0]) / "report.html"

    def gather_again() -> Findings:
        found = read_results(dirs)
        frontier = _frontier(found, look, None)
        look.check(row.objective for row in frontier.rows)
        title = f"{_title(found.points)}: reward against KL"
        return gather(
            dirs,
            found,
            frontier,
            out=page.parent,
            title=title,
            reward_label=reward_label,
            look=look,
        )

    os.nice(10)  # the runs go first
    watch(dirs[0], page, gather_again)
    return 0


def _title(points: Sequence[Point]) -> str:
    return ", ".join(sorted({point.experiment for point in points}))


def frontier_command(
    dirs: Sequence[Path],
    out: Path | None = None,
    look: Look = EVERYTHING,
    *,
    reward_label: str = "gold reward",
    base: str | None = None,
) -> None:
    """Write ``frontier.csv``, figures, the tables beside it and ``report.html``; print the table.

    Without the pool of samples, a folder is drawn again from the tables that are in it.
    ``curves.csv`` has the same columns at more budgets: what the figure's lines are drawn from.
    ``comparisons.csv``, ``hypervolumes.csv``, ``effects.csv`` and ``importances.csv``: see
    ``results.tables``. ``samples.csv``: texts from both ends of each objective's frontier, as far
    as checkpoints still have theirs.

    Args:
        dirs: Results folders; several are merged.
        out: Where the files go. Default: the folder itself, or ``frontier`` beside the first of
            several.
        look: What figures, report and the printed table show; files with numbers hold everything.
        reward_label: Name and unit of the reward in the figure.
        base: Objective that every other is compared with: see ``report.study``.

    Raises:
        ConfigError: ``look`` or ``base`` asks for what the results do not have.
        DataError: Folders that cannot be read or do not belong together.
        ArithmeticError: An efficiency lies above 1 beyond its interval. The files are written,
            with that cell empty.
    """
    from alignlab.report.figure import draw_frontier
    from alignlab.report.gather import gather, sample_rows
    from alignlab.report.page import write_page
    from alignlab.report.read import COMPARISONS, CURVES, HYPERVOLUMES, read_results
    from alignlab.report.study import study_text, write_study
    from alignlab.report.table import frontier_sentences, frontier_table
    from alignlab.report.win_rates import redraw_win_rates
    from alignlab.results.pool import POOL_NAME

    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: it is a file. Name another folder with --out.")
    found = read_results(dirs)
    out = out or (dirs[0] if len(dirs) == 1 else dirs[0].parent / "frontier")
    frontier = _frontier(found, look, base)
    look.check(row.objective for row in frontier.rows)
    rows = [row for row in frontier.rows if row.kl_budget in BUDGETS]
    write_rows(out / "frontier.csv", FrontierRow, rows)
    write_rows(out / "curves.csv", FrontierRow, frontier.rows)
    title = _title(found.points)
    draw_frontier(
        frontier.rows,
        found.points,
        out,
        title=f"{title}: reward against KL",
        reward_label=reward_label,
        look=look,
    )
    page = gather(
        dirs,
        found,
        frontier,
        out=out,
        title=f"{title}: reward against KL",
        reward_label=reward_label,
        look=look,
    )
    if found.pool is not None or page.comparisons or page.hypervolumes:
        write_rows(out / COMPARISONS, Comparison, page.comparisons)
        write_rows(out / HYPERVOLUMES, Hypervolume, page.hypervolumes)
    write_rows(out / "effects.csv", Effect, page.effects)
    write_rows(out / "importances.csv", Importance, page.importances)
    if found.pool is not None and (texts := sample_rows(page)):
        write_table(out / "samples.csv", texts)
    if base:
        frontier = write_study(dirs, found, frontier, base, out, look)
    redraw_win_rates(out)
    write_page(out / "report.html", page)
    print(f"{title}: {len(found.points)} checkpoints, {rows[0].n_prompts} prompts\n")
    listed = [row for row in frontier.rows if row.kl_budget in look.columns()]
    print(frontier_table(listed, look))
    sentences = [frontier_sentences(listed, look), _short_of_budgets(rows, found.points)]
    print("\n" + "\n".join(filter(None, sentences)))
    if base:
        print("\n" + study_text(base, frontier, look))
    if found.pool is None:
        print(
            f"\n{dirs[0]} has no {POOL_NAME}: drawn again from {CURVES} and the tables beside it."
        )
    print(f"\nTable and figure: {out}/frontier.csv, .png, .svg, .pdf")
    print(f"To look into: {out}/report.html")
    wrong = [str(row) for row in frontier.impossible if row.kl_budget in BUDGETS]
    if wrong:
        raise ArithmeticError(
            f"impossible efficiency: {'; '.join(wrong)}. Check that policies and pool share the "
            "reward's scale, the prompts, the reference and the sampling settings."
        )


def _short_of_budgets(rows: Sequence[FrontierRow], points: Sequence[Point]) -> str:
    """What to do where no trained objective reaches any budget of the table."""
    names = {point.objective for point in points}
    if any(row.reward is not None for row in rows if row.objective in names):
        return ""
    farthest = max(points, key=lambda point: point.kl)
    return (
        f"No run reaches KL {min(BUDGETS):g}, the smallest budget: the farthest is "
        f"{farthest.run_id} ({farthest.objective}) with KL {farthest.kl:.2g} after step "
        f"{farthest.step}. Train longer, raise the learning rate, or lower beta or kl_coef."
    )


def _frontier(found: "Results", look: Look, base: str | None) -> "Frontier":
    """Built from tables and pool, or as it was drawn last.

    Raises:
        ConfigError: A budget or a base is not among those that were drawn.
    """
    from alignlab.evaluation.frontier import build_frontier

    trained = sorted({point.objective for point in found.points})
    if base is not None and base not in trained:
        raise ConfigError(f"--base: no runs of {base!r}. There are: {', '.join(trained)}.")
    if found.pool is not None:
        budgets = _curve_budgets(found.points, look)
        return build_frontier(found.tables, found.pool, budgets=budgets, base=base)
    assert found.drawn is not None
    check_budgets(look, found.drawn.rows)
    known = {row.base for row in found.drawn.against}
    if base is not None and known != {base}:
        raise ConfigError(
            f"--base: the tables compare with {', '.join(known) or 'no base'}, not {base}. To "
            "compare with another one, the pool of samples is needed: run the experiment again."
        )
    return found.drawn


def _curve_budgets(points: Sequence[Point], look: Look) -> list[float]:
    """The tables' budgets and others, evenly spaced on the figure's square-root axis."""
    largest = min(max(point.kl for point in points), LARGEST_SHOWN)
    dense = (largest * (k / CURVE_POINTS) ** 2 for k in range(1, CURVE_POINTS + 1))
    return sorted(
        {*BUDGETS, *look.columns(), *(round(budget, 4) for budget in dense if budget > 0.01)}
    )
