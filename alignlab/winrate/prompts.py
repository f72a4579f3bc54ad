"""Held-out prompts, each once, with the columns that policies are compared to."""

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from alignlab.data.rows import Completable, Demonstration, PreferencePair, Prompt
from alignlab.data.sources import as_json, read_rows
from alignlab.data.texts import CompletionText, PromptText, completion_text, prompt_text
from alignlab.errors import ConfigError
from alignlab.files import canonical


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A prompt to complete.

    Args:
        place: Its number in the file, which names its sampling noise.
        row: As the file has it.
        columns: Completions that the file has, by column.
    """

    place: int
    row: Prompt
    columns: Mapping[str, CompletionText] = field(default_factory=dict)

    @property
    def text(self) -> PromptText:
        """As judges get it."""
        return prompt_text(self.row.prompt)


def read_held_out(
    source: str | Path, columns: Collection[str], *, split: str | None, limit: int | None
) -> list[HeldOut]:
    """The first ``limit`` different prompts of a file or hub data set.

    What is refused or repeated is reported on standard error.

    Args:
        source: Of pairs, demonstrations or prompts.
        columns: Those of ``COLUMNS`` that are wanted.
        split: As in ``read_rows``.
        limit: How many; ``None`` takes all.

    Raises:
        ConfigError: Columns that no row has together, or a limit below 1.
        DataError: See ``read_rows``.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit must be at least 1, got {limit}.")
    if "completion" in columns and len(columns) > 1:
        raise ConfigError(
            "'completion' is a column of demonstrations, the others are columns of pairs. Name "
            "one kind only."
        )
    kind: type[Completable] = Prompt
    if columns:
        kind = Demonstration if "completion" in columns else PreferencePair
    rows, report = read_rows(source, kind, split=split)
    report.tell()
    found: dict[str, HeldOut] = {}
    for place, row in enumerate(rows):
        prompt = canonical(as_json(row.prompt))
        if prompt not in found:
            own = {b.column: completion_text(b.text, b.ends) for b in row.branches()}
            found[prompt] = HeldOut(place, Prompt(row.id, row.prompt), own)
    if repeated := len(rows) - len(found):
        print(f"{source}: {repeated:,} rows repeat a prompt, the first is used", file=sys.stderr)
    return list(found.values())[:limit]
