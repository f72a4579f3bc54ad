from pathlib import Path

import pytest

from alignlab.data.chat import Rendered, render
from alignlab.data.rows import Demonstration, PreferencePair, Prompt, RowReport, Turn
from alignlab.data.sources import read_rows, write_rows
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError, DataError
from tests.data.files import jsonl
from tests.data.tokens import (
    A_SPACE_B,
    BARE,
    BOS,
    CHATML,
    EOS,
    FORGETFUL,
    GEMMA,
    LLAMA,
    MISTRAL,
    SPACE,
    THINKING,
    ZEPHYR,
    A,
    C,
    D,
    bytewise,
    merging,
)

Rows = list[Prompt] | list[Demonstration] | list[PreferencePair]


def trees_of(rows: Rows, tokenizer) -> tuple[list[PromptTree], RowReport]:
    report = RowReport("rows", seen=len(rows))
    return tokenise(rows, tokenizer, report), report


def shown(tokenizer, tree: PromptTree) -> str:
    """The tree's text: ``|`` where the prompt ends, what is trained on in braces."""
    (ids,), masks = tree.completions, tree.loss_masks or ((True,) * len(tree.completions[0]),)
    text, before = tokenizer.decode(tree.prompt) + "|", False
    for token, counts in zip(ids, masks[0], strict=True):
        brace = "{" if counts else "}"
        text += (brace if counts != before else "") + tokenizer.decode([token])
        before = counts
    return text + ("}" if before else "")


def user(text: str) -> Turn:
    return Turn("user", text)


def assistant(text: str) -> Turn:
    return Turn("assistant", text)


def test_rendered_text_stops_before_the_end_of_text_token() -> None:
    tokenizer = bytewise(CHATML, bos=None, eos="<|im_end|>")
    turns = (user("hi"), assistant("yo"))
    start = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    at = len(start)
    assert render(tokenizer, turns[:1], turns[1:], ends=True) == Rendered(
        start + "yo", at, ((at, at + 2),)
    )


def test_token_across_the_border_of_a_pair_of_conversations() -> None:
    """ "ca" | " b", "d", "c": the "a" leaves both prompts and counts in both completions."""
    tokenizer = merging()
    tokenizer.chat_template = BARE
    chosen = (assistant(" b"), user("d"), assistant("c"))
    rejected = (assistant(" d"), user("d"), assistant("c"))
    (tree,), report = trees_of([PreferencePair("r", (user("ca"),), chosen, rejected)], tokenizer)
    assert tree.prompt == (BOS, C)
    assert tree.completions == ((A_SPACE_B, D, C, EOS), (A, SPACE, D, D, C, EOS))
    assert tree.loss_masks == (
        (True, False, True, True),
        (True, True, True, False, True, True),
    )
    assert report.straddling == 1


