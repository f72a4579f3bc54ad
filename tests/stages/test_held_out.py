"""Pairs are divided by prompt: nothing that is measured on was trained on."""

import json
from pathlib import Path

import pytest

from alignlab.errors import DataError
from alignlab.stages.held_out import hold_out
from alignlab.stages.policies import make_up_policy
from tests.start.test_init import TINY


def prompts_of(path: Path) -> list[str]:
    return [json.loads(line)["prompt"] for line in path.read_text().splitlines()]


def test_no_prompt_is_on_two_sides(tmp_path: Path) -> None:
    make_up_policy(out=tmp_path / "m", config=TINY)
    rows = [
        {"prompt": f"p{k // 2}" + "x" * (k % 40), "chosen": f" a{k}", "rejected": f" b{k}"}
        for k in range(200)
    ]
    rows += [{**row, "chosen": " another"} for row in rows[:50]]  # prompts with two pairs
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    hold_out(
        out=tmp_path,
        source=str(source),
        tokenizer=str(tmp_path / "m"),
        held_out=0.4,
        prompts=20,
        longest=24,
    )
    train, tune, test, asked = (
        prompts_of(tmp_path / f"{name}.jsonl") for name in ("train", "tune", "test", "prompts")
    )
    assert len(train) + len(tune) + len(test) == 250
    assert not set(train) & {*tune, *test}
    assert not set(tune) & set(test)
    assert set(asked) <= {*tune, *test}
    assert len(asked) == len(set(asked)) == 20
    assert max(map(len, asked)) <= 24  # a byte is a token
    with pytest.raises(DataError, match="3 prompts of at most 256 tokens, of which 4 are needed"):
        hold_out(out=tmp_path, source=str(source), tokenizer=str(tmp_path / "m"), prompts=3)
