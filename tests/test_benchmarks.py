"""The scripts that measure how long a reader's way is: their counting, held against small cases."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SOURCE = '''\
"""A file."""

LIMIT = 3


def gives():
    """Two lines, and a blank one.

    Here.
    """
    return LIMIT


class Pair:
    """What it is."""

    left: int = 0

    @property
    def both(self):
        def inner():
            return self.left

        return inner()


def checks(value):
    assert value
'''


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The two scripts as modules; they import each other by file name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield [importlib.import_module(name) for name in ("reading_path", "import_graph")]
    for name in ("reading_path", "import_graph", "call_trace"):
        sys.modules.pop(name, None)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "alignlab"
    (folder / "room").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "room" / "file.py").write_text(SOURCE)
    return folder


def test_definitions_count_whole_and_once(scripts: Any, package: Path) -> None:
    found = scripts[0].definitions(package / "room" / "file.py")
    sizes = {name: len(lines) for name, lines in found.items()}
    assert sizes == {"gives": 6, "Pair": 5, "Pair.both": 6, "checks": 2}


def test_what_gave_nothing_back_is_not_straight(scripts: Any, package: Path) -> None:
    file = str(package / "room" / "file.py")
    trace = {
        "reached": True,
        "ended": 10.0,
        "calls": [
            [None, [file, 6], None, 1.0],
            [[file, 6], [file, 27], None, 2.0],
            [None, [file, 19], ["alignlab.room.file", "Pair"], 3.0],
            [None, [file, 6], None, 11.0],
        ],
        "returned": [[file, 6, 4.0, 4.0], [file, 27, 5.0, None], [file, 19, 6.0, 6.0]],
    }
    (package / "trace-1.json").write_text(json.dumps(trace))
    visits = scripts[0].visits(package, package)
    assert {visit.name: visit.straight for visit in visits} == {
        "gives": True,
        "checks": False,
        "Pair": True,
        "Pair.both": True,
    }


def test_a_walk_counts_stays_climbs_and_returns(scripts: Any) -> None:
    graph = {"top": {"middle"}, "middle": {"low"}, "low": set()}
    files = ["top", "top", "middle", "low", "middle", "low", "top"]
    assert scripts[1].walk(files, graph) == (6, 3, 2, 3)


def test_circles_are_found_and_late_imports_are_apart(scripts: Any, package: Path) -> None:
    (package / "a.py").write_text("import alignlab.b\nfrom alignlab.room import file\n")
    (package / "b.py").write_text("def later():\n    from alignlab.a import x\n    return x\n")
    early, late = scripts[1].file_graphs(package)
    assert early["a.py"] == {"b.py", "room/file.py"}
    assert late["b.py"] == {"a.py"}
    assert scripts[1].circles(early) == []
    assert scripts[1].circles(scripts[1].joined(early, late)) == [["a.py", "b.py"]]
