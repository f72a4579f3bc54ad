"""Memory and time of a file of pairs many times larger than what reading it may take.

    python benchmarks/large_data.py [--rows 100000] [--format parquet] [--tokenizer FOLDER]

Writes a file of random pairs (230 + 2 x 30 words), reads it in a process of its own, twice, with an
empty cache and then with a filled one, and prints for each: seconds of the processor, bytes of the
cache a token, and by how much the peak of resident memory exceeded what was there before. What is
mapped of the cache counts as resident, though the system may take it back; it is told apart.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

WORDS = 5000


def main() -> None:
    """Write the file, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--format", choices=("jsonl", "parquet", "csv"), default="parquet")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tokenizer", help="a Hugging Face folder; of words if left out")
    args = parser.parse_args()
    if args.read is not None:
        read(args.read, args.tokenizer)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / f"pairs.{args.format}"
        write(path, args.rows)
        tokenizer = args.tokenizer or of_words(folder / "words")
        print(f"{path.name}: {args.rows:,} pairs, {path.stat().st_size / 1e6:,.0f} MB")
        environment = {**os.environ, "ALIGNLAB_CACHE": str(folder / "cache")}
        for state in ("empty", "filled"):
            command = [sys.executable, __file__, "--read", str(path), "--tokenizer", tokenizer]
            done = subprocess.run(
                command, env=environment, check=True, stdout=subprocess.PIPE, text=True
            )
            found = json.loads(done.stdout)
            size = sum(file.stat().st_size for file in (folder / "cache").glob("*.arrow"))
            print(
                f"{state} cache: {found['seconds']:.1f} s, peak + {found['grown']:.0f} MB "
                f"({found['own']:.0f} MB of them its own), {found['tokens']:,} tokens, "
                f"{size / found['tokens']:.2f} bytes a token"
            )


def read(path: Path, tokenizer: str) -> None:
    """Read the file as a training does, and go over it once; prints JSON."""
    from transformers import AutoTokenizer

    from alignlab.data.modules import PreferenceData

    found = AutoTokenizer.from_pretrained(tokenizer)
    found("warm")
    before, began = status(), time.process_time()
    data = PreferenceData(str(path), batch_size=64, max_length=1024)
    data.connect(found)
    data.setup()
    seconds = time.process_time() - began
    own = status()["RssAnon"]
    tokens = sum(len(t.prompt) + sum(map(len, t.completions)) for t in data.train_trees)
    for _, _batch in zip(range(50), data.train_dataloader(), strict=False):
        own = max(own, status()["RssAnon"])
    grown = status()["VmHWM"] - before["VmRSS"]
    print(
        json.dumps(
            {
                "seconds": seconds,
                "tokens": tokens,
                "grown": grown / 1e3,
                "own": (own - before["RssAnon"]) / 1e3,
            }
        )
    )


def status() -> dict[str, int]:
    """What the kernel says of this process's memory, in kB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").split("\n")
    pairs = (line.split(":") for line in lines if line.startswith(("Vm", "Rss")))
    return {name: int(value.split()[0]) for name, value in pairs}


def rows(
    count: int, lengths: tuple[int, int, int] = (230, 30, 30), seed: int = 0
) -> Iterator[dict[str, str]]:
    """Random pairs whose prompt, chosen and rejected completions have ``lengths`` words."""
    draw = random.Random(seed)
    words = [f" w{k}" for k in range(WORDS)]
    for _ in range(count):
        parts = (draw.choices(words, k=k) for k in lengths)
        yield dict(zip(("prompt", "chosen", "rejected"), map("".join, parts), strict=True))


def write(path: Path, count: int) -> None:
    """Write pairs to a file of the type that its name says, in one group of rows."""
    if path.suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(count))
    elif path.suffix == ".csv":
        import csv

        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, ("prompt", "chosen", "rejected"))
            table.writeheader()
            table.writerows(rows(count))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist(list(rows(count)))
        pq.write_table(table, path, row_group_size=count, use_dictionary=False)


def of_words(folder: Path) -> str:
    """A tokenizer folder: one token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<eos>"]
    vocabulary = {w: k for k, w in enumerate([*special, *(f"w{k}" for k in range(WORDS))])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    main()
