"""What is said of failures that no input caused."""

import errno

import pytest

from alignlab.errors import failure, in_a_line, is_full


def test_a_librarys_lines_become_one() -> None:
    assert in_a_line("first\n   second\t third ") == "first second third"
    assert in_a_line(ValueError("a\nb")) == "a b"


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("broken"), False),
    ],
)
def test_a_full_disk_is_recognised(error: Exception, full: bool) -> None:
    assert is_full(error) is full
    assert ("make room and call again" in failure(error)) is full


def test_other_failures_have_their_type() -> None:
    assert failure(KeyError("x")) == "KeyError: 'x'"
