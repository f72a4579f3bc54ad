"""Alarms while a run trains: a large KL, lengths far from the first ones, collapsed entropy."""

import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from alignlab.callbacks.probe import FrontierProbe, means_at
from alignlab.callbacks.resume import run_folder
from alignlab.errors import ConfigError
from alignlab.results.csv_tables import write_table

TABLE = "alarms.csv"  # in the run's folder
AT_LIMIT = 0.98  # share of the longest length from which a mean length counts as at the limit
COLUMNS = ("step", "kind", "message")


class Alarms(Callback):
    """Watches what rollouts and probes measure, and prints a line when something looks wrong.

    Each kind of alarm is given once per run and written to ``alarms.csv`` in the run's folder. The
    training continues; only a ``KLBound`` ends it.

    Args:
        kl: Largest KL to the reference in nats per completion; ``None`` for no alarm.
        length_factor: Alarm if the mean length grows or shrinks by this factor since the first
            rollouts (or the first probe). Independently of it, there is an alarm if the mean length
            reaches the longest that is sampled, and did not at first.
        entropy: Alarm if the entropy per token falls below this share of the first rollouts'.

    Raises:
        ConfigError: A bound that would always give an alarm.
    """

    def __init__(
        self, kl: float | None = 50.0, length_factor: float = 2.0, entropy: float = 0.1
    ) -> None:
        if (kl is not None and kl <= 0) or length_factor <= 1 or not 0 <= entropy < 1:
            raise ConfigError(
                "Alarms needs kl > 0, length_factor > 1 and entropy from 0 to below 1; got "
                f"{kl}, {length_factor}, {entropy}."
            )
        self.kl, self.length_factor, self.entropy = kl, length_factor, entropy
        self.fired: list[dict[str, Any]] = []
        self._first: dict[str, dict[str, float]] = {}  # what each source measured first
        self._seen: object = None  # the phase that was looked at last

    def state_dict(self) -> dict[str, Any]:
        """Alarms so far, and what lengths and entropies are compared with."""
        return {"fired": self.fired, "first": self._first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.fired, self._first = state_dict["fired"], state_dict["first"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Look at the phase of rollouts that this batch begins."""
        phase: dict[str, float] | None = getattr(pl_module, "phase", None)
        if phase and phase is not self._seen:
            self._seen = phase
            self._look(trainer, "rollouts", phase, pl_module.sampling.max_new_tokens)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Look at the evaluation of this step, if there was one."""
        self._look_at_probe(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the evaluation of the trained policy."""
        self._look_at_probe(trainer)

    def _look_at_probe(self, trainer: Trainer) -> None:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        for probe in callbacks:
            if isinstance(probe, FrontierProbe):
                found = means_at(trainer, trainer.global_step)
                if found is not None:
                    self._look(trainer, "probe", found, probe.max_new_tokens)

    def _look(self, trainer: Trainer, source: str, now: dict[str, float], longest: int) -> None:
        first = self._first.setdefault(source, dict(now))
        for kind, said in self._wrong(source, first, now, longest).items():
            if not trainer.is_global_zero or any(each["kind"] == kind for each in self.fired):
                continue
            self.fired.append({"step": trainer.global_step, "kind": kind, "message": said})
            print(f"alarm at step {trainer.global_step}: {said}", file=sys.stderr, flush=True)
            write_table(run_folder(trainer) / TABLE, self.fired, COLUMNS)

    def _wrong(
        self, source: str, first: dict[str, float], now: dict[str, float], longest: int
    ) -> dict[str, str]:
        """What is wrong, by kind of alarm."""
        wrong, kl, length = {}, now["kl"], now["length"]
        if self.kl is not None and not kl <= self.kl:
            wrong["kl"] = (
                f"the KL of the {source} is {kl:.4g} nats per completion, above {self.kl:g}. Lower "
                "the learning rate, or strengthen the penalty (kl_coef, beta)."
            )
        if length >= AT_LIMIT * longest > first["length"]:
            wrong["length"] = (
                f"completions of the {source} have {length:.4g} tokens on average, of at most "
                f"{longest}: few end by themselves. Raise max_new_tokens, or see whether rows end "
                "in a trained EOS."
            )
        elif not 1 / self.length_factor < length / max(first["length"], 1e-9) < self.length_factor:
            wrong["length"] = (
                f"completions of the {source} have {length:.4g} tokens on average, at first "
                f"{first['length']:.4g}. Read samples: the reward may pay for length."
            )
        if now.get("entropy", 1.0) < self.entropy * first.get("entropy", 0.0):
            wrong["entropy"] = (
                f"the entropy of the {source} is {now['entropy']:.3g} nats a token, at first "
                f"{first['entropy']:.3g}: samples hardly differ. Lower the learning rate, or "
                "strengthen the KL penalty."
            )
        return wrong
