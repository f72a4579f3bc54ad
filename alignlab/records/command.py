"""The command lines of ``alignlab show``, ``diff``, ``fork``, ``note`` and ``catalogue``."""

import argparse
import datetime
from pathlib import Path

from alignlab.errors import ConfigError

SHOW = "alignlab show results/quickstart-reference/frontier.csv:3:reward"
CATALOGUE = "alignlab catalogue results"
DIFF = "alignlab diff results/quickstart/dpo-beta0.9 results/quickstart/dpo-beta1.3"
FORK = "alignlab fork results/quickstart/dpo-beta0.9-s0 --set model.init_args.beta=0.5 --run"
NOTE = 'alignlab note results/quickstart/dpo-beta0.9-s0 "reward hacks: repeats itself" --tag hacked'
RUN = "a run's folder, RESULTS_DIR/RUN, or a point of the report: 'dpo-beta0.9-s0, step 96'"


def add_show(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``alignlab show``."""
    parser.add_argument(
        "what",
        metavar="NUMBER|CELL|RUN",
        help=f"a number as it is printed ('0.92', '92.1 %%', '0.92 ± 0.11'); a cell, "
        f"TABLE.csv:LINE:COLUMN; {RUN}",
    )
    _add_roots(parser)
    parser.set_defaults(command=_show)


def add_diff(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``alignlab diff``."""
    parser.add_argument(
        "first", metavar="A", help=f"{RUN}; without -s<seed>: its runs of all seeds"
    )
    parser.add_argument("second", metavar="B", help="the run to compare it with, named alike")
    parser.add_argument(
        "--difference",
        type=float,
        metavar="D",
        help="print how many seeds and prompts would resolve this difference in reward (default: "
        "the difference found, if it is not resolved)",
    )
    _add_roots(parser)
    parser.set_defaults(command=_diff)


def add_fork(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``alignlab fork``."""
    parser.add_argument("run", metavar="RUN", help=RUN)
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting to change, such as model.init_args.beta=0.5; may be given again",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: a new file in forks/")
    parser.add_argument("--run", dest="start", action="store_true", help="train it at once")
    _add_roots(parser)
    parser.set_defaults(command=_fork)


def add_note(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``alignlab note``."""
    parser.add_argument("run", metavar="RUN", help=RUN)
    parser.add_argument("text", nargs="?", metavar="TEXT", help="the note")
    parser.add_argument(
        "--tag", action="append", default=[], metavar="TAG", help="a word; may be given again"
    )
    _add_roots(parser)
    parser.set_defaults(command=_note)


def add_catalogue(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``alignlab catalogue``."""
    parser.add_argument(
        "roots",
        nargs="*",
        type=Path,
        metavar="DIR",
        help="results folders, or folders of them (default: results)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: DIR/catalogue.html")
    parser.set_defaults(command=_catalogue)


def _add_roots(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--in",
        dest="roots",
        action="append",
        type=Path,
        metavar="DIR",
        help="results folder, folder of them, or table to look in; may be given again "
        "(default: results)",
    )


def _roots(args: argparse.Namespace) -> list[Path]:
    return args.roots or [Path("results")]


def _show(args: argparse.Namespace) -> int:
    from alignlab.records.show import show

    print(show(args.what, _roots(args)))
    return 0


def _catalogue(args: argparse.Namespace) -> int:
    from alignlab.report.catalogue import write_catalogue
    from alignlab.results.run_records import results_folders

    roots = _roots(args)
    folders = results_folders(roots)
    if not folders:
        raise ConfigError(f"{', '.join(map(str, roots))}: no results folder there. Name another.")
    path = args.out or roots[0] / "catalogue.html"
    count = write_catalogue(path, folders)
    print(f"{count} results folder{'s' * (count != 1)}: {path}")
    return 0


def _diff(args: argparse.Namespace) -> int:
    from alignlab.records.diff import diff

    print(diff(args.first, args.second, _roots(args), args.difference))
    return 0


def _fork(args: argparse.Namespace) -> int:
    from alignlab.records.fork import fork

    path, lines = fork(args.run, _roots(args), args.changes, args.out, start=args.start)
    print("\n".join(lines), flush=True)
    if args.start:
        from alignlab.training import fit

        fit.fit(["--config", str(path)])
    return 0


def _note(args: argparse.Namespace) -> int:
    from alignlab.records.find import find_run
    from alignlab.results.notes import NOTES, Note, add_remark

    text = (args.text or "").strip()
    if not text and not args.tag:
        raise ConfigError("alignlab note RUN: give a text, a --tag, or both.")
    run = find_run(args.run, _roots(args))
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    note = Note(text, today, run.config_sha) if text else None
    remarks = add_remark(run.results, run.run_id, note, args.tag)
    print(f"{run.label}: {remarks} (in {run.results / NOTES})")
    return 0


COMMANDS = (
    ("catalogue", add_catalogue, "write an HTML page that lists all results folders", CATALOGUE),
    ("show", add_show, "show which run made a number, and how the run was made", SHOW),
    ("diff", add_diff, "show how settings and results of two runs differ", DIFF),
    ("fork", add_fork, "copy a run's settings into a new stage file, with changes", FORK),
    ("note", add_note, "add a note or tags to a run", NOTE),
)
