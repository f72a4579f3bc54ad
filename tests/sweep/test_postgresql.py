"""Two folders share a study on a real PostgreSQL server; one of the processes is killed."""

import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import psycopg
import pytest
from optuna.trial import TrialState

from alignlab.errors import ConfigError
from alignlab.results.tables import read_points
from alignlab.sweep.storage import open_storage
from tests.sweep.server import DECODED, PASSWORD, postgresql
from tests.sweep.test_run import Write, start

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgresql() as address:
        yield address


def states(url: str) -> list[TrialState]:
    try:
        with psycopg.connect(url) as connection:
            rows = connection.execute("SELECT state FROM trials").fetchall()
    except psycopg.errors.UndefinedTable:
        return []
    return [TrialState[row[0]] for row in rows]


def test_none_twice_none_lost_and_a_killed_one_is_retried(write: Write, url: str) -> None:
    betas = [round(0.1 * i, 1) for i in range(1, 41)]
    write(seconds=0.3, space={"beta": betas}, seeds=[0])
    processes = [
        start("--storage", url, "--results", name, "--workers", "2") for name in ("one", "two")
    ]
    deadline = time.monotonic() + 120
    while states(url).count(TrialState.COMPLETE) < 15:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    processes[0].kill()  # its trials are silent from now on
    said = processes[0].communicate()[1] + processes[1].communicate(timeout=300)[1]
    assert processes[1].returncode == 0, said
    with open_storage(url) as storage:
        trials = optuna.load_study(study_name=None, storage=storage).trials
    complete = [t.params["beta"] for t in trials if t.state is TrialState.COMPLETE]
    assert sorted(complete) == betas
    assert TrialState.FAIL in {t.state for t in trials}
    runs = [p.run_id for name in ("one", "two") for p in read_points(Path(name) / "points.csv")]
    assert set(runs) == {f"dpo-beta{beta:g}-s0" for beta in betas}
    for text in [said, *(_text(path) for path in Path().rglob("*") if path.is_file())]:
        assert PASSWORD not in text
        assert DECODED not in text


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


def test_a_wrong_password_is_one_line_without_it(url: str) -> None:
    wrong, match = url.replace(PASSWORD, "wr0ng"), r"lab:\*\*\*@127.*authentication failed"
    with pytest.raises(ConfigError, match=match) as caught, open_storage(wrong):
        pass
    assert "wr0ng" not in str(caught.value)


def test_no_connection_is_left_open(url: str) -> None:
    with open_storage(url) as storage:
        optuna.create_study(storage=storage, study_name="short")
        assert connections(url) > 0
    deadline = time.monotonic() + 10  # the server says goodbye in its own time
    while connections(url):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def connections(url: str) -> int:
    """To the test's database, but for the one that asks."""
    with psycopg.connect(url) as connection:
        asked = connection.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid != pg_backend_pid()"
        ).fetchone()
    assert asked is not None
    return int(asked[0])
