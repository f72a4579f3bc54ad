import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import binomtest

from alignlab.data.rows import PreferencePair, Prompt, Turn
from alignlab.data.sources import read_rows
from alignlab.errors import ConfigError
from alignlab.models.policy import Policy
from alignlab.stages.completed import Completions
from alignlab.stages.pairs import Labelling, PairTally, make_pairs
from tests.data.files import jsonl

SUM = {"class_path": "tests.rollouts.word_sum.WordSum"}
FEW = {"class_path": "tests.rollouts.word_sum.WordSum", "init_args": {"modulus": 3}}


@pytest.fixture(scope="module")
def folder(build: Callable[..., Policy], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved policy and 40 prompts for it."""
    folder = tmp_path_factory.mktemp("pairs")
    build(dtype="float32", spread=0.1).save(folder / "policy")
    lines = [json.dumps({"prompt": f" w{3 + i % 20} w{3 + i // 2}"}) for i in range(40)]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def make(folder: Path, tmp_path: Path) -> Callable[..., tuple[list[PreferencePair], Any]]:
    def run(name: str = "out", **changes: Any) -> tuple[list[PreferencePair], Any]:
        settings: dict[str, Any] = {
            "policy": str(folder / "policy"),
            "prompts": str(folder / "prompts.jsonl"),
            "reward": SUM,
            "max_new_tokens": 4,
            "validation_share": 0.3,
        }
        make_pairs(out=tmp_path / name, **settings | changes)
        rows = []
        for file in sorted((tmp_path / name).glob("*.jsonl")):
            rows += read_rows(file, PreferencePair)[0]
        return rows, json.loads((tmp_path / name / "summary.json").read_text())

    return run


def number(text: Any) -> int:
    return sum(int(word[1:]) for word in text.split())


def test_deterministic_labels_prefer_the_larger_reward_and_drop_ties(make: Any) -> None:
    rows, summary = make(labels="deterministic", reward=FEW)
    assert all(number(row.chosen) % 3 > number(row.rejected) % 3 for row in rows)
    assert summary["dropped"]["tied rewards"] > 20
    assert len(rows) + sum(summary["dropped"].values()) == 40 * 6
    assert summary["pairs"] + summary["validation_pairs"] == len(rows)
    assert summary["agreement_with_gold"] == 1
    assert (summary["prompts"], summary["completions"]) == (40, 160)


def test_sampled_labels_keep_ties_and_make_mistakes(make: Any) -> None:
    rows, summary = make(reward=FEW)
    gaps = [number(row.chosen) % 3 - number(row.rejected) % 3 for row in rows]
    assert summary["dropped"]["tied rewards"] == 0
    assert 0 in gaps
    decided = [gap > 0 for gap in gaps if gap]
    assert summary["agreement_with_gold"] == pytest.approx(sum(decided) / len(decided))
    assert 0.6 < sum(decided) / len(decided) < 0.95
    assert summary["reward_mean"] > 0
    assert summary["reward_sd"] > 0


def test_a_refused_prompt_with_the_same_id_lends_its_text_to_nobody(
    make: Any, tmp_path: Path
) -> None:
    """Three rows of one conversation id; the first two are longer than the model's context."""
    prompts = [" w5" * 70, " w6" * 70, " w7 w8", " w9 w10"]
    rows = [{"id": "conv", "prompt": prompt} for prompt in prompts]
    pairs, summary = make(prompts=str(jsonl(tmp_path, rows)), samples=2, validation_share=0)
    assert {pair.prompt for pair in pairs} == {" w7 w8", " w9 w10"}
    assert len({pair.id for pair in pairs}) == len(pairs) == 2
    assert summary["refused_prompts"] == {"longer than max_length": 2}


def test_prompts_are_split_whole(make: Any, tmp_path: Path) -> None:
    make()
    train, held_out = (
        {row.prompt for row in read_rows(tmp_path / "out" / name, PreferencePair)[0]}
        for name in ("pairs.jsonl", "validation.jsonl")
    )
    assert train
    assert held_out
    assert not train & held_out


def test_ends_says_whether_the_policy_stopped(make: Any) -> None:
    rows, summary = make(max_new_tokens=12)
    sides = [(row.chosen, row.chosen_ends) for row in rows]
    sides += [(row.rejected, row.rejected_ends) for row in rows]
    assert {ends for _, ends in sides} == {True, False}
    assert all(len(text.split()) < 12 for text, ends in sides if ends)
    assert not any(ends for text, ends in sides if len(text.split()) == 12)
    assert 0 < summary["finished_share"] < 1
    endless, summary = make("endless", max_new_tokens=12, stop_at_eos=False)
    assert not any(row.chosen_ends or row.rejected_ends for row in endless)
    assert (summary["finished_share"], summary["mean_tokens"]) == (0, 12)


def test_files_are_a_function_of_the_seed(make: Any, tmp_path: Path) -> None:
    make("one")
    make("again", batch_size=7)
    make("other", seed=1)
    one, again, other = (
        [(tmp_path / name / file).read_bytes() for file in ("pairs.jsonl", "summary.json")]
        for name in ("one", "again", "other")
    )
    assert one == again
    assert one != other


def test_some_pairs_of_each_prompt(make: Any) -> None:
    every, _ = make("all", labels="deterministic")
    some, _ = make("some", labels="deterministic", pairs_per_prompt=2)
    assert {row.id for row in some} < {row.id for row in every}
    each = Counter(row.id.split("#")[0] for row in some)
    assert max(each.values()) == 2
    # Which two differs between prompts.
    assert len({row.id.split("#")[1] for row in some}) == 6


@pytest.mark.parametrize(("scale", "odds"), [(1.0, 3), (2.0, 9)])
def test_a_difference_of_log_three_wins_three_times_in_four(scale: float, odds: int) -> None:
    """Odds of winning are exp(scale * log 3): 3 to 1, and 9 to 1 at scale 2."""
    own = Completions([" a", " b"], [True, True], torch.tensor([3.0, 1.0]).double().log())
    labelling = Labelling("bradley_terry", scale, 2, None, seed=4)
    tally = PairTally()
    wins = 0
    for index in range(4000):
        (pair,) = labelling.pairs(Prompt(str(index), "p"), index, own, tally)
        wins += pair.chosen == " a"
    assert binomtest(wins, 4000, odds / (odds + 1)).pvalue > 1e-3
    assert (tally.agreed, tally.decided) == (wins, 4000)


def test_identical_and_empty_completions_make_no_pair() -> None:
    own = Completions([" a", " a", " ", " b"], [True] * 4, torch.tensor([0.0, 0.0, 1.0, 2.0]))
    tally = PairTally()
    labelling = Labelling("bradley_terry", 1.0, 4, None, seed=0)
    rows = list(labelling.pairs(Prompt("r", "p"), 0, own, tally))
    assert [row.id for row in rows] == ["r#0-3", "r#1-3"]
    assert (tally.identical, tally.empty) == (1, 3)


def test_a_conversation_is_answered_by_the_assistant() -> None:
    chat = Prompt("r", (Turn("user", "hello"),))
    own = Completions(["a", "b"], [True, False], torch.tensor([1.0, 0.0]))
    (row,) = Labelling("deterministic", 1.0, 2, None, 0).pairs(chat, 0, own, PairTally())
    assert row == PreferencePair(
        "r#0-1", chat.prompt, (Turn("assistant", "a"),), (Turn("assistant", "b"),), True, False
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 1}, "samples >= 2 completions a prompt, got 1"),
        ({"pairs_per_prompt": 7}, "4 samples make 1 to 6 pairs, got pairs_per_prompt=7"),
        ({"scale": 0.0}, r"scale > 0, got 0\.0"),
        ({"labels": "best"}, "bradley_terry or deterministic, got 'best'"),
        ({"temperature": -1.0}, "temperature must be >= 0"),
        ({"limit": 1}, "or another validation_share than 0.3"),
    ],
)
def test_impossible_values(
    changes: dict[str, Any], message: str, make: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)
    assert not list(tmp_path.glob("out/*"))
