"""Every decoder family of transformers gives its own forward's numbers, or is refused at load."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.models.tiny_families import (
    NOT_TINY,
    REFUSED,
    SAMPLER_TOLERANCE,
    SCORERS,
    TOLERANCE,
    make_tiny,
    outcome,
    policy_error,
    sampler_error,
    scorer_error,
)

SECONDS = 90  # of CPU for one family


@contextmanager
def limited() -> Iterator[None]:
    """Stop a family that takes too long."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s of CPU")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def is_refusal(found: str) -> bool:
    """Whether it is one message that fits on a few lines of a terminal."""
    return found.startswith("refused: ") and "\n" not in found and len(found) < 400


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the families' own code
@pytest.mark.parametrize("name", MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
def test_a_family_is_right_or_refused(name: str, words: Path, tmp_path: Path) -> None:
    """Policy, sampler and scorer to 1e-4 of the library's forward of one row at a time."""
    if name in NOT_TINY:
        pytest.skip(NOT_TINY[name])
    with limited():
        make_tiny(name, tmp_path, words)
        found = outcome(policy_error, tmp_path, "packed")
        if name in REFUSED:
            assert is_refusal(found), found
        else:
            assert found == "right"
            tolerance = SAMPLER_TOLERANCE.get(name, TOLERANCE)
            assert outcome(sampler_error, tmp_path, tolerance=tolerance) == "right"
        scorer = outcome(scorer_error, tmp_path)
        assert scorer == "right" if name in SCORERS else is_refusal(scorer), scorer


def test_the_lists_name_families() -> None:
    assert MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() >= {*NOT_TINY, *REFUSED, *SCORERS}
    assert not NOT_TINY.keys() & {*REFUSED, *SCORERS}
