"""Verdicts of a card on tables that a test writes, and runs of five seeds."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignlab.claims.card import OURS
from alignlab.claims.cards import CARDS
from alignlab.claims.finding import Finding
from alignlab.claims.page import decide
from alignlab.results.csv_tables import write_table
from alignlab.results.tables import Point
from tests.claims.test_tables import POINT

SEEDS = range(5)
NUDGE = (-0.02, -0.01, 0.0, 0.01, 0.02)  # of seeds: mean 0


def found(results: Path, card: str) -> list[Finding]:
    (claims,) = (own.claims for own in CARDS if own.name == card)
    return [decide(results, claim) for claim in claims]


def verdicts(results: Path, card: str) -> list[str]:
    return [finding.verdict for finding in found(results, card)]


def values(results: Path, card: str) -> list[float | None]:
    return [finding.value for finding in found(results, card)]


def points(
    objective: str,
    at: Iterable[tuple[int, float, float]],
    nudge: Sequence[float] = NUDGE,
    **hparams: Any,
) -> list[Point]:
    """Checkpoints (step, KL, reward) of five seeds, whose KL and reward are nudged."""
    name = "-".join([objective, *(f"{k}{v}" for k, v in hparams.items())])
    return [
        replace(
            POINT,
            objective=objective,
            run_id=f"{name}-s{seed}",
            seed=seed,
            step=step,
            kl=kl * (1 + nudge[seed]),
            reward=reward + nudge[seed],
            hparams=hparams,
        )
        for seed in SEEDS
        for step, kl, reward in at
    ]


def write_evaluations(results: Path) -> None:
    rows = [
        {"policy": "reference", "reward": 0.0, "chosen_logp": -10.0, "rejected_logp": -10.0},
        *({"policy": "dpo", "reward": 2 + 10 * x} for x in NUDGE),
    ]
    columns = ["policy", "reward", "chosen_logp", "rejected_logp"]
    write_table(results / OURS / "evaluations.csv", rows, columns)
