"""Settings and sample completions where each logger shows them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from alignlab.results.csv_tables import write_table
from alignlab.results.run_folder import SampleText

METRICS = ("train/loss", "val/loss", "probe/kl", "probe/reward")  # beside the hyperparameters
SHOWN = 8  # completions
COLUMNS = ("prompt", "completion", "reward", "kl", "length")
TABLE = "probe/samples"  # a folder for loggers that keep files


def log_settings(logger: Logger, settings: dict[str, Any]) -> None:
    """Put ``settings`` where the logger shows hyperparameters.

    TensorBoard lists runs by them only with metrics to go with them, and Lightning would write a
    made-up value of each; they are named here without one. The table then shows the last value
    that is logged under each name.
    """
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
