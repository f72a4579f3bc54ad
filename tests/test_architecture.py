"""The house rules that a reader cannot see in one file: who imports whom, what an objective has."""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "alignlab"
# Which every room stands on.
GROUND = {"bounds", "errors", "files", "hub", "names", "parser_errors"}

# What each room may import besides itself and ``GROUND``: rooms below it, or single files of one.
BELOW = {
    "functional": set[str](),
    "data": {"functional"},
    "models": {"functional", "data.trees"},
    "rewards": {"functional", "data", "models"},
    "rollouts": {"functional", "data", "models", "rewards"},
    "objectives": {"functional", "data", "models", "rewards", "rollouts"},
    "report": {"evaluation.tables", "evaluation.derived"},
    "evaluation": {"functional", "data", "models", "rewards", "rollouts", "report"},
    "callbacks": {"functional", "data", "models", "rewards", "rollouts", "evaluation"},
}
ON_TOP = {
    "before_start",
    "cli",
    "fit",
    "help",
    "lone_run",
    "pipeline",
    "sweep",
}  # nothing below may import these
SHARED_STEPS = {
    *("base", "schedule", "settings", "metrics"),
    *("scored", "rankings", "on_policy"),
}
OBJECTIVES = sorted(
    path.stem
    for path in (PACKAGE / "objectives").glob("*.py")
    if path.stem not in {"__init__", *SHARED_STEPS}
)


ELSEWHERE = {"classify"}  # GPT-1's report is not on arXiv


def imports(file: Path) -> Iterator[str]:
    """``room.file`` of everything in alignlab that ``file`` imports, late imports included."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alignlab"):
            module = node.module or ""
            names = [module] if module != "alignlab" else [f"{module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("alignlab.")]
        else:
            continue
        yield from (name.removeprefix("alignlab.") for name in names)


def test_the_rooms_are_those_of_the_table() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")}
    names = {room.removesuffix(".py") for room in rooms} - {"__init__", *GROUND}
    assert names == BELOW.keys() | ON_TOP


@pytest.mark.parametrize("room", sorted(BELOW))
def test_nothing_imports_upwards(room: str) -> None:
    allowed = BELOW[room] | {room, *GROUND}
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in sorted((PACKAGE / room).rglob("*.py"))
        for name in imports(file)
        if not {name.split(".")[0], ".".join(name.split(".")[:2])} & allowed
    ]
    assert wrong == []


def test_no_text_is_split_where_unicode_ends_lines() -> None:
    """``str.splitlines`` also cuts at U+0085, U+2028 and others, which stand inside of texts.

    Bytes have no such line ends: what is allowed reads bytes.
    """
    allowed = {"callbacks/logs.py"}
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "splitlines"
    }
    assert found == allowed
    for name in allowed:
        source = (PACKAGE / name).read_text()
        assert source.count(".splitlines(") == source.count(".read_bytes().splitlines(")


def test_no_objective_imports_a_sibling() -> None:
    for name in OBJECTIVES:
        used = {n.split(".")[1] for n in imports(PACKAGE / "objectives" / f"{name}.py")
                if n.startswith("objectives.")}  # fmt: skip
        assert used <= SHARED_STEPS, f"{name} imports {used - SHARED_STEPS}"


def test_the_command_line_and_the_pipelines_parent_are_light() -> None:
    code = (
        "import sys, alignlab.cli, alignlab.pipeline\n"
        "heavy = {'torch', 'lightning', 'transformers', 'numpy', 'pyarrow', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_names_its_paper_and_has_a_pure_loss(name: str) -> None:
    module = importlib.import_module(f"alignlab.objectives.{name}")
    if name not in ELSEWHERE:
        assert "arXiv:" in (module.__doc__ or ""), "which paper?"
    loss = inspect.signature(getattr(module, f"{name}_loss"), eval_str=True)
    for parameter in loss.parameters.values():
        is_tensor = getattr(parameter.annotation, "__name__", "") == "Tensor"
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            assert is_tensor, f"{parameter.name} is a setting: make it keyword-only"
        else:
            assert parameter.kind is parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_has_at_most_four_ancestors(name: str) -> None:
    """LightningModule counts, its own bases do not: more are too many files for one step."""
    module = importlib.import_module(f"alignlab.objectives.{name}")
    own = [
        c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__
    ]
    for kind in own:
        if issubclass(kind, L.LightningModule):
            assert len(kind.mro()) - len(L.LightningModule.mro()) <= 4, kind.mro()
    assert any(issubclass(kind, L.LightningModule) for kind in own)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_has_an_experiment_and_a_row_in_the_readme(name: str) -> None:
    stages = [path.read_text() for path in (ROOT / "experiments").rglob("*.yaml")]
    assert any(f"alignlab.objectives.{name}." in stage for stage in stages)
    assert f"`alignlab/objectives/{name}.py`" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").rglob("*.yaml")), ids=str)
def test_an_experiments_file_says_what_it_is_for(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# "), "the first line is the claim: what it does, cost, expectation"
