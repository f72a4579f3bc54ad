"""Stages that make files of TL;DR: posts, demonstrations, and pairs of summaries."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from alignlab.bounds import Amount, Count, Ratio, Seed
from alignlab.data.rows import (
    Demonstration,
    PreferencePair,
    Prompt,
    Refused,
    RowReport,
    split_by_prompt,
)
from alignlab.data.sources import first_available, read_rows, write_rows
from alignlab.errors import ConfigError, DataError
from alignlab.models.loading import load_tokenizer
from alignlab.worlds.negatives import (
    KINDS,
    Kind,
    Side,
    generic_summary,
    kind_of,
    other_summary,
    shuffled_words,
)
from alignlab.worlds.tally import Tally, tally, write_tally
from alignlab.worlds.tldr import Part, fit_prompt, read_comparisons, read_posts


def gather_posts(
    *,
    out: str | Path,
    source: str | Sequence[str],
    limit: Count | None = None,
    elsewhere: Sequence[str] = (),
) -> None:
    """Stage: read posts with their summaries once, so that nothing after this needs a network.

    Writes ``posts.parquet`` (parts train, validation and test, which share no post) and
    ``rows.csv``: how many rows were read, refused and kept, and why.

    Args:
        out: Folder to write.
        source: A file or hub id, see ``alignlab.worlds.tldr``; of several, the first that exists.
        limit: How many posts of each part to keep, at random.
        elsewhere: Subreddits whose posts are in none of the parts. They are the test part of
            ``elsewhere.parquet``, which tests policies on a domain that they were not trained on.

    Raises:
        DataError: A subreddit of ``elsewhere`` that has no post.
    """
    parts = read_posts(first_available(source))
    names = {name.casefold() for name in elsewhere}
    kept, away = {}, []
    for part, found in parts.items():
        inside = []
        for post in found.rows:
            if post.subreddit.casefold() in names:
                found.refusals.add(post.id, Refused("subreddit is kept for elsewhere.parquet"))
                away.append(post)
            else:
                inside.append(post)
        kept[part] = inside[:limit]
    if absent := names - {post.subreddit.casefold() for post in away}:
        raise DataError(f"elsewhere: no post of {', '.join(sorted(absent))}. Leave it out.")
    rows = [{**asdict(post), "split": part} for part, posts in kept.items() for post in posts]
    write_parquet(Path(out) / "posts.parquet", rows)
    if away:
        rows = [{**asdict(post), "split": "test"} for post in away]
        write_parquet(Path(out) / "elsewhere.parquet", rows)
    write_tally(
        Path(out),
        [
            row
            for part, found in parts.items()
            for row in tally(part, found.refusals, len(kept[part]))
        ],
    )


def write_summaries(
    *,
    out: str | Path,
    source: str,
    tokenizer: str,
    max_prompt: Count = 512,
    summary_tokens: tuple[int, int] = (1, 53),
    fullest: Ratio = 0.5,
) -> None:
    """Stage: demonstrations ``train.jsonl``, ``validation.jsonl``, ``test.jsonl``; ``rows.csv``.

    Args:
        out: Folder to write.
        source: ``posts.parquet`` of ``gather_posts``.
        tokenizer: Hub id or folder of the policy's: lengths are in its tokens.
        max_prompt: Bound on a prompt's tokens; longer posts are cut, see ``fit_prompt``.
        summary_tokens: Fewest and most tokens of a summary; other rows are refused.
        fullest: See ``fit_prompt``.
    """
    least, most = summary_tokens
    if not 1 <= least <= most:
        raise ConfigError(f"summary_tokens must be 1 <= {least} <= {most}.")
    tok = load_tokenizer(tokenizer)
    told: list[Tally] = []
    for part, (posts, refusals) in read_posts(source).items():
        cuts: Counter[str] = Counter()
        rows: list[Demonstration] = []
        for post in posts:
            summary = f" {post.summary}"
            size = len(tok(summary, add_special_tokens=False, verbose=False)["input_ids"])
            try:
                if not least <= size <= most:
                    which = "longer" if size > most else "shorter"
                    bound = most if size > most else least
                    raise Refused(f"summary {which} than {bound} tokens")
                fitted = fit_prompt(post, tok, max_prompt, fullest=fullest)
            except Refused as problem:
                refusals.add(post.id, problem)
                continue
            cuts[fitted.cut] += 1
            rows.append(Demonstration(post.id, fitted.prompt, summary))
        told += _written(Path(out) / f"{part}.jsonl", part, rows, refusals, cuts)
    write_tally(Path(out), told)


def write_prompts(
    *,
    out: str | Path,
    source: str,
    tokenizer: str,
    max_prompt: Count,
    fullest: Ratio = 0.5,
    unseen_by: Sequence[str] = (),
    train: Amount | None = None,
    test: Amount | None = None,
) -> None:
    """Stage: prompts alone, ``train.jsonl`` and ``test.jsonl``, and ``rows.csv``.

    Args:
        out: Folder to write.
        source: ``posts.parquet`` of ``gather_posts``.
        tokenizer: See ``write_summaries``.
        max_prompt: See ``write_summaries``; rollouts of short prompts are cheap.
        fullest: See ``fit_prompt``.
        unseen_by: Files of ``write_negatives``: posts that a judge was trained on are left out, so
            that no policy is trained on a prompt whose true summary the judge has seen.
        train: Prompts to keep at most, at random.
        test: Test prompts to keep at most, at random.
    """
    tok = load_tokenizer(tokenizer)
    pairs = [row for file in unseen_by for row in read_rows(file, PreferencePair)[0]]
    seen = {row.id.rpartition("/")[0] for row in pairs}
    parts = read_posts(source)
    told: list[Tally] = []
    wanted: list[tuple[Part, int | None]] = [("train", train), ("test", test)]
    for part, most in wanted:
        posts, refusals = parts[part]
        cuts: Counter[str] = Counter()
        rows: list[Prompt] = []
        for post in posts:
            try:
                if post.id in seen:
                    raise Refused("a judge was trained on it")
                fitted = fit_prompt(post, tok, max_prompt, fullest=fullest)
            except Refused as problem:
                refusals.add(post.id, problem)
                continue
            if len(rows) == most:
                break
            cuts[fitted.cut] += 1
            rows.append(Prompt(post.id, fitted.prompt))
        told += _written(Path(out) / f"{part}.jsonl", part, rows, refusals, cuts)
    write_tally(Path(out), told)


def write_negatives(
    *,
    out: str | Path,
    source: str,
    kinds: Sequence[Kind] = KINDS,
    every_kind: bool = False,
    half: Literal["a", "b", "all"] = "all",
    sentences: Side = "train",
    seed: Seed = 0,
) -> None:
    """Stage: pairs of the true summary (chosen) and a worse one, see ``alignlab.worlds.negatives``.

    Writes ``pairs.jsonl``, the same pairs by kind in ``<kind>.jsonl``, and ``rows.csv``. A pair is
    named ``<post>/<kind>``.

    Args:
        out: Folder to write.
        source: A file of ``write_summaries``.
        kinds: Which kinds of worse summaries.
        every_kind: A pair of each kind for every post; otherwise of one, drawn for each post.
        half: Only one of two disjoint halves of the posts, for judges that share none.
        sentences: Which half of the sentences generic summaries are made of.
        seed: Decides the halves and the draws.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ConfigError(f"kinds must be of {', '.join(KINDS)}, got {list(kinds)}.")
    rows, refusals = read_rows(source, Demonstration)
    if half != "all":
        rows = split_by_prompt(rows, 0.5, seed)[half == "b"]
    pool = [str(row.completion) for row in rows]
    refusals = RowReport(source, seen=len(rows))
    pairs: dict[Kind, list[PreferencePair]] = {kind: [] for kind in kinds}
    for row in rows:
        for kind in kinds if every_kind else [kind_of(row.id, kinds, seed)]:
            try:
                pairs[kind].append(_worsened(row, kind, pool, sentences, seed))
            except Refused as problem:
                refusals.add(f"{row.id}/{kind}", problem)
    order = {row.id: k for k, row in enumerate(rows)}
    mixed = sorted(
        (pair for found in pairs.values() for pair in found),
        key=lambda pair: order[pair.id.rpartition("/")[0]],
    )
    refusals.require_rows(len(mixed))
    write_rows(Path(out) / "pairs.jsonl", mixed)
    for kind, found in pairs.items():
        write_rows(Path(out) / f"{kind}.jsonl", found)
    write_tally(Path(out), tally("pairs", refusals, len(mixed)))


