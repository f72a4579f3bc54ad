import math

import numpy as np
import pytest

from alignlab.results.statistics import wilson_interval
from alignlab.winrate.matches import Verdict
from alignlab.winrate.rates import win_rates
from tests.winrate.made import match, round_of

WON, LOST, SPLIT = Verdict(1.0, 1.0), Verdict(0.0, 0.0), Verdict(1.0, 0.0)


def rates(matches, verdicts, *, both_orders=True):
    return win_rates(matches, verdicts, judge="j", both_orders=both_orders)


def test_a_row_worked_by_hand() -> None:
    """Eight prompts: five won, one split by the order, two lost."""
    texts = [("long text", "short")] * 5 + [("abc", "abcd"), ("a", "bb"), ("a", "bb")]
    verdicts = [WON] * 5 + [SPLIT] + [LOST] * 2
    (row,) = rates(round_of(texts), verdicts)
    assert (row.wins, row.ties, row.losses, row.n_matches) == (5, 1, 2, 8)
    assert row.rate == 5.5 / 8
    assert row.consistency == 7 / 8
    assert row.first_position == (7 * 0.5 + 1) / 8
    assert (row.length, row.against_length) == ((5 * 9 + 3 + 2) / 8, (5 * 5 + 4 + 4) / 8)
    assert (row.n_prompts, row.n_seeds, row.left_out) == (8, 1, 0)
    assert (row.wilson_lo, row.wilson_hi) == pytest.approx(wilson_interval(5.5, 8))


def test_the_bootstrap_over_prompts_is_as_wide_as_the_standard_error() -> None:
    generator = np.random.default_rng(0)
    won = generator.random(400) < 0.7
    texts = [(f"own {k}", f"theirs {k}") for k in range(400)]
    (row,) = rates(round_of(texts), [WON if each else LOST for each in won])
    half = 1.966 * won.std(ddof=1) / math.sqrt(400)  # t with 399 degrees of freedom
    assert row.hi - row.rate == pytest.approx(half, rel=0.1)
    assert row.rate - row.lo == pytest.approx(half, rel=0.1)
    assert row.prompts_needed is not None
    assert row.prompts_needed < 400


def test_seeds_widen_the_interval_by_students_t() -> None:
    """Three seeds win all, half and none of the same prompts: the mean is 1/2."""
    matches, verdicts = [], []
    for pair, wins in enumerate((10, 5, 0)):
        matches += round_of([("ab", "abc")] * 10, pair=pair)
        verdicts += [WON] * wins + [LOST] * (10 - wins)
    (row,) = rates(matches, verdicts)
    assert (row.rate, row.n_seeds, row.n_prompts) == (0.5, 3, 10)
    assert (row.lo, row.hi) == (0.0, 1.0)  # 4.303 x 0.5 / sqrt(3) is more than a half
    assert row.seeds_needed is None  # there is no difference to resolve


def test_matches_of_one_prompt_are_no_independent_evidence() -> None:
    """Four equal samples of ten prompts: worth 40 / (4 x 39 / 36), which is 9 matches."""
    texts = [("ab", "abc")] * 10
    verdicts = [WON] * 7 + [LOST] * 3
    (one,) = rates(round_of(texts), verdicts)
    four = [m for k in range(4) for m in round_of(texts, sample=k)]
    (row,) = rates(four, verdicts * 4)
    assert row.n_matches == 40
    assert (row.wilson_lo, row.wilson_hi) == pytest.approx(wilson_interval(6.3, 9))
    assert (row.lo, row.hi) == pytest.approx((one.lo, one.hi))


def test_swapped_sides_mirror_every_number() -> None:
    generator = np.random.default_rng(5)
    texts = [("x" * n, "y" * m) for n, m in generator.integers(1, 40, (20, 2))]
    scores = generator.choice([0.0, 0.5, 1.0], (20, 2))
    (row,) = rates(round_of(texts), [Verdict(*map(float, each)) for each in scores])
    turned = round_of([(b, a) for a, b in texts], policy="q", against="p")
    (other,) = rates(turned, [Verdict(1 - float(b), 1 - float(a)) for a, b in scores])
    assert row.rate + other.rate == 1
    assert (row.wins, row.ties, row.losses) == (other.losses, other.ties, other.wins)
    assert (row.consistency, row.first_position) == (other.consistency, other.first_position)
    pairs = [(row.lo, other.hi), (row.hi, other.lo), (row.wilson_lo, other.wilson_hi),
             (row.length_controlled, other.length_controlled),
             (row.length_controlled_lo, other.length_controlled_hi)]  # fmt: skip
    assert [a + b for a, b in pairs] == pytest.approx([1] * 5, abs=1e-12)


def test_a_match_without_a_readable_verdict_is_left_out_and_counted() -> None:
    verdicts = [WON, Verdict(1.0, None), None, LOST]
    (row,) = rates(round_of([("a", "bc")] * 4), verdicts)
    assert (row.rate, row.n_matches, row.left_out) == (0.5, 2, 1)  # the third was not asked about
    (row,) = rates(round_of([("a", "bc")] * 4), verdicts, both_orders=False)
    assert (row.rate, row.n_matches, row.left_out) == (2 / 3, 3, 0)


def test_equal_texts_say_nothing_about_the_judge() -> None:
    (row,) = rates(round_of([("a", "a"), ("a", "bb"), ("b", " b")]), [SPLIT, WON, SPLIT])
    assert row.consistency == 1
    assert row.first_position == 0.5


def test_policies_opponents_and_temperatures_have_rows_of_their_own() -> None:
    matches = [
        match("a", "bb", policy=policy, against=other, temperature=t, place=k)
        for policy in "pq"
        for other in "rs"
        for t in (0.0, 1.0)
        for k in range(2)
    ]
    rows = rates(matches, [WON] * len(matches))
    assert [(row.policy, row.against, row.temperature) for row in rows] == [
        (policy, other, t) for policy in "pq" for other in "rs" for t in (0.0, 1.0)
    ]
    assert {row.rate for row in rows} == {1.0}
    assert {(row.prompts_needed, row.seeds_needed) for row in rows} == {(None, None)}


def test_one_prompt_says_nothing_about_others() -> None:
    (row,) = rates([match()], [WON])
    assert (row.rate, row.lo, row.hi) == (1, 0, 1)
