"""A PostgreSQL server of the tests' own, from Debian's packages, as an unprivileged user."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PASSWORD = "s3cret:p%40ss"  # as in a URL; the server knows it decoded
DECODED = "s3cret:p@ss"


@contextmanager
def postgresql() -> Iterator[str]:
    """Start a server on a free port of this machine; yields its URL, password included."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert found, "this test needs PostgreSQL: apt-get install postgresql"
    folder = Path(tempfile.mkdtemp(prefix="alignlab-postgresql-"))
    user = "nobody" if os.getuid() == 0 else None  # the server refuses to run as root
    try:
        (folder / "password").write_text(DECODED)
        if user is not None:
            account = pwd.getpwnam(user)
            for path in (folder, folder / "password"):
                os.chown(path, account.pw_uid, account.pw_gid)
        data = str(folder / "data")
        subprocess.run(
            [found[-1] / "initdb", "-D", data, "-U", "lab", "--auth=scram-sha-256", "--no-sync",
             f"--pwfile={folder}/password"],
            check=True, user=user, capture_output=True, cwd=folder,
        )  # fmt: skip
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = subprocess.Popen(
            [found[-1] / "postgres", "-D", data, "-p", str(port), "-k", str(folder), "-F",
             "-c", "listen_addresses=127.0.0.1"],
            user=user, cwd=folder, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _wait(port)
            yield f"postgresql://lab:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # "fast": does not wait for open connections to end
            server.wait(timeout=60)
    finally:
        shutil.rmtree(folder)


def _wait(port: int, patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            time.sleep(1.0)  # it listens a moment before it serves
            return
        time.sleep(0.1)
    raise AssertionError("the server did not start")
