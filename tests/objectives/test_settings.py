"""Ranges of settings: their ends, and what is said beyond them."""

import math

import pytest

from alignlab.errors import ConfigError
from alignlab.objectives.settings import Range, checked


@pytest.mark.parametrize(
    ("allowed", "fits", "refused"),
    [
        ("> 0", [1e-9, math.inf], [0, -1, math.nan]),
        (">= 0", [0, 3], [-1e-9, math.nan]),
        ("in [0, 1]", [0, 1], [-1e-9, 1.01]),
        ("in (0, 1]", [1e-9, 1], [0, 1.01, math.nan]),
        ("in [0, 0.5)", [0, 0.49], [0.5, -0.1]),
    ],
)
def test_ends_of_ranges(allowed: Range, fits: list[float], refused: list[float]) -> None:
    for value in fits:
        assert checked(object(), "beta", value, allowed) == value
    for value in refused:
        with pytest.raises(ConfigError, match=r"beta .*Set model\.init_args\.beta\."):
            checked(object(), "beta", value, allowed)


def test_a_setting_that_is_off_passes() -> None:
    assert checked(object(), "kl_target", None, "> 0") is None
