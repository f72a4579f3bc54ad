"""What the fuzz tests share: how inputs are spoilt, how long one may take, what may come of it.

An input is a valid one with a few changes that a person or a disk could make: a value of another
type, a key dropped or misspelt, a row twice, two values exchanged, a file cut off, a byte flipped.
What may come of it is success or one of our own errors, in one line and within seconds.
"""

import contextlib
import copy
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
from hypothesis import HealthCheck, Phase, strategies
from hypothesis.configuration import set_hypothesis_home_dir

from alignlab.errors import ConfigError, DataError
from tests.robustness.budget import fuzz_cases

set_hypothesis_home_dir(tempfile.mkdtemp(prefix="hypothesis-"))

SECONDS = 20.0  # that one input may take, on a busy machine
LONGEST = 2_000  # characters of a message
# Of each 1,000 cases; a stage costs a fifth of a second, most others a hundredth.
SHARES = {
    "rows": 270,
    "YAML": 150,
    "stage": 110,
    "pipeline": 120,
    "scale": 70,
    "sweep": 80,
    "tables": 130,
    "records": 70,
}


@dataclass
class Count:
    """What became of the inputs of one kind."""

    cases: int = 0
    refused: int = 0
    accepted: int = 0
    seconds: float = 0.0


COUNTS: dict[str, Count] = {}


class Outcome(NamedTuple):
    """What a call came to: a value, or why it was refused."""

    value: Any
    refused: str | None


class Hangs(BaseException):
    """An input took too long. No ``except Exception`` may swallow it."""


def fuzz(kind: str, share: float = 1.0) -> hypothesis.settings:
    """Settings of a fuzz test: its number of cases, the same ones in every run."""
    return hypothesis.settings(
        max_examples=max(1, round(fuzz_cases() * SHARES[kind] * share / 1_000)),
        derandomize=True,
        database=None,
        deadline=None,  # ours ends a case that hangs, hypothesis's only blames it afterwards
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )


def attempt(kind: str, action: Callable[[], Any]) -> Outcome:
    """Call ``action``; it may succeed or refuse its input in one line, and nothing else."""
    count = COUNTS.setdefault(kind, Count())
    count.cases += 1
    began = time.monotonic()
    try:
        with deadline(SECONDS):
            value = action()
    except (ConfigError, DataError) as error:
        said = str(error)
        if "ALIGNLAB_FUZZ_SAY" in os.environ:
            print(f"{kind}: {said}")
        assert said, "an error without a word"
        assert "\n" not in said, f"more than a line: {said}"
        assert len(said) <= LONGEST, f"{len(said)} characters: {said[:200]}"
        assert "Traceback" not in said
        count.refused += 1
        return Outcome(None, said)
    finally:
        count.seconds += time.monotonic() - began
    count.accepted += 1
    return Outcome(value, None)


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise ``Hangs`` in what is still at work after ``seconds``."""

    def stop(*_: object) -> None:
        raise Hangs(f"still at work after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


NUMBERS = (0, -1, 1, 2, 2**31, 2**63 - 1, -(2**63), 10**12, 0.0, -0.5, 1.5, 1e308, float("inf"))
WORDS = (
    "", " ", "a", "null", "~", "true", "1", "0.1", "1e3", "2024-01-01", "yes", "012", "1:30",
    "{sft}", "{nope}", "{seed}", "{results}", "{", "../x", "/", "./", "a/b", "x" * 300,
    "é", "a\u2028b", "a\x85b", "$x_1$", "a\nb", "\x07", "<<", "model.init_args.beta", "a..b", ".",
    "[a, b]", "{a: b}", "a: b", "\ufeffa",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [1], ["a", "a"], {"a": 1}, [[]], [None])
odd_values = strategies.one_of(
    strategies.sampled_from(OTHERS),
    strategies.sampled_from(NUMBERS),
    strategies.sampled_from(WORDS),
    strategies.integers(-3, 300),
    strategies.floats(-2, 2, width=16),
    strategies.text("ab 1.:{}[]é\u2028\t\n'\"#-", max_size=12),
).map(copy.deepcopy)


def places(tree: Any, here: tuple = ()) -> Iterator[tuple]:
    """The path of every value below ``tree``."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*here, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*here, key))


def at(tree: Any, path: tuple) -> Any:
    """The value at ``path``."""
    for key in path:
        tree = tree[key]
    return tree


def _replace(draw: Any, parent: Any, key: Any) -> None:
    parent[key] = draw(odd_values)


def _drop(draw: Any, parent: Any, key: Any) -> None:
    del parent[key]


def _twice(draw: Any, parent: Any, key: Any) -> None:
    value = copy.deepcopy(parent[key])
    if isinstance(parent, list):
        parent.insert(key, value)
    else:
        parent[f"{key}2"] = value


