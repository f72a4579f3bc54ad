"""The stage that measures how varied the texts of policies are, checkpoint by checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from alignlab.data.rows import Demonstration
from alignlab.data.sources import read_rows
from alignlab.data.texts import completion_text
from alignlab.errors import DataError
from alignlab.results.csv_tables import write_table
from alignlab.results.run_folder import RunFolder

LONGEST = 3  # words of an n-gram


def measure_texts(
    *, out: str | Path, runs: Sequence[str | Sequence[str]], baseline: str | None = None
) -> None:
    """Stage: ``texts.csv``, a row per run and checkpoint: distinct-n, repetition and length.

    Of the texts that the probe kept. ``distinct_n`` is the share of different n-grams among all
    n-grams of all texts (Li et al. 2016, arXiv:1510.03055); it falls with the number of texts, so
    compare rows with the same ``texts``. ``repeated`` is the share of a text's word pairs that
    occur earlier in it, mean over texts; ``words`` the mean length. Words are split at spaces.

    Args:
        out: Folder to write.
        runs: Folders of runs, or lists of them.
        baseline: File of the reference's own completions, as demonstrations: as many of them as a
            checkpoint has become the row ``reference``.

    Raises:
        DataError: No run has kept texts, or the baseline has fewer.
    """
    folders = [RunFolder(f) for item in runs for f in ([item] if isinstance(item, str) else item)]
    rows = []
    for folder in folders:
        for evaluation in folder.evaluations:
            texts = [kept.completion for kept in evaluation.read_texts()]
            rows.append({"run": folder.run_id, "step": evaluation.step, **variety(texts)})
    if not rows:
        raise DataError("no run has kept texts. Measure runs that were evaluated by FrontierProbe.")
    if baseline is not None:
        found, report = read_rows(baseline, Demonstration)
        report.tell()
        wanted = max(row["texts"] for row in rows)
        if len(found) < wanted:
            raise DataError(f"{baseline} has {len(found)} texts, a checkpoint {wanted}. Give more.")
        own = [str(completion_text(row.completion, row.ends)) for row in found[:wanted]]
        rows.insert(0, {"run": "reference", "step": 0, **variety(own)})
    write_table(Path(out) / "texts.csv", rows)


def variety(texts: Sequence[str]) -> dict[str, Any]:
    """The columns of a row that are numbers of its texts."""
    split = [text.split() for text in texts]
    row: dict[str, Any] = {"texts": len(texts), "words": fmean(map(len, split))}
    for n in range(1, LONGEST + 1):
        grams = [gram for words in split for gram in _grams(words, n)]
        row[f"distinct_{n}"] = len({*grams}) / len(grams) if grams else None
    shares = [1 - len({*pairs}) / len(pairs) for words in split if (pairs := _grams(words, 2))]
    return row | {"repeated": fmean(shares) if shares else None}


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
