"""Ctrl-C: the first one asks for an end after the step, the second one ends at once."""

import os
import signal
from collections.abc import Iterator

import pytest

from alignlab.callbacks.interrupt import Interrupt


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C as in a terminal; a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def terms() -> Iterator[list[int]]:
    """SIGTERMs that a handler as Lightning's has heard."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    yield heard
    signal.signal(signal.SIGTERM, before)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_becomes_sigterm_and_the_second_ends_at_once(
    terms: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    with Interrupt() as pressed:
        assert not pressed.hit
        ctrl_c()
        assert (pressed.hit, terms) == (True, [signal.SIGTERM])
        assert capsys.readouterr().err == "stopping after this step; Ctrl-C again stops at once\n"
        with pytest.raises(KeyboardInterrupt):
            ctrl_c()
    assert terms == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_before_there_are_steps_the_first_ends_at_once() -> None:
    with Interrupt() as pressed, pytest.raises(KeyboardInterrupt):
        ctrl_c()
    assert pressed.hit


def test_a_handler_of_somebody_else_is_left_alone(terms: list[int]) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        with Interrupt() as pressed:
            ctrl_c()
        assert (heard, pressed.hit, terms) == ([signal.SIGINT], False, [])
    finally:
        signal.signal(signal.SIGINT, before)
