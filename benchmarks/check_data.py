"""Time and memory of ``alignlab check-data`` on 100,000 pairs, which it must read without torch.

    python benchmarks/check_data.py [--rows 100000] [--tokenizer FOLDER]

Writes a file of random pairs (a prompt of 100 words, completions of 100 + 100) and a test file of
1,000 rows, and calls the command twice, each time in a process of its own: for the file alone, and
with the test file, a tokenizer, a page and a quarantine file. Prints seconds and the peak of
resident memory; exits with 1 if a call takes more than 120 s of the processor (it has one thread),
holds more than 1.5 GiB, or imports torch.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from large_data import of_words, rows

LENGTHS = (100, 100, 100)
SECONDS, BYTES = 120.0, 1.5 * 2**30
CALL = """
import sys
from alignlab.cli import main
try:
    main(sys.argv[1:])
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


def main() -> int:
    """Write the files, measure, print; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--tokenizer", help="a Hugging Face folder; of words if left out")
    args = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train, test = folder / "pairs.jsonl", folder / "test.jsonl"
        write(train, args.rows, seed=0)
        write(test, 1000, seed=1)
        tokenizer = args.tokenizer or of_words(folder / "words")
        print(f"{args.rows:,} pairs of {LENGTHS} words, {train.stat().st_size / 1e6:,.0f} MB")
        more = ["--test", test, "--tokenizer", tokenizer]
        more += ["--html", folder / "page.html", "--quarantine", folder / "quarantine.jsonl"]
        for what, options in (("alone", []), ("test, tokenizer, page, quarantine", more)):
            good &= measured(what, ["check-data", str(train), *map(str, options)])
    return 0 if good else 1


def measured(what: str, words: list[str]) -> bool:
    """Call the command and print what it took; whether that is within the bounds."""
    began, before = time.monotonic(), processor_seconds()
    done = subprocess.run(
        [sys.executable, "-c", CALL, *words], check=True, capture_output=True, text=True
    )
    wall, seconds = time.monotonic() - began, processor_seconds() - before
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # of the largest child
    torch = done.stderr.split("\n")[-2] == "True"
    print(
        f"{what}: {seconds:.1f} s of the processor ({wall:.1f} s), "
        f"peak {peak / 2**30:.2f} GiB, torch imported: {torch}"
    )
    return seconds <= SECONDS and peak <= BYTES and not torch


def processor_seconds() -> float:
    """What finished children took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write(path: Path, count: int, seed: int) -> None:
    """Write random pairs as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(count, LENGTHS, seed))


if __name__ == "__main__":
    sys.exit(main())
