"""A card is what is to be reproduced: claims, each with the rule by which a table decides it."""

from collections.abc import Callable
from statistics import fmean
from typing import NamedTuple

from alignlab.claims.finding import Finding
from alignlab.claims.tables import Folder

Rule = Callable[[Folder], Finding]

# Results folders, and the KL at which objectives are compared in the first one.
OURS, STUDY = "claims", "study"
TUNED = "imdb-tuned"
TOY, REVIEWS = "quickstart-overoptimisation", "imdb-overoptimisation"
SUMMARIES, DIALOGUES = "tldr-temperature", "hh-policies"
AT = 0.5  # nats per completion


class Claim(NamedTuple):
    """A sentence, the results folder that it reads, and the rule that decides it."""

    says: str
    folder: str
    rule: Rule


class Card(NamedTuple):
    """What is to be reproduced, and the claims that it consists of; none: not measured yet."""

    name: str
    title: str
    claims: tuple[Claim, ...] = ()


def reference(folder: Folder, column: str) -> float:
    """What the reference has in a column of ``evaluations.csv``."""
    return fmean(folder.numbers("evaluations.csv", column, policy="reference"))
