from pathlib import Path

import pytest

from alignlab.data.rows import Turn
from alignlab.data.texts import prompt_text
from alignlab.errors import ConfigError
from alignlab.winrate.questions import QUESTIONS, asked, read_choice, read_question, shown_prompt

TLDR = "SUBREDDIT: r/x\n\nTITLE: POST: no\n\nPOST: I lost my keys.\nTL;DR: never.\n\nTL;DR:"


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_papers_questions_hold_each_text_once_and_name_the_form_of_the_reply(name: str) -> None:
    text = asked(read_question(name), "Why?", " one ", "two\n")
    assert text.count("\none\n") == text.count("\ntwo\n") == 1
    assert text.index("A:\none") < text.index("B:\ntwo")
    assert "Why?" in text
    assert text.endswith(': <"A" or "B">')
    assert "Comparison: <one-sentence comparison and explanation>\n" in text


def test_concise_and_simple_differ_in_what_a_good_summary_is() -> None:
    simple, concise = (QUESTIONS[f"tldr-{name}"] for name in ("simple", "concise"))
    added = ", without including unimportant or irrelevant details? A good summary is both precise and concise."  # noqa: E501
    assert concise.replace(added, "?") == simple


def test_texts_may_hold_the_names_of_fields() -> None:
    assert asked("{prompt}|{a}|{b}", "{a}", "{b}", "{prompt}") == "{a}|{b}|{prompt}"


def test_a_question_of_ones_own_is_a_file_with_three_fields(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("{prompt}: {a} or {b}?")
    assert asked(read_question(str(own)), "p", "x", "y") == "p: x or y?"
    own.write_text("{prompt}: {a}?")
    with pytest.raises(ConfigError, match=r"lacks \{b\}, where"):
        read_question(str(own))
    with pytest.raises(ConfigError, match="Name a file, or one of tldr-concise"):
        read_question("tldr")


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        (TLDR, "no\n\nPOST: I lost my keys.\nTL;DR: never."),
        (TLDR.replace("POST: no", "Keys"), "I lost my keys.\nTL;DR: never."),
        ("\n\nHuman: Why?\n\nAssistant:", "Why?"),
        (
            "\n\nHuman: Why?\n\nAssistant: So.\n\nHuman: But?\n\nAssistant:",
            "Human: Why?\n\nAssistant: So.\n\nHuman: But?",
        ),
        (" plain ", "plain"),
    ],
)
def test_a_judge_reads_the_post_or_the_question(prompt: str, shown: str) -> None:
    assert shown_prompt(prompt) == shown


def test_a_conversation_keeps_who_said_what() -> None:
    turns = (Turn("user", "Why?"), Turn("assistant", "So."), Turn("user", "But?"))
    assert shown_prompt(prompt_text(turns[:1])) == "Why?"
    assert shown_prompt(prompt_text(turns)) == "User: Why?\n\nAssistant: So.\n\nUser: But?"


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("Comparison: B is vague.\nPreferred: A", 1.0),
        ('Comparison: A is vague.\nPreferred: "B"\n\n', 0.0),
        ("Comparison: both.\nMore helpful: **B**", 0.0),
        ("a", 1.0),
        ("Preferred: Summary A.", 1.0),
        ("Response B", 0.0),
        ("Preferred: tie", 0.5),
        ("Preferred: A or B", None),
        ("Preferred: neither", None),
        ("A is better than B", None),
        ("Preferred: A\nI hope that this helps!", None),
        ("", None),
        ("  \n", None),
    ],
)
def test_the_last_line_is_the_choice(reply: str, choice: float | None) -> None:
    assert read_choice(reply) == choice
