"""How fast a run trains, how well it uses the device, and what takes its time."""

import math
import time
from functools import cache
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.profilers import PassThroughProfiler

from alignlab.clock import CLOCK
from alignlab.models.backbone import TreeBackbone
from alignlab.models.work import Work

BESIDE = ("probe", "validation", "checkpoint")  # parts in which nothing is trained
ENOUGH = 0.003  # seconds that a product must take for its rate to be reliable
LARGEST = 8192  # rows of the largest product that is tried


class Meter(Callback):
    """Logs speed, utilisation and shares of time at the steps at which Lightning logs.

    ``speed/tokens_per_second`` counts the tokens of prompts and completions that the trained model
    reads in its updates, a prompt once for all its completions; ``speed/trained_per_second`` those
    under the loss mask. ``speed/utilisation`` is the necessary matrix products (``models.work``) of
    all models, sampling included, per second, over the rate of one large product, which is measured
    once. All three leave out the time of probes, validation and checkpoints.

    ``time/...`` are shares of all time since the last line: ``rollout`` (sampling and what is
    computed from the samples), ``reward``, ``reference``, ``data`` (waiting for data), ``probe``,
    ``validation``, ``checkpoint``, and ``update``, which is the rest.

    Attributes:
        latest: What was measured last, by the names of the log.
    """

    def __init__(self) -> None:
        self.latest: dict[str, float] = {}
        self._works: list[Work] = []
        self._trained: Work | None = None
        self._step = self._since = 0.0
        self._tokens = 0  # under the loss mask, of all ranks
        self._before = [0.0, 0.0, 0.0]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        CLOCK.restart()
        profiler: Any = trainer.profiler  # type: ignore[attr-defined]
        if not isinstance(profiler, PassThroughProfiler):
            CLOCK.profile = lambda name: profiler.profile(f"[alignlab]{name}")
        for model in pl_module.modules():
            if isinstance(model, TreeBackbone):
                self._count(model, learns=model is getattr(pl_module, "trained", None))
        self._step, self._since = trainer.global_step, time.perf_counter()

    def _count(self, model: TreeBackbone, *, learns: bool) -> None:
        work = Work(model)
        self._works.append(work)
        self._trained = work if learns else self._trained

        def add(*forward: Any) -> None:
            if not CLOCK.is_in(*BESIDE):
                work.add(*forward)

        model.meter = add

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop counting."""
        CLOCK.restart()
        for model in pl_module.modules():
            if isinstance(model, TreeBackbone):
                model.meter = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the time as validation."""
        CLOCK.begin("validation")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count no more time as validation."""
        CLOCK.end()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count a step's tokens; log where Lightning does."""
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step == self._step:  # a micro-batch inside of a step
            return
        self._step = step
        self._tokens += getattr(batch, "trees", batch).totals.tokens
        if every and step % every == 0:
            self._measure(trainer, pl_module)
            for logger in trainer.loggers:
                logger.log_metrics(self.latest, step=step - 1)

    def _measure(self, trainer: Trainer, pl_module: Any) -> None:
        """Set ``latest`` to what happened since the last call; all ranks together."""
        model: TreeBackbone = pl_module.trained
        kind = model.device.type
        with pl_module.own_precision():
            fast = torch.is_autocast_enabled(kind)
            dtype = torch.get_autocast_dtype(kind) if fast else model.model.dtype
        rate = matmul_rate(str(model.device), dtype)
        now = time.perf_counter()
        took, seconds = now - self._since, dict(CLOCK.seconds)
        CLOCK.seconds.clear()
        self._since = now
        read = self._trained.tokens if self._trained else 0.0
        counts = [read, sum(work.flops for work in self._works), float(self._tokens)]
        news = [count - before for count, before in zip(counts, self._before, strict=True)]
        self._before = counts
        own = torch.tensor(news[:2], dtype=torch.float32, device=model.device)
        tokens, flops = trainer.strategy.reduce(own, reduce_op="sum").tolist()
        training = max(took - sum(seconds.get(name, 0.0) for name in BESIDE), 1e-9)
        self.latest = {
            "speed/tokens_per_second": tokens / training,
            "speed/trained_per_second": news[2] / training,
            "speed/utilisation": flops / training / (rate * trainer.world_size),
            "time/update": max(0.0, 1 - sum(seconds.values()) / took),
            **{f"time/{name}": spent / took for name, spent in seconds.items()},
        }

    def said(self) -> str:
        """The latest measurement in a few words; empty before the first."""
        if not self.latest:
            return ""
        speed = {name.removeprefix("speed/"): value for name, value in self.latest.items()}
        shares = {k: v for k, v in self.latest.items() if k.startswith("time/") and v >= 0.005}
        parts = sorted(shares.items(), key=lambda share: -share[1])
        return (
            f"{speed['tokens_per_second']:,.0f} tokens/s ({speed['trained_per_second']:,.0f} "
            f"trained), {speed['utilisation']:.0%} of the matmul rate, "
            + ", ".join(f"{name.removeprefix('time/')} {share:.0%}" for name, share in parts)
        )


class Bar(TQDMProgressBar):
    """Lightning's bar of an epoch, with the loss, the run's time left, and what a meter says."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.meter = meter
        self.left = TimeLeft()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self.left.start(trainer)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The figures behind the bar."""
        shown: dict[str, Any] = {}
        if (loss := trainer.callback_metrics.get("train/loss")) is not None:
            shown["loss"] = f"{float(loss):.4g}"
        if (seconds := self.left.seconds(trainer)) is not None:
            shown["run_left"] = self.train_progress_bar.format_interval(seconds)
        if self.meter.latest:
            shown["speed"] = self.meter.said()
        return shown


class TimeLeft:
    """Estimates how long the rest of a training run takes."""

    def __init__(self) -> None:
        self._began, self._first_step = 0.0, 0

    def start(self, trainer: Trainer) -> None:
        """Call it when the training starts or continues."""
        self._began, self._first_step = time.monotonic(), trainer.global_step

    def steps_done(self, trainer: Trainer) -> int:
        """Optimizer steps since the start."""
        return trainer.global_step - self._first_step

    def seconds(self, trainer: Trainer) -> float | None:
        """At the mean speed so far; ``None`` without a step, or without an end in steps."""
        done, total = self.steps_done(trainer), trainer.estimated_stepping_batches
        if done < 1 or not 0 <= total < math.inf:
            return None
        return (time.monotonic() - self._began) / done * (total - trainer.global_step)


@cache
def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """FLOP a second of one large square product, measured once per process.

    The product grows until it takes ``ENOUGH`` seconds, so the measurement is short also in a type
    for which the device has no fast products.
    """
    size, best = 128, 0.0
    while True:
        square = torch.linspace(-1, 1, size * size, device=device).view(size, size).to(dtype)
        took = min(_seconds(square) for _ in range(5))
        best = max(best, 2.0 * size**3 / took)
        if took >= ENOUGH or size == LARGEST:
            return best
        size *= 2


@torch.no_grad()
def _seconds(square: torch.Tensor) -> float:
    began = time.perf_counter()
    (square @ square)[0, 0].item()  # waits for the device
    return time.perf_counter() - began
