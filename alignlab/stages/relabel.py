"""Stages that make one set of labels from another: pairs of rankings, and pairs with mistakes."""

import random
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from alignlab.bounds import Seed, Share
from alignlab.data.rows import PreferencePair, Ranking
from alignlab.data.sources import read_rows, write_rows


def flip_labels(*, out: str | Path, source: str, share: Share, seed: Seed = 0) -> None:
    """Stage: write ``pairs.jsonl``, the pairs of ``source``, some of them with flipped labels.

    Whether a pair is flipped is a function of (seed, its place); a larger share flips the same
    pairs and more.

    Args:
        out: Folder to write.
        source: A file of pairs.
        share: Chance that a pair's label is flipped.
        seed: Decides which ones.
    """
    rows, report = read_rows(source, PreferencePair)
    report.tell()
    write_rows(
        Path(out) / "pairs.jsonl",
        [
            _flipped(row) if random.Random(f"{seed}/{place}").random() < share else row
            for place, row in enumerate(rows)
        ],
    )


def _flipped(row: PreferencePair) -> PreferencePair:
    return replace(
        row,
        chosen=row.rejected,
        rejected=row.chosen,
        chosen_ends=row.rejected_ends,
        rejected_ends=row.chosen_ends,
    )


def pairs_of_rankings(*, out: str | Path, source: str) -> None:
    """Stage: write ``pairs.jsonl``, all pairs of each ranking whose ranks differ.

    Args:
        out: Folder to write.
        source: A file of rankings.
    """
    rows, report = read_rows(source, Ranking)
    report.tell()
    pairs = []
    for row in rows:
        ends = row.ends or (True,) * len(row.completions)
        for pair in combinations(range(len(row.completions)), 2):
            if row.ranks[pair[0]] != row.ranks[pair[1]]:
                better, worse = sorted(pair, key=lambda k: row.ranks[k])
                pairs.append(
                    PreferencePair(
                        f"{row.id}#{better}-{worse}",
                        row.prompt,
                        row.completions[better],
                        row.completions[worse],
                        ends[better],
                        ends[worse],
                    )
                )
    write_rows(Path(out) / "pairs.jsonl", pairs)
