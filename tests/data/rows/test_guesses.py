"""Which columns are proposed for those that a file lacks."""

import pytest

from alignlab.data.rows import Demonstration, PreferencePair, RatedCompletion
from alignlab.data.rows.guesses import mapping, unknown
from alignlab.data.sources import read_rows
from alignlab.errors import DataError
from tests.data.files import jsonl


def test_another_spelling_comes_before_another_word() -> None:
    assert mapping(["prompt"], ["question", " Prompt"]) == "columns: {prompt:  Prompt}"
    assert (
        mapping(["prompt", "label"], ["Question"]) == "columns: {prompt: Question, label: COLUMN}"
    )
    assert unknown(("prompt", "completion"), ["input", "output"]) == 0
    assert unknown(("prompt", "completion"), ["input"]) == 1


@pytest.mark.parametrize(
    ("names", "kind", "said"),
    [
        (
            "question answer",
            Demonstration,
            "missing column prompt, completion; .*columns: {prompt: question, completion: answer}",
        ),
        ("conversation id", Demonstration, "missing column messages.*{messages: conversation}"),
        ("Prompt Chosen Rejected", PreferencePair, "{prompt: Prompt, chosen: Chosen, rejected: Re"),
        (
            "prompt response score",
            RatedCompletion,
            "missing column completion, rating; .*{completion: response, rating: score}",
        ),
        (
            "history ref_a ref_b",  # nothing to propose: the first way to write a row, no guess
            Demonstration,
            "missing column prompt, completion; .*{prompt: COLUMN, completion: COLUMN}",
        ),
    ],
)
def test_a_missing_column_comes_with_a_mapping(tmp_path, names: str, kind, said: str) -> None:
    path = jsonl(tmp_path, [dict.fromkeys(names.split(), "a")])
    with pytest.raises(DataError, match=said):
        read_rows(path, kind)
