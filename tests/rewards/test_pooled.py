"""Rewards relative to a pool by hand: shares of samples, the floor, the pool's checks."""

import math
from pathlib import Path

import pytest

from alignlab.data.rows import Turn
from alignlab.data.texts import prompt_text
from alignlab.errors import ConfigError, DataError
from alignlab.rewards.pooled import BestOfN, RewardPool
from tests.rewards.pools import write_pool
from tests.rollouts.word_sum import WordSum

POOL = {" w3": {" w1": 1.0, " w2": 2.0, " w1 w1": 2.0, " w4": 4.0}, " w5": {" w9": 9.0}}


@pytest.fixture
def pool(tmp_path: Path) -> str:
    return write_pool(tmp_path / "candidates.jsonl", POOL)


def test_best_of_n_worked_by_hand(pool: str) -> None:
    """Of 1, 2, 2 and 4: 2 is no worse than 3/4 of them, 9 than all, 0 than none: 1/5 then."""
    reward = BestOfN(WordSum(), pool, n=3)
    found = reward([" w3"] * 4 + [" w5"], [" w2", " w9", " w0", " w3 w1", " w8"]).tolist()
    expected = [2 * math.log(share) for share in (0.75, 1.0, 0.2, 1.0, 0.5)]
    assert found == pytest.approx(expected)
    assert BestOfN(WordSum(), pool, n=1)([" w3"], [" w0"]).tolist() == [0.0]


def test_samples_of_one_prompt_in_several_rows_are_one_pool(tmp_path: Path) -> None:
    rows = [write_pool(tmp_path / str(i), {" w3": {f" w{i}": i}}) for i in (5, 1, 3)]
    both = tmp_path / "candidates.jsonl"
    both.write_text("".join(Path(row).read_text() for row in rows))
    assert RewardPool(str(both), WordSum()).of(" w3") == [1.0, 3.0, 5.0]


def test_a_conversation_is_found_by_its_turns(tmp_path: Path) -> None:
    path = tmp_path / "candidates.jsonl"
    path.write_text(
        '{"prompt": [{"role": "user", "content": "w3"}], '
        '"completions": [[{"role": "assistant", "content": "w7"}]], "ratings": [7]}\n'
    )
    pool = RewardPool(str(path), WordSum())
    asked = prompt_text((Turn("user", "w3"),))
    assert pool.of(asked) == [7.0]
    with pytest.raises(DataError, match="no samples of the prompt 'w3'"):
        pool.of(str(asked))


def test_a_prompt_without_samples_and_a_pool_of_another_reward_are_refused(pool: str) -> None:
    with pytest.raises(DataError, match="no samples of the prompt ' w4'"):
        BestOfN(WordSum(), pool, n=2)([" w4"], [" w1"])
    with pytest.raises(ConfigError, match=r"says 9, WordSum gives 0\. Make the pool with"):
        BestOfN(WordSum(modulus=9), pool, n=2)


@pytest.mark.parametrize("n", [0.5, math.inf, math.nan])
def test_an_impossible_n_is_refused(pool: str, n: float) -> None:
    with pytest.raises(ConfigError, match=r"BestOfN needs n >= 1, got "):
        BestOfN(WordSum(), pool, n=n)
