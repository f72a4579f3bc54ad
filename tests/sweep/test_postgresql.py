"""Two folders share a study on a real PostgreSQL server; one of the processes is killed."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import optuna
import psycopg
import pytest
from optuna.trial import TrialState

from alignlab.errors import ConfigError
from alignlab.files import DONE
from alignlab.models.policy import Policy
from alignlab.results.tables import read_points
from alignlab.sweep.storage import open_storage
from tests.sweep.server import DECODED, PASSWORD, postgresql
from tests.sweep.test_run import Write, children, start
from tests.sweep.training import LR, STEPS, write_stage

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


def ranks_of(pid: int) -> dict[int, list[int]]:
    """Worker of the sweep ``pid`` that trains -> its further ranks."""

    def is_worker(pid: int) -> bool:
        return b"alignlab.pipeline.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()

    found = {}
    for worker in children(pid):
        with suppress(OSError):  # it has just ended
            found[worker] = [child for child in children(worker) if is_worker(child)]
    return {worker: ranks for worker, ranks in found.items() if ranks}


def in_training(folder: Path) -> str | None:
    """The run in ``folder`` that has been evaluated and is not finished."""
    begun = (path.parents[2] for path in folder.glob("*/train/points/*"))
    return next((run.name for run in begun if not (run / DONE).exists()), None)


def test_runs_on_two_devices_of_which_processes_are_killed(
    write: Write, url: str, tmp_path: Path, build: Callable[..., Policy]
) -> None:
    """Of one run the worker, and its second rank must end with it; of the other the rank alone."""
    write(
        more={"small": write_stage(tmp_path, build(dtype="float32"))},
        arms={"small": {"set": {"trainer.devices": 2, "trainer.strategy": "ddp"}}},
        space={LR: [1e-3, 1e-2]},
        seeds=[0],
        metrics={"train/loss": "minimize"},
    )
    sweep = start("--storage", url, "--results", "pairs", "--workers", "2")
    struck: dict[str, list[int]] = {}
    deadline = time.monotonic() + 900
    while sweep.poll() is None:
        assert time.monotonic() < deadline
        pairs = ranks_of(sweep.pid)
        assert len(pairs) <= 1  # its two ranks take both workers' places
        run = in_training(Path("pairs/stages/small"))
        if pairs and run is not None and run not in struck:
            ((worker, (rank,)),) = pairs.items()
            os.kill(rank if struck else worker, signal.SIGKILL)
            struck[run] = [worker, rank]
        time.sleep(0.05)
    said = sweep.communicate()[1]
    assert sweep.returncode == 0, said
    assert sorted(struck) == ["lr0.001-s0", "lr0.01-s0"]
    assert said.count("its worker died") == 2, said
    assert not any(Path(f"/proc/{pid}").exists() for pids in struck.values() for pid in pids)
    with open_storage(url) as storage:
        found = [
            optuna.load_study(study_name=name, storage=storage).trials
            for name in optuna.get_all_study_names(storage)
        ]
    (trials,) = (each for each in found if LR in each[0].params)
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 2
    assert sorted(t.params[LR] for t in trials) == [1e-3, 1e-2]
    whole = [p.run_id for p in read_points(Path("pairs/points.csv")) if p.step == STEPS]
    assert sorted(whole) == ["small-lr0.001-s0", "small-lr0.01-s0"]


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
