"""Copy tables of stages into the results folder, because stages' folders are not committed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from alignlab.errors import DataError
from alignlab.results.csv_tables import read_table, write_table
from alignlab.results.run_folder import RunFolder
from alignlab.results.statistics import t_interval


class Source(TypedDict):
    """Where a table comes from: a CSV file of this name in each of these folders."""

    folders: str | list[str | list[str]]
    file: str


def collect_tables(*, out: str | Path, results: str, tables: Mapping[str, Source]) -> None:
    """Stage: one table of each name in the results folder, rows led by the stage they come from.

    Args:
        out: Folder to write, which gets the same tables.
        results: The results folder.
        tables: File name -> source.

    Raises:
        DataError: Files of one table differ in their columns.
    """
    for name, source in tables.items():
        rows: list[dict[str, str]] = []
        for folder in _flat(source["folders"]):
            run_id = RunFolder(folder).run_id
            rows += [{"stage": run_id, **row} for row in read_table(folder / source["file"])]
            if rows[-1].keys() != rows[0].keys():
                raise DataError(
                    f"{folder / source['file']}: columns {', '.join(rows[-1])}, but "
                    f"{', '.join(rows[0])} before it. Collect tables of one shape."
                )
        for target in (Path(out), Path(results)):
            write_table(target / name, rows)


def average_seeds(
    *, out: str | Path, source: str, file: str, by: Sequence[str], value: str, seed: str = "seed"
) -> None:
    """Stage: ``summary.csv``, the mean of a column over seeds with its 95 % t-interval.

    Args:
        out: Folder to write.
        source: The folder of a table.
        file: Its name.
        by: Columns whose values say which rows belong together; they come out in the order found.
        value: The column to average.
        seed: The column that tells the rows of a group apart.

    Raises:
        DataError: A group holds a seed twice.
    """
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in read_table(Path(source) / file):
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    summary = []
    for key, rows in groups.items():
        if len({row[seed] for row in rows}) < len(rows):
            raise DataError(f"{source}/{file}: a {seed} occurs twice where {by} are {key}.")
        values = [float(row[value]) for row in rows]
        ends = t_interval(values)
        summary.append(
            {
                **dict(zip(by, key, strict=True)),
                "seeds": len(rows),
                value: sum(values) / len(values),
                f"{value}_lo": ends.lo,
                f"{value}_hi": ends.hi,
            }
        )
    write_table(Path(out) / "summary.csv", summary)


def _flat(folders: str | Sequence[str | Sequence[str]]) -> list[Path]:
    if isinstance(folders, str):
        return [Path(folders)]
    return [path for folder in folders for path in _flat(folder)]
