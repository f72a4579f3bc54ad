"""One run at a time in a results folder."""

import shutil
import signal
import threading
import time
from pathlib import Path

from alignlab.pipeline.lock import results_lock
from tests.pipeline.test_run import HERE, Write, start, wait_for


def test_a_second_run_is_refused_at_once_and_workers_die_with_the_first(write: Write) -> None:
    write({"one": {"call": f"{HERE}.write_forever"}})
    first = start()
    now = Path("results/demo/stages/one/all/now")
    wait_for(now.exists)
    second = start()
    _, said = second.communicate(timeout=20)
    assert second.returncode == 2
    assert f"in use by another run (process {first.pid})" in said
    first.send_signal(signal.SIGKILL)
    first.communicate()
    with results_lock(Path("results/demo")):  # free only when the last worker has gone
        before = now.read_text()
        time.sleep(0.1)
        assert now.read_text() == before


def test_who_waits_for_a_folder_that_is_deleted_locks_the_new_one(tmp_path: Path) -> None:
    folder, entered = tmp_path / "results", threading.Event()

    def wait() -> None:
        with results_lock(folder, in_turn=True):
            (folder / "mine").touch()
            entered.set()

    with results_lock(folder):
        waits = threading.Thread(target=wait)
        waits.start()
        assert not entered.wait(0.2)
        shutil.rmtree(folder)
    waits.join(timeout=20)
    assert {path.name for path in folder.iterdir()} == {".lock", "mine"}
