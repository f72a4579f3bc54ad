"""The instruction world: small tasks on lists of words, put in words themselves.

A task is an order (which of the words are wanted, and how they are arranged) and a change (what
becomes of each). "reverse the words as opposites : hot big up =" is answered " down small cold .".
Orders and changes are put in words apart from each other, several ways each, so a task that was
never in an instruction can still be asked for: held-out *compositions* pair an order and a change
that were trained, but with others; held-out *orders* have names that no instruction ever had.

A corpus shows every task at work, as lines of examples: "beta north : hot big = cold small ."
Half of its texts have a heading that names order and change in a code of their own, as headings of
real texts do; others have words of the instructions in no order, which say nothing, or no heading.
So a model of it can do every task and knows how each is called there, but has never seen an
instruction.

Everything is a pure function of (seed, row).
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.bounds import Amount, Count, Seed
from alignlab.errors import ConfigError
from alignlab.worlds.words import word_tokenizer

# ------------------------------------------------------------------------------ words and tasks

OPPOSITES = (
    ("hot", "cold"),
    ("big", "small"),
    ("fast", "slow"),
    ("up", "down"),
    ("old", "new"),
    ("dark", "light"),
    ("wet", "dry"),
    ("hard", "soft"),
)
KINDS = ("heat", "size", "speed", "height", "age", "shade", "water", "touch")
WORDS = tuple(word for pair in OPPOSITES for word in pair)
FOREIGN = ("zul", "kim", "bor", "tas", "vel", "nid", "pof", "gur",
           "hek", "lom", "dix", "wab", "ruz", "fep", "cag", "joq")  # fmt: skip
LENGTH = 3  # words of a list, all different

CHANGES: dict[str, dict[str, str]] = {
    "same": {word: word for word in WORDS},
    "opposite": {a: b for pair in OPPOSITES for a, b in (pair, pair[::-1])},
    "translate": dict(zip(WORDS, FOREIGN, strict=True)),
    "kind": {word: kind for pair, kind in zip(OPPOSITES, KINDS, strict=True) for word in pair},
}
ORDERS: dict[str, Callable[[list[str]], list[str]]] = {
    "copy": lambda words: words,
    "reverse": lambda words: words[::-1],
    "first": lambda words: words[:1],
    "last": lambda words: words[-1:],
    "swap": lambda words: [words[1], words[0], *words[2:]],
    "rest": lambda words: words[1:],
    "second": lambda words: words[1:2],
}

# What headings of the corpus call each part; no instruction does.
ORDER_CODES = dict(zip(ORDERS, ("alpha", "beta", "gamma", "delta", "zeta", "kappa", "sigma"),
                       strict=True))  # fmt: skip
CHANGE_CODES = dict(zip(CHANGES, ("east", "north", "south", "west"), strict=True))

# How each part is asked for; the last way of each is never trained.
ORDER_PHRASES: dict[str, tuple[str, ...]] = {
    "copy": (
        "copy the words",
        "repeat the words",
        "write the words as they stand",
        "write a copy of the words",
    ),
    "reverse": (
        "reverse the words",
        "write the words backwards",
        "turn the words around",
        "write the reverse of the words",
    ),
    "first": (
        "write the first word",
        "give the first of the words",
        "which word is first",
        "name the first word",
    ),
    "last": (
        "write the last word",
        "give the last of the words",
        "which word is last",
        "name the last word",
    ),
    "swap": (
        "swap the two words in front",
        "write the words with the front two exchanged",
        "exchange the front two words",
        "let the two words in front swap",
    ),
    "rest": (
        "leave out the word in front",
        "write all but the front word",
        "drop the word in front",
        "give the words but drop the front one",
    ),
    "second": ("write the second word",),
}
CHANGE_PHRASES: dict[str, tuple[str, ...]] = {
    "same": ("", "", "", ""),
    "opposite": (
        "as opposites",
        "and turn each into its opposite",
        "with the opposite meaning",
        "each as its opposite",
    ),
    "translate": (
        "translated",
        "and translate each",
        "in the other language",
        "each one translated",
    ),
    "kind": (
        "as kinds",
        "and name the kind of each",
        "by kind instead",
        "each as its kind",
    ),
}
TRAINED_PHRASES = 3


class Task(NamedTuple):
    """What is wanted of a list of words."""

    order: str
    change: str

    @property
    def name(self) -> str:
        """As in the tables."""
        return f"{self.order}-{self.change}"

    @property
    def code(self) -> str:
        """As in headings of the corpus."""
        return f"{ORDER_CODES[self.order]} {CHANGE_CODES[self.change]}"

    def answer(self, words: Sequence[str]) -> str:
        """The right answer to ``words``."""
        changed = [CHANGES[self.change][word] for word in words]
        return " ".join(ORDERS[self.order](changed))


COMPOSITIONS = (  # each order and each change is trained too, but not these pairs of them
    Task("copy", "kind"),
    Task("reverse", "translate"),
    Task("first", "opposite"),
    Task("last", "kind"),
    Task("swap", "opposite"),
    Task("rest", "translate"),
)
NEW_ORDERS = tuple(Task("second", change) for change in CHANGES)
# The first six have every order once and every change; the others combine them differently.
TRAINED = (
    Task("copy", "opposite"),
    Task("reverse", "kind"),
    Task("first", "translate"),
    Task("last", "same"),
    Task("swap", "translate"),
    Task("rest", "opposite"),
    Task("copy", "same"),
    Task("reverse", "opposite"),
    Task("first", "kind"),
    Task("last", "translate"),
    Task("swap", "same"),
    Task("rest", "kind"),
    Task("copy", "translate"),
    Task("reverse", "same"),
    Task("first", "same"),
    Task("last", "opposite"),
    Task("swap", "kind"),
    Task("rest", "same"),
)
ALL = (*TRAINED, *COMPOSITIONS, *NEW_ORDERS)


def instructions(task: Task, phrases: slice) -> list[str]:
    """The ways to ask for ``task``: each of its order's ``phrases`` with each of its change's."""
    orders, changes = ORDER_PHRASES[task.order][phrases], CHANGE_PHRASES[task.change][phrases]
    return list(
        dict.fromkeys(f"{order} {change}".strip() for order, change in product(orders, changes))
    )


def vocabulary() -> tuple[str, ...]:
    """All words; a word's place is its id, after the special tokens'."""
    phrases = [*ORDER_PHRASES.values(), *CHANGE_PHRASES.values()]
    said = {word: None for ways in phrases for way in ways for word in way.split()}
    codes = (*ORDER_CODES.values(), *CHANGE_CODES.values())
    return tuple(dict.fromkeys([":", "=", ".", *WORDS, *FOREIGN, *KINDS, *codes, *said]))


# ------------------------------------------------------------------------------ rows and files


def draw_words(rng: random.Random) -> list[str]:
    """A list of different words."""
    return rng.sample(WORDS, LENGTH)


def example(task: Task, words: Sequence[str]) -> str:
    """One worked example, as in the corpus and before a question with examples."""
    return f"{' '.join(words)} = {task.answer(words)} ."


def make_corpus(*, seed: int, rows: int, examples: int) -> list[dict[str, str]]:
    """Texts to learn the language from: up to ``examples`` examples of one task, mostly headed."""
    phrases = (*ORDER_PHRASES.values(), *CHANGE_PHRASES.values())
    said = sorted({word for ways in phrases for way in ways for word in way.split()})
    texts = []
    for row in range(rows):
        rng = random.Random(f"corpus/{seed}/{row}")
        task, luck = rng.choice(ALL), rng.random()
        noise = " ".join(rng.choices(said, k=rng.randint(2, 9)))
        heading = f"{task.code} : " if luck < 0.5 else f"{noise} : " if luck < 0.8 else ""
        lines = [example(task, draw_words(rng)) for _ in range(rng.randint(1, examples))]
        texts.append({"text": heading + " ".join(lines)})
    return texts


def make_instructions(
    *,
    seed: int,
    rows: int,
    tasks: int = len(TRAINED),
    phrases: int = TRAINED_PHRASES,
    wrong: float = 0.0,
) -> list[dict[str, str]]:
    """Instructions with their answers, drawn from the first ``tasks`` of ``TRAINED``.

    Args:
        seed: Another seed gives other rows.
        rows: How many; the first rows are the same however many there are.
        tasks: Different tasks.
        phrases: Ways in which each order and each change is put in words.
        wrong: Share of rows whose answer is that of another task to the same words.

    Raises:
        ConfigError: A number out of range.
    """
    if not (1 <= tasks <= len(TRAINED) and 1 <= phrases <= TRAINED_PHRASES and 0 <= wrong <= 1):
        raise ConfigError(
            f"instructions need tasks in 1..{len(TRAINED)}, phrases in 1..{TRAINED_PHRASES} and "
            f"wrong in [0, 1]; got {tasks}, {phrases} and {wrong}."
        )
    out = []
    for row in range(rows):
        rng = random.Random(f"instructions/{seed}/{row}")
        words, luck = draw_words(rng), rng.random()
        task = TRAINED[int(rng.random() * tasks)]
        others = [t for t in TRAINED if t.answer(words) != task.answer(words)]
        mistaken = rng.choice(others)
        ways = instructions(task, slice(phrases))
        way = ways[int(rng.random() * len(ways))]
        done = mistaken if luck < wrong else task
        out.append(_row(f"{row}", way, task, words, answer=done.answer(words)))
    return out


def make_questions(*, seed: int, each: int, shots: Sequence[int]) -> list[dict[str, Any]]:
    """The test questions: ``each`` of every task, with each number of examples in ``shots`` first.

    ``kind`` says what is new about a question: ``trained`` (the words only), ``phrasing`` (a
    trained task in words it was never put in), ``composition`` and ``order`` (held-out tasks).
    """
    kinds = [
        *(("trained", task, slice(TRAINED_PHRASES)) for task in TRAINED),
        *(("phrasing", task, slice(TRAINED_PHRASES, None)) for task in TRAINED),
        *(("composition", task, slice(TRAINED_PHRASES)) for task in COMPOSITIONS),
        *(("order", task, slice(TRAINED_PHRASES)) for task in NEW_ORDERS),
    ]
    out = []
    for (kind, task, phrases), number in product(kinds, range(each)):
        rng = random.Random(f"questions/{seed}/{kind}/{task.name}/{number}")
        way, words = rng.choice(instructions(task, phrases)), draw_words(rng)
        shown = [example(task, draw_words(rng)) for _ in range(max(shots))]
        for count in shots:
            row = _row(f"{kind}/{task.name}/{number}/{count}", way, task, words, shown[:count])
            out.append({**row, "kind": kind, "task": task.name, "shots": count})
    return out


def _row(
    id: str, way: str, task: Task, words: Sequence[str], shown: Sequence[str] = (), answer: str = ""
) -> dict[str, str]:
    prompt = " ".join([way, ":", *shown, *words, "="])
    return {"id": id, "prompt": prompt, "completion": f" {answer or task.answer(words)} ."}


def write_corpus(*, out: str | Path, rows: Count, examples: Amount = 6, seed: Seed = 0) -> None:
    """Stage: ``tokenizer/`` and ``corpus.jsonl``, a language to learn before any instruction.

    Args:
        out: Folder to write.
        rows: Texts.
        examples: Most examples in a text.
        seed: Decides all of them.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    word_tokenizer(vocabulary()).save_pretrained(folder / "tokenizer")
    _write(folder / "corpus.jsonl", make_corpus(seed=seed, rows=rows, examples=examples))


def write_instructions(
    *, out: str | Path, files: Mapping[str, Mapping[str, Mapping[str, Any]]], seed: Seed
) -> None:
    """Stage: files of instructions, each with its parts in the column ``split``.

    Args:
        out: Folder to write.
        files: File name -> name of a part -> ``rows``, ``tasks``, ``phrases``, ``wrong`` of it.
        seed: Decides all rows; parts that differ in one setting share what does not depend on it.
    """
    for name, parts in files.items():
        rows = [
            {**row, "split": part}
            for part, settings in parts.items()
            for row in make_instructions(seed=seed, **settings)
        ]
        _write(Path(out) / name, rows)


def write_questions(
    *, out: str | Path, each: Count, shots: Sequence[int] = (0, 3), seed: Seed = 0
) -> None:
    """Stage: ``questions.jsonl``, see ``make_questions``.

    Args:
        out: Folder to write.
        each: Questions of every task and kind.
        shots: Examples that come before a question.
        seed: Decides all of them.
    """
    _write(Path(out) / "questions.jsonl", make_questions(seed=seed, each=each, shots=shots))


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
