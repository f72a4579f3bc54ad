"""Stages that make files of IMDB: openings for a language model, a tokenizer, and prompts."""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from alignlab.bounds import Amount, Count, Seed
from alignlab.data.rows import Demonstration, LabelledText, Prompt
from alignlab.data.sources import first_available, read_rows, write_rows
from alignlab.errors import ConfigError, DataError
from alignlab.models.loading import load_tokenizer
from alignlab.worlds import toy
from alignlab.worlds.imdb import Split, prefix_prompts, read_imdb

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TRAINING: tuple[Split, ...] = ("train", "unsupervised")
SPECIAL = {"pad_token": "<|pad|>", "bos_token": "<|bos|>", "eos_token": "<|eos|>"}


def gather_reviews(
    *, out: str | Path, source: str | Sequence[str], limit: Count | None = None
) -> None:
    """Stage: read IMDB once, so that nothing after this needs a network.

    Writes ``imdb.parquet`` (parts train and test) and ``imdb_unsup.parquet``, cleaned.

    Args:
        out: Folder to write.
        source: IMDB as a file or hub id; of several, the first that exists.
        limit: How many reviews of each part to keep.
    """
    name = first_available(source)
    parts: tuple[Split, ...] = ("train", "test", "unsupervised")
    rows = {part: read_imdb(name, part, limit=limit)[0] for part in parts}
    _write_reviews(
        Path(out),
        [(part, row.text, row.label) for part in parts for row in rows[part]],
    )


def make_up_reviews(*, out: str | Path, reviews: Count = 200, seed: Seed = 0) -> None:
    """Stage: the toy world's reviews with IMDB's columns and defects: for smoke runs.

    Args:
        out: Folder to write.
        reviews: Reviews in each part.
        seed: Decides all of them.
    """
    rng = random.Random(seed)
    prompts = toy.all_prompts()
    rows: list[tuple[Split, str, float | None]] = []
    for part in (*TRAINING, "test"):
        for _ in range(reviews):
            said = [rng.choice(prompts) for _ in range(rng.randint(6, 12))]
            said = [prompt + toy.write_completion(prompt, rng.random) for prompt in said]
            label = float(sum(map(toy.sentiment, said)) > 0)
            rows.append(
                (part, "<br /><br />".join(said), label if part != "unsupervised" else None)
            )
    _write_reviews(Path(out), rows)


def write_openings(
    *,
    out: str | Path,
    source: str,
    max_characters: Count = 900,
    validation_limit: Amount = 1000,
) -> None:
    """Stage: the beginnings of training and unsupervised reviews, for a language model.

    Writes ``openings.jsonl`` and, from test reviews, ``validation.jsonl``: demonstrations with an
    empty prompt. Only openings, since all prompts are openings: blocks from the middle of a review
    would teach the model to begin in the middle. A review that is cut does not end.

    Args:
        out: Folder to write.
        source: IMDB as a file or hub id.
        max_characters: Longest opening; the cut falls on a space.
        validation_limit: Test reviews to keep.
    """
    if max_characters < 1:
        raise ConfigError(f"write_openings needs max_characters >= 1, got {max_characters}.")
    rows = [row for part in TRAINING for row in read_imdb(source, part)[0]]
    train = [_opening(row, max_characters) for row in rows]
    test = read_imdb(source, "test", limit=validation_limit)[0]
    write_rows(Path(out) / "openings.jsonl", train)
    write_rows(Path(out) / "validation.jsonl", [_opening(row, max_characters) for row in test])


def train_tokenizer(*, out: str | Path, source: str, vocab_size: Count = 4096) -> None:
    """Stage: a byte-level BPE tokenizer of the completions in ``source``.

    Args:
        out: Folder to write (Hugging Face files).
        source: File of demonstrations.
        vocab_size: Tokens in all: 256 bytes, 3 special ones (padding, beginning, end), and merges.
    """
    if vocab_size < 256 + len(SPECIAL):
        raise ConfigError(
            f"a byte-level tokenizer has at least {256 + len(SPECIAL)} tokens, got {vocab_size}."
        )
    rows, _ = read_rows(source, Demonstration)
    backend = _byte_level_bpe((str(row.completion) for row in rows), vocab_size)
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL).save_pretrained(out)


