"""``alignlab table``: the frontier's numbers as a table for a paper or a page."""

import argparse
import re
import textwrap
from pathlib import Path

from alignlab.errors import ConfigError, DataError
from alignlab.report.look import add_look, check_budgets, chosen_look
from alignlab.report.table import (
    FEWER,
    MISSING,
    PLUS_MINUS,
    RULE,
    SHOWN,
    Grid,
    frontier_table,
    grid,
    has_fewer_seeds,
)
from alignlab.results.tables import read_frontier

EXAMPLE = "alignlab table results/quickstart --latex --arms dpo,ppo,oracle --budgets 0.5,1,2"
CURVES = "curves.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``alignlab table``."""
    parser.add_argument(
        "results",
        type=Path,
        metavar="RESULTS_DIR",
        help="a folder that alignlab frontier, run or sweep has drawn",
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--latex", action="store_true", help="a tabular of the package booktabs")
    kinds.add_argument("--markdown", action="store_true", help="a table for a README")
    parser.add_argument(
        "--share",
        action="store_true",
        help="with --latex or --markdown: shares of the optimum's gain instead of rewards",
    )
    add_look(parser)


def run(args: argparse.Namespace) -> int:
    """Carry out ``alignlab table``; returns the exit status.

    Raises:
        ConfigError: An objective or a budget is not in the table; ``--share`` without a format.
        DataError: The folder has not been drawn.
    """
    path, look = args.results / CURVES, chosen_look(args)
    if not path.exists():
        raise DataError(f"{path}: no such table. It is made with: alignlab frontier {args.results}")
    if args.share and not (args.latex or args.markdown):
        raise ConfigError(
            "--share chooses what --latex or --markdown writes. Add one, or leave --share out: "
            "the plain table has both."
        )
    rows = read_frontier(path)
    look.check(row.objective for row in rows)
    check_budgets(look, rows)
    rows = [row for row in rows if row.kl_budget in look.columns()]
    if not (args.latex or args.markdown):
        print(frontier_table(rows, look))
        return 0
    what = "Share of the optimum's gain" if args.share else "Reward"
    caption = f"{what} within a KL budget, {SHOWN}. {RULE}"
    caption += f" {FEWER}" if has_fewer_seeds(look.shown(rows)) else ""
    write = as_latex if args.latex else as_markdown
    print(write(grid(rows, look, share=args.share), caption))
    return 0


def as_markdown(table: Grid, caption: str) -> str:
    """A table for a README or a page of documentation."""
    lines = [["KL (nats)", *(f"{budget:g}" for budget in table.budgets)]]
    lines.append(["---", *("---:" for _ in table.budgets)])
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
    head = " & ".join(["KL (nats)", *(f"{budget:g}" for budget in table.budgets)])
    return "\n".join(
        [
            *(f"% {line}" for line in textwrap.wrap(caption, 96)),
            r"\begin{tabular}{l" + "r" * len(table.budgets) + "}  % \\usepackage{booktabs}",
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
