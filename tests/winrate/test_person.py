import re
from pathlib import Path

import pytest

from alignlab.winrate.matches import TIE, Verdict, value_of
from alignlab.winrate.memo import Memo
from alignlab.winrate.person import Person
from tests.winrate.made import match, round_of

TEXTS = [(f"good {k}", f"bad {k}") for k in range(12)]


class Reader:
    """Prefers the text that begins with ``good``; stops after some answers."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *, patience: int = 99) -> None:
        self.capsys, self.patience, self.shown = capsys, patience, list[str]()

    def __call__(self, question: str) -> str:
        assert question.startswith("Which is better?")
        self.shown.append(self.capsys.readouterr().out)
        if self.patience == len(self.shown) - 1:
            return "q"
        return " A " if "A: good" in self.shown[-1] else "b"


def test_the_order_is_blind_and_the_answer_is_the_policys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Reader(capsys)
    with Memo(tmp_path / "memo.jsonl") as memo:
        found = Person(reader).judge(round_of(TEXTS), memo)
        turned = Person(reader).judge(round_of([(b, a) for a, b in TEXTS]), memo)
    assert [value_of(each, both_orders=False) for each in found] == [1.0] * 12
    assert [value_of(each, both_orders=False) for each in turned] == [0.0] * 12
    assert len(reader.shown) == 12  # swapped sides are no other question
    firsts = ["A: good" in shown for shown in reader.shown]
    assert 0 < sum(firsts) < 12
    assert [each is not None and each.first == 1 for each in found].count(True) == sum(firsts)
    assert not any("'p'" in shown or "0.5" in shown for shown in reader.shown)
    places = [int(re.findall(r"Question (\d+)", shown)[0]) for shown in reader.shown]
    assert places != sorted(places)  # a shuffled order, so that stopping early is fair


def test_one_who_stops_goes_on_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Memo(tmp_path / "memo.jsonl") as memo:
        found = Person(Reader(capsys, patience=5)).judge(round_of(TEXTS), memo)
    assert sum(each is not None for each in found) == 5
    reader = Reader(capsys)
    with Memo(tmp_path / "memo.jsonl") as memo:
        found = Person(reader).judge(round_of(TEXTS), memo)
    assert None not in found
    assert len(reader.shown) == 7


def test_ties_other_keys_and_the_end_of_the_input(tmp_path: Path) -> None:
    answers = iter(["x", "", "T"])

    def ask(_: str) -> str:
        try:
            return next(answers)
        except StopIteration:
            raise EOFError from None

    matches = [match("a", "b"), match("same", " same"), match("c", "d", place=1, prompt="Other")]
    with Memo(tmp_path / "memo.jsonl") as memo:
        found = Person(ask).judge(matches, memo)
    assert found[1] == TIE
    assert sorted(map(str, (found[0], found[2])))[0] == "None"
    assert any(each in (Verdict(0.5, None), Verdict(None, 0.5)) for each in (found[0], found[2]))
