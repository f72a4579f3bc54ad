"""Files are whole or absent, and known by their content."""

import contextlib
import errno
import os
import tempfile
from pathlib import Path

import pytest

from alignlab.errors import ConfigError
from alignlab.files import (
    atomic_write,
    check_writable,
    is_as_stamped,
    read_record,
    sha256,
    stamp,
    write_record,
    written_whole,
)


def flip(path: Path, at: int, *, hide: bool = False) -> None:
    """Change one bit of byte ``at``; with ``hide`` the file's times say nothing of it."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    if hide:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    atomic_write(path, b"old")
    with contextlib.suppress(KeyError), written_whole(path) as beside:
        beside.write_bytes(b"half")
        raise KeyError
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("table.csv", b"old")]


def test_content_is_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_sync(handle: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy_sync)

    def spy_replace(old: Path, new: Path) -> None:
        done.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "replace", spy_replace)
    atomic_write(tmp_path / "x", b"1")
    assert done == [f".x.{os.getpid()}.tmp", "rename", tmp_path.name]


@pytest.mark.parametrize("at", [0, 7, 19])
def test_a_changed_byte_shows(tmp_path: Path, at: int) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(20)))
    was = stamp(path)
    assert is_as_stamped(path, was, thorough=True)
    flip(path, at)
    assert not is_as_stamped(path, was)
    flip(path, at)
    assert is_as_stamped(path, was)  # another time, the same content: as a copy would be
    path.write_bytes(bytes(range(19)))
    assert not is_as_stamped(path, was)
    path.unlink()
    assert not is_as_stamped(path, was)


def test_a_byte_that_changed_by_itself_shows_to_a_thorough_look(tmp_path: Path) -> None:
    """A disk changes no times; a process that has not read the file yet sees it."""
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(20)))
    right, now = sha256(path), path.stat()
    was = stamp(path)
    other = tmp_path / "other"
    other.write_bytes(bytes([1, *range(1, 20)]))
    os.utime(other, ns=(now.st_atime_ns, now.st_mtime_ns))
    assert was["sha256"] == right
    assert is_as_stamped(other, was)
    assert not is_as_stamped(other, was, thorough=True)


def test_every_changed_bit_of_a_record_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "done.json"
    content = {"seconds": 1.5, "files": {"a b": [1, None]}, "said": "µ"}
    write_record(path, content)
    assert read_record(path) == content
    right = path.read_bytes()
    for at in range(len(right)):
        for bit in range(8):
            wrong = bytearray(right)
            wrong[at] ^= 1 << bit
            path.write_bytes(wrong)
            assert read_record(path) in (None, content), (at, bit)  # spaces carry nothing
    path.write_bytes(right[:-3])
    assert read_record(path) is None
    assert read_record(tmp_path / "none.json") is None


def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_writable(tmp_path / "new" / "one")
    assert list((tmp_path / "new" / "one").iterdir()) == []

    def refuse(dir: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(ConfigError, match=r"Read-only file system\. Name a folder that can"):
        check_writable(tmp_path)
