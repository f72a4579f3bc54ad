"""Columns of other formats: Alpaca's and ShareGPT's, system turns and tools beside a prompt."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from alignlab.data.rows.base import Completable
from alignlab.data.rows.nested import tools_of
from alignlab.data.rows.reader import Reader
from alignlab.data.rows.values import Changed, Fields, Record, Refused, Turn

C = TypeVar("C", bound=Completable)

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{task}\n\n### Response:"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{task}\n\n### Input:\n{given}\n\n### Response:"
)


def translated(
    records: Iterable[Record], found: Collection[str]
) -> tuple[Iterable[Record], dict[str, tuple[str, ...]]]:
    """Rename Alpaca's and ShareGPT's columns; also says which of theirs each of ours comes from."""
    known, ours = set(found), {"prompt", "messages"}
    if "conversations" in known and not ours & known:
        pair = {"chosen", "rejected"} <= known
        written: dict[str, tuple[str, ...]] = {"prompt" if pair else "messages": ("conversations",)}
    elif "instruction" in known and not ours & known:
        written = {"prompt": ("instruction", "input")}
        if "completion" not in known:
            written["completion"] = ("output",)
    else:
        return records, {}

    def translate(fields: Fields) -> Fields:
        made = {
            ours: alpaca_prompt(fields) if len(names) > 1 else fields.get(names[0])
            for ours, names in written.items()
        }
        return {**fields, **made}

    return Changed(records, translate), written


def in_their_words(problem: Refused, written: Mapping[str, Sequence[str]]) -> Refused:
    """The refusal, worded with the data set's own column names."""
    reason = problem.reason
    for ours, theirs in written.items():
        reason = reason.replace(f"'{ours}'", f"'{theirs[0]}'")
    return Refused(reason, problem.detail)


def alpaca_prompt(fields: Fields) -> Any:
    """The prompt that Alpaca was trained on (Taori et al. 2023, ``train.py`` of its repository)."""
    task, given = fields.get("instruction"), fields.get("input")
    if not isinstance(task, str) or not isinstance(given, str | None):
        return given if isinstance(task, str) else task  # refused for its type
    if not given:
        return ALPACA.format(task=task)
    return ALPACA_WITH_INPUT.format(task=task, given=given)


def with_context(read: Reader, row: C) -> C:
    """A conversation with the system turn and the tools that other columns hold.

    Raises:
        Refused: The conversation has another system turn, or a column has the wrong type.
    """
    prompt = row.prompt
    if isinstance(prompt, str):
        return row
    if read.value("system"):
        first = Turn("system", read.plain("system"))
        if prompt and prompt[0].role == "system" and prompt[0] != first:
            raise Refused("'system' and the conversation's own system turn differ")
        prompt = prompt if prompt[:1] == (first,) else (first, *prompt)
    if prompt and (tools := tools_of(read.value("tools"))):
        prompt = (prompt[0].with_extra("tools", tools), *prompt[1:])
    return replace(row, prompt=prompt)
