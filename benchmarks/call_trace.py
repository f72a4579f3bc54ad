"""Record which functions of a package a process calls, and from where.

``reading_path.py`` and ``import_graph.py`` put a ``sitecustomize`` module that calls ``start`` on
the path of the processes that they start, so worker processes are recorded as well.
"""

import atexit
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

CO_OPTIMIZED = 1  # set for functions, not for the bodies of modules and classes
SITE = """
import sys
sys.path.append({folder!r})
import call_trace
call_trace.start({package!r}, {out!r}, {end!r})
"""


def environment(folder: Path, package: Path, end: str) -> dict[str, str]:
    """Variables that make each Python process write its calls to ``folder/trace-PID.json``.

    Args:
        folder: Holds the traces and the module that starts them.
        package: The folder of the package to record.
        end: Where recording ends: ``return NAME`` (a function called NAME returned) or
            ``construct NAME`` (a subclass of a class called NAME was constructed, with a model of
            the room ``models``: tests of a config construct it with substitutes before).
    """
    folder.mkdir(parents=True)
    text = SITE.format(
        folder=str(Path(__file__).parent), package=str(package), out=str(folder), end=end
    )
    (folder / "sitecustomize.py").write_text(text)
    path = os.pathsep.join([str(folder), str(package.parent)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


class Recorder:
    """The calls of one process, in order, each pair of caller and callee once."""

    def __init__(self, package: str, out: Path, end: str) -> None:
        self.package, self.out = package + os.sep, out
        self.what, self.name = end.split()
        self.calls: dict[tuple[Any, ...], float] = {}
        self.returned: dict[Any, tuple[float, float | None]] = {}  # first return; with a value
        self.ended: float | None = None
        self.loaded = False
        self.local = threading.local()

    def profile(self, frame: FrameType, event: str, arg: object) -> None:
        """What ``sys.setprofile`` calls at each call and return."""
        if self.ended is not None or event not in ("call", "return"):
            return
        code = frame.f_code
        if not code.co_filename.startswith(self.package):
            if event == "call" and code.co_filename == "<string>":
                self._constructed(frame)
            return
        if not code.co_flags & CO_OPTIMIZED:  # a module or a class that is imported
            return
        stack: list[CodeType] = self.local.__dict__.setdefault("stack", [])
        if event == "call":
            caller = stack[-1] if stack else None
            owner = _class_of(frame)
            self._add(caller, code, owner and (owner.__module__, owner.__qualname__))
            stack.append(code)
            if self.what == "construct" and code.co_name == "__init__" and owner:
                self.loaded |= code.co_filename.startswith(self.package + "models" + os.sep)
                if self.loaded and self.name in (base.__name__ for base in owner.__mro__):
                    self.write(time.time())
        else:
            if stack:
                stack.pop()
            self._return(code, arg)
            if (self.what, self.name) == ("return", code.co_name):
                self.write(time.time())
                os._exit(0)

    def _constructed(self, frame: FrameType) -> None:
        """A dataclass has its constructor from the library: its fields are what is read."""
        owner = _class_of(frame)
        if frame.f_code.co_name == "__init__" and owner and owner.__module__.startswith("alignlab"):
            stack = self.local.__dict__.setdefault("stack", [])
            place = (owner.__module__, owner.__qualname__)
            self._add(stack[-1] if stack else None, None, place)

    def _add(self, caller: CodeType | None, code: CodeType | None, owner: Any) -> None:
        self.calls.setdefault((_place(caller), _place(code), owner), time.time())

    def _return(self, code: CodeType, value: object) -> None:
        if "<locals>" in code.co_qualname:  # what a comprehension gives stays in its function
            return
        place = _place(code)
        first, valued = self.returned.get(place, (time.time(), None))
        if valued is None and value is not None:
            valued = time.time()
        self.returned[place] = (first, valued)

    def write(self, ended: float | None = None) -> None:
        """Write the calls; nothing is recorded after the end."""
        if self.ended is None and self.calls:
            self.ended = ended or time.time()
            content = {
                "words": sys.argv,
                "reached": ended is not None,
                "ended": self.ended,
                "calls": [[*key, at] for key, at in self.calls.items()],
                "returned": [[*place, *times] for place, times in self.returned.items()],
            }
            (self.out / f"trace-{os.getpid()}.json").write_text(json.dumps(content))


def _place(code: CodeType | None) -> tuple[str, int] | None:
    return None if code is None else (code.co_filename, code.co_firstlineno)


def _class_of(frame: FrameType) -> type | None:
    code = frame.f_code
    if not code.co_argcount or code.co_varnames[0] not in ("self", "cls"):
        return None
    owner = frame.f_locals.get(code.co_varnames[0])
    return owner if isinstance(owner, type) else type(owner)


def start(package: str, out: str, end: str) -> None:
    """Record this process from now on."""
    recorder = Recorder(package, Path(out), end)
    atexit.register(recorder.write)
    threading.setprofile(recorder.profile)
    sys.setprofile(recorder.profile)
