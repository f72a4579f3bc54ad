"""Learning-rate schedules counted in optimizer steps: a warm-up, then a decay to a floor."""

import math
from collections.abc import Callable
from typing import Literal

from lightning.pytorch import Trainer

from alignlab.errors import ConfigError
from alignlab.objectives.settings import checked

ENDLESS = (
    "falls over the whole run, whose number of optimizer steps is not known: it ends by "
    "trainer.max_time or not at all. Set model.init_args.schedule.total_steps, trainer.max_steps "
    "or trainer.max_epochs."
)


class Schedule:
    """A factor on the learning rate: warm up for some steps, then hold or decay.

    Args:
        warmup_steps: Optimizer steps of warm-up; 0 starts at the full rate.
        warmup: ``linear`` rises to 1 from ``warmup_start``; ``constant`` stays at
            ``warmup_start`` and then jumps to 1 (as the 0.01 of He et al. 2015, arXiv:1512.03385,
            section 4.2).
        warmup_start: The factor at the first step, such as 0 or 0.1.
        decay: What follows the warm-up: ``constant``, ``linear`` or ``cosine``.
        floor: The factor that a decay ends at.
        total_steps: Where a decay ends; the trainer's number of optimizer steps when left out.

    Raises:
        ConfigError: A negative number of steps, or a factor outside [0, 1].
    """

    def __init__(
        self,
        warmup_steps: int = 0,
        warmup: Literal["linear", "constant"] = "linear",
        warmup_start: float = 0.0,
        decay: Literal["constant", "linear", "cosine"] = "constant",
        floor: float = 0.0,
        total_steps: int | None = None,
    ) -> None:
        self.warmup_steps = checked(self, "schedule.warmup_steps", warmup_steps, ">= 0")
        self.warmup_start = checked(self, "schedule.warmup_start", warmup_start, "in [0, 1]")
        self.floor = checked(self, "schedule.floor", floor, "in [0, 1]")
        if total_steps is not None and total_steps <= warmup_steps:
            raise ConfigError(
                f"schedule.total_steps ({total_steps}) must exceed warmup_steps ({warmup_steps})."
            )
        self.warmup, self.decay, self.total_steps = warmup, decay, total_steps

    def steps(self, trainer: Trainer) -> int:
        """Optimizer steps after which the decay ends; 0 without a decay.

        Raises:
            ConfigError: A decay whose end is not known.
        """
        if self.total_steps is not None or self.decay == "constant":
            return self.total_steps or 0
        if (planned := planned_steps(trainer)) is None:
            raise ConfigError(f"schedule.decay {self.decay} {ENDLESS}")
        return planned

    def factor(self, step: int, total_steps: int) -> float:
        """The factor used by optimizer step ``step`` (the first is 0) of ``total_steps``."""
        if step < self.warmup_steps:
            if self.warmup == "constant":
                return self.warmup_start
            return self.warmup_start + (1 - self.warmup_start) * step / self.warmup_steps
        if self.decay == "constant":
            return 1.0
        done = min(1.0, (step - self.warmup_steps) / max(1, total_steps - self.warmup_steps))
        shape = 1 - done if self.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.floor + (1 - self.floor) * shape

    def counted_from(self, first: int, total_steps: int) -> Callable[[int], float]:
        """``factor`` for weights that are trained from optimizer step ``first`` on."""
        return lambda step: self.factor(max(0, step - first), total_steps - first)


def planned_steps(trainer: Trainer) -> int | None:
    """Optimizer steps after which ``trainer`` ends by itself; ``None`` if no number is set."""
    loop = trainer.fit_loop
    built = loop._combined_loader is not None
    steps = trainer.estimated_stepping_batches
    if not built:
        # Counting the batches of max_epochs has built the train loader, and Lightning gives a
        # checkpoint's state only to a loader that it builds afterwards.
        loop._combined_loader = None
    return int(steps) if 0 <= steps < math.inf else None
