from pathlib import Path

import pytest

from alignlab.errors import DataError
from alignlab.models.policy import Policy
from alignlab.rollouts.sampler import sample
from alignlab.winrate import sampling
from alignlab.winrate.memo import Memo
from alignlab.winrate.policies import identity_of
from alignlab.winrate.prompts import read_held_out
from alignlab.winrate.sampling import Settings, Stream, completions, fitting

SETTINGS = Settings(samples=2, max_new_tokens=5, seed=0, batch_size=64)


def stream(source: str, number: int = 0) -> Stream:
    return Stream(source, identity_of(source), number)


def test_a_completion_depends_on_its_prompt_and_its_model_alone(
    policies: dict[str, str], pairs: Path, tmp_path: Path
) -> None:
    held = read_held_out(pairs, [], split=None, limit=9)
    one = stream(policies["one"])
    with Memo(tmp_path / "memo.jsonl") as memo, Memo(tmp_path / "other.jsonl") as other:
        whole = completions(one, held, [0.0, 1.0], SETTINGS, memo)
        part = completions(one, held[4:], [1.0], SETTINGS._replace(batch_size=3), other)
        assert part[1.0] == whole[1.0][4:]
        assert [len(texts) for texts in whole[0.0]] == [1] * 9
        assert [len(texts) for texts in whole[1.0]] == [2] * 9
        again = completions(stream(policies["one"], 1), held, [0.0, 1.0], SETTINGS, memo)
        assert again[0.0] == whole[0.0]
        assert sum(a != b for a, b in zip(again[1.0], whole[1.0], strict=True)) > 4


def test_what_was_sampled_is_not_sampled_again(
    policies: dict[str, str], pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop after the first part of three keeps that part; the rest is the same as without it."""
    held = read_held_out(pairs, [], split=None, limit=9)
    one = stream(policies["one"])
    with Memo(tmp_path / "whole.jsonl") as memo:
        whole = completions(one, held, [1.0], SETTINGS, memo)
    monkeypatch.setattr(sampling, "KEPT_AT_ONCE", 3)
    drawn = list[int]()

    def stopping(policy: Policy, trees, **given):
        if len(drawn) == 1:
            drawn.append(0)
            raise KeyboardInterrupt
        drawn.append(len(trees))
        return sample(policy, trees, **given)

    monkeypatch.setattr(sampling, "sample", stopping)
    with Memo(tmp_path / "memo.jsonl") as memo:
        with pytest.raises(KeyboardInterrupt):
            completions(one, held, [1.0], SETTINGS, memo)
        found = completions(one, held, [1.0], SETTINGS, memo)
    assert found == whole
    assert [(text, text.ends) for row in found[1.0] for text in row] == [
        (text, text.ends) for row in whole[1.0] for text in row
    ]
    assert drawn == [3, 0, 3, 3]
    with Memo(tmp_path / "memo.jsonl") as memo:
        completions(one, held, [1.0], SETTINGS, memo)
        assert drawn == [3, 0, 3, 3]
        completions(one, held, [1.0], SETTINGS._replace(seed=1), memo)
        assert drawn == [3, 0, 3, 3, 3, 3, 3]


def test_prompts_that_a_model_has_no_room_for_are_left_out_with_a_count(
    policies: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.data.files import jsonl

    rows = [{"id": "short", "prompt": " w4"}, {"id": "long", "prompt": " w4" * 60}]
    held = read_held_out(jsonl(tmp_path, rows), [], split=None, limit=None)
    found = fitting(held, list(policies.values()), 5)
    assert [one.row.id for one in found] == ["short"]
    said = capsys.readouterr().err
    assert said.count("with 5 more tokens longer than the context of 64: long") == 2
    assert len(fitting(held, list(policies.values()), 3)) == 2
    with pytest.raises(DataError, match="none of its 2 rows can be used"):
        fitting(held, list(policies.values()), 63)
