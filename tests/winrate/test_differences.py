import pytest

from alignlab.winrate.differences import differences
from alignlab.winrate.matches import Verdict
from alignlab.winrate.rates import decided
from tests.winrate.made import match


def known(won: dict[tuple[str, float, int], str]):
    """Matches by policy, temperature and seed: a 1 a won prompt, a 0 a lost one."""
    matches, verdicts = [], []
    for (policy, temperature, seed), outcomes in won.items():
        for place, outcome in enumerate(outcomes):
            matches.append(match(policy=policy, temperature=temperature, pair=seed, place=place))
            verdicts.append(Verdict(float(outcome), None))
    return decided(matches, verdicts, both_orders=False)


def test_differences_worked_by_hand() -> None:
    """At temperature 0, p wins 3 of 4 and r 2; at 1, p wins 1 and r 2: p falls by 1/2, r does not.

    Between p and r at 0, prompts differ by 1, 0, 0, 0.
    """
    rows = differences(
        known({("p", 0, 0): "1110", ("p", 1, 0): "0100", ("r", 0, 0): "0110", ("r", 1, 0): "1100"})
    )
    found = {row[:2] + row[3:5]: row.difference for row in rows}
    assert found == {
        ("p", "r", 0, None): 0.25,
        ("p", "r", 1, None): -0.25,
        ("p", "", 1, 0): -0.5,
        ("r", "", 1, 0): 0.0,
        ("p", "r", 1, 0): -0.5,
    }
    assert {(row.n_prompts, row.n_seeds, row.against) for row in rows} == {(4, 1, "q")}


def test_what_is_easy_for_both_does_not_blur_their_difference() -> None:
    """Both policies win the same prompts, so nothing is left to vary."""
    (row,) = differences(known({("p", 1, 0): "10" * 20, ("r", 1, 0): "10" * 20}))
    assert (row.difference, row.lo, row.hi) == (0, 0, 0)


def test_seeds_are_paired_where_both_have_them() -> None:
    """Each seed of p wins one prompt more than the same seed of r: 1/4, whatever the seed."""
    paired: dict[tuple[str, float, int], str] = {
        ("p", 1, 0): "1000",
        ("p", 1, 1): "1111",
        ("r", 1, 0): "0000",
        ("r", 1, 1): "0111",
    }
    (row,) = differences(known(paired))
    assert (row.difference, row.n_seeds) == (0.25, 2)
    (alone,) = differences(known({key: won for key, won in paired.items() if key != ("r", 1, 1)}))
    assert (alone.difference, alone.n_seeds) == (0.625, 1)
    # Seeds of p that differ by 3/4 make a half-width of 12.7 x 0.375 and more.
    assert alone.hi - alone.lo > 2 * 12.7 * 0.375 > row.hi - row.lo


def test_only_prompts_that_all_rates_have_count() -> None:
    (row,) = differences(known({("p", 1, 0): "1100", ("r", 1, 0): "00"}))
    assert (row.difference, row.n_prompts) == (1.0, 2)
    assert differences(known({("p", 1, 0): "1"})) == []
    assert row.lo == row.hi == pytest.approx(1.0)
