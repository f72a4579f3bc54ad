"""Measure how often policies answer questions with the exact right answer."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.bounds import Count, Seed
from alignlab.data.rows import Demonstration, Prompt, RowReport
from alignlab.data.sources import read_records, read_rows
from alignlab.data.tokenise import tokenise
from alignlab.errors import ConfigError, DataError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import Policy
from alignlab.results.csv_tables import write_table
from alignlab.results.run_folder import RunFolder
from alignlab.results.statistics import wilson_interval
from alignlab.rollouts.comparison import check_samples
from alignlab.rollouts.sampler import sample

GREEDY = SamplingSpec(temperature=0.0)
COLUMNS = ("kind", "task", "shots")


class Question(NamedTuple):
    """A question, its one right answer, and what it belongs to."""

    row: Demonstration
    kind: str
    task: str
    shots: str


def answer_questions(
    *,
    out: str | Path,
    policies: Mapping[str, str | Sequence[str]],
    questions: str,
    seed: Seed,
    max_new_tokens: Count,
    stop: str = " .",
    batch_size: Count = 512,
) -> None:
    """Stage: ``accuracy.csv``, ``kinds.csv`` and ``answers.jsonl`` of policies on questions.

    Answers are greedy and end with the token ``stop`` or the end of the text. ``accuracy.csv`` has
    a row per policy (``condition``), kind, task and number of shots, with Wilson's 95 % interval
    over its questions; ``kinds.csv`` is over all tasks of a kind; ``answers.jsonl`` holds an answer
    of each row, to read.

    Args:
        out: Folder to write.
        policies: Name -> folder, or folders of several runs of a stage, which are then told apart
            by the folders' names (without their seed).
        questions: File with the columns ``prompt``, ``completion``, ``kind``, ``task``, ``shots``.
        seed: Of the policies' training, for the tables.
        max_new_tokens: Longest answer.
        stop: Ends an answer, as the last token of every right one does.
        batch_size: Answers side by side.

    Raises:
        ConfigError: ``stop`` is not one token of a policy's.
        DataError: The file lacks a column or a row of it cannot be used.
    """
    asked = read_questions(questions)
    tasks: list[dict[str, Any]] = []
    kinds: list[dict[str, Any]] = []
    lines: list[str] = []
    for condition, folder in _named(policies):
        policy = Policy.load_for_eval(folder)
        answers = answer(policy, asked, stop, max_new_tokens, batch_size)
        right = [a == q.row.completion for a, q in zip(answers, asked, strict=True)]
        label = {"condition": condition, "seed": seed}
        tasks += _shares(asked, right, COLUMNS, label)
        kinds += _shares(asked, right, ("kind", "shots"), label)
        lines += _texts(asked, answers, label)
    write_table(Path(out) / "accuracy.csv", tasks)
    write_table(Path(out) / "kinds.csv", kinds)
    (Path(out) / "answers.jsonl").write_text("".join(lines))


def read_questions(source: str) -> list[Question]:
    """The questions of a file.

    Raises:
        DataError: It lacks a column, or a row of it cannot be used.
    """
    rows, _ = read_rows(source, Demonstration, refuse="error")
    found = []
    for row, record in zip(rows, read_records(source), strict=True):
        fields = record.fields or {}
        missing = [name for name in COLUMNS if name not in fields]
        if missing:
            raise DataError(f"{record.where}: a question lacks {', '.join(missing)}.")
        found.append(Question(row, *(str(fields[name]) for name in COLUMNS)))
    return found


def answer(
    policy: Policy, questions: Sequence[Question], stop: str, max_new_tokens: int, batch_size: int
) -> list[str]:
    """The policy's greedy answers, each up to its first ``stop``.

    Raises:
        ConfigError: ``stop`` is not one token, or the policy's samples are not what its forward
            scores (see ``check_samples``).
    """
    ids = policy.tokenizer(stop, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ConfigError(f"stop {stop!r} is {len(ids)} tokens of the policy's. Use a single one.")
    prompts = [Prompt(q.row.id, q.row.prompt) for q in questions]
    trees = tokenise(prompts, policy.tokenizer, RowReport("questions", refuse="error"))
    drawn = sample(
        policy,
        trees,
        samples=1,
        max_new_tokens=max_new_tokens,
        spec=GREEDY,
        seed=0,
        stop_ids=[*policy.stop_ids, *ids],
        batch_size=batch_size,
    )
    check_samples(policy, drawn, GREEDY)
    return drawn.texts(policy.tokenizer)[1]


def _named(policies: Mapping[str, str | Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Condition and folder of each policy."""
    for name, folders in policies.items():
        if isinstance(folders, str):
            yield name, folders
            continue
        for folder in folders:
            point = re.sub(r"-?s\d+$", "", RunFolder(folder).key)
            yield f"{name}-{point}" if point else name, folder


def _shares(
    questions: Sequence[Question],
    right: Sequence[bool],
    by: Sequence[str],
    label: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """A row per group of questions: how many were answered, which share of them rightly."""
    groups: dict[tuple[str, ...], list[bool]] = {}
    for question, hit in zip(questions, right, strict=True):
        groups.setdefault(tuple(getattr(question, name) for name in by), []).append(hit)
    rows = []
    for key, hits in groups.items():
        ends = wilson_interval(sum(hits), len(hits))
        rows.append(
            {
                **label,
                **dict(zip(by, key, strict=True)),
                "accuracy": sum(hits) / len(hits),
                "accuracy_lo": ends.lo,
                "accuracy_hi": ends.hi,
                "n": len(hits),
            }
        )
    return rows


def _texts(
    questions: Sequence[Question], answers: Sequence[str], label: Mapping[str, Any]
) -> list[str]:
    """One answer of each group, as lines of JSON."""
    seen: set[tuple[str, ...]] = set()
    lines = []
    for question, said in zip(questions, answers, strict=True):
        key = (question.kind, question.task, question.shots)
        if key not in seen:
            seen.add(key)
            row = question.row
            told = {"prompt": row.prompt, "answer": said, "right": row.completion}
            lines.append(json.dumps({**label, "id": row.id, **told}) + "\n")
    return lines
