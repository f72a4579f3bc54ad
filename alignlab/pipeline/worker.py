"""A worker process: receives jobs through a connection, does them one after another, reports.

Heavy libraries are imported once per worker and then serve many jobs. A worker never outlives the
process that started it: when the connection closes, it stops at once, whatever it is doing.

A run on several devices starts this program again for each further rank, with the job in its
environment. Such a rank does not talk to the parent: only the worker does, and the ranks follow it.
"""

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from alignlab.pipeline.messages import ALIVE, BEAT, REPORT_EVERY, Reporter

JOB, RANK = "ALIGNLAB_JOB", "LOCAL_RANK"  # what a further rank finds in its environment


def main() -> None:
    """Serve jobs until the connection closes; as a further rank, take part in one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if JOB in os.environ and RANK in os.environ:
        _take_part(json.loads(os.environ[JOB]))
        return
    inbox: queue.Queue[dict[str, Any]] = queue.Queue()
    line = Connection(int(sys.argv[1]))
    reporter = Reporter(line)
    threading.Thread(target=_listen, args=(line, inbox, reporter), daemon=True).start()
    threading.Thread(target=_show_life, args=(reporter,), daemon=True).start()
    reporter.send(event="ready")
    while True:
        _serve(inbox.get(), reporter)


def _listen(line: Connection, inbox: "queue.Queue[dict[str, Any]]", reporter: Reporter) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            message = line.recv()
            if "stop" in message:
                reporter.stop(message["stop"], message["why"])
            else:
                inbox.put(message)
    os._exit(0)  # the parent has ended; unfinished work continues from its checkpoint next time


def _show_life(reporter: Reporter) -> None:
    """Send signs of life from a thread, whatever the job is doing."""
    while True:
        time.sleep(BEAT)
        reporter.send(event=ALIVE)


def _serve(job: dict[str, Any], reporter: Reporter) -> None:
    from alignlab.errors import ConfigError, DataError, PeerKilled, failure
    from alignlab.pipeline.jobs import carry_out

    _log_to(Path(job["log"]))
    os.environ[JOB] = json.dumps(job)
    try:
        wrong = carry_out(job, reporter)
    except (ConfigError, DataError) as error:
        reporter.send(event="failed", wrong_input={job["name"]: str(error)})
    except PeerKilled:  # as if it was this process: the scheduler tries the job again
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    except Exception as error:  # not SystemExit: a terminated worker's job is tried again
        traceback.print_exc()
        reporter.send(event="failed", wrong_input={}, message=failure(error))
    else:
        reporter.send(event="done", wrong_input=wrong)


def _take_part(job: dict[str, Any]) -> None:
    from alignlab.pipeline.training import take_part

    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    take_part(job, Path(job["folder"]), Reporter(None))


def _end_with(parent: int) -> None:
    """End this rank when its worker is gone; it would wait for it forever."""
    while os.getppid() == parent:
        time.sleep(REPORT_EVERY)
    os._exit(1)


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


if __name__ == "__main__":
    main()