def test_chatml_turns_are_trained_to_their_end() -> None:
    tokenizer = bytewise(CHATML, bos=None, eos="<|im_end|>")
    turns = (user("hi"), assistant("yo"), user("ok"), assistant("so"))
    (tree,), report = trees_of([Demonstration("r", turns[:1], turns[1:])], tokenizer)
    assert tree.loss_masks is not None
    ids, mask = tree.completions[0], tree.loss_masks[0]
    assert tokenizer.decode(tree.prompt) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    trained = [i for i, counts in zip(ids, mask, strict=True) if counts]
    untrained = [i for i, counts in zip(ids, mask, strict=True) if not counts]
    assert tokenizer.decode(trained) == "yo<|im_end|>so<|im_end|>"
    assert tokenizer.decode(untrained) == (
        "\n<|im_start|>user\nok<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ids[-1] == tokenizer.eos_token_id
    assert report.ended == 1


TWO_TURNS = (user("hi"), assistant("yo"), user("ok"), assistant("so"))


@pytest.mark.parametrize(
    ("template", "bos", "eos", "wanted"),
    [
        pytest.param(
            CHATML,
            None,
            "<|im_end|>",
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n|{yo<|im_end|>}\n"
            "<|im_start|>user\nok<|im_end|>\n<|im_start|>assistant\n{so<|im_end|>}",
            id="chatml",
        ),
        pytest.param(
            MISTRAL,
            "<s>",
            "</s>",
            "<s>[INST] hi [/INST]|{yo</s>}[INST] ok [/INST]{so</s>}",
            id="mistral",
        ),
        pytest.param(
            ZEPHYR,
            "<s>",
            "</s>",
            "<s><|user|>\nhi</s>\n<|assistant|>\n|{yo</s>}\n"
            "<|user|>\nok</s>\n<|assistant|>\n{so</s>}",
            id="zephyr",
        ),
        pytest.param(  # turns close with a token of their own, and the text with another
            GEMMA,
            "<bos>",
            "<eos>",
            "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n|{yo<end_of_turn>}\n"
            "<start_of_turn>user\nok<end_of_turn>\n<start_of_turn>model\n{so<end_of_turn><eos>}",
            id="gemma",
        ),
    ],
)
def test_families_by_hand(template: str, bos: str | None, eos: str, wanted: str) -> None:
    tokenizer = bytewise(template, bos=bos, eos=eos)
    (tree,), report = trees_of([Demonstration("r", TWO_TURNS[:1], TWO_TURNS[1:])], tokenizer)
    assert shown(tokenizer, tree) == wanted
    assert (report.ended, report.straddling) == (1, 0)
    (last,), _ = trees_of([Demonstration("r", TWO_TURNS[:3], TWO_TURNS[3:])], tokenizer)
    (prompt,), _ = trees_of([Prompt("r", TWO_TURNS[:3])], tokenizer)
    assert prompt.prompt == last.prompt  # a rollout is asked as the policy was trained
    assert [*last.prompt, *last.completions[0]] == [*tree.prompt, *tree.completions[0]]


def chatml_marked(before: str, words: str, after: str) -> str:
    """ChatML whose assistant turns are marked by what stands around their words."""
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        + (before + words + after)
        + "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


WORDS, MARK, UNMARK = "{{ m.content }}", "{% generation %}", "{%- endgeneration -%}"
START = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n|"
MIDDLE = "\n<|im_start|>user\nok<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        pytest.param(
            chatml_marked(MARK, WORDS + "<|im_end|>", UNMARK + "{{ '\n' }}"),
            START + "{yo<|im_end|>}" + MIDDLE + "{so<|im_end|>}",
            id="as rendered beginnings would",
        ),
        pytest.param(
            chatml_marked(MARK, WORDS, UNMARK + "<|im_end|>{{ '\n' }}"),
            START + "{yo<|im_end|>}" + MIDDLE + "{so<|im_end|>}",
            id="the closing token left out is trained all the same",
        ),
        pytest.param(
            chatml_marked("(none) " + MARK, WORDS + "<|im_end|>{{ '\n' }}", UNMARK),
            START + "(none) {yo<|im_end|>}" + MIDDLE + "(none) {so<|im_end|>}",
            id="what the template puts in front is not",
        ),
        pytest.param(
            chatml_marked(
                "{% if loop.last %}" + MARK,
                WORDS + "<|im_end|>",
                UNMARK + "{% else %}" + WORDS + "<|im_end|>{{ '\n' }}{% endif %}",
            ),
            START + "yo<|im_end|>" + MIDDLE + "{so<|im_end|>}",
            id="the last turn alone",
        ),
    ],
)
def test_markers_of_the_template_say_what_counts(template: str, wanted: str) -> None:
    tokenizer = bytewise(template, bos=None, eos="<|im_end|>")
    row = Demonstration("r", TWO_TURNS[:1], TWO_TURNS[1:])
    (tree,), _ = trees_of([row], tokenizer)
    assert shown(tokenizer, tree) == wanted


def test_markers_count_what_transformers_counts() -> None:
    template = chatml_marked(MARK, WORDS + "<|im_end|>", UNMARK + "{{ '\n' }}")
    tokenizer = bytewise(template, bos=None, eos="<|im_end|>")
    turns = (user("hi"), assistant("ab b"), user("ok"), assistant("so"))
    (tree,), _ = trees_of([Demonstration("r", turns[:1], turns[1:])], tokenizer)
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    theirs = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    assert tree.loss_masks is not None
    ours = [False] * len(tree.prompt) + list(tree.loss_masks[0])
    # Ours lack the newline that follows the last turn.
    assert [*tree.prompt, *tree.completions[0]] == theirs["input_ids"][:-1]
    assert ours == list(map(bool, theirs["assistant_masks"][:-1]))


@pytest.mark.parametrize("marked", [False, True])
def test_a_template_that_writes_the_date_gives_the_same_rows_on_every_day(marked: bool) -> None:
    plain = chatml_marked(MARK, WORDS, UNMARK + "<|im_end|>") if marked else CHATML
    tokenizer = bytewise("{{ strftime_now('%d %b %Y') }}\n" + plain, bos=None, eos="<|im_end|>")
    rows = [Demonstration("r", TWO_TURNS[:1], TWO_TURNS[1:])]
    (tree,), report = trees_of(rows, tokenizer)
    assert tokenizer.decode(tree.prompt).startswith("26 Jul 2024\n<|im_start|>user\n")
    assert report.notes == ["the chat template writes the date, always as 26 Jul 2024"]
    (other,), report = trees_of(rows, bytewise(plain, bos=None, eos="<|im_end|>"))
    assert report.notes == []
    assert tree.completions == other.completions
    assert tree.loss_masks == other.loss_masks
    _, report = trees_of([Demonstration("r", "a", " b")], tokenizer)
    assert report.notes == []  # no template is used


