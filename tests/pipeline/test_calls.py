"""A stage's function and its arguments: what does not fit is said before anything is made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from alignlab.bounds import Amount, Count, Fraction, Positive, Ratio, Seed, Share
from alignlab.errors import ConfigError
from alignlab.pipeline.calls import check_call

HERE = f"{__name__}.stage"
TOY = "alignlab.rewards.rule.ToySentiment"


def stage(
    *,
    out: Path,
    source: str | Sequence[str] = "a",
    rows: Count = 1,
    limit: Count | None = None,
    more: Amount = 0,
    seed: Seed = 0,
    scale: Positive = 1.0,
    share: Share = 0.0,
    top_p: Fraction = 1.0,
    fullest: Ratio = 0.0,
    weight: float = 1.0,
    half: Literal["a", "b"] = "a",
    split: str | None = None,
    ranges: tuple[int, int] = (1, 2),
    sizes: Sequence[Count] = (1,),
    switch: bool = False,
    reward: Mapping[str, Any] | str | None = None,
) -> None:
    raise AssertionError("checked, never called")


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"rows": 3, "limit": None, "more": 0, "seed": 2**32 - 1, "scale": 2, "share": 0},
        {"top_p": 1, "fullest": 1.0, "source": ["a", "b"], "split": None, "ranges": [3, 4]},
        {"reward": {"class_path": TOY}, "sizes": [1, 2], "switch": True},
        {"reward": TOY, "split": "validation"},
    ],
    ids=str,
)
def test_what_the_signature_takes(args: dict[str, Any]) -> None:
    check_call(HERE, args)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"rows": 0}, "args.rows must be a whole number > 0, got 0."),
        ({"rows": True}, "rows must be a whole number, got True"),
        ({"rows": 1.0}, "rows must be a whole number, got 1.0"),
        ({"rows": "1"}, "args.rows is the text '1' and would be read as the number 1"),
        ({"rows": None}, "args.rows must be given, or left out for its default, got null"),
        ({"limit": 0}, "args.limit must be a whole number > 0, got 0"),
        ({"more": -1}, "args.more must be a whole number >= 0, got -1"),
        ({"seed": -1}, "args.seed must be 0 to 4294967295, got -1"),
        ({"seed": 2**32}, "args.seed must be 0 to 4294967295, got 4294967296"),
        ({"scale": 0}, "args.scale must be a number > 0, got 0"),
        ({"scale": float("inf")}, "args.scale must be a finite number, got inf"),
        ({"weight": float("nan")}, "args.weight must be a finite number, got nan"),
        ({"share": 1}, "args.share must be a share in [0, 1), got 1"),
        ({"top_p": 0}, "args.top_p must be a share in (0, 1], got 0"),
        ({"fullest": 1.5}, "args.fullest must be a share in [0, 1], got 1.5"),
        ({"half": "c"}, "half must be one of ['a', 'b'], got c"),
        ({"split": "null"}, "args.split is the text 'null' and would be read as null"),
        ({"source": None}, "args.source must be given"),
        ({"ranges": [1]}, "ranges"),
        ({"ranges": [1, "b"]}, "ranges must be a whole number, got b"),
        ({"sizes": [1, 0]}, "args.sizes must be a whole number > 0, got [1, 0]"),
        ({"switch": "true"}, "args.switch is the text 'true' and would be read as true"),
        ({"reward": {"class_path": "alignlab.rewards.rule.Toy"}}, "reward: reward 'alignlab"),
        ({"reward": {"class_path": TOY, "init_args": {"a": 1}}}, "args.reward: reward"),
        ({"rws": 1}, "got an unexpected keyword argument 'rws'"),
        ({"out": "elsewhere"}, "out"),
    ],
    ids=str,
)
def test_what_it_does_not_take_is_one_sentence(args: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_call(HERE, args)
    (line,) = str(caught.value).splitlines()
    assert said in line
    assert line.startswith(f"call '{HERE}'")


@pytest.mark.parametrize("path", ["stage", "no.such.stage", f"{__name__}.stag", ".", "a..b"])
def test_a_function_that_is_not_there(path: str) -> None:
    with pytest.raises(ConfigError, match="cannot be found"):
        check_call(path, {})
