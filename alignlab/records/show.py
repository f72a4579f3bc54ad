"""``alignlab show``: from a number, a point of a figure or a run to everything that made it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from alignlab.errors import ConfigError, DataError
from alignlab.records.cells import NUMBER, Cell, cell_at, cells_with, runs_of, tables_in
from alignlab.records.find import Run, find_run, objective_of
from alignlab.report.read import read_commands
from alignlab.report.table import CURVES_WITHOUT_TRAINING
from alignlab.results.commits import short
from alignlab.results.csv_tables import read_table
from alignlab.results.notes import Note
from alignlab.results.tables import Point

LISTED = 20  # cells or runs of a list
TEXTS, LONGEST = 2, 300  # completions of a checkpoint, and the characters that are shown of one
SAMPLES = "samples.csv"
NOT_KEPT = "not recorded"
UNTRAINED = "No run made it: it is computed from the reference's samples (pool.parquet)."


def show(what: str, roots: Sequence[Path]) -> str:
    """All about a number, a cell, a point of the report or a run, as text.

    Args:
        what: A number as it is printed, ``TABLE.csv:LINE:COLUMN``, or the name of a run.
        roots: Results folders, folders of them, or tables: where to look.

    Raises:
        ConfigError: There is nothing of that kind.
        DataError: A table or a record cannot be read.
    """
    cell = cell_at(what)
    found = cells_with(what, tables_in(roots)) if cell is None else [cell]
    if len(found) == 1:
        return "\n".join(_of_cell(found[0]))
    if found:
        listed = [f"  {each}  ({_row(each)})" for each in found[:LISTED]]
        more = [f"  ... and {len(found) - LISTED} more"] * (len(found) > LISTED)
        head = f"{len(found)} cells print as {what}. Show one by its address:"
        return "\n".join([head, *listed, *more])
    if NUMBER.fullmatch(what):
        raise ConfigError(
            f"{what}: no cell of a table in {', '.join(map(str, roots))} prints as this number. "
            "Name another results folder with --in."
        )
    return "\n".join(of_run(find_run(what, roots)))


def _of_cell(cell: Cell) -> Iterator[str]:
    yield f"{cell}  ({_row(cell)})"
    runs = runs_of(cell)
    if len(runs) == 1:
        yield ""
        yield from of_run(runs[0])
        return
    if not runs:
        sampled = cell.row.get("objective") in CURVES_WITHOUT_TRAINING
        yield UNTRAINED if sampled else "Its row names no run."
        yield _line("command", "\n".join(read_commands([cell.path.parent])) or NOT_KEPT)
        return
    yield f"It is of {len(runs)} runs. Show one by its name:"
    for run in runs[:LISTED]:
        last = [
            f"KL {p.kl:.4g}, reward {p.reward:.4g} after step {p.step}" for p in run.points[-1:]
        ]
        yield "  ".join(["", run.label, *last])
    if len(runs) > LISTED:
        yield f"  ... and {len(runs) - LISTED} more"


def _row(cell: Cell) -> str:
    """What identifies a row of a table, such as its objective and KL budget."""
    names = (
        "objective",
        "other",
        "kl_budget",
        "kl_max",
        "hparam",
        "value",
        "run_id",
        "run",
        "step",
    )
    own = [f"{name} {cell.row[name]}" for name in names if cell.row.get(name)]
    return ", ".join(own or [f"{name} {text}" for name, text in [*cell.row.items()][:3]])


def of_run(run: Run) -> Iterator[str]:
    """The lines about a run.

    Raises:
        ConfigError: It has no evaluation after the step that was asked for.
    """
    points = run.points
    at = run.asked
    config, first = run.config, points[0] if points else None
    objective = first.objective if first else objective_of(config) or str(config.get("call", ""))
    seed = first.seed if first else config.get("seed_everything")
    yield _line("run", f"{run.label}{'' if run.step is None else f', step {run.step}'}")
    yield _line("what", objective + ("" if seed is None else f", seed {seed}"))
    if first and first.hparams:
        yield _line("settings", ", ".join(f"{k} {v}" for k, v in first.hparams.items()))
    yield from _remarks(run)
    if at is not None:
        yield _line("result", _result(at))
    yield _line("config", f"{run.config_file or NOT_KEPT}, config_sha {run.config_sha[:12]}")
    yield _line("commit", short(run.commit) or NOT_KEPT)
    commands = run.origin.get("commands") or read_commands([run.results])
    yield _line("command", "\n".join(commands) or NOT_KEPT)
    yield _line("folder", str(run.folder) if run.folder else "its weights and logs were not kept")
    if (parent := run.parent) is not None:
        yield _line("parent", f"{parent.get('run')}, config_sha {parent.get('config_sha')}")
    inputs = [f"{each.label}{'' if each.folder else ' (not kept)'}" for each in run.inputs]
    if inputs:
        yield _line("inputs", "\n".join(inputs))
    yield from _samples(run, at)


def _line(name: str, text: str) -> str:
    return f"{name:<10}" + text.replace("\n", "\n" + " " * 10)


def _result(point: Point) -> str:
    return (
        f"step {point.step}: KL {point.kl:.4g} ± {1.96 * point.kl_se:.2g}, reward "
        f"{point.reward:.4g} ± {1.96 * point.reward_se:.2g} (95 %, prompts only), "
        f"{point.n_samples:,} completions of {point.n_prompts:,} prompts"
    )


def _remarks(run: Run) -> Iterator[str]:
    remarks = run.remarks
    if remarks.tags:
        yield _line("tags", ", ".join(remarks.tags))
    for note in remarks.notes:
        yield _line("note", f"{note.when}: {note.text}{_of_another(note, run)}")


def _of_another(note: Note, run: Run) -> str:
    return "" if note.config_sha == run.config_sha else " (of this run with an earlier config)"


def _samples(run: Run, at: Point | None) -> Iterator[str]:
    found = [e for e in run.evaluations if e.texts.exists() and (at is None or e.step == at.step)]
    if found:
        yield _line("samples", str(found[-1].texts))
        try:
            texts = found[-1].read_texts()[:TEXTS]
        except DataError as error:
            yield _line("", str(error))
            return
        for text in texts:
            yield from _text(text.prompt, text.completion, text.reward)
    elif at is not None and (path := run.results / SAMPLES).exists():
        key = f"{run.run_id}, step {at.step}"
        own = [row for row in read_table(path, min_rows=0) if row.get("run") == key]
        yield _line("samples", f"{path}: {len(own)} of this checkpoint" if own else "not kept")
        for row in own[:TEXTS]:
            yield from _text(row["prompt"], row["completion"], float(row["reward"]))
    elif at is not None:
        yield _line("samples", "not kept")


def _text(prompt: str, completion: str, reward: float) -> Iterator[str]:
    yield _line("", f"prompt: {_short(prompt)}")
    yield _line("", f"completion, reward {reward:.4g}: {_short(completion)}")


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= LONGEST else f"{words[:LONGEST]}..."
