"""Write files completely or not at all, and check their content when they are read again.

This uses the standard library alone, because the question "is this done?" must be answered in
milliseconds. A file that lost a byte, or whose writer was killed, must never be taken for a
result.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict

from alignlab.errors import ConfigError

TEMP_SUFFIX = ".tmp"
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"  # a training's checkpoints, the newest first
SEAL = "sha256"  # key of a record's own hash
DONE, SEALED = "done.json", "sealed.json"  # records of a folder: of a stage's output, of any
STARTED = "job.json"  # record of a stage that has begun
TRAIN = "train"  # checkpoints, logs and evaluations of a run, inside its folder


class Stamp(TypedDict):
    """The hash of a written file, with size and time for a quick check.

    ``size`` is in bytes, ``mtime_ns`` the time of its last change in nanoseconds.
    """

    sha256: str
    size: int
    mtime_ns: int


def refuse_run(source: str) -> None:
    """Refuse the folder of a run of ``alignlab fit`` as a model's.

    Raises:
        ConfigError: It is one; names the folder of its model.
    """
    path = Path(source)
    if (path / "config.yaml").is_file() and (path / "model").is_dir():
        raise ConfigError(f"{source} is the folder of a run. Name its model, {path / 'model'}.")


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is the note that Git LFS leaves where a large file was not downloaded."""
    with path.open("rb") as file:
        return file.read(24) == b"version https://git-lfs."


_hashes: dict[str, tuple[tuple[int, ...], str]] = {}


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a path to write to; after that ``path`` is the new file, on disk, or still the old.

    The content reaches the disk before the name does, so that a machine that loses power does not
    keep the name of a file without its content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}{TEMP_SUFFIX}")
    try:
        yield beside
        sync(beside)
        os.replace(beside, path)
        sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def atomic_write(path: Path, content: bytes) -> None:
    """Write ``content`` so that a reader sees the old file or the new one, never a part."""
    with written_whole(path) as beside:
        beside.write_bytes(content)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock, so that of several processes the first makes the file and the others read it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the kernel releases it however the process ends
        yield


def check_writable(folder: Path, key: str = "") -> None:
    """Make ``folder`` if need be, and refuse it if no file can be made in it.

    Args:
        folder: To write to.
        key: The setting that names it, for the message.

    Raises:
        ConfigError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno == errno.ENOSPC:  # not a mistake of the user; reported as it is
            raise
        raise ConfigError(
            f"{key}{folder}: {error.strerror}. Name a folder that can be written."
        ) from None


class Made:
    """What a call makes at a folder from now on, so that a call that is refused leaves nothing.

    Args:
        folder: Where the call writes; it need not exist yet.
        names: The files that the call makes. Where the folder exists, others may write to it at the
            same time, so only these are deleted.
    """

    def __init__(self, folder: Path, names: Iterable[str] = ()) -> None:
        self.folder = folder
        self._folders = [each for each in (folder, *folder.parents) if not each.exists()]
        self._files = [folder / name for name in names if not (folder / name).exists()]

    @property
    def is_new(self) -> bool:
        """Whether the folder did not exist before."""
        return self.folder in self._folders

    def remove(self) -> None:
        """Delete the folder if it is new, and the new folders above it that are empty then."""
        if self.is_new:
            shutil.rmtree(self.folder, ignore_errors=True)
        for file in self._files:
            file.unlink(missing_ok=True)
        for folder in self._folders[1:]:
            with suppress(OSError):  # somebody else writes there, or it was never made
                folder.rmdir()


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Hash of a file's bytes; read once per process while size and times stay the same."""
    now = path.stat()
    seen = now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino
    known = _hashes.get(str(path))
    if known is None or known[0] != seen:
        with path.open("rb") as file:
            known = seen, hashlib.file_digest(file, "sha256").hexdigest()
        _hashes[str(path)] = known
    return known[1]


def stamp(path: Path) -> Stamp:
    """The present stamp of ``path``."""
    now = path.stat()
    return {"sha256": sha256(path), "size": now.st_size, "mtime_ns": now.st_mtime_ns}


def is_as_stamped(path: Path, was: Stamp, *, thorough: bool = False) -> bool:
    """Whether ``path`` still has its stamp.

    Args:
        path: The file.
        was: Its stamp from when it was written.
        thorough: Read it in any case; otherwise only if its size or time is another one, as after
            a copy.
    """
    try:
        now = path.stat()
        if now.st_size != was["size"]:
            return False
        if now.st_mtime_ns == was["mtime_ns"] and not thorough:
            return True
        return sha256(path) == was["sha256"]
    except OSError:
        return False


def belongs(record: Path, name: str) -> bool:
    """Whether ``name`` beside a record is what its ``files`` say; true where there is no record.

    What is asked is about to be read, so it is looked at whatever its times say.
    """
    if not record.exists():
        return True
    stamps = (read_record(record) or {}).get("files", {})
    return name in stamps and is_as_stamped(record.with_name(name), stamps[name], thorough=True)


def seal(folder: Path) -> None:
    """Record the hashes of a folder's files for ``changed_in``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEALED)
    stamps = {path.relative_to(folder).as_posix(): stamp(path) for path in files}
    write_record(folder / SEALED, {"files": stamps})


def changed_in(folder: Path) -> list[str]:
    """Files of a sealed folder, or of a finished stage's, that have changed."""
    stamps: dict[str, Stamp] = {}
    for name in (SEALED, DONE):
        stamps |= (read_record(folder / name) or {}).get("files", {})
    return [
        name
        for name, was in stamps.items()
        if (folder / name).exists() and not is_as_stamped(folder / name, was, thorough=True)
    ]


def canonical(value: Any) -> str:
    """``value`` as JSON with sorted keys: equal content, equal text."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def sha_of(value: Any) -> str:
    """sha256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its own hash in it, readable and in a fixed order."""
    # What JSON makes of the content is hashed: keys that are no texts, tuples.
    plain = json.loads(json.dumps(dict(content)))
    sealed = {**plain, SEAL: sha_of(plain)}
    text = json.dumps(sealed, sort_keys=True, indent=1, ensure_ascii=False)
    atomic_write(path, (text + "\n").encode())


def read_record(path: Path) -> dict[str, Any] | None:
    """The object that ``write_record`` wrote; ``None`` where it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    seal = content.pop(SEAL, None)
    return content if seal == sha_of(content) else None
