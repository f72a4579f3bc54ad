"""What a check found: ok, a warning or a stop, with one line of advice."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple, TypeVar

from alignlab.errors import ConfigError, DataError, in_a_line

State = Literal["ok", "warning", "stop"]
T = TypeVar("T")


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        name: Of the check.
        state: ``stop`` where training would be wrong or cannot run.
        advice: What was found, and unless it is ok, what to do.
    """

    name: str
    state: State
    advice: str


Verdict = tuple[State, str]  # a finding without its name
Check = Callable[[T], Verdict | None]  # None where there is nothing to check


def ok(found: str) -> Verdict:
    """Nothing to do."""
    return "ok", found


def warning(advice: str) -> Verdict:
    """The run may be intended like this."""
    return "warning", advice


def stop(advice: str) -> Verdict:
    """The run cannot be intended like this."""
    return "stop", advice


def findings(checks: Mapping[str, Check[T]], subject: T) -> list[Finding]:
    """Carry out the checks that apply to ``subject``.

    A check that raises an error about the user's input is a stop. One that fails for another reason
    (memory, or a user's class that cannot be called this way) is a warning: the run may work.
    """
    found = []
    for name, check in checks.items():
        try:
            verdict = check(subject)
        except (ConfigError, DataError, FloatingPointError) as error:
            verdict = stop(str(error))
        except Exception as error:
            verdict = warning(f"not checked: {type(error).__name__}: {in_a_line(error)}")
        if verdict is not None:
            found.append(Finding(name, *verdict))
    return found


def table(found: Iterable[Finding]) -> str:
    """The findings as text, a line each."""
    rows = list(found)
    wide = max((len(each.name) for each in rows), default=0)
    return "\n".join(f"{each.state:<8} {each.name:<{wide}}  {each.advice}" for each in rows)


def as_json(found: Iterable[Finding]) -> str:
    """The findings as a JSON list of objects."""
    return json.dumps([each._asdict() for each in found], indent=1)


def count(found: Iterable[Finding]) -> str:
    """How many checks are ok, how many warnings there are, and how many stops."""
    states: list[str] = [each.state for each in found]
    oks, warnings, stops = map(states.count, ("ok", "warning", "stop"))
    parts = [f"{oks} check{'s' * (oks != 1)} ok"]
    parts += [f"{warnings} warning{'s' * (warnings > 1)}"] if warnings else []
    parts += [f"{stops} stop{'s' * (stops > 1)}"] if stops else []
    return ", ".join(parts)
