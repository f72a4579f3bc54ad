"""Rooms of the package, the imports between them, circles, and a sweep point's way through files.

    python benchmarks/import_graph.py [--no-walk]
    PYTHONPATH=/path/to/other/checkout python benchmarks/import_graph.py

A room is a folder of ``alignlab`` or a file at its top. Imports inside of functions and those for
the type checker are late: they are counted apart, and a circle that only closes through them is
printed as such. ``import alignlab.room`` counts as an import of that room's ``__init__.py``.

The walk is that of a sweep's point from the YAML file to its trial, recorded as
``reading_path.py sweep`` does: each definition once, in the order of first calls, in the parts that
are marked there (entry, pipeline, sweep). A *stay* is a run of definitions in one file without
another file between. A *climb* is a move to a file that imports, directly or not, the file that is
left. A *return* is a stay in a file that was already left: stays minus files. ``straight`` is as in
``reading_path.py``. At 0c27c9b this script finds 78 stays, 26 files, 31 climbs and 52 returns on
the straight walk; a manual walk had found 63, 22, 15 and 41. The manual walk left out the command
line, the lock and the study's storage, and it did not go back for a property or a method.
"""

import argparse
import ast
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import reading_path

Graph = dict[str, set[str]]


def main() -> None:
    """Print the graph and the walk."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--no-walk", action="store_true", help="the imports only: seconds")
    args = parser.parse_args()
    package = reading_path.package_folder()
    print(f"package: {package}")
    early, late = file_graphs(package)
    show_rooms(package)
    for name, graph in (("rooms", by_room(early)), ("files", early)):
        show_circles(name, graph, joined(graph, by_room(late) if name == "rooms" else late))
    if not args.no_walk:
        with tempfile.TemporaryDirectory() as folder:
            reading_path.prepare(Path(folder), package)
            visits = reading_path.record("sweep", Path(folder), package)
        show_walks(visits, joined(early, late))


def file_graphs(package: Path) -> tuple[Graph, Graph]:
    """Imports between files: those of a module's body, and the late ones."""
    early: Graph = {}
    late: Graph = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        tree = ast.parse(path.read_text())
        now = {id(node) for node in _body(tree)}
        early[name], late[name] = set(), set()
        for node in ast.walk(tree):
            targets = set(_targets(node, package)) - {name}
            (early if id(node) in now else late)[name] |= targets
    return early, {name: found - early[name] for name, found in late.items()}


def _body(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run at import."""
    for node in ast.iter_child_nodes(tree):
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if is_for_types or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        yield node
        yield from _body(node)


def _targets(node: ast.AST, package: Path) -> Iterator[str]:
    """Files of the package that an import statement names."""
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        modules = [
            full if _file(full, package) else node.module
            for full in (f"{node.module}.{alias.name}" for alias in node.names)
        ]
    else:
        return
    for module in modules:
        file = _file(module, package)
        if file and file != "__init__.py":
            yield file


def _file(module: str, package: Path) -> str | None:
    top, *parts = module.split(".")
    if top != package.name:
        return None
    path = package.joinpath(*parts)
    for candidate in (path.with_suffix(".py") if parts else path, path / "__init__.py"):
        if candidate.is_file():
            return candidate.relative_to(package).as_posix()
    return None


def room_of(file: str) -> str:
    """The folder, or the stem of a file at the top."""
    return file.split("/")[0].removesuffix(".py")


def by_room(graph: Graph) -> Graph:
    """The imports between rooms."""
    rooms: Graph = defaultdict(set)
    for file, targets in graph.items():
        rooms[room_of(file)] |= {room_of(target) for target in targets} - {room_of(file)}
    return dict(rooms)


def joined(one: Graph, other: Graph) -> Graph:
    """The arrows of both graphs."""
    return {name: one.get(name, set()) | other.get(name, set()) for name in one | other}


def reached(graph: Graph, start: str) -> set[str]:
    """All names that can be reached from ``start``."""
    found: set[str] = set()
    ahead = [start]
    while ahead:
        for target in graph.get(ahead.pop(), set()) - found:
            found.add(target)
            ahead.append(target)
    return found


def circles(graph: Graph) -> list[list[str]]:
    """Largest groups in which each name reaches each other."""
    below = {name: reached(graph, name) for name in graph}
    groups = {
        tuple(sorted(other for other in below[name] if name in below.get(other, set())))
        for name in graph
        if name in below[name]
    }
    return sorted(list(group) for group in groups)


def show_rooms(package: Path) -> None:
    """Print lines, files and share of each room."""
    lines: dict[str, list[int]] = defaultdict(list)
    for path in package.rglob("*.py"):
        room = room_of(path.relative_to(package).as_posix())
        lines[room].append(len(path.read_text().split("\n")) - 1)
    total = sum(map(sum, lines.values()))
    print(f"\n{'room':16}  lines  share  files")
    for room, sizes in sorted(lines.items(), key=lambda item: -sum(item[1])):
        print(f"{room:16}{sum(sizes):7}{100 * sum(sizes) / total:6.1f} %{len(sizes):6}")
    print(f"{'all':16}{total:7}{100:6.1f} %{sum(map(len, lines.values())):6}  {len(lines)} rooms")


def show_circles(name: str, early: Graph, both: Graph) -> None:
    """Print arrows and circles of a graph, without and with late imports."""
    print(f"\n{name}: {sum(map(len, early.values()))} arrows", end="")
    print(f", {sum(map(len, both.values()))} with late imports")
    for words, graph in (("circles", early), ("circles with late imports", both)):
        found = circles(graph)
        print(f"  {words}: {len(found)}")
        for group in found:
            print(f"    {' <-> '.join(group)}")


def show_walks(visits: list[reading_path.Visit], graph: Graph) -> None:
    """Print the walk of a sweep's point."""
    print("\na sweep's point from YAML to trial: stays, files, climbs, returns")
    marked = [visit for visit in visits if visit.part in reading_path.COUNTED["sweep"]]
    for name, found in (("straight", [v for v in marked if v.straight]), ("whole", marked)):
        numbers = walk([visit.file for visit in found], graph)
        print(f"  {name:9}" + "".join(f"{number:5}" for number in numbers))


def walk(files: list[str], graph: Graph) -> tuple[int, int, int, int]:
    """Stays, files, climbs and returns of definitions in these files, in this order."""
    stays = [b for a, b in zip(["", *files], files, strict=False) if a != b]
    below = {file: reached(graph, file) for file in set(stays)}
    climbs = sum(a in below[b] for a, b in pairwise(stays))
    return len(stays), len(below), climbs, len(stays) - len(below)


if __name__ == "__main__":
    main()
