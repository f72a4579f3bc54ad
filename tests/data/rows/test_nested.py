"""Lists, conversations and tools, given as such or as text."""

import re
from pathlib import Path
from typing import Any

import pytest

from alignlab.data.rows.nested import ROLES, ChatVote, as_turns, is_chat, parsed, tools_of
from alignlab.data.rows.values import Refused, Turn

HI = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('[{"a": 1}]', [{"a": 1}]),
        ("[{'a': None}]", [{"a": None}]),
        ("[1] is a footnote", "[1] is a footnote"),
        ("plain", "plain"),
        ("3", "3"),
        (3, 3),
    ],
)
def test_the_text_of_a_list_is_read_as_json_or_python_and_nothing_else_is(
    text: Any, value: Any
) -> None:
    assert parsed(text) == value


def test_openais_and_sharegpts_turns_are_the_same() -> None:
    ours = as_turns("messages", [HI, {"role": "assistant", "content": "Yes", "name": None}])
    theirs = as_turns(
        "messages", "[{'from': 'human', 'value': 'Hi'}, {'from': 'gpt', 'value': 'Yes'}]"
    )
    assert ours == theirs == (Turn("user", "Hi"), Turn("assistant", "Yes"))
    assert as_turns("messages", HI) == (Turn("user", "Hi"),)


def test_sharegpts_call_becomes_a_tool_call() -> None:
    call = {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'}
    (turn,) = as_turns("messages", [call])
    function = {"name": "add", "arguments": {"a": 1}}
    assert turn.fields == {"tool_calls": [{"type": "function", "function": function}]}
    assert (turn.role, turn.content) == ("assistant", "")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([{"from": "narrator", "value": "x"}], "unknown speaker in 'm'"),
        ([{"role": "user"}], "wrong type in 'm': a turn needs .* both strings, got role"),
        ([{"role": "human", "content": "x"}], "unknown role in 'm': 'human'; write 'user'"),
        ([{"role": "GPT", "content": "x"}], "unknown role in 'm': 'GPT'; write 'assistant'"),
        ([{"role": "Assistant", "content": "x"}], "'Assistant'; write 'assistant'"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image"}]}],
            "content in parts in 'm': image, text; only text is read",
        ),
        ("plain", "wrong type in 'm': wants a list of role and content, got str 'plain'"),
        ([{"from": "gpt", "value": "x", "content": "y"}], "'value' and 'content' in 'm'"),
    ],
)
def test_other_turns_are_refused(value: Any, said: str) -> None:
    with pytest.raises(Refused) as refused:
        as_turns("m", value)
    assert re.search(said, str(refused.value))


def test_roles_of_templates_of_their_own_are_left_alone() -> None:
    """GLM 4 calls a tool's turn an observation; others have contexts and critics."""
    for role in ("observation", "critic", "developer", "ipython"):
        assert as_turns("m", [{"role": role, "content": "x"}]) == (Turn(role, "x"),)


@pytest.mark.parametrize(
    ("values", "chats"),
    [
        ([[HI], "[1] says", str([HI])], True),
        (["x", "y", "[z]"], False),
        ([None, [], []], False),
        ([[HI], "x", None], False),
    ],
)
def test_a_column_is_of_conversations_if_most_of_its_rows_are(
    values: list[Any], chats: bool
) -> None:
    vote = ChatVote()
    for value in values:
        vote.count(value)
    assert vote.won is chats
    assert is_chat(values[0]) is isinstance(values[0], list)


def test_tools_are_a_list_without_nulls() -> None:
    assert tools_of('[{"name": "add", "strict": null}]') == [{"name": "add"}]
    assert tools_of("") is None
    assert tools_of(None) is None
    with pytest.raises(Refused, match="wants a list of tools"):
        tools_of('{"name": "add"}')


def test_the_page_names_all_speakers() -> None:
    """The table of ShareGPT's speakers in the docs, read as it says."""
    page = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    table = page.partition("| role | `from` |")[2].partition("\n\n")[0]
    named = set()
    for line in table.splitlines()[2:]:
        role, speakers = line.strip("| ").split(" | ")
        for speaker in re.findall(r"`(\w+)`", speakers.partition(":")[0]):
            turn = {"from": speaker, "value": '{"name": "heat", "arguments": {}}'}
            (found,) = as_turns("conversations", [turn])
            assert found.role == role.partition(",")[0]
            assert ("tool_calls" in found.extra) == ("call" in role)
            named.add(speaker)
    assert named == {*ROLES, "function_call", "tool_call"}
