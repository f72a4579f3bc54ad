"""Answers of earlier calls, kept under a hash of the question.

Samples, scores and verdicts cost time or money. Each is written to a file as soon as it is known,
so a killed call continues where it was. A changed question has another hash and is asked anew.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Self

from alignlab.errors import ConfigError, DataError

NAME = "memo.jsonl"


class Memo:
    """Answers by the hash of their question; the file is locked for one process.

    Args:
        path: File with a JSON object a line: ``key``, the question's hash, and ``answer``. A last
            line that was cut off by a kill is dropped.

    Raises:
        ConfigError: Another process has the file.
        DataError: Any other line is not such an object.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ConfigError(
                f"{path.parent}: another call writes there. Wait for it, or name another folder."
            ) from None
        self._file.seek(0)
        *lines, rest = self._file.read().split(b"\n")
        self._file.truncate(self._file.tell() - len(rest))
        self._lock = Lock()
        self._known: dict[str, Any] = {}
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                self._known[entry["key"]] = entry["answer"]
            except (ValueError, KeyError, TypeError):
                self._file.close()
                raise DataError(
                    f"{path}:{number}: not an answer that was kept here. Delete this line; its "
                    "question is asked again."
                ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Any:
        return self._known[key]

    def __len__(self) -> int:
        return len(self._known)

    def keep(self, answers: Mapping[str, Any]) -> None:
        """Append answers by their keys; they are on the disk afterwards. Threads may call it."""
        lines = [{"key": key, "answer": answer} for key, answer in answers.items()]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        content = memoryview(text.encode())
        with self._lock:
            while content:
                content = content[self._file.write(content) :]
            self._known.update(answers)
        os.fsync(self._file.fileno())
