"""``alignlab table``: the frontier's numbers as a table for a paper or a page."""

import argparse
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from alignlab.errors import ConfigError, DataError
from alignlab.files import atomic_write
from alignlab.report.look import Look, add_look, check_budgets, chosen_look
from alignlab.report.table import (
    FEWER,
    MISSING,
    PLUS_MINUS,
    RULE,
    SHOWN,
    Grid,
    aligned,
    frontier_table,
    grid,
    has_fewer_seeds,
)
from alignlab.results.csv_tables import read_typed
from alignlab.results.tables import (
    PRIMARY,
    Against,
    FrontierRow,
    Order,
    OwnOptimum,
    read_frontier,
    write_rows,
)

EXAMPLE = "alignlab table results/quickstart --latex --arms dpo,ppo,oracle --budgets 0.5,1,2"
CURVES, AGAINST, OWN_OPTIMA = "curves.csv", "against.csv", "own_optima.csv"
HEAD = re.compile(r"KL (\d+(?:\.\d+)?)")  # of a column that --into fills
COUNT = {1: "one", 2: "two", 3: "three", 4: "four"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``alignlab table``."""
    parser.add_argument(
        "results",
        type=Path,
        metavar="RESULTS_DIR",
        help="a folder that alignlab frontier, run or sweep has drawn",
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--latex", action="store_true", help="print a LaTeX tabular with booktabs")
    kinds.add_argument("--markdown", action="store_true", help="print a Markdown table")
    kinds.add_argument(
        "--into",
        type=Path,
        metavar="FILE.md",
        help="update the table of this file that has a column such as 'KL 1' and names an "
        "objective, such as `dpo`, in a cell of each row",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--share",
        action="store_true",
        help="with --latex, --markdown or --into: shares of the optimum's gain, not rewards",
    )
    what.add_argument(
        "--against",
        action="store_true",
        help="print the tests of 'alignlab frontier --base' instead, beside own optima",
    )
    what.add_argument(
        "--order",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="compare the order of objectives at KL 1 with that in these folders, which have the "
        "same objectives under another condition; also write RESULTS_DIR/order.csv",
    )
    add_look(parser)


def run(args: argparse.Namespace) -> int:
    """Carry out ``alignlab table``; returns the exit status.

    Raises:
        ConfigError: An objective or a budget is not in the table; ``--share`` without a format, or
            ``--against`` or ``--order`` with ``--into``.
        DataError: The folder has not been drawn, or without a base; a file without such a table.
    """
    path, look = args.results / CURVES, chosen_look(args)
    if not path.exists():
        raise DataError(f"{path}: no such table. It is made with: alignlab frontier {args.results}")
    if args.share and not (args.latex or args.markdown or args.into):
        raise ConfigError(
            "--share chooses what --latex, --markdown or --into writes. Add one, or leave --share "
            "out: the plain table has both."
        )
    rows = read_frontier(path)
    look.check(row.objective for row in rows)
    check_budgets(look, rows)
    if args.into:
        if args.against or args.order:
            other = "--against" if args.against else "--order"
            raise ConfigError(f"{other}: --into writes a frontier only. Leave one out.")
        fill_table(args.into, rows, share=args.share)
        return 0
    if args.against:
        table, caption = _against(args.results, rows, look)
    elif args.order:
        table, caption = _order(args.results, args.order, look)
    else:
        rows = [row for row in rows if row.kl_budget in look.columns()]
        if not (args.latex or args.markdown):
            print(frontier_table(rows, look))
            return 0
        what = "Share of the optimum's gain" if args.share else "Reward"
        caption = f"{what} within a KL budget, {SHOWN}. {RULE}"
        caption += f" {FEWER}" if has_fewer_seeds(look.shown(rows)) else ""
        table = grid(rows, look, share=args.share)
    write = as_latex if args.latex else as_markdown if args.markdown else as_text
    print(write(table, caption))
    return 0


def _against(folder: Path, rows: Sequence[FrontierRow], look: Look) -> tuple[Grid, str]:
    from alignlab.report.study import against_caption, against_grid

    if not (folder / AGAINST).exists():
        raise DataError(
            f"{folder / AGAINST}: no such table. It is made with: alignlab frontier {folder} "
            "--base OBJECTIVE"
        )
    tests = read_typed(folder / AGAINST, Against)
    own = read_typed(folder / OWN_OPTIMA, OwnOptimum)
    base = tests[0].base if tests else ""
    return against_grid(base, rows, tests, own, look), against_caption(look.label(base))


def _order(folder: Path, others: Sequence[Path], look: Look) -> tuple[Grid, str]:
    from alignlab.report.order import ORDER, order_caption, order_grid, order_rows, read_case

    if look.budgets not in ((), (PRIMARY,)):
        raise ConfigError(f"--budgets: --order compares at KL {PRIMARY:g} only. Leave one out.")
    found = order_rows(read_case(folder), [read_case(other) for other in others], look)
    write_rows(folder / ORDER, Order, found)
    return order_grid(found, look), order_caption(found, look)


def as_text(table: Grid, caption: str) -> str:
    """A table for a terminal."""
    lines = [[label, *cells] for label, cells in zip(table.labels, table.cells, strict=True)]
    rows = aligned([[table.corner, *table.columns], *lines])
    return "\n".join([rows, "", *textwrap.wrap(caption, 96)])


def fill_table(path: Path, rows: Sequence[FrontierRow], *, share: bool) -> None:
    """Put the frontier's numbers into a table of a Markdown file; what else is in it stays.

    A cell gets ``0.92 ± 0.04``, with a number of seeds where not all reach the budget, or a dash.
    Rows that name no objective of the results stay as they are.

    Args:
        path: The file.
        rows: The frontier.
        share: Shares of the optimum's gain instead of rewards.

    Raises:
        DataError: The file cannot be read, or has no such table.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from None
    known = {row.objective for row in rows}
    budgets: dict[int, float] = {}  # of the table that a line is in, by column
    filled = 0
    for i, line in enumerate(lines):
        if not line.startswith("|"):
            budgets = {}
            continue
        cells = line.split(" | ")
        heads = {j: HEAD.fullmatch(cell.strip("| ")) for j, cell in enumerate(cells)}
        budgets |= {j: float(head[1]) for j, head in heads.items() if head}
        names = [cell.strip("| `") for cell in cells if cell.strip("| ").startswith("`")]
        if name := next((name for name in names if name in known), ""):
            for j, budget in budgets.items():
                cells[j] = _readable(rows, name, budget, share=share)
                filled += 1
            lines[i] = " | ".join(cells)
    if not filled:
        raise DataError(
            f"{path}: no table with a column such as 'KL 1' and an objective of the results in a "
            f"cell, such as `{min(known)}`."
        )
    atomic_write(path, "\n".join(lines).encode())
    print(f"{path}: {filled} cells")


def _readable(rows: Sequence[FrontierRow], name: str, budget: float, *, share: bool) -> str:
    own = [row for row in rows if row.objective == name]
    row = next((row for row in own if row.kl_budget == budget), None)
    value, high = (
        (None, None)
        if row is None
        else (row.oracle_efficiency, row.efficiency_hi)
        if share
        else (row.reward, row.reward_hi)
    )
    if row is None or value is None or high is None:
        return "–"
    fewer = row.n_seeds < max(each.n_seeds for each in own)
    seeds = f" ({COUNT.get(row.n_seeds, row.n_seeds)} seed{'s' * (row.n_seeds > 1)})"
    return f"{value:.2f} {PLUS_MINUS} {high - value:.2f}{seeds * fewer}"


def as_markdown(table: Grid, caption: str) -> str:
    """A table for a README or a page of documentation."""
    lines = [[table.corner, *table.columns], ["---", *("---:" for _ in table.columns)]]
    for i, cells in enumerate(table.cells):
        marked = [f"**{c}**" if (i, j) in table.bold else c for j, c in enumerate(cells)]
        lines.append([re.sub(r"([\\`*_<\[|])", r"\\\1", table.labels[i]), *marked])
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{rows}\n\n{caption}".replace(PLUS_MINUS, f" {PLUS_MINUS} ")


def as_latex(table: Grid, caption: str) -> str:
    """A ``tabular`` of the package ``booktabs``."""
    body = []
    for i, cells in enumerate(table.cells):
        marked = [_in_latex(c, bold=(i, j) in table.bold) for j, c in enumerate(cells)]
        body.append(" & ".join([_escaped(table.labels[i]), *marked]) + r" \\")
    head = " & ".join(map(_escaped, [table.corner, *table.columns]))
    return "\n".join(
        [
            *(f"% {line}" for line in textwrap.wrap(caption, 96)),
            r"\begin{tabular}{l" + "r" * len(table.columns) + "}  % \\usepackage{booktabs}",
            r"\toprule",
            head + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _in_latex(cell: str, *, bold: bool) -> str:
    if cell == MISSING:
        return "--"
    number, _, seeds = cell.replace(PLUS_MINUS, r" \pm ").partition(" (")
    number = rf"\mathbf{{{number}}}" if bold else number
    return f"${number}$" + (f" ({seeds}" if seeds else "")


def _escaped(text: str) -> str:
    """``text`` with the characters that mean something else to LaTeX spelled out."""
    words = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(words.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
