"""Where a study is kept: a SQLite file, a journal file or a PostgreSQL server.

A database's password may be in its URL, but never in anything that is printed or written;
``PGPASSWORD`` or ``~/.pgpass`` keep it out of the shell's history too.
"""

import json
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from alignlab.errors import ConfigError

HEARTBEAT = 10  # seconds between two signs of life of a running trial
GRACE = 60  # seconds without one after which a trial counts as dead
PATIENCE = 60  # seconds to wait for another process's write to a SQLite file
RACES = (0.5, 1.0, 2.0)  # seconds to wait for another process that makes the tables
KNOWN = "Known: sqlite:///FILE, journal:///FILE, postgresql://USER@HOST/DATABASE."


@contextmanager
def open_storage(url: str) -> Iterator[BaseStorage]:
    """Open the storage at ``url``, create missing tables, and close it at the end of the block.

    Raises:
        ConfigError: The kind of storage is unknown, or it cannot be reached, now or in the block.
    """
    made = check_url(url)
    if made.get_backend_name() != "postgresql":
        _make_folder_of(Path(made.database or ""))
    if made.drivername == "journal":
        yield _journal(Path(made.database or ""))
        return
    with _storage_errors(url):
        database = _database(made)
        try:
            yield database
        finally:
            database.remove_session()
            database.engine.dispose()  # else connections stay open until they are collected


def check_url(url: str) -> sqlalchemy.URL:
    """Split ``url`` and refuse an impossible storage, without opening or creating anything.

    Raises:
        ConfigError: An unknown kind of storage, or not a URL of its kind.
    """
    kind = url.partition("://")[0].partition("+")[0]
    if kind not in ("sqlite", "postgresql", "journal"):
        raise ConfigError(f"storage {shown(url)!r} is of an unknown kind. {KNOWN}")
    made = _parsed(url)
    is_file = made is not None and made.host is None and made.database
    is_server = made is not None and (made.host or made.database or made.query)
    if made is None or not (is_server if kind == "postgresql" else is_file):
        raise ConfigError(f"storage {shown(url)!r} is not the URL of a storage. {KNOWN}")
    return made


def _parsed(url: str) -> sqlalchemy.URL | None:
    try:
        return sqlalchemy.make_url(url)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        return None


def _make_folder_of(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"storage {path}: {error.strerror}. Name a file that can be written.")


def _journal(path: Path) -> optuna.storages.JournalStorage:
    try:
        if path.exists():
            with path.open("rb") as file:
                first = file.readline()
            if first:
                json.loads(first)["op_code"]  # else it would be written into whatever it is
        return optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    except OSError as error:
        raise _unwritable(path, error) from None
    except (ValueError, KeyError, TypeError):  # lines that are no JSON, or no journal's
        raise ConfigError(f"storage {path}: not a study's journal. Name another file.") from None


def _database(url: sqlalchemy.URL, patience: Sequence[float] = RACES) -> RDBStorage:
    options: dict[str, Any] = {"pool_pre_ping": True}  # a server may have been away for a moment
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": PATIENCE}
    elif url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    text = url.render_as_string(hide_password=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            opened = RDBStorage(
                text, engine_kwargs=options, heartbeat_interval=HEARTBEAT, grace_period=GRACE
            )
    except sqlalchemy.exc.SQLAlchemyError as error:
        # Another process is making the same tables; they are there in a moment.
        raced = isinstance(error, sqlalchemy.exc.IntegrityError) or "exists" in str(error)
        if not (raced and patience):
            raise
        time.sleep(patience[0])
        return _database(url, patience[1:])
    if url.get_backend_name() == "sqlite":
        # SQLite locks no rows: two processes could both read that a trial waits, and both claim
        # it. With this, what one reads and writes excludes the other.
        sqlalchemy.event.listen(opened.engine, "begin", _lock)
    return opened


def _lock(connection: sqlalchemy.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """Turn a database's error into a ``ConfigError`` of one line without the password."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"storage {shown(url)}: {error}. Install it: pip install -e '.[postgresql]'."
        ) from None
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        why = without_password(url, " ".join(str(cause).split()))
        raise ConfigError(
            f"storage {shown(url)}: {why}. Nothing is lost: check that it can be reached and "
            "written, then call again."
        ) from None


def shown(url: str) -> str:
    """``url`` without its password."""
    if _parsed(url) is not None:
        return without_password(url, url)
    return f"{url.partition('://')[0]}://***" if "@" in url else url


def without_password(url: str, text: str) -> str:
    """``text`` with the password of ``url`` removed."""
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def has_password(url: str) -> bool:
    """Whether ``url`` holds a password."""
    return bool(_secrets(url))


def _secrets(url: str) -> set[str]:
    """The password as it stands before the host or among the options, and decoded."""
    found = {url.partition("://")[2].rpartition("@")[0].partition(":")[2]}
    made = _parsed(url)
    if made is not None:
        options = made.normalized_query.get("password", ())
        found |= {str(made.password or ""), *options, *map(quote_plus, options)}
    return found - {""}