def write_prompts(
    *,
    out: str | Path,
    source: str,
    tokenizer: str,
    train: Amount,
    test: Amount,
    shortest: Count = 2,
    longest: Count = 8,
    seed: Seed = 0,
    validation: Amount = 0,
) -> None:
    """Stage: the first few tokens of reviews as prompts, for training and for evaluation.

    Writes ``train.jsonl`` from training and unsupervised reviews, ``test.jsonl`` from test reviews
    and, where asked for, ``validation.jsonl`` from the test reviews after those. Each prompt is
    written once: one that is in several goes to test before validation before training.

    Args:
        out: Folder to write.
        source: IMDB as a file or hub id.
        tokenizer: Hub id or folder of the policy's: lengths are in its tokens.
        train: Training prompts wanted.
        test: Evaluation prompts wanted.
        shortest: Least tokens of a prompt.
        longest: Most tokens.
        seed: Decides the lengths, see ``prefix_prompts``.
        validation: Prompts wanted to choose settings on, which are not those of the evaluation.

    Raises:
        DataError: There are fewer distinct prompts.
    """
    tok = load_tokenizer(tokenizer)
    taken: set[str] = set()
    counts = {}
    # Openings such as "This movie" are common: test prompts are chosen first, then kept out.
    wanted_of: list[tuple[str, Sequence[Split], int]] = [
        ("test", ("test",), test),
        ("validation", ("test",), validation),
        ("train", TRAINING, train),
    ]
    for file, parts, wanted in wanted_of:
        rows = (row for part in parts for row in read_imdb(source, part)[0])
        prompts: list[Prompt] = []
        for batch in _batches(rows, 1000):
            if len(prompts) >= wanted:
                break
            for prompt in prefix_prompts(batch, tok, seed=seed, shortest=shortest, longest=longest)[
                0
            ]:
                text = str(prompt.prompt)
                if text not in taken and len(prompts) < wanted:
                    taken.add(text)
                    prompts.append(prompt)
        if len(prompts) < wanted:
            raise DataError(
                f"{source}: {len(prompts)} distinct {file} prompts of {shortest}-{longest} tokens, "
                f"{wanted} wanted. Ask for fewer or longer ones."
            )
        if file != "validation" or wanted:
            write_rows(Path(out) / f"{file}.jsonl", prompts)
            counts[file] = len(prompts)
    (Path(out) / "summary.json").write_text(json.dumps(counts) + "\n")


def _write_reviews(out: Path, rows: Sequence[tuple[Split, str, float | None]]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for file, parts in (("imdb", ("train", "test")), ("imdb_unsup", ("unsupervised",))):
        kept = [row for row in rows if row[0] in parts]
        table = {
            "text": [text for _, text, _ in kept],
            "label": [-1 if label is None else int(label) for _, _, label in kept],
            "split": ["unsup" if part == "unsupervised" else part for part, _, _ in kept],
        }
        pq.write_table(pa.table(table), out / f"{file}.parquet", compression="zstd")


def _opening(row: LabelledText, max_characters: int) -> Demonstration:
    text = row.text
    ends = len(text) <= max_characters
    if not ends:
        cut = text.rfind(" ", 0, max_characters + 1)
        text = text[: cut if cut > 0 else max_characters]
    return Demonstration(row.id, "", text, ends=ends)


def _byte_level_bpe(texts: Iterable[str], vocab_size: int) -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _batches(rows: Iterable[LabelledText], size: int) -> Iterator[list[LabelledText]]:
    batch: list[LabelledText] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