def _rename(draw: Any, parent: Any, key: Any) -> None:
    if isinstance(parent, dict):
        value = parent.pop(key)
        parent[draw(strategies.sampled_from([f"{key}s", key[:-1], key.upper(), "x", ""]))] = value


def _exchange(draw: Any, parent: Any, key: Any) -> None:
    keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
    other = draw(strategies.sampled_from(keys))
    parent[key], parent[other] = parent[other], parent[key]


def _wrap(draw: Any, parent: Any, key: Any) -> None:
    parent[key] = draw(strategies.sampled_from([[parent[key]], {"a": parent[key]}]))


def _as_text(draw: Any, parent: Any, key: Any) -> None:
    parent[key] = str(parent[key])


def _add(draw: Any, parent: Any, key: Any) -> None:
    if isinstance(parent, dict):
        parent[draw(strategies.sampled_from(["extra", "seed", "limit", "class_path"]))] = draw(
            odd_values
        )
    else:
        parent.append(draw(odd_values))


def _alike(draw: Any, parent: Any, key: Any) -> None:
    """Another value of the same type: what is most often accepted."""
    old = parent[key]
    if isinstance(old, bool):
        parent[key] = not old
    elif isinstance(old, (int, float)):
        parent[key] = draw(strategies.sampled_from([type(old)(n) for n in NUMBERS[:5]]))
    elif isinstance(old, str):
        parent[key] = draw(strategies.sampled_from(WORDS))
    else:
        _exchange(draw, parent, key)


CHANGES = (
    *(_alike, _alike, _alike, _replace, _replace),
    *(_drop, _twice, _rename, _exchange, _wrap, _as_text, _add),
)


@strategies.composite
def spoilt(draw: Any, valid: Any, most: int = 2) -> Any:
    """A deep copy of ``valid`` with one to ``most`` changes."""
    tree = copy.deepcopy(valid)
    for _ in range(draw(strategies.integers(1, most))):
        paths = list(places(tree))
        if not paths:
            break
        path = draw(strategies.sampled_from(paths))
        change = draw(strategies.sampled_from(CHANGES))
        change(draw, at(tree, path[:-1]), path[-1])
    return tree


PIECES = (
    "\t", "\ufeff", "\n---\n", "*a", "&a ", "<<: ", "!!python/name:os.system", "2024-01-01", "012",
    "1:30", "yes", ".nan", "\0", "#", ": ", "- ", "\u2028", "\x85", "\r", "\n", '"', "'", ",", "é",
    "{}", "[", "]", "%",
)  # fmt: skip


@strategies.composite
def spoilt_bytes(draw: Any, content: bytes) -> bytes:
    """``content`` cut off, with a byte flipped, a part left out or twice, or something put in."""
    place = draw(strategies.integers(0, max(len(content) - 1, 0)))
    length = draw(strategies.integers(1, 40))
    part = content[place : place + length]
    change = draw(strategies.sampled_from(("cut", "flip", "leave out", "twice", "put in", "zeros")))
    if change == "cut":
        return content[:place]
    if change == "flip":
        bit = 1 << draw(strategies.integers(0, 7))
        return content[:place] + bytes(b ^ bit for b in part[:1]) + content[place + 1 :]
    if change == "leave out":
        return content[:place] + content[place + length :]
    if change == "twice":
        return content[:place] + part + content[place:]
    if change == "zeros":
        return content[:place] + bytes(len(part)) + content[place + length :]
    piece = draw(strategies.sampled_from(PIECES)).encode()
    return content[:place] + piece + content[place:]


def same(one: Any, other: Any) -> bool:
    """Whether two trees are equal in values and types: ``True`` is not ``1``, nor ``1.0``."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def write_report(path: Path) -> None:
    """What became of all inputs so far, as a page."""
    total = Count()
    lines = []
    for kind, count in COUNTS.items():
        lines.append(_line(kind, count))
        for name in vars(total):
            setattr(total, name, getattr(total, name) + getattr(count, name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "# Spoilt inputs\n\n"
        "Valid rows, configs, tables and records with a few changes each: a value of another type, "
        "a key dropped\nor misspelt, a row twice, a file cut off, a byte flipped. "
        f"Each must be refused in one line or mean what\nis written, within {SECONDS:.0f} s; "
        "a traceback, a hang or a changed meaning is a failure. Made by\n"
        f"`ALIGNLAB_FUZZ={fuzz_cases()} ALIGNLAB_FUZZ_REPORT={path} "
        "make test ARGS=tests/robustness`.\n\n"
        "| kind | cases | refused | accepted | failures | seconds |\n|---|---|---|---|---|---|\n"
        + "".join(lines)
        + _line("all", total)
    )


def _line(kind: str, count: Count) -> str:
    failures = count.cases - count.refused - count.accepted
    return (
        f"| {kind} | {count.cases:,} | {count.refused:,} | {count.accepted:,} | {failures} | "
        f"{count.seconds:.0f} |\n"
    )
