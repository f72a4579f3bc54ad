"""What was found, in a terminal, on a page and as JSON."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignlab.check_data.overlap import RARE, RUN, SHORTEST, Overlap
from alignlab.check_data.survey import MODULES, QUANTILES, Survey, quantiles
from alignlab.check_data.tokens import Example, Piece, Tokens
from alignlab.data.rows import PreferencePair
from alignlab.pages import rendered

TRAINED, PLAIN = "\x1b[32m", "\x1b[0m"  # green
MARKS = "«", "»"  # around what is trained on, where there are no colours
IDS = 10  # names of rows in a cell
PASSAGES = 20  # shared runs of words in a table
WIDTH = 100  # characters of a cell's text in a terminal
BEGIN, END = 200, 300  # characters at the beginning and the end of a long piece in a terminal


@dataclass(frozen=True)
class Check:
    """All that a call found.

    Args:
        data: The training rows.
        examples: Some of them.
        tokens: Of a sample, if there is a tokenizer.
        tokenizer: Its name.
        test: The test rows, if there are any.
        overlap: What both share.
    """

    data: Survey
    examples: list[Example]
    tokens: Tokens | None = None
    tokenizer: str = ""
    test: Survey | None = None
    overlap: Overlap | None = None


@dataclass(frozen=True)
class Section:
    """A heading, sentences, and a table."""

    title: str
    lines: list[str] = field(default_factory=list)
    columns: Sequence[str] = ()
    cells: list[list[str]] = field(default_factory=list)


def as_text(check: Check, *, colours: bool) -> str:
    """The report for a terminal."""
    blocks = ["\n".join(map(clean, _heads(check)))]
    for section in sections(check):
        lines = [clean(line) for line in section.lines]
        table = [[_short(clean(cell)) for cell in row] for row in section.cells]
        if table:
            lines += _aligned([list(section.columns), *table])
        blocks.append("\n".join([clean(section.title), *(f"  {line}" for line in lines)]))
    for example in check.examples:
        lines = [clean(_headed(example))]
        for column, pieces in example.branches:
            text = "".join(_shown(piece, colours) for piece in pieces)
            lines.append(f"  {column}:\n    " + text.replace("\n", "\n    "))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _headed(example: Example) -> str:
    return f"{example.id} ({example.label})" if example.label else example.id


def as_page(check: Check) -> str:
    """The report as a page of its own."""
    return rendered(
        "check_data/page.html",
        title=check.data.source.name,
        heads=_heads(check),
        sections=sections(check),
        examples=check.examples,
    )


def as_json(check: Check) -> dict[str, Any]:
    """The report as JSON: the same numbers, and all names of rows that were kept."""
    made: dict[str, Any] = {"data": _survey_json(check.data)}
    if check.tokens is not None:
        made["tokens"] = {
            "tokenizer": check.tokenizer,
            "template": check.tokens.template,
            "sampled": len(check.data.sample),
            "of": len(check.data.ids),
            "refused": check.tokens.refused,
            "straddling": check.tokens.report.straddling,
            "lengths": {part: quantiles(n) for part, n in check.tokens.lengths.items()},
        }
    if check.test is not None and check.overlap is not None:
        made["test"] = _survey_json(check.test)
        made["overlap"] = {
            "rows": check.test.named(check.overlap.rows),
            "prompts": check.test.named(check.overlap.prompts),
            "searched": check.overlap.searched,
            "passages": [
                {name: getattr(passage, name) for name in passage.__dataclass_fields__}
                for passage in check.overlap.passages
            ],
        }
    made["examples"] = [
        {
            "id": example.id,
            "label": example.label or None,
            "branches": [{"column": c, "pieces": p} for c, p in example.branches],
        }
        for example in check.examples
    ]
    return made


def sections(check: Check) -> list[Section]:
    """The parts of the report, without the examples."""
    made = [_recognised(check), *_troubles(check.data)]
    if check.test is not None and check.overlap is not None:
        made += [*_troubles(check.test), _overlap(check.test, check.overlap)]
    rows = f"all {len(check.data.ids):,} usable rows"
    made.append(_lengths(f"Lengths in words ({rows})", check.data.words))
    if check.tokens is not None:
        made.append(_tokens(check.data, check.tokens, check.tokenizer, rows))
    trained = "trained tokens" if check.tokens else "trained texts; --tokenizer DIR shows tokens"
    made.append(
        Section(f"{len(check.examples)} rows as they are trained on, with {trained} marked")
    )
    return made


def _heads(check: Check) -> list[str]:
    surveys = [check.data, *([check.test] if check.test else [])]
    return [line for survey in surveys for line in survey.report.first_lines()]


def _recognised(check: Check) -> Section:
    data = check.data
    lines = [
        f"files: {data.file_format}",
        f"train on it with: alignlab.data.modules.{MODULES[data.kind]}",
        f"template: {data.template}",
    ]
    lines += [f"training would stop: {stop}" for stop in data.stops]
    if data.glued:
        lines.append(
            f"in {len(data.glued):,} rows a completion follows the prompt without a space or a "
            f"line break: {_few(data.named(data.glued))}"
        )
    if data.kind is PreferencePair:
        lines.append(
            f"chosen has more words than rejected in {data.longer / len(data.ids):.1%} of pairs"
        )
    if labels := data.labels:
        lines.append("labels: " + ", ".join(f"{n:,} {label}" for label, n in labels.items()))
    return Section("Recognised", lines)


def _troubles(data: Survey) -> Iterator[Section]:
    """Refused, repeated and contradictory rows, and what nothing reads, where there are any."""
    report, name = data.report, data.source.name
    if report.count:
        cells = [[f"{n:,}", why, _few(report.places(why), n)] for why, n in report.counts.items()]
        yield Section(f"Refused: {report.count:,} rows of {name}", [], _ROWS, cells)
    found = data.repeats.found()
    cells = [
        [f"{len(places):,}", what, _few(data.named(places[:IDS]), len(places))]
        for what, places in found.items()
        if len(places)
    ]
    if cells:
        yield Section(f"Repeated or contradictory rows of {name}", [], _ROWS, cells)
    notes = [*report.notes]
    if report.unused:
        columns = ", ".join(f"{column} ({n:,} rows)" for column, n in report.unused.items())
        notes.insert(0, f"columns that nothing reads: {columns}")
    if notes:
        yield Section(f"Notes on {name}", notes)


_ROWS = ("rows", "what", "which")


def _overlap(test: Survey, found: Overlap) -> Section:
    passages, of = found.passages, f"of {found.of:,} test"
    rare = [passage for passage in passages if passage.rare]
    lines = [
        f"{len(found.rows):,} {of} rows are training rows, too"
        + _listed(test.named(found.rows[:IDS]), len(found.rows)),
        f"{len(found.prompts):,} {of} prompts are training prompts, too"
        + _listed(test.named(found.prompts[:IDS]), len(found.prompts)),
        f"{sum(p.test_rows for p in passages):,} of {found.searched:,} test rows share a run of "
        f"{RUN} words with a training row (a text of {SHORTEST} to {RUN - 1} words: the whole)",
    ]
    if passages:
        lines.append(
            f"{sum(p.test_rows for p in rare):,} of these share a run that at most {RARE} training "
            "rows hold: read them. Runs in more rows are usually templates or set phrases"
        )
    if found.searched < found.of:
        lines.append(f"only the first {found.searched:,} test rows were searched for runs of words")
    if len(passages) > PASSAGES:
        lines.append(f"the {PASSAGES} rarest of {len(passages):,} passages:")
    cells = [
        [f"{p.train_rows:,}", f"{p.test_rows:,}", f"{p.words:,}", p.train_id, p.test_id, p.text]
        for p in passages[:PASSAGES]
    ]
    columns = (
        "training rows",
        "test rows",
        "words",
        "first in training",
        "first in test",
        "passage",
    )
    return Section(f"Overlap of {test.source.name} with the training rows", lines, columns, cells)


def _lengths(title: str, lengths: dict[str, Any], lines: Sequence[str] = ()) -> Section:
    cells = [[part, *map("{:,}".format, quantiles(n).values())] for part, n in lengths.items()]
    return Section(title, list(lines), ("part", *QUANTILES), cells)


def _tokens(data: Survey, tokens: Tokens, tokenizer: str, rows: str) -> Section:
    if len(data.sample) < len(data.ids):
        rows = f"a random sample of {len(data.sample):,} of {len(data.ids):,} usable rows"
    lines = [tokens.template, *(line.strip() for line in tokens.report.summary().split("\n"))]
    return _lengths(f"Lengths in tokens of {tokenizer} ({rows})", tokens.lengths, lines)


def _few(names: Sequence[str], count: int | None = None) -> str:
    """Some of the names of ``count`` rows."""
    more = ", ..." if (count or len(names)) > IDS else ""
    return ", ".join(names[:IDS]) + more


def _listed(names: Sequence[str], count: int) -> str:
    return f": {_few(names, count)}" if names else ""


def _survey_json(data: Survey) -> dict[str, Any]:
    report = data.report
    return {
        "source": data.source.name,
        "files": data.file_format,
        "read_as": report.read_as,
        "data_module": f"alignlab.data.modules.{MODULES[data.kind]}",
        "template": data.template,
        "read": report.seen,
        "kept": report.seen - report.count,
        "refused": {
            why: {"rows": n, "which": report.by_reason[why], "detail": report.details[why]}
            for why, n in report.counts.items()
        },
        "repeated": {
            what: {"rows": len(places), "which": data.named(places)}
            for what, places in data.repeats.found().items()
        },
        "glued": data.named(data.glued),
        "labels": data.labels,
        "stops": data.stops,
        "unused": report.unused,
        "notes": report.notes,
        "words": {part: quantiles(n) for part, n in data.words.items()},
    }


def clean(text: str) -> str:
    """The text, with characters escaped that would steer a terminal."""
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs") else
        char.encode("unicode_escape").decode()
        for char in text
    )  # fmt: skip


def _short(cell: str) -> str:
    """One line of at most ``WIDTH`` characters, which keeps both ends."""
    line = " ".join(cell.split())
    return line if len(line) <= WIDTH else f"{line[: WIDTH // 2 - 3]} ... {line[2 - WIDTH // 2 :]}"


def _shown(piece: Piece, colours: bool) -> str:
    text, trained = piece
    if len(text) > BEGIN + END:
        left = len(text) - BEGIN - END
        text = f"{text[:BEGIN]} [... {left:,} characters ...] {text[-END:]}"
    before, after = ((TRAINED, PLAIN) if colours else MARKS) if trained else ("", "")
    return f"{before}{clean(text)}{after}"


def _aligned(table: list[list[str]]) -> list[str]:
    """Columns side by side: numbers to the right, texts to the left."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    numbers = [
        all(cell.replace(",", "").isdigit() for cell in column[1:])
        for column in zip(*table, strict=True)
    ]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numbers, strict=True)
        ).rstrip()
        for row in table
    ]