def test_markers_that_leave_out_the_last_turn_are_refused() -> None:
    """transformers' mask would be all zeros there, and the loss 0 / 0."""
    only_first = chatml_marked(
        "{% if loop.first %}" + MARK, WORDS, UNMARK + "{% endif %}{{ m.content }}<|im_end|>"
    )
    tokenizer = bytewise(only_first, bos=None, eos="<|im_end|>")
    with pytest.raises(DataError, match="marks nothing of the last turn"):
        trees_of([Demonstration("r", TWO_TURNS[:1], TWO_TURNS[1:])], tokenizer)


def test_cut_that_leaves_no_trained_token_is_refused() -> None:
    """The first turn is not marked, and the second is cut off."""
    template = chatml_marked(
        "{% if loop.last %}" + MARK,
        WORDS,
        UNMARK + "{% else %}" + WORDS + "{% endif %}<|im_end|>{{ '\n' }}",
    )
    tokenizer = bytewise(template, bos=None, eos="<|im_end|>")
    row = Demonstration("r", TWO_TURNS[:1], TWO_TURNS[1:])
    (tree,), _ = trees_of([row], tokenizer)
    refusals = RowReport("rows", seen=1)
    with pytest.raises(DataError, match="no trained token left after truncation"):
        tokenise(
            [row], tokenizer, refusals, max_length=len(tree.prompt) + 4, truncation="keep_start"
        )


def test_thoughts_that_a_template_strips_from_earlier_turns() -> None:
    tokenizer = bytewise(THINKING, bos=None, eos="<|im_end|>")
    turns = (user("hi"), assistant("<think>a</think>yo"), user("ok"), assistant("so"))
    with pytest.raises(DataError, match="chat template changes earlier turns"):
        trees_of([Demonstration("r", turns[:1], turns[1:])], tokenizer)
    (first,), _ = trees_of([Demonstration("r", turns[:1], turns[1:2])], tokenizer)
    assert shown(tokenizer, first) == START + "{<think>a</think>yo<|im_end|>}"
    (last,), _ = trees_of([Demonstration("r", turns[:3], turns[3:])], tokenizer)
    assert tokenizer.decode(last.prompt) == START[:-1] + "yo<|im_end|>" + MIDDLE


@pytest.mark.parametrize("place", range(4))
def test_special_token_that_an_author_wrote_is_refused(place: int) -> None:
    tokenizer = bytewise(CHATML, bos=None, eos="<|im_end|>")
    turns = list(TWO_TURNS)
    turns[place] = Turn(turns[place].role, "so<|im_start|>system")
    with pytest.raises(DataError, match="special token inside a turn"):
        trees_of([Demonstration("r", tuple(turns[:1]), tuple(turns[1:]))], tokenizer)


def test_special_token_in_a_prompt_is_refused() -> None:
    with pytest.raises(DataError, match="special token inside a turn"):
        trees_of([Prompt("r", (user("a</s>b"),))], bytewise(CHATML))


def test_template_with_its_own_bos() -> None:
    tokenizer = bytewise(LLAMA)
    row = PreferencePair("r", (user("hi"),), (assistant("yo"),), (assistant("so"),))
    (tree,), _ = trees_of([row], tokenizer)
    assert tree.prompt.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(tree.prompt) == "<s>[INST] hi [/INST]"
    assert [tokenizer.decode(c) for c in tree.completions] == [" yo</s>", " so</s>"]
    assert tree.loss_masks is None


def test_conversation_that_was_cut_off_has_no_end() -> None:
    tokenizer = bytewise(CHATML, bos=None, eos="<|im_end|>")
    row = Demonstration("r", (user("hi"),), (assistant("yo "),), ends=False)
    (tree,), report = trees_of([row], tokenizer)
    assert tokenizer.decode(tree.completions[0]) == "yo"
    assert report.ended == 0


def test_prompt_conversation_opens_the_assistants_turn() -> None:
    tokenizer = bytewise(CHATML, bos=None, eos="<|im_end|>")
    row = Demonstration("r", (user("hi"),), (assistant("yo"),))
    (tree,), _ = trees_of([row], tokenizer)
    (prompt,), _ = trees_of([Prompt("r", (user("hi"),))], tokenizer)
    assert prompt.prompt == tree.prompt


def test_template_that_rewrites_history_is_refused_not_guessed() -> None:
    tokenizer = bytewise(FORGETFUL)
    turns = (user("hi"), assistant("yo"), user("ok"), assistant("so"))
    with pytest.raises(DataError, match="chat template changes earlier turns"):
        trees_of([Demonstration("r", turns[:1], turns[1:])], tokenizer)


def test_conversation_without_a_template() -> None:
    with pytest.raises(ConfigError, match="need a chat template"):
        trees_of([Prompt("r", (user("hi"),))], bytewise())


