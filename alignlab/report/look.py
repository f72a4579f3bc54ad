"""What a figure, a table or the report shows: which arms and budgets, under which names."""

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from alignlab.errors import ConfigError
from alignlab.results.tables import BUDGETS, FrontierRow

SIZES = ("screen", "one-column", "two-column")


class OfAnObjective(Protocol):
    """A row that belongs to an objective."""

    @property
    def objective(self) -> str:
        """Name of the objective, as in ``points.csv``."""


Row = TypeVar("Row", bound=OfAnObjective)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is shown, and under which names. Tables on disk hold everything all the same.

    Args:
        arms: Objectives in the order to show them, best-of-n, optimum and reference included; none
            means all of them.
        names: Objective -> what to call it.
        budgets: KL budgets of tables; with them, figures end at the largest.
        size: Of the figure, one of ``SIZES``: for a screen, or for a column of a paper.
        share: Add a panel with the share of the optimum's gain to the figure.
    """

    arms: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    budgets: tuple[float, ...] = ()
    size: str = SIZES[0]
    share: bool = False

    def label(self, name: str) -> str:
        """What to call objective ``name``."""
        return self.names.get(name, name)

    def columns(self) -> tuple[float, ...]:
        """The budgets of tables."""
        return self.budgets or BUDGETS

    def shown(self, rows: Iterable[Row]) -> list[Row]:
        """The rows of the arms that are shown, in the order of the arms."""
        if not self.arms:
            return list(rows)
        place = {name: i for i, name in enumerate(self.arms)}
        own = [row for row in rows if row.objective in place]
        return sorted(own, key=lambda row: place[row.objective])

    def check(self, objectives: Iterable[str]) -> None:
        """Refuse an arm that is none of ``objectives``.

        Raises:
            ConfigError: ``arms`` or ``names`` have one.
        """
        known = list(dict.fromkeys(objectives))
        for option, given in (("--arms", self.arms), ("--name", self.names)):
            unknown = [name for name in given if name not in known]
            if unknown:
                raise ConfigError(
                    f"{option}: no objective {', '.join(unknown)} in these results. "
                    f"There are: {', '.join(known)}."
                )


EVERYTHING = Look()


def check_budgets(look: Look, rows: Iterable[FrontierRow]) -> None:
    """Refuse a budget that ``rows``, which were made before, do not have.

    Raises:
        ConfigError: ``look`` has one.
    """
    known = sorted({row.kl_budget for row in rows})
    unknown = [f"{budget:g}" for budget in look.budgets if budget not in known]
    if unknown:
        raise ConfigError(
            f"--budgets: nothing was computed at KL {', '.join(unknown)}. There are: "
            f"{', '.join(f'{budget:g}' for budget in known)}. 'alignlab frontier DIR --budgets' "
            "computes others, if the folder has its pool of samples."
        )


def add_look(parser: argparse.ArgumentParser) -> None:
    """Declare ``--arms``, ``--name`` and ``--budgets``."""
    parser.add_argument(
        "--arms",
        type=_words,
        default=(),
        metavar="LIST",
        help="show these objectives in this order, such as dpo,ppo,oracle (default: all)",
    )
    parser.add_argument(
        "--name",
        action="append",
        type=_pair,
        default=[],
        metavar="ARM=NAME",
        help='what to call an objective, such as "ppo=PPO, learned reward"; repeatable',
    )
    parser.add_argument(
        "--budgets",
        type=_numbers,
        default=(),
        metavar="LIST",
        help=f"KL budgets of the tables, in nats (default: {','.join(f'{b:g}' for b in BUDGETS)})",
    )


def chosen_look(args: argparse.Namespace) -> Look:
    """The options as a ``Look``; those of the figure only where the command has them."""
    return Look(
        arms=args.arms,
        names=dict(args.name),
        budgets=args.budgets,
        size=getattr(args, "size", SIZES[0]),
        share=getattr(args, "share", False),
    )


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    if not all(words) or len({*words}) < len(words):
        raise argparse.ArgumentTypeError(f"expected names such as dpo,ppo, each once, got {text!r}")
    return words


def _pair(text: str) -> Sequence[str]:
    name, sign, label = (part.strip() for part in text.partition("="))
    if not (name and sign and label):
        raise argparse.ArgumentTypeError(f"expected ARM=NAME, such as dpo=DPO, got {text!r}")
    return name, label


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = [round(float(part), 4) for part in text.split(",")]  # as curves.csv has them
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < math.inf for number in numbers):
        raise argparse.ArgumentTypeError(f"expected numbers such as 0.5,1,2, got {text!r}")
    return tuple(sorted({*numbers}))
