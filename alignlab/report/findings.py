"""What the report's page is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignlab.results.tables import Comparison, Effect, FrontierRow, Hypervolume, Importance, Point


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A completion to read, with the prompt it answers."""

    prompt_id: str
    prompt: str
    completion: str
    reward: float


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that the page shows.

    Args:
        title: What was run.
        reward_label: Name and unit of the reward.
        rows: Frontier rows, at the table's budgets and between them.
        points: Every checkpoint.
        comparisons: Of the trained objectives with each other.
        hypervolumes: Of the trained objectives.
        effects: Of the hyperparameters.
        importances: Of the hyperparameters.
        trials: Of a sweep, those that did not complete: rows of its ``trials.csv``.
        samples: ``run_id, step N`` -> completions of that checkpoint.
        references: Prompt id -> one completion of the reference and its reward.
        configs: Name -> text of a resolved config.
        environment: Name -> version or place.
        command: What made the runs, as far as that is known, and what makes the page again.
    """

    title: str
    reward_label: str
    rows: Sequence[FrontierRow]
    points: Sequence[Point]
    comparisons: Sequence[Comparison]
    hypervolumes: Sequence[Hypervolume]
    effects: Sequence[Effect]
    importances: Sequence[Importance]
    trials: Sequence[Mapping[str, str]]
    samples: Mapping[str, Sequence[Sample]]
    references: Mapping[str, tuple[str, float]]
    configs: Mapping[str, str]
    environment: Mapping[str, str]
    command: str


def key_of(point: Point) -> str:
    """How the page names a checkpoint."""
    return f"{point.run_id}, step {point.step}"
