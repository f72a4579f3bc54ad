"""Prompts of the evaluation."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from alignlab.errors import DataError
from alignlab.evaluation.prompts import load_prompts


def test_prompts_are_numbered_and_what_is_left_out_is_reported(
    words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": " w5", "id": "a"}, {"id": "b"}, {"prompt": " w6 w7", "id": "c"}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    tokenizer = AutoTokenizer.from_pretrained(words)
    trees = load_prompts(path, tokenizer)
    assert [(tree.index, tree.prompt[1:], tree.completions) for tree in trees] == [
        (0, (5,), ()),
        (1, (6, 7), ()),
    ]
    assert "2 of 3 rows kept" in capsys.readouterr().err
    assert [tree.id for tree in load_prompts(path, tokenizer, limit=1)] == [trees[0].id]
    first, last = load_prompts(path, tokenizer, max_length=2)
    assert (first.prompt, last.prompt) == (trees[0].prompt, (trees[1].prompt[0], 7))  # its end
    path.write_text('{"text": "x"}\n')
    with pytest.raises(DataError, match=r"prompts\.jsonl"):
        load_prompts(path, tokenizer)
