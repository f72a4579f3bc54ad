"""HH-RLHF: dialogues with two last replies, one preferred by a person (Bai et al. 2022).

Source: arXiv:2204.05862; hub id ``Anthropic/hh-rlhf``. A row holds two whole dialogues,
``\\n\\nHuman: ...\\n\\nAssistant: ...``, whose beginning up to the last ``\\n\\nAssistant:`` is the
prompt. Rows with equal replies, an empty reply or different beginnings are refused.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from alignlab.bounds import Count, Seed, Share
from alignlab.data.files import data_files
from alignlab.data.formats import to_rows
from alignlab.data.rows import PreferencePair, Prompt, Record, Refused, RowReport, unit_hash
from alignlab.data.rows.pair import ASSISTANT
from alignlab.data.sources import (
    first_available,
    read_hub,
    read_records,
    read_rows,
    write_rows,
)
from alignlab.errors import ConfigError, DataError
from alignlab.models.loading import load_tokenizer
from alignlab.worlds.tally import tally, write_tally

HELPFUL = ("helpful-base", "helpful-rejection-sampled")
SUBSETS = (*HELPFUL, "helpful-online", "harmless-base")
_SPLIT, _ORDER, _HALF = 0, 1, 2  # what a hash is for


def opening(prompt: str) -> str:
    """The person's first message: dialogues that share it are kept on one side of a split.

    Dialogues were collected turn by turn, so one row's prompt can begin with another's.
    """
    return " ".join(prompt.partition(ASSISTANT)[0].casefold().split())


def read_dialogues(
    source: str | Path, subsets: Sequence[str] = HELPFUL, split: str = "train"
) -> dict[str, tuple[list[PreferencePair], RowReport]]:
    """Usable pairs of each subset, in the source's order, and what was refused.

    Args:
        source: The hub id, or a file with a column ``subset``, of which all rows are read.
        subsets: Which of the hub's folders.
        split: Which part of a hub data set.

    Raises:
        ConfigError: An unknown subset.
        DataError: The source cannot be read, or holds nothing of a subset.
    """
    unknown = sorted(set(subsets) - set(SUBSETS))
    if unknown or not subsets:
        raise ConfigError(f"subsets must be of {', '.join(SUBSETS)}, got {list(subsets)}.")
    found = {}
    for subset in subsets:
        refusals = RowReport(f"{source} ({subset})")
        found[subset] = (
            to_rows(_records(source, subset, split), PreferencePair, refusals),
            refusals,
        )
    return found


def gather_dialogues(
    *,
    out: str | Path,
    source: str | Sequence[str],
    subsets: Sequence[str] = HELPFUL,
    held_out: Share = 0.18,
    test_split: str | None = None,
    limit: Count | None = None,
) -> None:
    """Stage: pairs to train on and held-out ones, ``train.jsonl`` and ``test.jsonl``; ``rows.csv``.

    No opening question is in both. Rows are in an order that is a function of the prompt.

    Args:
        out: Folder to write.
        source: A file or the hub id; of several, the first that exists.
        subsets: See ``read_dialogues``.
        held_out: Share of opening questions held out, where there is no ``test_split``.
        test_split: The hub's part to test on; pairs to train on that share an opening with it are
            removed.
        limit: How many pairs of each side to keep, at random.
    """
    name = first_available(source)
    told = []
    train: list[PreferencePair] = []
    test: list[PreferencePair] = []
    if test_split is not None:
        for subset, (rows, refusals) in read_dialogues(name, subsets, test_split).items():
            test += rows
            told += tally(f"{subset} ({test_split})", refusals, len(rows))
    seen = {opening(str(row.prompt)) for row in test}
    for subset, (rows, refusals) in read_dialogues(name, subsets).items():
        kept = []
        for row in rows:
            first = opening(str(row.prompt))
            if first in seen:
                refusals.add(row.id, Refused("opening is also in the test part"))
                continue
            is_held_out = test_split is None and unit_hash(first, _SPLIT) < held_out
            (test if is_held_out else train).append(row)
            kept.append(row)
        told += tally(subset, refusals, len(kept))
    for file, rows in (("train", train), ("test", test)):
        if not rows:
            raise DataError(f"{name}: no pair on the {file} side. Change held_out, {held_out}.")
        rows.sort(key=lambda row: unit_hash(str(row.prompt), _ORDER))
        write_rows(Path(out) / f"{file}.jsonl", rows[:limit])
    write_tally(Path(out), told)


def shuffle_pairs(
    *, out: str | Path, source: str, seed: Seed, half: Literal["a", "b", "all"] = "all"
) -> None:
    """Stage: ``pairs.jsonl``, the rows of ``source`` in another order: the first n are a sample.

    Args:
        out: Folder to write.
        source: A file of pairs.
        seed: Decides the order.
        half: Only one of two halves that share no opening question, whatever the seed.
    """
    rows, _ = read_rows(source, PreferencePair)
    if half != "all":
        in_a = [unit_hash(opening(str(row.prompt)), _HALF) < 0.5 for row in rows]
        rows = [row for row, a in zip(rows, in_a, strict=True) if a == (half == "a")]
    rows.sort(key=lambda row: unit_hash(row.id, seed))
    write_rows(Path(out) / "pairs.jsonl", rows)


def write_prompts(
    *,
    out: str | Path,
    source: str,
    tokenizer: str,
    longest: Count,
    longest_reply: Count | None = None,
    limit: Count | None = None,
) -> None:
    """Stage: ``prompts.jsonl``, each prompt of a file of pairs that is short enough, once.

    ``pairs.jsonl`` has the same rows with their replies.

    Args:
        out: Folder to write.
        source: A file of pairs.
        tokenizer: Hub id or folder of the policy's: lengths are in its tokens.
        longest: Most tokens of a prompt; longer ones are left out, and counted in ``rows.csv``.
        longest_reply: Most tokens of either reply; without it they may have any length.
        limit: How many to keep.
    """
    tok = load_tokenizer(tokenizer)

    def size(text: object) -> int:
        return len(tok(str(text), add_special_tokens=False, verbose=False)["input_ids"])

    rows, refusals = read_rows(source, PreferencePair)
    prompts: dict[str, PreferencePair] = {}
    for row in rows:
        text = str(row.prompt)
        if text in prompts:
            refusals.add(row.id, Refused("prompt occurs twice"))
        elif size(text) > longest:
            refusals.add(row.id, Refused(f"prompt longer than {longest} tokens"))
        elif (
            longest_reply is not None and max(map(size, (row.chosen, row.rejected))) > longest_reply
        ):
            refusals.add(row.id, Refused(f"a reply longer than {longest_reply} tokens"))
        else:
            prompts[text] = row
    refusals.require_rows(len(prompts))
    kept = list(prompts.values())[:limit]
    write_rows(Path(out) / "prompts.jsonl", [Prompt(row.id, str(row.prompt)) for row in kept])
    write_rows(Path(out) / "pairs.jsonl", kept)
    write_tally(Path(out), tally("prompts", refusals, len(kept)))


def make_up_dialogues(*, out: str | Path, pairs: Count = 200, seed: Seed = 0) -> None:
    """Stage: the files of ``gather_dialogues``, made up with the real columns and defects.

    Args:
        out: Folder to write.
        pairs: Rows in all.
        seed: Decides all of them.
    """
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for k in range(pairs):
        prompt = f"\n\nHuman: {rng.choice(_QUESTIONS)} ({k})\n\nAssistant:"
        if rng.random() < 0.5:
            prompt += f" {rng.choice(_REPLIES)}\n\nHuman: Tell me more.\n\nAssistant:"
        good, bad = rng.sample(_REPLIES, 2)
        rows.append({"chosen": f"{prompt} {good}", "rejected": f"{prompt} {bad}"})
    rows[0]["rejected"] = rows[0]["chosen"]
    rows[1]["chosen"] = "\n\nHuman: Another beginning?\n\nAssistant: Yes."
    rows[2]["rejected"] = rows[2]["rejected"].rpartition(ASSISTANT)[0] + ASSISTANT
    for k, row in enumerate(rows):
        row["subset"] = HELPFUL[k % 2]
    file = Path(out) / "made_up.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file, compression="zstd")
    gather_dialogues(out=out, source=str(file))


def make_up_conversations(*, out: str | Path, rows: Count = 32, seed: Seed = 0) -> None:
    """Stage: write messages.jsonl, pairs.jsonl and prompts.jsonl, like files of your own.

    Args:
        out: Folder to write.
        rows: Of each file.
        seed: Decides all of them.
    """
    rng = random.Random(seed)
    files: dict[str, list[Any]] = {"messages": [], "pairs": [], "prompts": []}
    for k in range(rows):
        asked = [{"role": "user", "content": f"{rng.choice(_QUESTIONS)} ({k})"}]
        good, bad = ([{"role": "assistant", "content": r}] for r in rng.sample(_REPLIES, 2))
        files["messages"].append({"messages": asked + good})
        files["pairs"].append({"prompt": asked, "chosen": good, "rejected": bad})
        files["prompts"].append({"prompt": asked})
    for name, found in files.items():
        lines = "".join(json.dumps(row) + "\n" for row in found)
        (Path(out) / f"{name}.jsonl").write_text(lines, encoding="utf-8")


_QUESTIONS = (
    "How do I boil an egg?",
    "What is a good name for a dog?",
    "Why is the sky blue?",
    "Can you help me plan a trip?",
    "What should I read next?",
)
_REPLIES = (
    "Put it into boiling water for eight minutes, then cool it.",
    "I don't know.",
    "Could you tell me a little more about it?",
    "There are several ways; the simplest is to begin with a list.",
    "No.",
    "That depends on what you like. Do you have a favourite?",
)


def _records(source: str | Path, subset: str, split: str) -> list[Record]:
    if data_files(source) is None:
        return read_hub(str(source), split, folder=subset)
    records = read_records(source)
    names = {str((record.fields or {}).get("subset")) for record in records}
    if subset not in names:
        raise DataError(f"{source}: no rows of subset {subset!r}. Subsets found: {sorted(names)}.")
    return [r for r in records if r.fields is None or r.fields.get("subset") == subset]
