"""The two errors a user can cause, each told in one message: what, where, what we got, what to do.

The command line prints either of them without a traceback and exits with status 2.
"""

import errno


class ConfigError(ValueError):
    """A setting that cannot work; the message names the key to change."""


class DataError(ValueError):
    """Input that cannot be used; the message names the file, the row and the reason."""


class PeerKilled(RuntimeError):
    """Another process of a training run was killed: the same run may work when it is repeated."""


def in_a_line(error: Exception | str) -> str:
    """A library's message in one line."""
    return " ".join(str(error).split())


def is_full(error: BaseException) -> bool:
    """Whether an error of Python, safetensors or torch means that a disk is full."""
    said = ("No space left on device", "failed writing file")  # safetensors, torch
    own = isinstance(error, OSError) and error.errno == errno.ENOSPC
    return own or any(words in str(error) for words in said)


def failure(error: BaseException) -> str:
    """The message for a failure that no input caused."""
    if is_full(error):
        return f"{in_a_line(str(error))}. What is finished is kept: make room and call again."
    return f"{type(error).__name__}: {error}"
