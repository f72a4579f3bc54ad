"""The report on one source: the rows that were refused, by reason, and what the others became."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from alignlab.data.rows.values import Refused
from alignlab.errors import ConfigError, DataError, in_a_line

Refuse = Literal["drop", "error"]
REFUSE: tuple[Refuse, ...] = ("drop", "error")
EXAMPLES = 3  # refused rows that a report names of each reason
KEPT = 1000  # the same, that it holds: a large source may have very many
LINES = 7  # of a summary
LONGEST = 120  # characters of what a refused row held
COLUMNS = ("what", "reason", "rows", "examples")  # of a report as a table


@dataclass(slots=True)
class RowReport:
    """The counts of one source: rows read, rows refused by reason, and trees made."""

    source: str  # the file, hub id or data set that the rows come from, for messages
    refuse: Refuse = "drop"  # "drop" counts a refused row and goes on, "error" stops at the first
    seen: int = 0  # rows that were read
    by_reason: dict[str, list[str]] = field(
        default_factory=dict
    )  # places (file:line) of the first refused rows
    refused: dict[str, int] = field(default_factory=dict)  # how many were, by reason
    details: dict[str, str] = field(default_factory=dict)  # what the first of each reason held
    unused: dict[str, int] = field(
        default_factory=dict
    )  # columns that nothing reads: rows with one
    notes: list[str] = field(default_factory=list)  # other remarks, a sentence each
    read_as: str = ""  # the kind of row, its columns, and whether texts are conversations
    repeats: dict[str, int] = field(
        default_factory=dict
    )  # rows that are copies, contradicted or in a cycle
    trees: int = 0  # prompt trees made; 0 before rows are tokenised
    completions: int = 0  # in the trees
    tokens: int = 0  # of the completions
    labelled: int = 0  # rows with labels that were tokenised
    truncated: int = 0  # rows that were cut to max_length
    # Rows whose prompt is tokenised differently without its completion: a token contains the end of
    # the prompt and the start of the completion, or spaces merge.
    straddling: int = 0
    ended: int = 0  # completions that end in a trained end-of-text token

    def __post_init__(self) -> None:
        if self.refuse not in REFUSE:
            raise ConfigError(f"refuse must be one of {REFUSE}, got {self.refuse!r}.")

    def add(self, id: str, problem: Refused) -> None:
        """Record that the row ``id`` was refused.

        Raises:
            DataError: At once, with ``refuse="error"``.
        """
        if self.refuse == "error":
            raise DataError(
                f"{id}: {problem}. Repair or remove the row, or set refuse=drop to leave such rows "
                f"out of {self.source} with a count."
            )
        self.refused[problem.reason] = self.refused.get(problem.reason, 0) + 1
        if len(places := self.by_reason.setdefault(problem.reason, [])) < KEPT:
            places.append(id)
        self.details.setdefault(problem.reason, _inside(problem.detail))

    def absorb(self, reading: "RowReport") -> None:
        """Add the counts from reading the rows before those from tokenising them."""
        reasons = dict.fromkeys((*reading.refused, *self.refused))
        read, made = (reading.refused, reading.by_reason), (self.refused, self.by_reason)
        self.refused = {why: read[0].get(why, 0) + made[0].get(why, 0) for why in reasons}
        self.by_reason = {why: [*read[1].get(why, []), *made[1].get(why, [])] for why in reasons}
        self.details |= reading.details
        self.seen += reading.seen
        self.notes[:0] = reading.notes
        self.unused = reading.unused | self.unused
        self.read_as, self.repeats = reading.read_as, reading.repeats

    def begin(self) -> None:
        """Count trees anew."""
        self.trees = self.completions = self.tokens = self.labelled = 0

    def made(self, completions: Sequence[Sequence[int]]) -> None:
        """Count a tree that a row became, by the token ids of its completions."""
        self.trees += 1
        self.completions += len(completions)
        self.tokens += sum(map(len, completions))

    @property
    def count(self) -> int:
        """How many rows were refused."""
        return sum(self.refused.values())

    @property
    def counts(self) -> dict[str, int]:
        """Refused rows by reason, the commonest first."""
        return dict(Counter(self.refused).most_common())

    @property
    def refusals(self) -> "RowReport":
        """This report: scripts may ask ``reports["train"].refusals.counts``."""
        return self

    def examples(self, reason: str) -> str:
        """The first few rows refused for ``reason``, and what the first of them held."""
        rows = self.places(reason)
        return ", ".join([*rows[:EXAMPLES], *(["..."] if len(rows) > EXAMPLES else [])])

    def places(self, reason: str) -> list[str]:
        """The first rows refused for ``reason``; the first is followed by what it held."""
        first, *others = self.by_reason[reason]
        detail = self.details.get(reason)
        return [f"{first} ({detail})" if detail else first, *others]

    def lines(self) -> list[str]:
        """One line per reason for refusal, with example rows, and one per kind of unused field."""
        counts = self.counts.items()
        lines = [f"refused {count:,} x {why}: {self.examples(why)}" for why, count in counts]
        if self.unused:
            lines.append(f"columns that nothing reads: {', '.join(self.unused)}")
        return [f"  {line}" for line in (*lines, *self.notes)]

    def first_lines(self) -> list[str]:
        """Rows kept; what they were read as, and how many repeat or contradict others."""
        first = f"{self.source}: {self.seen - self.count:,} of {self.seen:,} rows kept"
        repeats = [f"{what}: {count:,}" for what, count in self.repeats.items()]
        read = [f"read as {self.read_as}"] if self.read_as else []
        return [first, f"  {'; '.join([*read, *repeats])}"] if read or repeats else [first]

    def summary(self) -> str:
        """The report in a few lines: rows kept, rows lost by reason, the trees made of the others.

        ``table`` and ``alignlab check-data`` have the rest.
        """
        said = [*self.first_lines(), *self.lines()]
        room = LINES - bool(self.trees)
        if len(said) > room:
            said[room - 1 :] = [
                f"  {len(said) - room + 1} more lines: alignlab check-data shows them"
            ]
        if self.completions:
            said[0] += (
                f": {self.trees:,} trees, {self.completions:,} completions, {self.tokens:,} tokens"
            )
            said.append(
                f"  {self.truncated:,} rows truncated; {self.straddling:,} with a token across the "
                f"border of prompt and completion; {self.ended / self.completions:.1%} of "
                "completions end in a trained EOS"
            )
        elif self.trees:
            said[0] += f": {self.trees:,} prompts"
            said.append(f"  {self.truncated:,} prompts truncated")
        return "\n".join(said)

    def tell(self, what: str = "") -> None:
        """Print the report on standard error if any row was refused or cut.

        Args:
            what: What the rows are for, such as ``evaluation prompts``.
        """
        if self.lines() or self.truncated:
            named = f"{what}: " if what else ""
            print(f"{named}{self.summary()}", file=sys.stderr, flush=True)

    def table(self) -> list[dict[str, str | int]]:
        """The same as rows of ``what``, ``reason``, ``rows`` and ``examples``.

        ``what`` is ``read``, ``kept``, ``truncated``, ``token across the border``, ``refused`` (a
        row for each reason, with example rows), ``repeated``, ``column not used`` or ``note``.
        """
        found: list[tuple[str, str, int, str]] = [
            ("read", "", self.seen, ""),
            ("kept", "", self.seen - self.count, ""),
            ("truncated", "", self.truncated, ""),
            ("token across the border", "", self.straddling, ""),
            *(("refused", why, n, self.examples(why)) for why, n in self.counts.items()),
            *(("repeated", what, n, "") for what, n in self.repeats.items()),
            *(("column not used", name, n, "") for name, n in self.unused.items()),
            *(("note", note, 0, "") for note in self.notes),
        ]
        return [dict(zip(COLUMNS, row, strict=True)) for row in found]

    def _first(self, reason: str) -> list[str]:
        return [part for part in (self.by_reason[reason][0], self.details.get(reason)) if part]

    def require_rows(self, usable: int) -> None:
        """Raise if every row was refused.

        Raises:
            DataError: No usable row; names the source and the commonest reasons.
        """
        if not usable:
            raise DataError(f"{self.source}: {self._nothing_left()}")

    def _nothing_left(self) -> str:
        if not self.seen:
            return "holds no rows. Pass a source with at least one row."
        why = "; ".join(
            f"{reason} ({count:,} rows, first {': '.join(self._first(reason))})"
            for reason, count in list(self.counts.items())[:3]
        )
        return (
            f"none of its {self.seen:,} rows can be used: {why}. "
            "Repair the rows or the settings that refuse them."
        )


def _inside(detail: str) -> str:
    """What a refusal adds to its reason, in a line of at most ``LONGEST`` characters.

    ``in 'chosen'`` of `` in 'chosen'``, ``not JSON`` of `` (not JSON)``.
    """
    line = in_a_line(detail).lstrip(":; ")
    line = line[1:-1] if line.startswith("(") and line.endswith(")") else line
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 4]} ..."
