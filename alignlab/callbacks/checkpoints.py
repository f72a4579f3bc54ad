"""Checkpoint files: sealed with their own hash, the last two kept, the newest whole one found.

A checkpoint is a zip archive whose comment holds the hash of all bytes before it, so it is one
file that can be moved and still be checked. One without a seal (of ``ModelCheckpoint``) is checked
by the archive's own sums.
"""

import hashlib
import os
import struct
import zipfile
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch

from alignlab.errors import ConfigError
from alignlab.files import LAST as LAST
from alignlab.files import PREVIOUS as PREVIOUS
from alignlab.files import TEMP_SUFFIX, sync

_SEAL = b"sha256:"
_LENGTH = 2  # bytes of the length of an archive's comment, which stands before the comment
_TAIL = len(_SEAL) + 64  # bytes of the comment
_PART = 1 << 22  # bytes hashed at a time


def put_in_place(written: Path, folder: Path) -> None:
    """Make the file ``written`` the folder's ``last.ckpt``, and the one before ``previous.ckpt``.

    At any moment one of the two is whole.
    """
    _seal(written)
    sync(written)
    last = folder / LAST
    if last.exists():
        os.replace(last, folder / PREVIOUS)
    os.replace(written, last)
    sync(folder)


def temporary(folder: Path) -> Path:
    """Where a checkpoint is written before it is put in place."""
    return folder / f".{LAST}{TEMP_SUFFIX}"


def remove(folder: Path) -> None:
    """Delete the checkpoints of a finished run."""
    for name in (LAST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint in ``folder``, and messages about damaged ones."""
    said: list[str] = []
    for path in (folder / LAST, folder / PREVIOUS):
        if path.exists():
            if is_whole(path):
                return path, said
            said.append(f"{path} is damaged")
    return None, said


def whole_or_previous(path: Path) -> Path:
    """``path`` if it is whole, else the checkpoint that was kept before a ``last.ckpt``.

    Raises:
        ConfigError: Neither is whole.
    """
    if is_whole(path):
        return path
    if path.is_dir():
        raise ConfigError(
            f"--ckpt_path {path}: not a checkpoint of a training run. Check the path."
        )
    before = path.with_name(PREVIOUS)
    if path.name == LAST and is_whole(before):
        return before
    if not path.exists():
        raise ConfigError(f"--ckpt_path {path}: no such file. Check the path.")
    raise ConfigError(
        f"--ckpt_path {path}: not a checkpoint, or a damaged one. Name another, or start again "
        "without it."
    )


def refuse_shards(path: Path) -> None:
    """Refuse a folder: a strategy whose ranks each save their own shards writes one.

    Raises:
        ConfigError: ``path`` is one.
    """
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder of shards, and checkpoints are one file here. Train with "
            "trainer.strategy alignlab.distributed.FSDP2, which writes whole ones."
        )


def is_whole(path: Path) -> bool:
    """Whether a checkpoint's bytes are those that were written."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, size - _TAIL))
            comment = file.read()
            if comment.startswith(_SEAL):
                return _SEAL + _digest(file, size - _TAIL - _LENGTH) == comment
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error):
        return False


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; tensors are read on first use.

    Raises:
        ConfigError: It is not a readable checkpoint.
    """
    try:
        content = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except UnpicklingError:
        raise ConfigError(
            f"{path} holds Python objects that are not weights. They could run code, so the file "
            "is not loaded. Name another one."
        ) from None
    except Exception as error:  # torch has no error of its own for what it cannot read
        raise ConfigError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}). Name another one."
        ) from None
    if not isinstance(content, dict) or "loops" not in content:
        raise ConfigError(f"{path} is not a checkpoint of a training run. Name another file.")
    return content


def _seal(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        digest = _digest(file, size - _LENGTH)
        file.seek(size - _LENGTH)
        if file.read() != b"\0\0":
            raise ValueError(f"{path} is no archive, or one with a comment")
        file.seek(size - _LENGTH)
        file.write(struct.pack("<H", _TAIL) + _SEAL + digest)


def _digest(file: BinaryIO, length: int) -> bytes:
    """Hash, in hexadecimal, of a file's first ``length`` bytes."""
    file.seek(0)
    found = hashlib.sha256()
    while length > 0 and (part := file.read(min(length, _PART))):
        found.update(part)
        length -= len(part)
    return found.hexdigest().encode()
