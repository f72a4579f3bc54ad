"""Keys and values of ``pipeline.yaml``: each wrong one is one sentence, and editors know them."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import ConfigError
from alignlab.plan.schema import FrontierArgs, PipelineKeys, check
from alignlab.report.command import frontier_command
from tests.schemas import SCHEMAS, schema

LARGEST_SEED = 2**32 - 1


def refused(content: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check(PipelineKeys, content, "p.yaml")
    (line,) = str(caught.value).splitlines()
    return line.removeprefix("p.yaml: ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"stagez": {}},
            "unknown key stagez, did you mean stages? Known: extends, frontier, only, seeds, set, "
            "stages, tune.",
        ),
        ({"seeds": 3}, "seeds must be a list, got 3."),
        ({"seeds": []}, "seeds must have at least 1 item, got []."),
        ({"seeds": [0.5]}, "seeds.0 must be a whole number, got 0.5."),
        ({"seeds": [0, True]}, "seeds.1 must be a whole number, got True."),
        ({"seeds": [-1]}, "seeds.0 must be greater than or equal to 0, got -1."),
        (
            {"seeds": [LARGEST_SEED + 1]},
            "seeds.0 must be less than or equal to 4294967295, got 4294967296.",
        ),
        ({"seeds": [0, 0]}, "seeds must hold each seed once, got [0, 0]."),
        ({"stages": ["one"]}, "stages must be keys and their values, got ['one']."),
        ({"stages": {3: {}}}, "stages must have keys that are text in one line, got 3."),
        ({"stages": {"two": 3}}, "stages.two must be keys and their values, got 3."),
        ({"frontier": {"pool": 1}}, "unknown key frontier.pool. Known: args, needs."),
        (
            {"frontier": {"args": {"reward_lable": "x"}}},
            "unknown key frontier.args.reward_lable, did you mean reward_label? Known: base, "
            "reward_label.",
        ),
        (
            {"frontier": {"args": {"reward_label": None}}},
            "frontier.args.reward_label must be a string, got None.",
        ),
        (
            {"stages": {"two": {"betas": [1]}}},
            "unknown key stages.two.betas. Known: args, call, fit, grid, needs, objective, "
            "per_seed, set, tune.",
        ),
        ({"set": {"": 1}}, "set must have keys that are text in one line, got ''."),
    ],
    ids=str,
)
def test_a_wrong_key_or_value_is_named(content: Any, said: str) -> None:
    assert refused(content) == said


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"call": 3}, ".call must be a string, got 3."),
        ({"call": None}, ".call must be a string, got None."),
        (
            {"call": "function"},
            ".call must be a function's dotted name, such as package.module.function, got "
            "'function'.",
        ),
        ({"fit": 3}, ".fit must be a string or a list, got 3."),
        ({"fit": None}, ".fit must be a string or a list, got None."),
        ({"fit": []}, ".fit must be a string or must have at least 1 item, got []."),
        ({"fit": ["a.yaml", "b\n"]}, ".fit.1 must be text in one line, got 'b\\n'."),
        ({"args": "hello"}, ".args must be keys and their values, got 'hello'."),
        ({"needs": "one"}, ".needs must be a list, got 'one'."),
        ({"needs": [" "]}, ".needs.0 must be text in one line, got ' '."),
        ({"objective": 3}, ".objective must be a string, got 3."),
        ({"per_seed": 1}, ".per_seed must be true or false, got 1."),
        ({"grid": "beta"}, ".grid must be keys and their values or a list, got 'beta'."),
        ({"grid": {"a": 3}}, ".grid.a must be a list, got 3."),
        ({"grid": {"a": []}}, ".grid.a must have at least 1 item, got []."),
        (
            {"grid": {"a": [1, {}]}},
            ".grid.a.1 must be true or false or a number or a string, got {}.",
        ),
        (
            {"grid": {"a": [float("inf")]}},
            ".grid.a.0 must be true or false or a finite number or a string, got inf.",
        ),
    ],
    ids=str,
)
def test_a_wrong_value_of_a_stage_is_named(entry: Any, said: str) -> None:
    assert refused({"stages": {"two": entry}}) == f"stages.two{said}"


def test_null_is_as_if_it_were_left_out() -> None:
    nothing = dict.fromkeys(("args", "set", "needs", "per_seed", "grid", "objective"))
    content: dict[str, Any] = dict.fromkeys(("seeds", "set", "stages", "frontier"))
    assert check(PipelineKeys, content, "") == PipelineKeys()
    check(PipelineKeys, {"stages": {"one": nothing, "two": None}}, "")


def test_a_long_value_is_cut() -> None:
    assert len(refused({"seeds": "0" * 10_000})) < 300


def test_the_closing_evaluation_has_the_settings_of_its_command() -> None:
    parameters = inspect.signature(frontier_command).parameters.values()
    settings = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert set(FrontierArgs.model_fields) == settings


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_for_editors_are_up_to_date(name: str) -> None:
    """``python -m tests.schemas`` writes them."""
    written = Path(f"docs/schemas/{name}.json").read_text(encoding="utf-8")
    assert json.loads(written) == schema(name)
