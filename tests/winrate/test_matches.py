import pytest

from alignlab.winrate.matches import TIE, Verdict, value_of


@pytest.mark.parametrize(
    ("verdict", "both", "value"),
    [
        (Verdict(1.0, 1.0), True, 1.0),
        (Verdict(1.0, 0.0), True, 0.5),
        (Verdict(0.5, 0.0), True, 0.25),
        (TIE, True, 0.5),
        (Verdict(1.0, None), True, None),  # one place alone would count
        (Verdict(None, 0.0), False, 0.0),
        (Verdict(None, None), False, None),
        (None, True, None),
    ],
)
def test_a_match_counts_as_the_mean_of_both_orders(verdict, both, value) -> None:
    assert value_of(verdict, both_orders=both) == value
