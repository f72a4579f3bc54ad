"""The functions that a stage may name, read from the sources: importing them would take seconds."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
ROOMS = ("claims", "stages", "winrate", "worlds")


def stage_functions() -> Iterator[tuple[str, str]]:
    """Path and first sentence of every function in ``ROOMS`` that writes to a folder ``out``."""
    for room in ROOMS:
        for path in sorted((PACKAGE / room).glob("*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    arguments = [*node.args.args, *node.args.kwonlyargs]
                    if "out" in [argument.arg for argument in arguments]:
                        what = (ast.get_docstring(node) or "").split("\n")[0]
                        name = f"alignlab.{room}.{path.stem}.{node.name}"
                        yield name, what.removeprefix("Stage: ")


def listed(rows: list[tuple[str, str]]) -> str:
    """``rows`` of a name and its description as two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {what}" for name, what in rows)
