"""The stage that divides pairs into training, tuning and test pairs, and prompts to sample from."""

from collections.abc import Sequence
from pathlib import Path

from alignlab.bounds import Count, Seed, Share
from alignlab.data.rows import PreferencePair, Prompt, Row, RowReport, prompt_key
from alignlab.data.rows.split import split_by_prompt
from alignlab.data.sources import read_rows, write_rows
from alignlab.data.tokenise import tokenise
from alignlab.errors import DataError
from alignlab.models.loading import load_tokenizer


def hold_out(
    *,
    out: str | Path,
    source: str,
    tokenizer: str,
    held_out: Share = 0.1,
    prompts: Count = 64,
    longest: Count = 256,
    seed: Seed = 0,
) -> None:
    """Stage: write ``train.jsonl``, ``tune.jsonl``, ``test.jsonl`` and ``prompts.jsonl``.

    No prompt is in two of the first three files. The prompts are those of held-out pairs, each
    once. ``tune`` has half of the held-out prompts, for choosing settings; ``test`` has the others.

    Args:
        out: Folder to write.
        source: A file of pairs, or a hub id.
        tokenizer: Hub id or folder of the policy's.
        held_out: Share of prompts that is held out.
        prompts: How many prompts to measure on, at most.
        longest: Most tokens of such a prompt; longer ones are left out.
        seed: Decides which prompts are held out.

    Raises:
        DataError: Unusable pairs, or fewer than four held-out prompts.
    """
    rows, report = read_rows(source, PreferencePair)
    report.tell()
    train, held = split_by_prompt(rows, held_out, seed)
    tune, test = split_by_prompt(held, 0.5, seed + 1)
    asked = list({prompt_key(row): Prompt(row.id, row.prompt) for row in held}.values())
    own = RowReport(f"held-out prompts of {source}", seen=len(asked))
    trees = tokenise(asked, load_tokenizer(tokenizer), own, max_length=longest)
    kept = [asked[tree.row] for tree in trees][:prompts]
    if len(kept) < 4 or not (train and tune and test):
        raise DataError(
            f"{source}: {len(train)} pairs to train on, {len(tune)} and {len(test)} held-out pairs "
            f"and {len(kept)} prompts of at most {longest} tokens, of which 4 are needed. Give "
            "more pairs, or raise held_out or longest."
        )
    files: dict[str, Sequence[Row]] = {"train": train, "tune": tune, "test": test, "prompts": kept}
    for name, found in files.items():
        write_rows(Path(out) / f"{name}.jsonl", found)
    print(", ".join(f"{name} {len(found):,}" for name, found in files.items()))
