"""The two errors a user can cause, each told in one message: what, where, what we got, what to do.

The command line prints either of them without a traceback and exits with status 2.
"""

DISK_FULL = "What is finished is kept: make room and call again."


class ConfigError(ValueError):
    """A setting that cannot work; the message names the key to change."""


class DataError(ValueError):
    """Input that cannot be used; the message names the file, the row and the reason."""


def in_a_line(error: Exception | str) -> str:
    """What a library says, without its line breaks."""
    return " ".join(str(error).split())
