"""Turns, and the checks of texts and numbers."""

import math

import pytest

from alignlab.data.rows.values import Refused, Turn, check_completion, check_number, check_text


def test_a_turn_gains_and_loses_fields() -> None:
    turn = Turn("assistant", "Hi").with_extra("name", "Ä").with_extra("tools", [1])
    assert turn.fields == {"name": "Ä", "tools": [1]}
    assert turn.without("tools").extra == '{"name": "Ä"}'
    assert turn.without("tools").without("name") == Turn("assistant", "Hi")


@pytest.mark.parametrize(
    ("turn", "silent"),
    [
        (Turn("assistant", " \n"), True),
        (Turn("assistant", "a"), False),
        (Turn("assistant", "", '{"tool_calls": []}'), False),
        (Turn("assistant", "", '{"name": "a"}'), True),
    ],
)
def test_a_turn_without_text_or_call_says_nothing(turn: Turn, silent: bool) -> None:
    assert turn.says_nothing is silent


@pytest.mark.parametrize(
    "completion",
    [
        "  ",
        (),
        (Turn("assistant", ""), Turn("user", "more"), Turn("assistant", "a")),
        (Turn("assistant", "a"), Turn("user", "")),
    ],
)
def test_an_empty_completion_is_refused(completion: str | tuple[Turn, ...]) -> None:
    with pytest.raises(Refused, match=r"^empty completion in 'chosen'$"):
        check_completion("chosen", completion)


def test_what_can_be_used_passes() -> None:
    check_completion("chosen", "a")
    check_completion("chosen", (Turn("assistant", "a"), Turn("user", "b")))
    check_number("rating", None)
    check_number("rating", -1e300)


@pytest.mark.parametrize("text", ["\ud800", (Turn("user", "a", "\ud800"),)])
def test_half_of_a_surrogate_pair_is_no_text(text: str | tuple[Turn, ...]) -> None:
    with pytest.raises(Refused, match="not valid Unicode"):
        check_text("prompt", text)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(Refused, match="'rating' is not a finite number"):
        check_number("rating", value)
