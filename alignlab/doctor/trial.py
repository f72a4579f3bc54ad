"""All checks but the machine's, and the KL that the schedule may reach, on a run of a few steps.

It starts as ``alignlab fit`` starts, goes a few steps in a folder of its own, and leaves nothing.
"""

import contextlib
import copy
import tempfile
from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback

from alignlab.callbacks.journal import Journal
from alignlab.callbacks.kl_bound import KLBound
from alignlab.capacity.speed import Enough
from alignlab.doctor.examine import examine, patient_of
from alignlab.doctor.finding import Finding, Verdict, ok, warning
from alignlab.doctor.patient import some_of
from alignlab.errors import ConfigError, DataError
from alignlab.evaluation.scoring import completion_kl, evaluating
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import Policy
from alignlab.models.loading import freeze
from alignlab.objectives.schedule import planned_steps
from alignlab.rollouts.sampler import sample
from alignlab.training.fit import build, run_fit

STEPS = 8  # at the schedule's full rate
PROMPTS, SAMPLES, NEW = 16, 4, 64  # that KL is measured on, and the most tokens of a sample
FARTHEST = 50.0  # nats a completion, where the config has no KLBound
PLAIN = SamplingSpec()


def tried(words: Sequence[str], config: Namespace) -> list[Finding]:
    """The findings of the fast checks, and of a few steps unless one of them is a stop.

    Args:
        words: As ``alignlab fit`` takes them.
        config: What they are parsed to.
    """
    trial, found = Trial(), list[Finding]()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        try:
            command = build([*words, *_settings(config, folder)], [trial])
            callbacks: list[Callback] = command.trainer.callbacks  # type: ignore[attr-defined]
            command.trainer.callbacks = [c for c in callbacks if not isinstance(c, Journal)]  # type: ignore[attr-defined]
            run_fit(command)
        except (ConfigError, DataError, FloatingPointError) as error:
            found.append(Finding("config", "stop", str(error)))
    verdict = trial.verdict()
    found += [] if verdict is None else [Finding("KL to come", *verdict)]
    return [*trial.found, *found]


def _settings(config: Namespace, folder: str) -> list[str]:
    """Settings that keep a run's files in ``folder``, and the run on one device."""
    settings = [
        f"--trainer.default_root_dir={folder}", "--trainer.logger=false",
        "--trainer.enable_progress_bar=false",
    ]  # fmt: skip
    if config.trainer.devices != 1 or config.trainer.num_nodes != 1:
        settings += ["--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"]
        settings.append("--trainer.accumulate_grad_batches=null")
    if config.probe is not None:
        settings.append("--probe.every_n_steps=1000000000")
    if config.model.init_args.get("reference_cache") is not None:
        settings.append(f"--model.init_args.reference_cache={folder}")
    return settings


class Trial(Callback):
    """Examines a run, trains ``STEPS`` steps at the full rate, and measures how far they lead.

    Attributes:
        found: Of the fast checks.
        kl: To the policy as it was, nats a completion; ``None`` where it was not measured.
        rest: The sum of the whole schedule's learning rates, in that of the trial.
        limit: Of the run's ``KLBound``, if it has one.
    """

    def __init__(self) -> None:
        self.found: list[Finding] = []
        self.kl: float | None = None
        self.rest, self.limit = 1.0, FARTHEST
        self._start: Policy | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Examine the run, keep the policy as it is, and hold the learning rate.

        Raises:
            Enough: A check says stop, or the run has no reference or probe to measure KL against.
        """
        patient = patient_of(trainer, pl_module)
        self.found = examine(patient)
        stopped = any(each.state == "stop" for each in self.found)
        measured = hasattr(pl_module, "reference") or patient.probe is not None
        if stopped or patient.policy is None or not measured:
            raise Enough
        self._start = copy.deepcopy(pl_module.policy)
        freeze(self._start)
        bounds = [c.limit for c in trainer.callbacks if isinstance(c, KLBound)]
        self.limit = min(bounds, default=FARTHEST)
        schedule, planned = pl_module.schedule, planned_steps(trainer) or 0
        end = schedule.total_steps or planned
        whole = sum(schedule.factor(step, end) for step in range(planned))
        self.rest = max(1.0, whole / min(STEPS, planned or STEPS))
        schedule.warmup_steps, schedule.decay = 0, "constant"

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Measure after the last step of the trial."""
        if trainer.global_step >= STEPS:
            self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure, and end the run.

        Raises:
            Enough: Always.
        """
        policy, sampling = pl_module.policy, getattr(pl_module, "sampling", None)
        assert self._start is not None
        new = NEW if sampling is None else min(NEW, sampling.max_new_tokens)
        prompts = some_of(trainer.datamodule.train_trees, PROMPTS)
        if policy.room is not None:
            new = max(1, min(new, policy.room - max(len(tree.prompt) for tree in prompts)))
        with evaluating(policy, self._start):
            drawn = sample(
                policy, prompts, samples=SAMPLES, max_new_tokens=new, spec=PLAIN, seed=0,
                stop_ids=policy.stop_ids,
            )  # fmt: skip
            found = completion_kl(policy, self._start, drawn.trees, spec=PLAIN, batch_size=64)
        self.kl = float(found.exact.mean())
        raise Enough

    def verdict(self) -> Verdict | None:
        """What the KL after a few steps says of the whole schedule."""
        if self.kl is None:
            return None
        said = f"{self.kl:.2g} nats after {STEPS} steps at the full learning rate"
        if self.kl == 0:
            return warning(f"{said}: the policy does not move. Check learning rate and loss.")
        least, most = self.kl * self.rest, self.kl * self.rest**2
        if self.rest > 1:
            said += f"; the schedule has {self.rest:.3g} times that: {least:.2g} to {most:.2g}"
        if least <= self.limit:
            return ok(f"{said} if nothing held the policy back")
        return warning(
            f"{said}, and the limit is {self.limit:g}. Lower the learning rate, or train fewer "
            "steps."
        )
