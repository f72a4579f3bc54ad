"""The keys of a YAML file as pydantic models: each with its type, its bounds and a description.

The same models check files and give the JSON schemas in ``docs/schemas``, with which an editor
completes keys. ``check`` turns what pydantic finds into one sentence.
"""

import difflib
import re
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from alignlab.bounds import LARGEST_SEED
from alignlab.errors import ConfigError, in_a_line


def key(description: str) -> Any:
    """A key that may be left out; ``description`` is what an editor shows."""
    return Field(default=None, description=description)


class Keys(BaseModel):
    """A mapping of which every key is declared; no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, entry: Any) -> Any:
        if not isinstance(entry, Mapping):
            raise ValueError("must be keys and their values")
        known = sorted(field.alias or name for name, field in cls.model_fields.items())
        for key in map(str, entry):
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                meant = f", did you mean {near[0]}?" if near else "."
                raise PydanticCustomError(
                    "unknown_key",
                    "{key}{meant} Known: {known}.",
                    {"key": key, "meant": meant, "known": ", ".join(known) or "none"},
                )
        return entry


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must be text in one line")
    return text


def _dotted(name: str) -> str:
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name):
        raise ValueError("must be a function's dotted name, such as package.module.function")
    return name


def _once(what: str) -> AfterValidator:
    def different(values: list[Any]) -> list[Any]:
        if len(set(values)) < len(values):
            raise ValueError(f"must hold each {what} once")
        return values

    return AfterValidator(different)


Text = Annotated[str, AfterValidator(_one_line)]
Settings = dict[Text, Any]
Number = int | float
Value = bool | int | float | str | None  # of a key that a grid or a sweep varies
Count = Annotated[int, Field(gt=0)]
Positive = Annotated[int | float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Seeds = Annotated[list[Seed], Field(min_length=1), _once("seed")]
Budgets = Annotated[list[Positive], Field(min_length=1), _once("budget")]
Axes = dict[Text, Annotated[list[Value], Field(min_length=1)] | None]
Points = Annotated[list[dict[Text, Value]], Field(min_length=1)]


class Changes(Keys):
    """What a stage of an experiment and an arm of a sweep have in common."""

    fit: Text | Annotated[list[Text], Field(min_length=1)] = key(
        "A run of training: its YAML file in the experiment's folder, or several "
        "files, each merged into those before it."
    )
    call: Annotated[str, AfterValidator(_dotted)] = key(
        "A function to call: package.module.function."
    )
    args: Settings | None = key("The function's keyword arguments.")
    set: Settings | None = key("Dotted key -> value, set in the YAML file of a stage that trains.")
    needs: list[Text] | None = key("Earlier stages or runs whose output is read, as {stage}.")
    objective: Text | None = key(
        "The name in the tables; the stage's evaluations are rows of points.csv."
    )


class FixedKeys(Keys):
    """Settings that are taken from the trials of another results folder."""

    results: Text = Field(description="The folder, such as results/study.")
    free: list[Text] = Field(description="Dotted keys of the space that are found by trials here.")
    budgets: Budgets | None = key("KL in nats whose settings are taken; default: tune.budgets.")


class TuneKeys(Keys):
    """Settings that are found by trials, on prompts and a seed that no run of the tables has."""

    trials: Count | None = key("How many (24): a third quasi-random, then by a TPE sampler.")
    seed: Seed | None = key("Of the trials and of the stages that they read (100).")
    space: Settings | None = key("Dotted key -> values, as in a sweep; null drops a key.")
    set: Settings | None = key("Dotted key -> value, set in the trials alone.")
    needs: list[Text] | None = key("Stages that the trials read besides those of the stage.")
    pool: Text | None = key("Folder of reference samples of the trials' prompts, as {stage}.")
    budgets: Budgets | None = key(
        "KL in nats ([0.5, 1, 2]); the runs take the best settings at each."
    )
    fixed: FixedKeys | None = key("Take settings from the trials of another results folder.")


class StageKeys(Changes):
    """A stage: it trains (fit) or calls a function (call)."""

    per_seed: bool | None = key("One run for each seed.")
    grid: Axes | Points | None = key(
        "Dotted key -> values, of which every combination is a run; or a list of points."
    )
    tune: TuneKeys | None = key("In place of a grid: settings that are found by trials.")


class FrontierArgs(Keys):
    """Settings of the closing evaluation."""

    reward_label: Text = key("Name and unit of the reward in figures.")
    base: Text = key("Objective that every other is tested against at KL 1.")


class FrontierKeys(Keys):
    """The closing evaluation of an experiment."""

    needs: list[Text] | None = key("Stages that it reads besides the runs.")
    args: FrontierArgs | None = None


class PipelineKeys(Keys):
    """An experiment's pipeline.yaml, or a scale, which has the same keys."""

    extends: Text | None = key("In a scale: another scale, which this one changes.")
    seeds: Seeds | None = key("A stage with per_seed runs once for each.")
    set: Settings | None = key("Dotted key -> value, set in every stage that trains.")
    tune: TuneKeys | None = key("What the tune keys of the stages have in common.")
    stages: dict[Text, StageKeys | None] | None = key(
        "Name -> stage, in order; null drops a stage of an earlier file."
    )
    only: Annotated[list[Text], Field(min_length=1)] | None = key(
        "Stages to keep, with those that they and the frontier need; all others are dropped."
    )
    frontier: FrontierKeys | None = None


