"""The house rules that a reader cannot see in one file: who imports whom, what an objective has."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import lightning as L
import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "alignlab"
# Which every room stands on.
GROUND = {"bounds", "clock", "errors", "files", "hub", "names", "pages", "parser_errors"}

# What each room may import besides itself and ``GROUND``: rooms below it, or single files of one.
BELOW = {
    "functional": set[str](),
    "results": set(),
    "distributed": {"models.sharding", "data.loader"},
    "data": {"functional"},
    "models": {"functional", "data.trees"},
    "worlds": {"functional", "data", "models.loading", "results.csv_tables"},
    "rewards": {"functional", "data", "models", "worlds", "results.run_folder"},
    "rollouts": {"functional", "data", "models", "rewards"},
    "objectives": {"functional", "data", "models", "rewards", "rollouts", "distributed"},
    "check_data": {"data", "models.loading"},
    "evaluation": {"functional", "data", "models", "rewards", "rollouts", "results"},
    "stages": {
        *("functional", "data", "models", "worlds", "rewards", "rollouts"),
        *("evaluation", "results", "report.overoptimisation"),
    },
    "callbacks": {
        *("functional", "data", "models", "rewards", "rollouts"),
        *("evaluation", "results", "distributed"),
    },
    "report": {"evaluation", "results"},
    "plan": {"results", "report", "data.files", "rewards.spec"},
    "training": {
        *("data", "models", "rewards", "objectives", "callbacks"),
        *("stages", "results", "plan", "distributed"),
    },
    "capacity": {"functional", "data", "models", "training", "plan"},
    "doctor": {
        *("functional", "data", "models", "rewards", "rollouts", "objectives"),
        *("evaluation", "callbacks", "training", "capacity", "plan"),
    },
    "pipeline": {
        *("rewards", "objectives", "callbacks", "training", "plan", "results", "report", "doctor"),
        "evaluation",
    },
    "records": {"evaluation", "results", "report", "plan", "training"},
    "start": {
        *("data", "rewards.spec", "evaluation", "results"),
        *("plan", "report", "pipeline", "capacity", "doctor"),
    },
    "sweep": {"pipeline", "plan", "results", "report"},
    "winrate": {
        *("functional", "data", "models", "rewards", "rollouts"),
        *("evaluation", "results", "plan", "report"),
    },
    "strings": {
        *("functional", "data", "models", "rewards", "rollouts"),
        *("evaluation", "results.statistics"),
    },
    "chat": {"functional", "data", "models", "rollouts", "winrate.policies"},
    "claims": {
        *("functional", "data", "models", "worlds", "objectives"),
        *("capacity.copies", "evaluation", "results"),
    },
    "export": {
        *("functional", "models", "results"),
        *("callbacks.checkpoints", "callbacks.resume", "training.identity"),
    },
    "cli": {
        *("training", "rollouts", "stages", "callbacks", "plan", "capacity"),
        *("pipeline", "sweep", "report", "winrate", "start", "export", "records"),
        *("doctor", "chat", "check_data", "claims"),
    },
}
LARGEST = 0.15  # of all lines, in one room
SHARED_STEPS = {
    *("base", "schedule", "settings", "metrics"),
    *("scored", "rankings", "candidates", "on_policy"),
}
OBJECTIVES = sorted(
    path.stem
    for path in (PACKAGE / "objectives").glob("*.py")
    if path.stem not in {"__init__", *SHARED_STEPS}
)


# Modules without a test file of their own, and the file that tests them.
TESTED_IN = {
    "bounds": "pipeline/test_calls.py",  # declarations; what checks them is tested
    **dict.fromkeys(
        (
            *(
                "data.rows.base",
                "data.rows.candidates",
                "data.rows.demonstration",
                "data.rows.judged",
                "data.rows.labelled",
            ),
            *("data.rows.pair", "data.rows.prompt", "data.rows.ranking", "data.rows.rated"),
        ),
        "data/test_rows.py",  # every kind of row, side by side
    ),
    "claims.card": "claims/test_page.py",  # cards are what it writes
    "data.blocks": "data/test_tokenise.py",  # beside the other ways to make trees
    "data.tree": "data/test_trees.py",  # batches of them are made there
    "data.rollout_data": "data/test_rollouts.py",  # the data module of that loader
    "evaluation.scoring": "evaluation/test_points.py",  # a point is made of its numbers
    "models.backbone": "models/test_layouts.py",  # what both layouts share
    "models.heads": "models/test_families.py",  # logits against each family's own
    "report.overoptimisation": "stages/test_overoptimisation.py",  # drawn from that stage's tables
    "plan.space": "sweep/test_space.py",  # read from sweeps' files
    "stages.completed": "stages/test_pairs.py",  # the beginning of that stage
    **dict.fromkeys(
        (
            *("doctor.examine", "doctor.forwards", "doctor.patient", "doctor.rows"),
            *("doctor.start", "doctor.tokens"),
        ),
        "doctor/test_faults.py",  # each finds a fault
    ),  # through the command
}
ELSEWHERE = {"classify"}  # GPT-1's report is not on arXiv


def name_of(file: Path) -> str:
    """``room.file``, or the name of a file that is its own room."""
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def imports(file: Path) -> Iterator[str]:
    """``room.file`` of everything in alignlab that ``file`` imports.

    Imports inside of functions count, and so do those for the type checker alone.
    """
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = f"{node.module or ''}."
            each = [f"{base}{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("alignlab.") in MODULES else base for name in each]
        elif isinstance(node, ast.Import):
            names = [f"{alias.name}." for alias in node.names]
        else:
            continue
        yield from (
            name.removeprefix("alignlab.").rstrip(".")
            for name in names
            if name.startswith("alignlab.") and name != "alignlab."
        )


def on_circles(graph: Mapping[str, set[str]]) -> set[str]:
    """The names from which a way leads back to themselves."""
    found = set()
    for start in graph:
        seen, waiting = set[str](), [start]
        while waiting:
            seen |= (new := graph.get(waiting.pop(), set()) - seen)
            waiting += new
        if start in seen:
            found.add(start)
    return found


def test_the_rooms_are_those_of_the_table() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")}
    names = {room.removesuffix(".py") for room in rooms} - {"__init__", *GROUND}
    assert names == BELOW.keys()


@pytest.mark.parametrize("room", [*BELOW, *sorted(GROUND)])
def test_nothing_imports_upwards(room: str) -> None:
    allowed = {room, *GROUND} | BELOW.get(room, set())
    wrong = [
        f"{MODULES[own].relative_to(ROOT)} imports {name}"
        for own in sorted(MODULES)
        if own.split(".")[0] == room
        for name in imports(MODULES[own])
        if not {name.split(".")[0], ".".join(name.split(".")[:2])} & allowed
    ]
    assert wrong == []


def test_a_circle_is_seen() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}, "e": {"e"}}
    assert on_circles(graph) == {"b", "c", "e"}


def test_neither_rooms_nor_files_import_in_circles() -> None:
    """A file counts as importing what it imports anywhere, late or for the type checker alone.

    A room counts as importing another if one of its files does.
    """
    files = {name: {*imports(path)} - {name} for name, path in MODULES.items()}
    assert on_circles(files) == set()
    rooms: dict[str, set[str]] = {}
    for name, others in files.items():
        room = name.split(".")[0]
        rooms.setdefault(room, set()).update({other.split(".")[0] for other in others} - {room})
    assert on_circles(rooms) == set()


def test_no_room_outgrows_the_others() -> None:
    lines: dict[str, int] = {}
    for name, path in MODULES.items():
        room = name.split(".")[0]
        lines[room] = lines.get(room, 0) + len(path.read_text().split("\n"))
    assert max(lines.values()) <= LARGEST * sum(lines.values())


def test_no_text_is_split_where_unicode_ends_lines() -> None:
    """``str.splitlines`` also cuts at U+0085, U+2028 and others, which occur inside texts.

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


