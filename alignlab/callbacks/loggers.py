"""Settings and samples where each logger shows them; runs of services, begun and continued."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from lightning.pytorch.loggers.utilities import _log_hyperparams

from alignlab.results.csv_tables import write_table
from alignlab.results.run_folder import SampleText

METRICS = ("train/loss", "val/loss", "probe/kl", "probe/reward")  # beside the hyperparameters
SHOWN = 8  # completions
COLUMNS = ("prompt", "completion", "reward", "kl", "length")
TABLE = "probe/samples"  # a folder for loggers that keep files


def log_settings(logger: Logger, settings: dict[str, Any]) -> None:
    """Put ``settings`` where the logger shows hyperparameters.

    TensorBoard shows hyperparameters only beside metrics, and Lightning would write a made-up value
    of each metric; here they are named without one. The table then shows the last value that is
    logged under each name. MLflow refuses a new value of a setting that it has, as after
    ``max_steps`` was raised to continue a run; there, the first value stays.
    """
    if isinstance(logger, MLFlowLogger):
        known = logger.experiment.get_run(logger.run_id).data.params
        settings = {name: value for name, value in settings.items() if name not in known}
    if not isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(settings)
        return
    from torch.utils.tensorboard.summary import hparams

    logger.log_hyperparams(settings, metrics={})
    plain = {
        k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in settings.items()
    }
    for summary in hparams(plain, dict.fromkeys(METRICS, 0.0)):
        logger.experiment.file_writer.add_summary(summary)


def service_runs(loggers: Iterable[Logger]) -> dict[str, str]:
    """Kind of service -> the id that it gave to the run, for ``take_up_runs``."""
    found: dict[str, str] = {}
    for logger in loggers:
        if isinstance(logger, WandbLogger | MLFlowLogger) and logger.version is not None:
            found.setdefault(type(logger).__name__, str(logger.version))
    return found


def take_up_runs(loggers: Iterable[Logger], runs: Mapping[str, str]) -> None:
    """Let the first logger of each kind of service continue its run instead of opening a new one.

    Args:
        loggers: Of the continued run. A logger that names a run keeps that one.
        runs: As ``service_runs`` gave them.
    """
    left = dict(runs)
    for logger in loggers:
        run = left.pop(type(logger).__name__, None)
        if run is None:
            continue
        if isinstance(logger, WandbLogger) and logger._id is None:
            logger._id = logger._wandb_init["id"] = run  # Lightning's default is resume="allow"
        if isinstance(logger, MLFlowLogger) and logger._run_id is None:
            logger._run_id = run


def end_runs(loggers: Iterable[Logger]) -> None:
    """End the runs of W&B, which would otherwise also log the next training of this process."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            logger._experiment.finish()


class LateRuns(Callback):
    """Opens runs of W&B and MLflow when a training starts: one that is refused leaves none.

    Lightning opens every logger before the first hook of a callback, and the checks that need the
    model on its device come later. ``withhold`` keeps these loggers from it until then. The first
    logger stays, because it names the run's folder; so does one that copies TensorBoard's logs,
    which has to be opened before TensorBoard's.

    Args:
        settings: Logged when a run is opened.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._late: list[Logger] = []
        self._all: list[Logger] = []

    def withhold(self, trainer: Trainer) -> None:
        """Take the loggers of services from a trainer that has not started."""
        self._all = trainer.loggers
        self._late = [logger for logger in self._all[1:] if _can_wait(logger)]
        trainer.loggers = [logger for logger in self._all if logger not in self._late]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give them back, with what was logged before; the checks come before this callback."""
        if not self._late:
            return
        trainer.loggers = self._late
        _log_hyperparams(trainer)  # those of a module or data that save them
        trainer.loggers = self._all
        if trainer.is_global_zero:
            for logger in self._late:
                log_settings(logger, self._settings)
        self._late = []


def _can_wait(logger: Logger) -> bool:
    if isinstance(logger, WandbLogger):
        return not logger._wandb_init.get("sync_tensorboard")
    return isinstance(logger, MLFlowLogger)


def log_samples(logger: Logger, samples: Sequence[SampleText], step: int) -> None:
    """Log the first completions of different prompts, as a table or a text.

    A logger of another kind than these four gets none.
    """
    first: dict[str, SampleText] = {}
    for sample in samples:
        first.setdefault(sample.prompt_id, sample)
    rows = [{name: getattr(s, name) for name in COLUMNS} for s in list(first.values())[:SHOWN]]
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text(TABLE, as_markdown(rows), step)
    elif isinstance(logger, CSVLogger):
        write_table(Path(logger.log_dir) / TABLE / f"{step:06d}.csv", rows, COLUMNS)
    elif isinstance(logger, WandbLogger):
        logger.log_table(TABLE, list(COLUMNS), [list(row.values()) for row in rows], step=step)
    elif isinstance(logger, MLFlowLogger):
        data = {name: [row[name] for row in rows] for name in COLUMNS}
        logger.experiment.log_table(logger.run_id, data, f"{TABLE}/{step:06d}.json")


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of ``COLUMNS`` as a Markdown table."""
    cells = [
        (f"{row['prompt']} → {row['completion']}", f"{row['reward']:.3f}", f"{row['kl']:.3f}")
        for row in rows
    ]
    lines = [" | ".join(" ".join(c.replace("|", "\\|").split()) for c in row) for row in cells]
    return "\n".join(["prompt → completion | reward | KL", "--- | --- | ---", *lines])