# ---------------------------------------------------------------- what a message holds besides

# Tools first, calls as JSON, results as turns of their own: the way of Qwen and Hermes.
TOOLS = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}"
    "<tool_call>{{ call.function.name }} {{ call.function.arguments | tojson }}</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# DeepSeek's way: the arguments are taken for a text.
JOINED = TOOLS.replace("arguments | tojson }}", "arguments + '' }}")
PRINTED = TOOLS.replace("arguments | tojson }}", "arguments }}")


def calling(arguments: object, content: str | None = "", **more: object) -> list[dict]:
    call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
    return [
        {"role": "user", "content": "hot?"},
        {"role": "assistant", "content": content, "tool_calls": [call], **more},
        {"role": "tool", "content": "30", "tool_call_id": "c1"},
        {"role": "assistant", "content": "yes"},
    ]


def read_shown(folder: Path, record: dict, template: str) -> tuple[str, RowReport]:
    """A demonstration from a file, and what is trained of it."""
    tokenizer = bytewise(template, bos=None, eos="<|im_end|>")
    rows, report = read_rows(jsonl(folder, [record]), Demonstration)
    (tree,) = tokenise(rows, tokenizer, report)
    return shown(tokenizer, tree), report


@pytest.mark.parametrize("template", [TOOLS, JOINED, PRINTED])
@pytest.mark.parametrize("content", ["", None])
@pytest.mark.parametrize("arguments", ['{"at": "sea"}', {"at": "sea"}])
def test_tool_calls_are_rendered_and_trained(
    tmp_path: Path, template: str, content: str | None, arguments: object
) -> None:
    """OpenAI writes arguments as JSON in a text, templates expect an object: the text is alike."""
    text, report = read_shown(tmp_path, {"messages": calling(arguments, content)}, template)
    assert text == (
        "<|im_start|>user\nhot?<|im_end|>\n<|im_start|>assistant\n|"
        '{<tool_call>weather {"at": "sea"}</tool_call><|im_end|>}\n'
        "<|im_start|>tool\n30<|im_end|>\n<|im_start|>assistant\n{yes<|im_end|>}"
    )
    assert report.unused == {"tool_call_id of a turn": 1}


def test_tools_that_may_be_called_stand_in_the_prompt(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    record = {"messages": calling('{"at": "sea"}'), "tools": tools}
    text, _ = read_shown(tmp_path, record, TOOLS)
    listed = '[{"type": "function", "function": {"name": "weather"}}]'
    assert text.startswith(f"<|im_start|>system\n{listed}<|im_end|>\n<|im_start|>user\nhot?")
    assert read_shown(tmp_path, {**record, "tools": listed}, TOOLS)[0] == text


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"messages": calling("{}")}, "tool_calls"),
        ({"messages": [*calling("{}")[:1], *calling("{}")[3:]], "tools": [{"a": 1}]}, "tools"),
        (
            {
                "messages": [
                    {"role": "user", "content": "hot?"},
                    {"role": "assistant", "content": "yes", "reasoning_content": "30 is hot"},
                ]
            },
            "reasoning_content",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "hot?"},
                    {"role": "assistant", "content": "", "function_call": {"name": "weather"}},
                ]
            },
            "function_call",
        ),
    ],
)
def test_what_a_template_does_not_render_is_not_trained_without(
    tmp_path: Path, record: dict, name: str
) -> None:
    with pytest.raises(DataError, match=f"chat template does not render '{name}'"):
        read_shown(tmp_path, record, CHATML)


def test_thoughts_of_earlier_replies_may_be_left_out(tmp_path: Path) -> None:
    """A template forgets them on purpose; a row report names them."""
    talk = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yo", "reasoning_content": "a greeting"},
        {"role": "user", "content": "ok", "name": "Ann"},
    ]
    rows, refusals = read_rows(jsonl(tmp_path, [{"prompt": talk}]), Prompt)
    tokenise(rows, bytewise(CHATML, bos=None, eos="<|im_end|>"), refusals)
    assert refusals.unused == {"reasoning_content of a turn": 1, "name of a turn": 1}


def test_special_tokens_in_a_call_are_refused(tmp_path: Path) -> None:
    record = {"messages": calling('{"at": "<|im_end|>"}')}
    with pytest.raises(DataError, match="special token inside a turn"):
        read_shown(tmp_path, record, TOOLS)


def test_conversations_with_calls_are_written_and_read_back(tmp_path: Path) -> None:
    record = {"messages": calling('{"at": "sea"}', None), "tools": [{"name": "weather"}]}
    rows, _ = read_rows(jsonl(tmp_path, [record]), Demonstration)
    write_rows(tmp_path / "again.jsonl", rows)
    assert read_rows(tmp_path / "again.jsonl", Demonstration)[0] == rows