K = TypeVar("K", bound=BaseModel)
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 200
IN_WORDS = {
    "a valid dictionary": "keys and their values",
    "a valid integer": "a whole number",
    "a valid boolean": "true or false",
    "valid ": "",
}


def check_count(count: int, most: int, where: str) -> None:
    """Refuse an implausible number of runs before they are listed.

    Raises:
        ConfigError: ``count`` is above ``most``.
    """
    if count > most:
        raise ConfigError(
            f"{where}: {count:,} of them, more than the limit of {most:,}. Take fewer values or "
            "seeds."
        )


def check(keys: type[K], content: Any, where: str) -> K:
    """``content`` as an instance of ``keys``.

    Raises:
        ConfigError: An unknown or missing key, or a value of the wrong type; begins with
            ``where``.
    """
    try:
        return keys.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_sentence(error, content)}") from None


def _sentence(error: ValidationError, content: Any) -> str:
    """The first of the deepest errors; errors of a union's types are joined by 'or'."""
    found = [(_place(each["loc"], content), each) for each in error.errors()]
    place, first = max(found, key=lambda each: len(each[0]))
    if first["type"] == "unknown_key":
        return f"unknown key {'.'.join((*place, first['msg']))}"
    said = dict.fromkeys(_reason(each["msg"]) for where, each in found if where == place)
    reason = " or ".join(said).replace(" or must be ", " or ")
    reason = re.sub("a whole number or (a (finite )?number)", r"\1", reason)
    if first["loc"][-1:] == ("[key]",):
        place, reason = place[:-1], "must have keys that are text in one line"
    if first["type"] == "missing":
        return f"{'.'.join((*place, str(first['loc'][-1])))} is missing. Add it."
    colon = "" if reason.startswith("must") else ":"
    return f"{'.'.join(place)}{colon} {reason.rstrip('.')}, got {SHORT.repr(first['input'])}."


def _place(location: tuple[int | str, ...], content: Any) -> tuple[str, ...]:
    """The keys on the way to a value, without the names that pydantic has for a union's types."""
    place: list[str] = []
    for step in location:
        if content == step:  # a name without settings
            content = {step: None}
        try:
            content = content[step]
        except (IndexError, KeyError, TypeError):
            continue
        place.append(str(step))
    return tuple(place)


def _reason(message: str) -> str:
    message = in_a_line(message).removeprefix("Value error, ").split(" after validation")[0]
    for pydantics, ours in IN_WORDS.items():
        message = message.replace(pydantics, ours)
    return re.sub("^[A-Z][a-z]+ should ", "must ", message)