def write_comparisons(
    *,
    out: str | Path,
    source: str | Sequence[str],
    tokenizer: str,
    max_prompt: Count = 512,
    fullest: Ratio = 0.5,
    limit: Count | None = None,
) -> None:
    """Stage: pairs of summaries that somebody compared: a file for each part, and ``rows.csv``.

    ``pairs.jsonl`` holds the training part, the others are ``validation.jsonl``, ``test.jsonl``.

    Args:
        out: Folder to write.
        source: A file or hub id, see ``read_comparisons``; of several, the first that exists.
        tokenizer: As in ``write_summaries``.
        max_prompt: As in ``write_summaries``.
        fullest: See ``fit_prompt``.
        limit: How many pairs of each part to keep, at random.
    """
    tok = load_tokenizer(tokenizer)
    told: list[Tally] = []
    for part, (found, refusals) in read_comparisons(first_available(source)).items():
        cuts: Counter[str] = Counter()
        pairs: list[PreferencePair] = []
        for row in found[:limit]:
            try:
                fitted = fit_prompt(row, tok, max_prompt, fullest=fullest)
            except Refused as problem:
                refusals.add(row.id, problem)
                continue
            cuts[fitted.cut] += 1
            chosen, rejected = f" {row.chosen}", f" {row.rejected}"
            pairs.append(PreferencePair(row.id, fitted.prompt, chosen, rejected))
        name = "pairs" if part == "train" else part
        told += _written(Path(out) / f"{name}.jsonl", part, pairs, refusals, cuts)
    write_tally(Path(out), told)


def _worsened(
    row: Demonstration, kind: Kind, pool: Sequence[str], sentences: Side, seed: int
) -> PreferencePair:
    summary = str(row.completion).strip()
    match kind:
        case "other":
            worse = other_summary(row.id, str(row.completion), pool, seed).strip()
        case "words":
            worse = shuffled_words(row.id, summary, seed)
        case "generic":
            worse = generic_summary(row.id, summary, sentences, seed)
    pair = PreferencePair(f"{row.id}/{kind}", row.prompt, row.completion, f" {worse}")
    pair.check()
    return pair


def _written(
    path: Path,
    part: Part,
    rows: Sequence[Demonstration] | Sequence[PreferencePair] | Sequence[Prompt],
    refusals: RowReport,
    cuts: Counter[str],
) -> list[Tally]:
    refusals.require_rows(len(rows))
    write_rows(path, rows)
    counts = {f"post cut at a {where}": count for where, count in cuts.items() if where}
    return tally(part, refusals, len(rows), counts)


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as Parquet, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, compression="zstd")
