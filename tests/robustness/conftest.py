"""Writes the report of the fuzz tests where ``ALIGNLAB_FUZZ_REPORT`` says."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _report() -> Iterator[None]:
    yield
    path = os.environ.get("ALIGNLAB_FUZZ_REPORT")
    if path is not None:
        from tests.robustness.fuzzing import write_report

        write_report(Path(path))
