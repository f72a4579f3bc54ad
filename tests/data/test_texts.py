"""What rewards read: plain words, and for scorers with a template the text that training reads."""

import copy
import pickle

import pytest

from alignlab.data.rows import Chat, Demonstration, Prompt, RowReport, Text, Turn
from alignlab.data.texts import (
    CompletionText,
    PromptText,
    completion_text,
    prompt_text,
    rendered,
)
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import PromptTree
from alignlab.errors import DataError
from alignlab.models.chat_format import LLAMA3, set_chat_format
from alignlab.rollouts.samples import Samples
from tests.data.tokens import CHATML, GEMMA, LLAMA, MISTRAL, ZEPHYR, bytewise, merging

# As Qwen 3's: the template itself opens a reply with an empty thought.
EMPTY_THOUGHT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As some of Llama 2's: a space before and after what was said.
SPACED = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
TALK = (Turn("system", "be kind"), Turn("user", "hi there"))
SHORT = (Turn("user", "hi there"),)


def tokenizer_of(template: str, eos: str):
    tokenizer = bytewise(None if template == LLAMA3 else template, bos=None, eos=eos)
    if template == LLAMA3:
        set_chat_format(tokenizer, "llama3")
    return tokenizer


def tree_of(tokenizer, prompt: Text, completion: Text, ends: bool = True) -> PromptTree:
    """What training on the row reads."""
    row = Demonstration("r", prompt, completion, ends=ends)
    (tree,) = tokenise([row], tokenizer, RowReport("rows", seen=1))
    return tree


def ids_of(tokenizer, prompts: list[str], completions: list[str]) -> list[int]:
    """What a scorer with this tokenizer reads."""
    (one,) = rendered(tokenizer, prompts, completions, "scorer")
    ids = tokenizer(one.text, add_special_tokens=False)["input_ids"]
    if tokenizer.bos_token_id is not None and ids[:1] != [tokenizer.bos_token_id]:
        ids = [tokenizer.bos_token_id, *ids]
    return [*ids, tokenizer.eos_token_id] if one.ends else ids


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize(
    ("template", "eos", "prompt"),
    [
        pytest.param(CHATML, "<|im_end|>", TALK, id="chatml"),
        pytest.param(ZEPHYR, "</s>", TALK, id="zephyr"),
        pytest.param(GEMMA, "<eos>", TALK, id="gemma"),
        pytest.param(LLAMA, "</s>", SHORT, id="llama2"),
        pytest.param(SPACED, "</s>", SHORT, id="spaces"),
        pytest.param(MISTRAL, "</s>", SHORT, id="mistral"),
        pytest.param(EMPTY_THOUGHT, "<|im_end|>", TALK, id="empty thought"),
        pytest.param(LLAMA3, "</s>", TALK, id="llama3"),
    ],
)
def test_a_reply_is_scored_as_the_tokens_that_training_reads(
    template: str, eos: str, prompt: Chat, ends: bool
) -> None:
    tokenizer = tokenizer_of(template, eos)
    tree = tree_of(tokenizer, prompt, (Turn("assistant", "I loved it"),), ends)
    prompts, completions = Samples([tree], [], [[ends]]).texts(tokenizer)
    assert ids_of(tokenizer, prompts, completions) == [*tree.prompt, *tree.completions[0]]
    assert completions == ["I loved it"]
    assert prompts == ["\n\n".join(turn.content for turn in prompt)]


def test_plain_rewards_read_words_and_may_ask_for_messages() -> None:
    tokenizer = tokenizer_of(CHATML, "<|im_end|>")
    tree = tree_of(tokenizer, TALK, (Turn("assistant", "yo"),))
    (prompt,), (completion,) = Samples([tree], [], [[False]]).texts(tokenizer)
    assert (prompt, completion) == ("be kind\n\nhi there", "yo")
    assert isinstance(prompt, PromptText)
    assert isinstance(completion, CompletionText)
    assert prompt.messages == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi there"},
    ]
    assert not completion.ends
    assert prompt + completion == "be kind\n\nhi thereyo"  # ordinary strings from here on


def test_special_tokens_that_a_plain_prompt_holds_reach_a_scorer_and_no_rule() -> None:
    """Somebody rendered the conversation already: a scorer was trained on it as it stands."""
    tokenizer = bytewise(bos=None, eos="</s>")
    row = "<|im_start|>user hi<|im_end|> "
    tree = tree_of(tokenizer, row, "yo")
    prompts, completions = Samples([tree], [], [[True]]).texts(tokenizer)
    assert prompts == ["user hi "]
    assert completions == ["yo"]
    assert ids_of(tokenizer, prompts, completions) == [*tree.prompt, *tree.completions[0]]


def test_a_token_across_the_border_is_read_once() -> None:
    """ "ca" | " b": the tree's prompt is "c", and the completion "a b" says the rest."""
    tokenizer = merging()
    tree = tree_of(tokenizer, "ca", " b")
    assert Samples([tree], [], [[True]]).texts(tokenizer) == (["c"], ["a b"])
    prompts, completions = Samples([tree], [], [[True]]).texts(tokenizer)
    assert ids_of(tokenizer, prompts, completions) == [*tree.prompt, *tree.completions[0]]


def test_a_prompt_that_was_cut_is_scored_as_cut() -> None:
    tokenizer = merging()
    row = Prompt("r", "abcd")
    trees = tokenise(
        [row], tokenizer, RowReport("rows", seen=1), max_length=3, truncation="keep_end"
    )
    (tree,) = trees
    (prompt,), _ = Samples(
        [PromptTree(0, "r", tree.prompt, ((3,),), source=tree.source)], [], []
    ).texts(tokenizer)
    assert isinstance(prompt, PromptText)
    assert (prompt, prompt.source) == ("cd", "cd")


def test_a_scorer_without_a_template_reads_the_words() -> None:
    tokenizer = bytewise(bos=None)
    prompt, reply = prompt_text(TALK), completion_text((Turn("assistant", "yo"),))
    (one,) = rendered(tokenizer, [prompt], [reply], "scorer")
    assert one.text == "be kind\n\nhi there\n\nyo"


def test_a_template_that_refuses_says_whose() -> None:
    tokenizer = tokenizer_of(MISTRAL, "</s>")
    with pytest.raises(DataError, match=r"^some/scorer: .* cannot be scored: .*alternat"):
        rendered(tokenizer, [prompt_text(TALK)], ["yo"], "some/scorer")


def test_what_a_policy_wrote_is_never_refused() -> None:
    """It may spell a special token, or nothing at all."""
    tokenizer = tokenizer_of(CHATML, "<|im_end|>")
    start = "<|im_start|>user\nhi there<|im_end|>\n<|im_start|>assistant\n"
    for said, ends, text in (
        ("a<|im_end|>b", True, "a<|im_end|>b"),
        ("", False, ""),
        ("", True, ""),
        (" ", False, ""),
    ):
        reply = CompletionText(said, said, ends)
        (one,) = rendered(tokenizer, [prompt_text(SHORT)], [reply], "scorer")
        assert one.text == start + text, (said, ends)
        assert one.ends == ends


def test_they_survive_copies() -> None:
    reply = CompletionText("yo", (Turn("assistant", "yo"),), False)
    for again in (copy.deepcopy(reply), pickle.loads(pickle.dumps(reply))):
        assert (again, again.source, again.ends) == ("yo", reply.source, False)
    asked = pickle.loads(pickle.dumps(prompt_text(TALK)))
    assert (asked, asked.source) == ("be kind\n\nhi there", TALK)
