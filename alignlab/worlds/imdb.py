"""IMDB reviews (Maas et al. 2011): cleaned, without train-test overlap, and as short prompts.

Read from the hub (``stanfordnlp/imdb``) or from Parquet files with the same content
(``imdb.parquet``, ``imdb_unsup.parquet``). Rows come in a shuffled order that is a pure function of
(seed, text), because the original is sorted by label and its first rows are all negative.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alignlab.data.files import data_files
from alignlab.data.formats import to_rows
from alignlab.data.rows import (
    LabelledText,
    Prompt,
    Record,
    Refuse,
    Refused,
    RowReport,
    split_by_prompt,
    unit_hash,
)
from alignlab.data.sources import read_records
from alignlab.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Split = Literal["train", "test", "unsupervised"]
Half = Literal["a", "b", "all"]
HUB_ID = "stanfordnlp/imdb"
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
# Purposes of a text's hash: what one of them decides must say nothing about the others.
_ORDER, _HALF, _LENGTH = 0, 1, 2


def clean(text: str) -> str:
    """A review as running text: HTML line breaks and runs of white space become one space."""
    return " ".join(_BREAK.sub(" ", text).split())


def read_imdb(
    source: str | Path = HUB_ID,
    split: Split = "train",
    *,
    half: Half = "all",
    seed: int = 0,
    limit: int | None = None,
    refuse: Refuse = "drop",
) -> tuple[list[LabelledText], RowReport]:
    """Cleaned reviews with label 0 (negative) or 1 (positive), none on the unsupervised part.

    Args:
        source: The hub id, ``imdb.parquet``, or the folder it lies in.
        split: ``train``, ``test`` or ``unsupervised``.
        half: Only one of two disjoint halves, for scorers that share no labels. Equal texts
            fall on one side.
        seed: Decides the order and the halves.
        limit: How many to use, from the start.
        refuse: As in ``read_rows``.

    Returns:
        The reviews, and those refused: above all texts that are also in the test part.
    """
    if half not in ("a", "b", "all"):
        raise ConfigError(f"half must be a, b or all, got {half!r}.")
    refusals = RowReport(f"{source} ({split})", refuse)
    records = _unseen_in_test(_cleaned(source, split), source, split, refusals)
    rows = to_rows(records, LabelledText, refusals)
    if half != "all":
        rows = split_by_prompt(rows, 0.5, _stream(seed, _HALF))[half == "b"]
    rows.sort(key=lambda row: unit_hash(row.text, _stream(seed, _ORDER)))
    return rows[:limit], refusals


def prefix_prompts(
    rows: Sequence[LabelledText],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    seed: int = 0,
    shortest: int = 2,
    longest: int = 8,
    min_characters: int = 200,
    limit: int | None = None,
) -> tuple[list[Prompt], RowReport]:
    """The first few tokens of each review, as prompts (DPO's IMDB set-up).

    How many is a pure function of (seed, text), uniform over ``shortest .. longest``. If a prefix
    of that length is tokenised differently without the rest, the next length that is not is used.

    Args:
        rows: Reviews.
        tokenizer: The policy's: lengths are in its tokens, special tokens not counted.
        seed: Decides the lengths.
        shortest: Least number of tokens.
        longest: Greatest number of tokens.
        min_characters: Only reviews with more characters than this are used.
        limit: Stop after this many prompts.
    """
    if not 1 <= shortest <= longest:
        raise ConfigError(f"prefix lengths must be 1 <= {shortest} <= {longest}.")
    refusals = RowReport("prefix prompts")
    prompts: list[Prompt] = []
    for row in rows:
        if limit is not None and len(prompts) >= limit:
            break
        refusals.seen += 1
        try:
            if len(row.text) <= min_characters:
                raise Refused(f"not more than {min_characters} characters")
            share = unit_hash(row.text, _stream(seed, _LENGTH))
            wanted = shortest + int(share * (longest - shortest + 1))
            lengths = [*range(wanted, longest + 1), *range(wanted - 1, shortest - 1, -1)]
            prompts.append(Prompt(row.id, _prefix(tokenizer, row.text, lengths)))
        except Refused as problem:
            refusals.add(row.id, problem)
    refusals.require_rows(len(prompts))
    return prompts, refusals


def _prefix(tokenizer: "PreTrainedTokenizerBase", text: str, lengths: Sequence[int]) -> str:
    # A token is rarely longer than 16 characters; a prompt never needs the whole review coded.
    head = text[: 32 * max(lengths)]
    coded = tokenizer(head, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = coded["input_ids"], coded["offset_mapping"]
    for n in lengths:
        if n <= len(ids):
            prefix = head[: offsets[n - 1][1]]
            alone = tokenizer(prefix, add_special_tokens=False, verbose=False)["input_ids"]
            if alone == ids[:n]:
                return prefix
    raise Refused("no prefix with a tokenisation of its own")


def _cleaned(source: str | Path, split: Split) -> list[Record]:
    file = _file(source, split)
    part = "unsup" if split == "unsupervised" and isinstance(file, Path) else split
    return [_clean_record(record, split) for record in read_records(file, part)]


def _clean_record(record: Record, split: Split) -> Record:
    fields = dict(record.fields or {})
    if isinstance(fields.get("text"), str):
        fields["text"] = clean(fields["text"])
    number = record.where.rpartition(":")[2]
    label = fields.get("label")
    known = None if label == -1 else label
    return replace(record, fields={**fields, "label": known, "id": f"imdb/{split}/{number}"})


def _unseen_in_test(
    records: list[Record], source: str | Path, split: Split, refusals: RowReport
) -> list[Record]:
    if split == "test":
        return records
    test = {(record.fields or {}).get("text") for record in _cleaned(source, "test")}
    return list(_without(records, test, refusals))


def _without(records: list[Record], test: set[object], refusals: RowReport) -> Iterator[Record]:
    for record in records:
        if (record.fields or {}).get("text") in test:
            refusals.seen += 1
            refusals.add(record.where, Refused("text is also in the test split"))
        else:
            yield record


def _file(source: str | Path, split: Split) -> Path | str:
    """The Parquet file that holds a split, or the hub id."""
    path = Path(source).expanduser()
    if not path.is_dir() and data_files(source) is None:
        return str(source)
    folder = path if path.is_dir() else path.parent
    file = folder / "imdb_unsup.parquet" if split == "unsupervised" else path
    file = file / "imdb.parquet" if file.is_dir() else file
    if not file.is_file():
        raise DataError(f"{file}: no such file. Put it there, or use the hub id {HUB_ID}.")
    return file


def _stream(seed: int, purpose: int) -> int:
    return 3 * seed + purpose
