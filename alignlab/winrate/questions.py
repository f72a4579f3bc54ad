"""The question that a judge is asked about two completions, and how its reply is read.

Three are those of the DPO paper (Rafailov et al. 2023, arXiv:2305.18290, appendix C.2): its simple
and its concise prompt for summaries, GPT-4 (S) and GPT-4 (C), and its prompt for dialogues.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from alignlab.data.texts import PromptText
from alignlab.errors import ConfigError

_SUMMARIES = """

Post:
{prompt}

Summary A:
{a}

Summary B:
{b}

FIRST provide a one-sentence comparison of the two summaries, explaining which you prefer and why. \
SECOND, on a new line, state only "A" or "B" to indicate your choice. Your response should use the \
format:
Comparison: <one-sentence comparison and explanation>
Preferred: <"A" or "B">"""
_POINTS = (
    "Which of the following summaries does a better job of summarizing the most important points "
    "in the given forum post"
)
QUESTIONS: Mapping[str, str] = {
    "tldr-concise": f"{_POINTS}, without including unimportant or irrelevant details? A good "
    f"summary is both precise and concise.{_SUMMARIES}",
    "tldr-simple": f"{_POINTS}?{_SUMMARIES}",
    "dialogue": """\
For the following query to a chatbot, which response is more helpful?

Query: {prompt}

Response A:
{a}

Response B:
{b}

FIRST provide a one-sentence comparison of the two responses and explain which you feel is more \
helpful. SECOND, on a new line, state only "A" or "B" to indicate which response is more helpful. \
Your response should use the format:
Comparison: <one-sentence comparison and explanation>
More helpful: <"A" or "B">""",
}
_FIELD = re.compile(r"\{(prompt|a|b)\}")
_CHOICE = re.compile(
    r"(?:.*:)?[\W_]*(?:(?:summary|response|option|answer)\s+)?[\W_]*(A|B|tie)[\W_]*", re.IGNORECASE
)
_SCORES = {"a": 1.0, "b": 0.0, "tie": 0.5}
_POST = re.compile(r".*?\bPOST:(.*?)(?:\n+TL;DR:\s*)?", re.DOTALL)
_TURN = re.compile(r"\n\n(Human|Assistant):")


def read_question(name: str) -> str:
    """The text of a question: one of ``QUESTIONS``, or the content of a file.

    Args:
        name: Its name, or a file with ``{prompt}``, ``{a}`` and ``{b}`` where the texts go.

    Raises:
        ConfigError: Neither, or a file without one of the three.
    """
    if name in QUESTIONS:
        return QUESTIONS[name]
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"question {name!r}: no such file ({error}). Name a file, or one of "
            f"{', '.join(QUESTIONS)}."
        ) from None
    if missing := {"prompt", "a", "b"} - {found[1] for found in _FIELD.finditer(text)}:
        listed = ", ".join(f"{{{name}}}" for name in sorted(missing))
        raise ConfigError(f"question {name}: lacks {listed}, where a text of the match goes.")
    return text


def asked(question: str, prompt: str, a: str, b: str) -> str:
    """``question`` with its texts in place, without spaces around them.

    Of a TL;DR prompt the judge gets the post, and of a dialogue of one turn the turn, as in the
    paper. Texts may hold anything, ``{a}`` included.
    """
    texts = {"prompt": shown_prompt(prompt), "a": a.strip(), "b": b.strip()}
    return _FIELD.sub(lambda field: texts[field[1]], question)


def shown_prompt(prompt: str) -> str:
    """A prompt as a judge or a person reads it, without what only a policy needs."""
    turns = prompt.messages if isinstance(prompt, PromptText) else None
    if turns is not None:
        said = [(str(turn["role"]).capitalize(), str(turn["content"])) for turn in turns]
    elif post := _POST.fullmatch(prompt):
        return post[1].strip()
    else:
        _, *parts = _TURN.split(prompt)
        said = list(zip(parts[::2], map(str.strip, parts[1::2]), strict=True))
    said = [(role, text) for role, text in said if text]
    if len(said) == 1:
        return said[0][1].strip()
    return "\n\n".join(f"{role}: {text}" for role, text in said) or prompt.strip()


def read_choice(reply: str) -> float | None:
    """1 for A, 0 for B, 1/2 for a tie: the last line says it, ``None`` where it does not."""
    lines = [line for line in reply.split("\n") if line.strip()]
    found = _CHOICE.fullmatch(lines[-1].strip()) if lines else None
    return None if found is None else _SCORES[found[1].lower()]
