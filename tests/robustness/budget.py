"""How many kills and made-up inputs a test run may spend; more of either finds more."""

import os

import pytest


def kills() -> int:
    """Runs to kill and continue: ``ALIGNLAB_KILLS``, or 4."""
    return _number("ALIGNLAB_KILLS", 4)


def fuzz_cases() -> int:
    """Made-up inputs to try, over all fuzz tests together: ``ALIGNLAB_FUZZ``, or 300."""
    return _number("ALIGNLAB_FUZZ", 300)


def _number(name: str, default: int) -> int:
    given = os.environ.get(name, str(default))
    if not given.isdecimal():
        raise pytest.UsageError(f"{name} must be a whole number, got {given!r}.")
    return int(given)
