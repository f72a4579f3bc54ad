"""Values of a record, whatever type a file format gave them."""

from typing import Any

import pytest

from alignlab.data.rows.reader import Reader
from alignlab.data.rows.values import Refused, Turn

TURNS = [{"role": "assistant", "content": "Hi"}]


def reader(chat: bool = False, whole: bool = False, **fields: Any) -> Reader:
    return Reader(tuple(fields), frozenset(), chat, whole, set(), "a:1", fields)


@pytest.mark.parametrize("value", [4, 4.0, "4", " 4e0 "])
def test_a_number_is_read_from_its_text(value: Any) -> None:
    assert reader(rating=value).number("rating") == 4.0


@pytest.mark.parametrize("value", ["four", [4], "4,0"])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(Refused, match="'rating'"):
        reader(rating=value).number("rating")


@pytest.mark.parametrize(
    ("value", "truth"),
    [(True, True), ("True", True), (1, True), ("0", False), (0.0, False), (None, True), ("", True)],
)
def test_truth_values(value: Any, truth: bool) -> None:
    assert reader(ends=value).flag("ends") is truth


def test_lists_are_read_from_their_text() -> None:
    assert reader(ranks="[0, 1]").numbers("ranks") == (0.0, 1.0)
    assert reader(ends='["true", 0]').flags("ends") == (True, False)
    assert reader().flags("ends") is None
    assert reader(completions="['a', 'b']").texts("completions") == ("a", "b")
    for wrong in ("[NaN]", "[null]", "3", '["1"]'):
        with pytest.raises(Refused):
            reader(ranks=wrong).numbers("ranks")


def test_completions_that_repeat_their_prompt_lose_it() -> None:
    read = reader(whole=True, prompt="ab", chosen="abc", rejected="abe")
    assert read.prompt_and("chosen", "rejected") == ["ab", "c", "e"]
    assert read.used == {"prompt", "chosen", "rejected"}
    with pytest.raises(Refused, match="prompt of the pair is not shared"):
        reader(whole=True, prompt="ab", chosen="abc", rejected="b").prompt_and("chosen", "rejected")


def test_a_reply_starts_with_the_assistant() -> None:
    read = reader(chat=True, prompt=[{"role": "user", "content": "Hi"}], chosen=TURNS)
    assert read.prompt_and("chosen")[1] == (Turn("assistant", "Hi"),)
    with pytest.raises(Refused, match="does not start with an assistant turn in 'prompt'"):
        read.reply("prompt", read.text("prompt"))
