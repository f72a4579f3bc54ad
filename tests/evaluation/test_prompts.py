"""Prompts of the evaluation."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from alignlab.errors import DataError
from alignlab.evaluation.prompts import load_pairs, load_prompts


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


def test_held_out_pairs_belong_to_the_prompt_with_the_same_tokens(
    words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(words)
    prompts, path = tmp_path / "prompts.jsonl", tmp_path / "pairs.jsonl"
    asked = [" w5", " w3 w6 w7", " w8"]
    prompts.write_text("".join(f"{json.dumps({'prompt': text})}\n" for text in asked))
    rows = [(" w8", " w10", " w11"), (" w9", " w10", " w11"), (" w3 w6 w7", " w4", " w11 w11")]
    rows += [(" w5", " w11", " w3"), (" w8", " w3", " w3")]  # one that is refused
    rows.append((" w8", " w4 w5 w6 w7", " w10"))
    named = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in rows]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in named))
    trees = load_prompts(prompts, tokenizer, max_length=3)
    found = load_pairs(path, trees, tokenizer, max_length=3, max_new_tokens=2)
    eos, start = tokenizer.eos_token_id, trees[0].prompt[0]
    assert [[(tree.prompt, tree.completions) for tree in own] for own in found] == [
        [((start, 5), ((11, eos), (3, eos)))],
        [((start, 7), ((4, eos), (11, 11, eos)))],  # of five tokens in all, the last ones
        [((start, 8), ((10, eos), (11, eos))), ((start,), ((4, 5, 6, 7), (10, eos)))],
    ]
    printed = capsys.readouterr().err
    assert "pairs of other prompts, which are not read: 1" in printed
    path.write_text(f"{json.dumps(named[0])}\n")
    with pytest.raises(DataError, match=r"2 of 3 evaluation prompts have no pair, e\.g\. 'prompts"):
        load_pairs(path, trees, tokenizer, max_length=3, max_new_tokens=2)
