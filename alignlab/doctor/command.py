"""``alignlab doctor``: all checks of a stage, before it trains."""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from alignlab.doctor.finding import Finding, as_json, count, findings, table
from alignlab.errors import ConfigError, DataError

EXAMPLE = "alignlab doctor experiments/quickstart:dpo --model.init_args.beta 0.2"
STOPPED = 2  # exit status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``alignlab doctor``; the stage and its settings are as in ``fit``."""
    parser.usage = (
        "alignlab doctor DIR:STAGE [--scale NAME] [--seed N] [--point K] [--results DIR] "
        "[--KEY VALUE ...] [--json]\n       alignlab doctor --config STAGE.yaml [--config "
        "OVERLAY.yaml ...] [--KEY VALUE ...] [--json]"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list of the findings")


def run(args: argparse.Namespace) -> int:
    """Carry out ``alignlab doctor``; returns the exit status: 2 if a check says stop.

    Raises:
        ConfigError: No stage is named, or there is none.
    """
    if not args.settings:
        raise ConfigError(f"there is nothing to examine. Give a stage: {EXAMPLE}")
    from alignlab.plan.address import fit_words

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = examined(fit_words("doctor", args.settings, Path(folder)))
    if args.json:
        print(as_json(found))
    else:
        print(f"{table(found)}\n{count(found)} in {time.monotonic() - began:.1f} s")
    return STOPPED if any(each.state == "stop" for each in found) else 0


def examined(words: Sequence[str]) -> list[Finding]:
    """The findings on a stage; a stop ends them.

    Args:
        words: As ``alignlab fit`` takes them: ``--config FILE`` and settings.
    """
    from alignlab.doctor import machine
    from alignlab.doctor.trial import tried
    from alignlab.training.fit import Command, plain_errors

    try:
        with plain_errors():
            config = Command(words).config
    except (ConfigError, DataError) as error:
        return [Finding("config", "stop", str(error))]
    found = findings({"disk": machine.disk, "memory": machine.memory}, machine.Stage(words, config))
    if any(each.state == "stop" for each in found):
        return found
    return [*tried(words, config), *found]
