from collections.abc import Sequence
from pathlib import Path

import pytest

from alignlab.errors import ConfigError, DataError
from alignlab.results.csv_tables import read_table, read_typed
from alignlab.results.tables import WinRate
from alignlab.winrate.contest import Contest, hold
from alignlab.winrate.matches import Match, Verdict
from alignlab.winrate.memo import Memo
from alignlab.winrate.policies import Contender
from alignlab.winrate.sampling import Settings
from alignlab.winrate.scored import RewardJudge

SUM = "tests.rollouts.word_sum.WordSum"
SETTINGS = Settings(samples=1, max_new_tokens=5, seed=0, batch_size=64)


class First:
    """Always prefers what is shown first."""

    name, both_orders = "first", True

    def judge(self, matches: Sequence[Match], memo: Memo) -> list[Verdict | None]:
        return [Verdict(1.0, 0.0) for _ in matches]


def contest(pairs: Path, *names: str, against: Sequence = (), **given) -> Contest:
    return Contest(
        policies=[Contender(name, (folder,)) for name, folder in (n.split("=") for n in names)],
        against=against,
        prompts=str(pairs),
        **({"temperatures": (0.0, 1.0), "sampling": SETTINGS} | given),
    )


@pytest.mark.usefixtures("undrawn")
def test_a_policy_against_a_column_another_policy_and_itself(
    policies: dict[str, str], pairs: Path, tmp_path: Path
) -> None:
    one, two = (Contender(name, (folder,)) for name, folder in policies.items())
    against = ["chosen", one, two]
    rows = hold(
        contest(pairs, f"one={policies['one']}", against=against), RewardJudge(SUM), tmp_path
    )
    assert [(row.against, row.temperature) for row in rows] == [
        (other, t) for other in ("chosen", "one", "two") for t in (0.0, 1.0)
    ]
    assert {row.n_prompts for row in rows} == {40}
    greedy, sampled = rows[2], rows[3]
    assert (greedy.rate, greedy.ties) == (0.5, 40)  # one completion, the same
    assert sampled.ties < 20  # independent noise on both sides
    assert sampled.lo < 0.5 < sampled.hi
    table = read_table(tmp_path / "verdicts.csv")
    assert len(table) == 6 * 40
    for row in rows:
        own = [r for r in table if (r["against"], float(r["temperature"])) == (row.against, row.temperature)]  # fmt: skip  # noqa: E501
        assert sum(float(r["value"]) for r in own) / 40 == row.rate
    assert read_typed(tmp_path / "winrates.csv", WinRate)[3].rate == pytest.approx(sampled.rate)
    texts = read_table(tmp_path / "winrate_texts.csv")
    chosen = next(row for row in texts if row["against"] == "chosen")
    assert (chosen["prompt"], chosen["other"]) == ("w3 w4", "w9 w10")
    won = sum(int(word[1:]) for word in chosen["completion"].split()) > 19
    assert float(chosen["value"]) == won


@pytest.mark.usefixtures("undrawn")
def test_swapped_policies_mirror_the_rate_without_sampling_again(
    policies: dict[str, str], pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (f"{name}={folder}" for name, folder in policies.items())
    forward = hold(contest(pairs, one, two), RewardJudge(SUM), tmp_path)
    monkeypatch.setattr("alignlab.models.policy.Policy.load_for_eval", None)
    back = hold(contest(pairs, two, one), RewardJudge(SUM), tmp_path)
    assert [(row.policy, row.against) for row in back] == [("two", "one")] * 2
    for row, other in zip(forward, back, strict=True):
        assert row.rate + other.rate == 1
        assert row.rate != 0.5
        assert row.lo + other.hi == pytest.approx(1, abs=1e-12)
    monkeypatch.undo()
    named = Contender("one", (policies["one"],))
    against = hold(contest(pairs, two, against=[named]), RewardJudge(SUM), tmp_path / "other")
    assert against == back  # an opponent's samples are those that it has as a policy


@pytest.mark.usefixtures("undrawn")
def test_a_judge_that_always_prefers_the_first_scores_one_half(
    policies: dict[str, str], pairs: Path, tmp_path: Path
) -> None:
    one, two = (f"{name}={folder}" for name, folder in policies.items())
    rows = hold(contest(pairs, one, two), First(), tmp_path)
    assert {(row.rate, row.lo, row.hi) for row in rows} == {(0.5, 0.5, 0.5)}


@pytest.mark.usefixtures("undrawn")
def test_seeds_meet_and_a_fixed_temperature_of_the_opponent(
    policies: dict[str, str], pairs: Path, tmp_path: Path
) -> None:
    """With two completions at temperature 1 and one at 0, the one meets both."""
    both = Contender("both", tuple(policies.values()))
    made = Contest(
        policies=[both],
        against=[Contender("one", (policies["one"],))],
        prompts=str(pairs),
        temperatures=(0.0,),
        against_temperature=1.0,
        limit=6,
        sampling=SETTINGS._replace(samples=2),
    )
    (row,) = hold(made, RewardJudge(SUM), tmp_path)
    assert (row.n_seeds, row.n_prompts, row.n_matches) == (2, 6, 24)
    table = read_table(tmp_path / "verdicts.csv")
    assert {(r["seed"], r["sample"]) for r in table} == {(s, k) for s in "01" for k in "01"}


@pytest.mark.usefixtures("undrawn")
def test_no_verdict_at_all_is_an_error(
    policies: dict[str, str], pairs: Path, tmp_path: Path
) -> None:
    class Silent(First):
        def judge(self, matches: Sequence[Match], memo: Memo) -> list[Verdict | None]:
            return [None] * len(matches)

    one = contest(pairs, f"one={policies['one']}", against=["chosen"], limit=3)
    with pytest.raises(DataError, match="first decided none of 6 matches"):
        hold(one, Silent(), tmp_path)


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (["a=x"], {}, "give two policies, or one policy and an opponent"),
        (["a=x", "a=y"], {}, "policies need different names, got a, a"),
        (["chosen=x"], {"against": ["chosen"]}, "'chosen' is a column's name"),
        (["a=x"], {"against": ["chosen", "chosen"]}, "opponents need different names"),
        (["a=x", "b=y"], {"temperatures": ()}, "temperatures must be different numbers"),
        (["a=x", "b=y"], {"temperatures": (-1.0,)}, "temperature must be >= 0"),
        (["a=x", "b=y"], {"against_temperature": -1.0}, "temperature must be >= 0"),
    ],
)
def test_impossible_contests_are_refused(names, given, message, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        contest(tmp_path, *names, **given)
