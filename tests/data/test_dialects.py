"""Alpaca's and ShareGPT's columns under the package's names."""

from alignlab.data.dialects import ALPACA, in_their_words, translated
from alignlab.data.rows import Record, Refused


def test_alpaca_becomes_prompt_and_completion() -> None:
    """The prompt is the one that Alpaca was trained on; an empty input leaves its part out."""
    fields = {"instruction": "Add.", "input": "", "output": "3"}
    columns = ["instruction", "input", "output"]
    (record,), written = translated([Record("a:1", fields)], columns)
    assert record.fields is not None
    assert record.fields["prompt"] == ALPACA.format(task="Add.")
    assert record.fields["completion"] == "3"
    assert written == {"prompt": ("instruction", "input"), "completion": ("output",)}
    (record,), _ = translated([Record("a:1", fields | {"input": "1 2"})], columns)
    assert record.fields is not None
    assert "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:" in record.fields["prompt"]


def test_sharegpt_becomes_messages_or_the_prompt_of_a_pair() -> None:
    turns = [{"from": "human", "value": "Hi"}]
    records = [Record("a:1", {"conversations": turns}), Record("a:2", None, "no JSON")]
    (first, broken), _ = translated(records, ["conversations"])
    assert first.fields is not None
    assert first.fields["messages"] == turns
    assert broken.fields is None
    (pair,), _ = translated(records[:1], ["conversations", "chosen", "rejected"])
    assert pair.fields is not None
    assert pair.fields["prompt"] == turns
    assert "messages" not in pair.fields


def test_columns_of_ours_win() -> None:
    records = [Record("a:1", {"prompt": "x", "instruction": "y", "output": "z"})]
    assert translated(records, ["prompt", "instruction", "output"]) == (records, {})


def test_a_refusal_names_the_column_that_the_file_has() -> None:
    written = {"prompt": ("instruction", "input")}
    problem = in_their_words(Refused("missing column 'prompt'", " in row 3"), written)
    assert (problem.reason, problem.detail) == ("missing column 'instruction'", " in row 3")
