"""Splits of rows by prompt."""

import pytest

from alignlab.data.rows import Prompt, Turn
from alignlab.data.rows.split import prompt_key, split_by_prompt, unit_hash
from alignlab.errors import ConfigError

ROWS = [Prompt(f"{i}", f"prompt {i % 500}") for i in range(1000)]


def test_rows_of_one_prompt_fall_on_one_side_and_the_share_is_met() -> None:
    train, held_out = split_by_prompt(ROWS, 0.3, seed=1)
    assert {row.prompt for row in train}.isdisjoint(row.prompt for row in held_out)
    assert len(train) + len(held_out) == 1000
    assert len(held_out) / 1000 == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 500) ** 0.5)


def test_more_rows_and_another_order_move_no_row() -> None:
    _, held_out = split_by_prompt(ROWS, 0.3, seed=1)
    _, of_fewer = split_by_prompt(ROWS[::-1][:400], 0.3, seed=1)
    assert {row.id for row in of_fewer} < {row.id for row in held_out}
    _, other = split_by_prompt(ROWS, 0.3, seed=2)
    assert {row.id for row in other} != {row.id for row in held_out}


def test_a_conversation_is_its_turns_with_what_else_they_hold() -> None:
    plain, called = Turn("user", "Hi"), Turn("user", "Hi", '{"name": "a"}')
    keys = {prompt_key(Prompt("0", (turn,))) for turn in (plain, called, Turn("system", "Hi"))}
    assert len(keys) == 3
    assert prompt_key(Prompt("0", (plain,))) == prompt_key(Prompt("1", (Turn("user", "Hi"),)))


def test_hashes_are_uniform() -> None:
    """The mean of n uniform numbers has a standard deviation of ``1 / sqrt(12 n)``."""
    values = [unit_hash(str(i), 0) for i in range(2000)]
    assert all(0 <= value < 1 for value in values)
    assert sum(values) / 2000 == pytest.approx(0.5, abs=4 / (12 * 2000) ** 0.5)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"must lie in \[0, 1\)"):
        split_by_prompt(ROWS, share, seed=0)
