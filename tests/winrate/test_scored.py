from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from alignlab.data.texts import CompletionText
from alignlab.errors import ConfigError
from alignlab.winrate.matches import Verdict
from alignlab.winrate.memo import Memo
from alignlab.winrate.scored import RewardJudge
from tests.winrate.made import match, round_of

SUM = "tests.rollouts.word_sum.WordSum"


class Counting:
    """Characters; counts what it is asked, and rewards an end."""

    scored: list[str] = []  # noqa: RUF012

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> torch.Tensor:
        self.scored.extend(completions)
        ends = [getattr(text, "ends", True) for text in completions]
        return torch.tensor([len(t) + 0.5 * e for t, e in zip(completions, ends, strict=True)])


def test_the_higher_score_wins_and_equal_ones_tie(tmp_path: Path) -> None:
    spec = {"class_path": SUM, "init_args": {"modulus": 10}}
    matches = round_of([(" w5", " w4"), (" w3 w4", " w9"), (" w9 w3", " w2")])
    with Memo(tmp_path / "memo.jsonl") as memo:
        found = RewardJudge(spec).judge(matches, memo)
    assert found == [Verdict(1, None), Verdict(0, None), Verdict(0.5, None)]
    assert RewardJudge(SUM).name == "WordSum"


def test_each_text_is_scored_once(tmp_path: Path) -> None:
    Counting.scored.clear()
    judge = RewardJudge(f"{__name__}.Counting")
    whole, cut = CompletionText("abc", "abc"), CompletionText("abc", "abc", ends=False)
    matches = [match("ab", "b"), match("b", "ab"), match(whole, cut)]
    for _ in range(2):
        with Memo(tmp_path / "memo.jsonl") as memo:
            values = [each and each.first for each in judge.judge(matches, memo)]
            assert values == [1, 0, 1]
    assert sorted(Counting.scored) == ["ab", "abc", "abc", "b"]


def test_other_settings_are_another_judge(tmp_path: Path) -> None:
    match_ = [match(" w15", " w9")]
    with Memo(tmp_path / "memo.jsonl") as memo:
        ten, hundred = ({"class_path": SUM, "init_args": {"modulus": n}} for n in (10, 100))
        assert RewardJudge(ten).judge(match_, memo) == [Verdict(0, None)]
        assert RewardJudge(hundred).judge(match_, memo) == [Verdict(1, None)]


def test_an_unknown_reward_is_told_before_anything_is_sampled() -> None:
    with pytest.raises(ConfigError, match=r"'no\.Such' cannot be found"):
        RewardJudge("no.Such")


def test_a_file_and_a_sum_are_rewards_and_a_changed_file_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    own = Path("mine/short.py")
    own.write_text("def score(prompts, completions):\n    return [-len(c) for c in completions]\n")
    spec = "mine/short.py:score"
    for sign in (0.0, 1.0):
        judge = RewardJudge(spec)
        assert judge.name == "short.py:score"
        with Memo(tmp_path / "memo.jsonl") as memo:
            assert judge.judge([match("long", "s")], memo) == [Verdict(sign, None)]
        own.write_text(own.read_text().replace("-len", "len"))
    assert (
        RewardJudge("2*mine/short.py:score + -0.5*length").name == "2*short.py:score + -0.5*length"
    )
