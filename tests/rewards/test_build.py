from typing import Any

import pytest

from alignlab.errors import ConfigError
from alignlab.rewards.build import build_reward
from alignlab.rewards.rule import ToySentiment


class Scaled:
    """Counts words, with a number of points each."""

    def __init__(self, points: float, names: list[str] | None = None) -> None:
        self.points, self.names = points, names

    def __call__(self, prompts: Any, completions: Any) -> Any:
        return [self.points * len(text.split()) for text in completions]


class Table:
    """Looks its scores up, where there are any."""

    def __init__(self, rows: int = 0) -> None:
        self.rows = {k: float(k) for k in range(rows)}[0]

    def __call__(self, prompts: Any, completions: Any) -> Any:
        return [self.rows for _ in completions]


class Silent:
    """Not a reward: it cannot be called."""


HERE = f"{__name__}."


def test_a_class_path_alone_or_with_arguments() -> None:
    assert isinstance(build_reward("alignlab.rewards.rule.ToySentiment"), ToySentiment)
    spec = {"class_path": f"{HERE}Scaled", "init_args": {"points": "2", "names": ["a"]}}
    reward = build_reward(spec)
    assert isinstance(reward, Scaled)
    assert reward(["p"], [" three words here"]) == [6.0]
    assert reward.names == ["a"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("alignlab.rewards.rule.Nothing", "cannot be found: .*Nothing"),
        ("alignlab.nowhere.Reward", "cannot be found: No module named"),
        ("ToySentiment", "none of the known forms. Write length"),
        ("math.pi", "is not a class"),
        (f"{HERE}Silent", "cannot be called with texts"),
        ({"init_args": {}}, "needs class_path"),
        ({"class_path": f"{HERE}Scaled", "args": {}}, "may have init_args, got .*'args'"),
        ({"class_path": f"{HERE}Scaled"}, "points"),
        (
            {"class_path": f"{HERE}Table", "init_args": {"rows": None}},
            "rows must be a whole",
        ),
        (
            {"class_path": f"{HERE}Scaled", "init_args": {"points": "many"}},
            "points must be a number",
        ),
        (
            {"class_path": f"{HERE}Scaled", "init_args": {"points": 1, "point": 1}},
            "unknown key init_args",
        ),
    ],
)
def test_what_is_wrong_is_said(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_reward(spec)


def test_what_a_users_class_raises_is_one_sentence() -> None:
    with pytest.raises(ConfigError) as caught:
        build_reward(f"{HERE}Table")
    assert str(caught.value) == f"reward '{HERE}Table' cannot be made: KeyError: 0."
