from itertools import permutations

import pytest

from alignlab.data.cycles import Cycle, find_cycles
from alignlab.data.rows import PreferencePair, Turn


def pairs(text: str, prompt: str = "p") -> list[PreferencePair]:
    """``"ab bc"``: a over b, b over c; a row's id is what it says."""
    return [PreferencePair(f"{prompt}:{ab}", prompt, ab[0], ab[1]) for ab in text.split()]


@pytest.mark.parametrize("text", ["", "ab", "ab ab", "ab bc ac", "ab ac bd cd", "ab cd"])
def test_orders_have_no_cycle(text: str) -> None:
    assert find_cycles(pairs(text)) == []


def test_three_and_what_hangs_on_it() -> None:
    """a > b > c > a; d above and e below them make no cycle, whatever the order of the rows."""
    rows = pairs("ab bc da ca ce")
    for order in permutations(rows):
        (cycle,) = find_cycles(order)
        assert cycle.prompt == "p"
        assert set(cycle.completions) == {"a", "b", "c"}
        assert sorted(cycle.rows) == ["p:ab", "p:bc", "p:ca"]
    (cycle,) = find_cycles(rows)
    assert cycle == Cycle("p", ("a", "b", "c"), ("p:ab", "p:bc", "p:ca"))


def test_raters_who_disagree_are_the_shortest_cycle() -> None:
    (cycle,) = find_cycles(pairs("ab ab ba bc"))
    assert cycle.rows == ("p:ab", "p:ab", "p:ba")


def test_two_cycles_of_one_prompt_and_one_of_another() -> None:
    """The pair between two cycles belongs to neither."""
    rows = pairs("ab ba ac cd dc") + pairs("ab bc ca", "q")
    assert [cycle.rows for cycle in find_cycles(rows)] == [
        ("p:ab", "p:ba"),
        ("p:cd", "p:dc"),
        ("q:ab", "q:bc", "q:ca"),
    ]


def test_a_cycle_over_two_prompts_is_none() -> None:
    assert find_cycles(pairs("ab bc") + pairs("ca", "q")) == []


def test_cut_and_whole_are_different_completions() -> None:
    rows = [
        PreferencePair("1", "p", "a", "b", chosen_ends=False),
        PreferencePair("2", "p", "b", "a"),
    ]
    assert find_cycles(rows) == []


def test_conversations() -> None:
    user, yes, no = ((Turn(role, word),) for role, word in
                     (("user", "hi"), ("assistant", "yes"), ("assistant", "no")))  # fmt: skip
    rows = [PreferencePair("1", user, yes, no), PreferencePair("2", user, no, yes)]
    assert find_cycles(rows) == [Cycle(user, (yes, no), ("1", "2"))]


def test_a_long_chain_needs_no_deep_stack() -> None:
    n = 20_000
    rows = [PreferencePair(str(i), "p", f"a{i}", f"a{(i + 1) % n}") for i in range(n)]
    (cycle,) = find_cycles(rows)
    assert len(cycle.rows) == n
    assert find_cycles(rows[:-1]) == []
