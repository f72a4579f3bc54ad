"""What a job and the pipeline's process tell each other."""

from typing import NamedTuple, Protocol

ALIVE, BEAT = "alive", 2.0  # a worker's sign of life, and the seconds between two


class Parent(Protocol):
    """The pipeline's process, as a job sees it."""

    def progress(self, step: int, total: int) -> None:
        """So many optimizer steps are done."""

    def measured(self, step: int, metrics: dict[str, float]) -> None:
        """An evaluation after ``step`` found this."""

    def why_stop(self, name: str) -> str | None:
        """Why job ``name`` should stop, if it should."""

    def say(self, line: str) -> None:
        """Something that the user should know."""


class Trained(NamedTuple):
    """What a finished training says of itself.

    Attributes:
        seconds: Of training, summed over continuations.
        metrics: What was logged last, name -> value.
        stopped: Why it ended before its last step, if it did.
    """

    seconds: float
    metrics: dict[str, float]
    stopped: str | None
