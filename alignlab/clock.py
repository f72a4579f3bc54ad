"""The clock of a training run: how much of its time goes into rollouts, rewards and the rest.

There is one per process, because a loader and a reference know no trainer. Reading it costs about a
microsecond, so it always runs.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext


class Clock:
    """Adds up the seconds that are spent inside of named parts.

    A part inside of another one counts for itself alone. On a GPU these are seconds of the
    process, which may run ahead of the device.

    Attributes:
        seconds: By name of the part, since somebody cleared them last.
        totals: By name of the part, since the process began.
        profile: Called with the name of each part, for a profiler that lists it, too.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.totals: defaultdict[str, float] = defaultdict(float)
        self.restart()

    def restart(self) -> None:
        """Forget the profiler and all seconds but the totals."""
        self.seconds.clear()
        self.profile: Callable[[str], AbstractContextManager[object]] = nullcontext
        self._open: list[str] = []
        self._since = 0.0

    def is_in(self, *names: str) -> bool:
        """Whether one of these parts is open."""
        return any(name in names for name in self._open)

    def begin(self, name: str) -> None:
        """Open a part; the one around it stands still meanwhile."""
        self._turn()
        self._open.append(name)

    def end(self) -> None:
        """Close the part that was opened last."""
        self._turn()
        self._open.pop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time inside as spent on ``name``."""
        self.begin(name)
        try:
            with self.profile(name):
                yield
        finally:
            self.end()

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._open:
            for counts in (self.seconds, self.totals):
                counts[self._open[-1]] += now - self._since
        self._since = now


CLOCK = Clock()
