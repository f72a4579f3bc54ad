import json
from pathlib import Path

import pytest
import yaml

from alignlab.errors import ConfigError, DataError
from alignlab.pipeline.calls import check_call
from alignlab.results.csv_tables import read_table
from alignlab.winrate import command
from alignlab.winrate.contest import TEMPERATURES
from alignlab.winrate.policies import Contender
from alignlab.winrate.stage import _contenders, _variant, measure_win_rates
from tests.data.files import jsonl
from tests.winrate.server import served
from tests.winrate.test_command import call

SUM = {"class_path": "tests.rollouts.word_sum.WordSum"}
PATH = "alignlab.winrate.stage.measure_win_rates"


@pytest.mark.usefixtures("undrawn")
def test_the_stage_writes_what_the_command_writes(
    policies: dict[str, str], pairs: Path, tmp_path: Path
) -> None:
    measure_win_rates(
        out=tmp_path / "stage",
        policies={"p": list(policies.values())},
        against={"one": policies["one"]},
        columns=["chosen"],
        prompts=str(pairs),
        reward=SUM,
        max_new_tokens=4,
        limit=8,
        temperatures=[1.0],
        memo=str(tmp_path / "cache" / "memo.jsonl"),
        results=str(tmp_path / "results"),
    )
    words = ["--policy", f"p={','.join(policies.values())}", "--against", f"one={policies['one']}"]
    words += ["--against", "chosen", "--prompts", str(pairs), "--reward", SUM["class_path"]]
    words += ["--max-new-tokens", "4", "--limit", "8", "--temperatures", "1"]
    assert call(*words, "--out", str(tmp_path / "command")) == 0
    for name in ("winrates.csv", "verdicts.csv", "winrate.svg", "winrate.html"):
        assert (tmp_path / "stage" / name).read_text() == (tmp_path / "command" / name).read_text()
    shown = {path.name for path in (tmp_path / "results").iterdir()}
    assert shown == {"winrates.csv", "verdicts.csv", "winrate_texts.csv", "winrate.svg",
                     "winrate.html"}  # fmt: skip
    assert not (tmp_path / "stage" / "memo.jsonl").exists()
    assert (tmp_path / "cache" / "memo.jsonl").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_served_judge_needs_no_confirmation_in_a_stage(
    policies: dict[str, str], pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    with served(lambda _: "Preferred: A") as server:
        judge = {"url": server.url, "model": "m", "question": "dialogue"}
        measure_win_rates(
            out=tmp_path,
            policies={"one": policies["one"]},
            columns=["chosen"],
            prompts=str(pairs),
            endpoint=judge,  # type: ignore[arg-type]  # as YAML gives it
            max_new_tokens=4,
            limit=2,
            temperatures=[0.0],
        )
        assert server.keys == ["Bearer sk-x"] * 4
    assert float(read_table(tmp_path / "winrates.csv")[0]["rate"]) == 0.5


@pytest.mark.parametrize("judges", [{}, {"reward": SUM, "endpoint": {"url": "u"}}])
def test_a_stage_has_one_judge(tmp_path: Path, judges) -> None:
    with pytest.raises(ConfigError, match="one judge: give reward or endpoint"):
        measure_win_rates(
            out=tmp_path,
            policies={"one": "x"},
            columns=["chosen"],
            prompts="p",
            max_new_tokens=4,
            **judges,
        )


def test_runs_that_differ_in_the_seed_alone_are_seeds_of_one_policy() -> None:
    runs = [f"r/stages/dpo/beta{b}-s{s}" for b in (0.5, 1) for s in (0, 1)]
    found = _contenders(["r/stages/sft/all", runs])
    assert [(each.name, each.sources) for each in found] == [
        ("sft", ("r/stages/sft/all",)),
        ("dpo-beta0.5", tuple(runs[:2])),
        ("dpo-beta1", tuple(runs[2:])),
    ]


def test_a_variant_is_prompted_with_examples_or_the_best_of_n(tmp_path: Path) -> None:
    rows = [{"id": f"e{k}", "prompt": f"Post {k}. TL;DR:", "completion": f" it {k}"} for k in "abc"]
    examples = str(jsonl(tmp_path, rows))
    assert _variant("zero", {"model": "lm"}) == Contender("zero", ("lm",))
    before = "Post a. TL;DR: it a\n\nPost b. TL;DR: it b\n\n"
    shown = _variant("few", {"model": "lm", "examples": examples, "shots": 2})
    assert shown == Contender("few", ("lm",), before)
    best = _variant("best", {"model": "sft", "best_of": 16, "ranked_by": ["rm0", "rm1"]})
    assert best == Contender("best", ("sft", "sft"), best_of=16, ranked_by=("rm0", "rm1"))
    with pytest.raises(ConfigError, match="'x': best_of and ranked_by belong together"):
        _variant("x", {"model": "sft", "best_of": 16})
    with pytest.raises(ConfigError, match="'x': best_of and ranked_by belong together"):
        _variant("x", {"model": "sft", "ranked_by": "rm"})
    with pytest.raises(ConfigError, match="'x': shots must be at least 1, with examples"):
        _variant("x", {"model": "lm", "shots": 2})
    with pytest.raises(DataError, match=r"3 demonstrations, 4 wanted\. Lower shots"):
        _variant("x", {"model": "lm", "examples": examples, "shots": 4})


def test_its_arguments_are_checked_before_any_stage_starts() -> None:
    args = {"policies": {"a": ["x", "y"]}, "prompts": "p", "max_new_tokens": 4, "reward": SUM}
    check_call(PATH, yaml.safe_load(json.dumps(args | {"temperatures": [0, 0.5]})))
    with pytest.raises(ConfigError, match=r"max_new_tokens must be a whole number > 0"):
        check_call(PATH, args | {"max_new_tokens": 0})
    best = {"best": {"model": "m", "best_of": 4, "ranked_by": ["a", "b"]}}
    check_call(PATH, args | {"variants": best})
    with pytest.raises(ConfigError, match=r"Missing required keys: .*'model'"):
        check_call(PATH, args | {"variants": {"best": {"best_of": 4}}})
    with pytest.raises(ConfigError, match=r"Missing required keys: .*'question'"):
        check_call(PATH, args | {"endpoint": {"url": "u"}})


def test_stage_and_command_share_the_default_temperatures() -> None:
    assert tuple(command._numbers(command.TEMPERATURES)) == TEMPERATURES
