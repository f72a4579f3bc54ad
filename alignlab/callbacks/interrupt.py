"""Handle Ctrl-C during training: the first one finishes the current step and saves it."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Self


class Interrupt:
    """Turns a first Ctrl-C into SIGTERM, which ends a training after its step and saves it.

    A second one ends the training at once, as does one before the first step. If Ctrl-C is already
    handled, as in a worker of the pipeline, nothing is changed.

    Attributes:
        hit: Whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.hit = False
        self._before: object = None

    def __enter__(self) -> Self:
        own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if own and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        first, self.hit = not self.hit, True
        if not first or not callable(signal.getsignal(signal.SIGTERM)):  # no handler of Lightning's
            raise KeyboardInterrupt
        print("stopping after this step; Ctrl-C again stops at once", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
