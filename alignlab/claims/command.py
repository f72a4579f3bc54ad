"""``alignlab claims``: which claims held, by the committed tables."""

import argparse
from pathlib import Path

EXAMPLE = "alignlab claims results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``alignlab claims``."""
    parser.add_argument(
        "results",
        type=Path,
        metavar="RESULTS",
        help="folder that holds results folders; claims.csv and README.md are written there",
    )


def run(args: argparse.Namespace) -> int:
    """Carry out ``alignlab claims``; returns the exit status.

    Raises:
        DataError: There is no such folder.
    """
    from alignlab.claims.page import write_claims

    print(write_claims(args.results))
    return 0
