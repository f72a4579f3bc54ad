"""The logged metrics of a run as a table, so that its curve can be kept without its log."""

from collections.abc import Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from alignlab.errors import DataError
from alignlab.results.csv_tables import write_table
from alignlab.results.run_folder import RunFolder


def write_curve(
    *,
    out: str | Path,
    run: str,
    figures: Sequence[str] = ("train/loss", "val/loss"),
) -> None:
    """Stage: ``curve.csv``, a row per logged step; a figure that was not logged there is empty.

    Args:
        out: Folder to write.
        run: A training's folder.
        figures: What to take from its TensorBoard log.

    Raises:
        DataError: There is no log, or one of the figures is not in it.
    """
    folder = RunFolder(run).logs
    log = EventAccumulator(str(folder), size_guidance={SCALARS: 0})  # 0: all of them
    log.Reload()
    logged = log.Tags()[SCALARS]
    missing = [figure for figure in figures if figure not in logged]
    if missing:
        raise DataError(
            f"{folder}: no {', '.join(missing)} in the log. "
            f"Logged: {', '.join(logged) or 'nothing'}."
        )
    values = {figure: _last_values(log, figure) for figure in figures}
    steps = sorted({step for found in values.values() for step in found})
    write_table(
        Path(out) / "curve.csv",
        [{"step": step, **{f: values[f].get(step, "") for f in figures}} for step in steps],
    )


def _last_values(log: EventAccumulator, figure: str) -> dict[int, float]:
    """The value of each step; the last one written counts where a training was continued.

    Files are read in the order of their names, in which the tenth writer of a process comes
    before the ninth, so the time of writing decides.
    """
    written = sorted(log.Scalars(figure), key=lambda event: float(event.wall_time))
    return {event.step: float(event.value) for event in written}
