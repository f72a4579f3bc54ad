import pytest

from alignlab.data.chat import Rendered, render
from alignlab.data.rows import Demonstration, PreferencePair, Prompt, Refusals, Turn
from alignlab.data.tokenise import TokenReport, tokenise
from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError, DataError
from tests.data.tokens import (
    A_SPACE_B,
    BARE,
    BOS,
    CHATML,
    EOS,
    FORGETFUL,
    LLAMA,
    SPACE,
    A,
    C,
    D,
    bytewise,
    merging,
)

Rows = list[Prompt] | list[Demonstration] | list[PreferencePair]


def trees_of(rows: Rows, tokenizer) -> tuple[list[PromptTree], TokenReport]:
    return tokenise(rows, tokenizer, Refusals("rows", seen=len(rows)))


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
    assert report.merged == 1


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
    assert tokenizer.decode(untrained) == "\n<|im_start|>user\nok<|im_end|>\n<|im_start|>assistant\n"
    assert ids[-1] == tokenizer.eos_token_id
    assert report.ended == 1


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