# Names in a run's folder: as whole texts, as parts of one, as steps of a path.
RUN_FILE = re.compile(
    r"(^|/)step-|\.texts\.jsonl|(^|/)points/|stages/\*"
    r"|^(done\.json|job\.json|config\.yaml|last\.ckpt|previous\.ckpt)$"
)
RUN_FOLDERS = {"stages", "train", "points"}


def test_only_its_owner_spells_the_names_in_a_runs_folder() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {text!r}"
        for name, path in MODULES.items()
        if name not in ("results.run_folder", "files")
        for node in ast.walk(ast.parse(path.read_text()))
        for text in names_of_run_files(node)
    ]
    assert wrong == []


def names_of_run_files(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if RUN_FILE.search(node.value) and "\n" not in node.value:  # a docstring or a help text
            yield node.value
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        for side in (node.left, node.right):
            if isinstance(side, ast.Constant) and side.value in RUN_FOLDERS:
                yield str(side.value)


@pytest.mark.parametrize(
    "source",
    ['f"step-{n:06d}"', 'run / "train"', 'p.glob("points/*")', 'p / "done.json"', 'x = "a/step-3"'],
)
def test_a_name_in_a_runs_folder_is_seen(source: str) -> None:
    assert any(list(names_of_run_files(node)) for node in ast.walk(ast.parse(source)))
    other = ast.walk(ast.parse("x['points']"))
    assert not any(list(names_of_run_files(node)) for node in other)


def weight_readers(source: str) -> list[str]:
    """Names by which ``source`` reads a model's transformer or head directly."""
    nodes = ast.walk(ast.parse(source))
    found = (node.attr for node in nodes if isinstance(node, ast.Attribute))
    return [name for name in found if name in ("backbone", "head", "get_output_embeddings")]


def test_only_models_read_weights_outside_of_their_forward() -> None:
    """A sharded model's weights are whole inside of it alone (``models/sharding.py``)."""
    for name, path in MODULES.items():
        if not name.startswith("models.") and name != "hub":  # whose head is of HTTP
            assert weight_readers(path.read_text()) == [], name
    assert weight_readers("logits = policy.head(policy.backbone(ids)[0])") == ["head", "backbone"]


def test_no_objective_imports_a_sibling() -> None:
    for name in OBJECTIVES:
        used = {n.split(".")[1] for n in imports(PACKAGE / "objectives" / f"{name}.py")
                if n.startswith("objectives.")}  # fmt: skip
        assert used <= SHARED_STEPS, f"{name} imports {used - SHARED_STEPS}"


def test_the_command_line_and_the_pipelines_parent_are_light() -> None:
    code = (
        "import sys, alignlab.cli, alignlab.pipeline, alignlab.stages.listing\n"
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


def test_every_module_has_a_test_file_under_its_own_path() -> None:
    modules = {name for name, path in MODULES.items() if path.name != "__init__.py"}

    def own(name: str) -> Path:
        *folders, file = name.split(".")
        return Path(__file__).parent.joinpath(*folders, f"test_{file}.py")

    assert {name for name in modules if not own(name).exists()} == TESTED_IN.keys()
    assert [file for file in TESTED_IN.values() if not (ROOT / "tests" / file).exists()] == []
