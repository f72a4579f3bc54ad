"""Stop a run whose KL to the reference exceeds a limit, and record why."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from alignlab.callbacks.probe import FrontierProbe, means_at
from alignlab.errors import ConfigError


class KLBound(Callback):
    """Ends the run when an evaluation finds a KL beyond a limit.

    Policies beyond the largest KL of interest add nothing to a frontier. List it after the
    ``FrontierProbe``, whose latest evaluation it reads. Where a run ends therefore depends on the
    weights alone.

    Args:
        limit: KL to the reference, nats per completion.

    Raises:
        ConfigError: ``limit`` is not positive.
    """

    def __init__(self, limit: float) -> None:
        if not limit > 0:
            raise ConfigError(f"KLBound needs limit > 0 (nats per completion), got {limit}.")
        self.limit = limit
        self.reached: str | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to run without a probe, because nothing would be measured.

        Raises:
            ConfigError: No ``FrontierProbe`` goes before it.
        """
        check_order(trainer.callbacks)  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the last evaluation again, in case the run was killed right after it."""
        self._stop_if_beyond(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Look at the evaluation of this step, if there was one."""
        self._stop_if_beyond(trainer)

    def _stop_if_beyond(self, trainer: Trainer) -> None:
        means, step = means_at(trainer, trainer.global_step), trainer.global_step
        if means is not None and (kl := means["kl"]) > self.limit:
            self.reached = f"KL {kl:.4g} > {self.limit:g} at step {step}"
            trainer.should_stop = True


def in_order(probe: FrontierProbe | None, callbacks: Any) -> list[Callback]:
    """A config's callbacks, with the probe before those that read what it measures.

    Args:
        probe: The config's ``probe``.
        callbacks: Its ``trainer.callbacks``: a list, a single one or none.

    Raises:
        ConfigError: Two probes, which would write the same files, or a ``KLBound`` without one.
    """
    given = [probe, *(callbacks if isinstance(callbacks, list) else [callbacks])]
    found = sorted(filter(None, given), key=lambda each: not isinstance(each, FrontierProbe))
    if sum(isinstance(each, FrontierProbe) for each in found) > 1:
        raise ConfigError("there is a second FrontierProbe. Keep one, under the key probe.")
    check_order(found)
    return found


def check_order(callbacks: Sequence[Callback]) -> None:
    """Refuse a ``KLBound`` with no probe before it, which would never end a run.

    Raises:
        ConfigError: A ``KLBound`` has no probe before it.
    """
    probed = False
    for callback in callbacks:
        probed |= isinstance(callback, FrontierProbe)
        if isinstance(callback, KLBound) and not probed:
            raise ConfigError(
                "KLBound (a sweep's 'stop: kl') reads what a FrontierProbe measures. Add one "
                "under the key probe."
            )
