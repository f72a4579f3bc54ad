"""``alignlab check-data``: what training would read of a file, and what is wrong with it."""

import argparse
import os
import sys
from pathlib import Path

from alignlab.errors import ConfigError

EXAMPLE = "alignlab check-data pairs.jsonl --test test.jsonl --tokenizer MODEL --html report.html"
KINDS = ("pair", "ranking", "candidates", "rated", "judged", "demonstration", "text", "prompt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``alignlab check-data``."""
    add = parser.add_argument
    add("source", metavar="FILE|ID", help="a file, folder or pattern, or the hub id of a data set")
    add("--test", metavar="FILE|ID", help="held-out rows: report their overlap with the others")
    add("--tokenizer", metavar="DIR|ID", help="also show lengths in tokens, and the trained tokens")
    add("--chat-format", metavar="llama3|FILE", help="for a tokenizer without a chat template: "
        "llama3, or a template's file (*.jinja), as in a policy's chat_format")  # fmt: skip
    add("--as", choices=KINDS, dest="kind", help="the kind of row (default: by the columns)")
    add("--split", metavar="NAME", help="split of the source, such as train")
    add("--test-split", metavar="NAME", help="split of --test")
    add(
        "--columns",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="read COLUMN as NAME, such as prompt=question; may be repeated",
    )
    add("--strict", action="store_true", help="exit with 2 if a row is refused, contradicted or in "
        "a cycle, or a test prompt is also a training prompt")  # fmt: skip
    add("--json", action="store_true", help="print JSON instead")
    add("--html", type=Path, metavar="FILE", help="also write an HTML page")
    add(
        "--quarantine",
        type=Path,
        metavar="FILE",
        help="write refused and contradictory rows, with the reasons, as JSON lines",
    )


def run(args: argparse.Namespace) -> int:
    """Carry out ``alignlab check-data``; returns the exit status.

    0: the rows can be trained on. 2: they cannot, or with ``--strict`` something is wrong.

    Raises:
        ConfigError: An impossible option.
        DataError: A source cannot be read, or no row of it can be used.
    """
    import json

    from alignlab.check_data.checking import checked, is_clean, reasons
    from alignlab.check_data.quarantine import write_quarantine
    from alignlab.check_data.show import as_json, as_page, as_text
    from alignlab.check_data.survey import KINDS, Source
    from alignlab.files import atomic_write

    kind = KINDS[args.kind][0] if args.kind else None
    columns = dict(map(_renaming, args.columns))
    source = Source(args.source, kind, args.split, columns)
    test = Source(args.test, kind, args.test_split, columns) if args.test else None
    if args.test_split and test is None:
        raise ConfigError("--test-split is a part of --test, which is not given. Give --test, too.")
    if args.chat_format and not args.tokenizer:
        raise ConfigError("--chat-format is set on the tokenizer. Give --tokenizer, too.")
    check = checked(source, test, args.tokenizer, args.chat_format)
    if args.html is not None:
        atomic_write(args.html, as_page(check).encode(errors="backslashreplace"))
        print(f"page: {args.html}", file=sys.stderr)
    if args.quarantine is not None:
        count = write_quarantine(args.quarantine, source, reasons(check))
        print(f"{count:,} rows in quarantine: {args.quarantine}", file=sys.stderr)
    if args.json:
        print(json.dumps(as_json(check), indent=1))
    else:
        colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print(as_text(check, colours=colours))
    return 2 if check.data.stops or (args.strict and not is_clean(check)) else 0


def _renaming(word: str) -> tuple[str, str]:
    ours, equals, theirs = word.partition("=")
    if not (ours and equals and theirs):
        raise ConfigError(f"--columns {word}: wants NAME=COLUMN, such as prompt=question.")
    return ours, theirs
