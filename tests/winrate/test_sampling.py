from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignlab.data.rows import Prompt
from alignlab.data.rows.values import Turn
from alignlab.errors import ConfigError, DataError
from alignlab.models import Lora, PromptTuning
from alignlab.models.policy import Policy
from alignlab.rollouts.sampler import sample
from alignlab.winrate import sampling
from alignlab.winrate.memo import Memo
from alignlab.winrate.policies import Contender, identity_of
from alignlab.winrate.prompts import HeldOut, read_held_out
from alignlab.winrate.sampling import Settings, Stream, completions, fitting, stream_of
from tests.rollouts.word_sum import WordSum

SUM = "tests.rollouts.word_sum.WordSum"
SETTINGS = Settings(samples=2, max_new_tokens=5, seed=0, batch_size=64)


def stream(source: str, number: int = 0) -> Stream:
    return Stream(source, identity_of(source), number)


@pytest.mark.parametrize("settings", [{"lora": Lora(2)}, {"prompt_tuning": PromptTuning(3)}])
def test_adapters_have_the_context_of_their_model(
    policies: dict[str, str], tmp_path: Path, settings: Any
) -> None:
    """A prompt without room is left out, as for a whole model, and does not end a contest."""
    Policy(policies["one"], **settings).save(tmp_path / "adapters")
    room = 64 - 3 * ("prompt_tuning" in settings)
    held = [HeldOut(k, Prompt(str(k), " w8" * n)) for k, n in enumerate((2, room - 6, room - 5))]
    found = fitting(held, [(str(tmp_path / "adapters"), "")], 5)  # and begin-of-text
    assert [one.place for one in found] == [0, 1]


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
    found = fitting(held, [(each, "") for each in policies.values()], 5)
    assert [one.row.id for one in found] == ["short"]
    said = capsys.readouterr().err
    assert said.count("with 5 more tokens longer than the context of 64: long") == 2
    assert len(fitting(held, [(each, "") for each in policies.values()], 3)) == 2
    with pytest.raises(DataError, match="none of its 2 rows can be used"):
        fitting(held, [(each, "") for each in policies.values()], 63)


def test_the_best_of_n_is_the_one_that_the_ranker_prefers(
    policies: dict[str, str], pairs: Path, tmp_path: Path
) -> None:
    """Every two seeds choose among the same samples; greedy decoding has one to choose from."""
    held = read_held_out(pairs, [], split=None, limit=6)
    rankers = (f"-1*{SUM}", SUM)
    best = Contender("best", (policies["one"],) * 2, best_of=4, ranked_by=rankers)
    plain = stream_of(Contender("one", (policies["one"],)), 0)
    assert plain == stream(policies["one"])
    with Memo(tmp_path / "memo.jsonl") as memo:
        first, second = (
            completions(stream_of(best, k), held, [0.0, 1.0], SETTINGS, memo) for k in (0, 1)
        )
        eight = SETTINGS._replace(samples=8)
        pool = completions(stream_of(best, 0)._replace(best_of=1), held, [1.0], eight, memo)
        usual = completions(plain, held, [0.0, 1.0], SETTINGS, memo)
    for own, chosen, by_sum in zip(pool[1.0], first[1.0], second[1.0], strict=True):
        assert len(own) == 8
        sums = WordSum()([], own).tolist()
        assert WordSum()([], chosen).tolist() == [min(sums[:4]), min(sums[4:])]
        assert WordSum()([], by_sum).tolist() == [max(sums[:4]), max(sums[4:])]
    assert first[0.0] == usual[0.0]
    assert pool[1.0] != [row * 4 for row in usual[1.0]]  # noise of its own


def test_examples_stand_before_the_prompt_and_take_room(
    policies: dict[str, str], pairs: Path, tmp_path: Path
) -> None:
    held = read_held_out(pairs, [], split=None, limit=4)
    shown = Contender("shown", (policies["one"],), before=" w8 w9")
    longer = [replace(one, row=replace(one.row, prompt=f" w8 w9{one.row.prompt}")) for one in held]
    with Memo(tmp_path / "memo.jsonl") as memo:
        found = completions(stream_of(shown, 0), held, [0.0], SETTINGS, memo)
        assert found == completions(stream(policies["one"]), longer, [0.0], SETTINGS, memo)
        assert found != completions(stream(policies["one"]), held, [0.0], SETTINGS, memo)
    with pytest.raises(DataError, match="none of its 4 rows can be used"):
        fitting(held, [(policies["one"], " w8" * 58)], 5)
    talk = Prompt("talk", (Turn("user", "w4"),))
    with pytest.raises(ConfigError, match="examples can be put before prompts that are text"):
        fitting([HeldOut(0, talk)], [(policies["one"], " w8")], 5)
