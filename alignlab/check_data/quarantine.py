"""The rows that need a person: refused ones and those that contradict others, with the reasons."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from alignlab.check_data.survey import Listening, Source
from alignlab.data.rows import Record
from alignlab.files import written_whole


@dataclass
class _Last:
    """Records that remember which of them was read last."""

    records: Iterable[Record]
    record: Record | None = None

    def __iter__(self) -> Iterator[Record]:
        for record in self.records:
            self.record = record
            yield record


def write_quarantine(path: Path, source: Source, reasons: Mapping[str, list[str]]) -> int:
    """Write each refused row, and those that ``reasons`` names, as a line of JSON.

    A line holds ``id``, ``reasons`` (a list) and ``row``, the record as its author wrote it; it is
    null if the line could not be read. The source is read once more.

    Returns:
        How many rows were written.
    """
    last, written = _Last(source.records()), 0
    with written_whole(path) as beside, beside.open("w", encoding="utf-8", newline="\n") as file:

        def write(name: str, why: list[str]) -> None:
            nonlocal written
            row = last.record and last.record.fields
            line = json.dumps({"id": name, "reasons": why, "row": row}, default=str)
            file.write(line + "\n")
            written += 1

        report = Listening(source.name, told=lambda name, problem: write(name, [str(problem)]))
        for row in source.rows(last, report):
            if row.id in reasons:
                write(row.id, reasons[row.id])
    return written
