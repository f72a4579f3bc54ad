"""Lines that a reader passes from a YAML file to one DPO loss, one PPO loss and one sweep trial.

    python benchmarks/reading_path.py [dpo ppo sweep] [--by-file] [--names]
    PYTHONPATH=/path/to/other/checkout python benchmarks/reading_path.py

Nothing is listed by hand. The script copies ``experiments/quickstart``, makes its inputs with the
settings of its smoke scale, and records every function of the package that these commands call:

- ``dpo``, ``ppo``: ``alignlab fit`` with the stage's settings, until the first ``training_step``
  returns its loss;
- ``sweep``: ``alignlab sweep`` over DPO's ``beta``, from its start until a worker process
  constructs the trial's objective.

A function counts once and whole, with decorators, docstring and blank lines, even if the call
needed only one of its branches. Checks that only a wrong input fails count: they run on every row.
A class counts with its header, docstring and fields when it was constructed or one of its methods
ran. Constants and imports do not count. The YAML files of the stage (its bases included, and for
the sweep ``pipeline.yaml`` and the sweep's file) count without blank and comment lines.

``whole`` is everything that ran. ``straight`` leaves out functions that gave nothing back before
the end was reached: those check, print, lock or record. (Functions that act through an argument
that they change are missed by this rule.) The parts marked ``*`` are those that the first, manual
count at 0c27c9b had; their sum is comparable with it:

=====  ==========================================================================================
dpo    by hand 2,076 lines in 16 files: core 484 / 5, entry 182 / 2, data 1,410 / 9. The model's
       forward was counted apart (498 / 6).
ppo    by hand 3,058 / 27: core 658 / 5, entry 182 / 2, data 1,447, rewards and sampler 586,
       maths 185.
sweep  by hand 1,891 / 21 on the straight path.
=====  ==========================================================================================

Differences: by hand, a class that the reader only passes (a sibling in the same file) was
sometimes counted and blank or comment lines of YAML were; constructors' checks in ``functional``
were not. The trace sees the cached reference that the quickstart uses, and puts it with the models.
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import call_trace
import yaml

SUBJECTS = ("dpo", "ppo", "sweep")
PARTS = {  # file, or room or file at the top -> part; every other room is a part of its own
    **dict.fromkeys(("models/cache.py", "models/decoding.py"), "rewards and sampler"),
    "objectives": "core",
    **dict.fromkeys(("cli", "fit", "training", "help", "before_start", "parser_errors"), "entry"),
    "data": "data and validation",
    "trees": "data and validation",
    "rewards": "rewards and sampler",
    "rollouts": "rewards and sampler",
    "functional": "maths",
    "plan": "pipeline",
}
COUNTED = {
    "dpo": ("core", "entry", "data and validation"),
    "ppo": ("core", "entry", "data and validation", "rewards and sampler", "maths"),
    "sweep": ("entry", "pipeline", "sweep"),
}
SWEEP = """\
experiment: experiments/quickstart
scale: tiny
seeds: [0]
arms:
  dpo:
    space:
      model.init_args.beta: [1.5]
metrics: {reward: maximize, kl: minimize}
sampler: grid
"""
Name = tuple[str, str]  # file relative to the package, name of a function or class


@dataclass(frozen=True)
class Visit:
    """A definition that ran."""

    file: str
    name: str
    lines: int
    straight: bool

    @property
    def part(self) -> str:
        """The part of the way that its room belongs to."""
        room = self.file.split("/")[0].removesuffix(".py")
        return PARTS.get(self.file) or PARTS.get(room, room)


def main() -> None:
    """Record, count and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("subjects", nargs="*", default=SUBJECTS)
    parser.add_argument("--by-file", action="store_true", help="list files below each table")
    parser.add_argument("--names", action="store_true", help="list files and their definitions")
    args = parser.parse_args()
    package = package_folder()
    print(f"package: {package}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, package)
        for subject in args.subjects:
            visits = record(subject, folder, package)
            show(subject, visits, yaml_files(subject, package))
            if args.by_file or args.names:
                show_files(visits, args.names)


def package_folder() -> Path:
    """The folder of the alignlab that Python imports."""
    spec = find_spec("alignlab")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).resolve().parent


def prepare(folder: Path, package: Path) -> None:
    """Copy the experiment into ``folder`` and make the inputs of its stages there."""
    experiment = folder / "experiments" / "quickstart"
    shutil.copytree(package.parent / "experiments" / "quickstart", experiment)
    scales = experiment / "scales"
    shutil.copy(scales / "smoke.yaml", scales / "tiny.yaml")
    (folder / "sweep.yaml").write_text(SWEEP)
    words = ["run", "experiments/quickstart", "--scale", "tiny", "--only", "pool,dpo,ppo"]
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "OMP_NUM_THREADS": "1"}
    _alignlab([*words, "--seeds", "0"], folder, environment)


def record(subject: str, folder: Path, package: Path) -> list[Visit]:
    """The definitions that ran, in the order of their first call."""
    if subject == "sweep":
        end = "construct LightningModule"
        words = ["sweep", "sweep.yaml", "--workers", "1"]
    else:
        end = "return training_step"
        stages = folder / "results" / "quickstart-tiny" / "stages" / subject
        config = min(stages.glob("*/config.yaml"))
        runs = str(folder / f"runs-{subject}")
        words = ["fit", "--config", str(config), "--trainer.default_root_dir", runs]
    traces = folder / f"trace-{subject}"
    _alignlab(words, folder, call_trace.environment(traces, package, end))
    return visits(traces, package)


def _alignlab(words: list[str], folder: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "alignlab.cli", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")


def visits(traces: Path, package: Path) -> list[Visit]:
    """What all processes called until the end, by time of the first call."""
    processes = [json.loads(path.read_text()) for path in traces.glob("trace-*.json")]
    ends = [process["ended"] for process in processes if process["reached"]]
    assert ends, "no process reached the end"
    end = min(ends)
    seen: dict[Name, float] = {}
    valued: set[Name] = set()
    for process in processes:
        open_or_valued = _straight(process["returned"], end, package)
        for _, place, owner, at in process["calls"]:
            if at > end:
                continue
            for name in (*_definition(place, package), *_owner(owner, package)):
                seen[name] = min(at, seen.get(name, at))
                if open_or_valued.get(name, True):
                    valued.add(name)
    order = sorted(seen, key=lambda name: seen[name])
    return [Visit(*name, _size(package, name), name in valued) for name in order]


def _straight(returned: list[Any], end: float, package: Path) -> dict[Name, bool]:
    """Of each function that returned: whether it is on the straight path."""
    result: dict[Name, bool] = defaultdict(bool)
    for file, line, first, with_value in returned:
        for name in _definition((file, line), package):
            is_open = first > end
            gave = with_value is not None and with_value <= end
            is_class = "__init__" in name[1] or name[1] in _classes(package / name[0])
            result[name] |= is_open or gave or is_class
    return dict(result)


def _definition(place: Any, package: Path) -> Iterable[Name]:
    """The function or method at a place, and the class of a method."""
    if place is None:
        return
    file, line = place
    for name, lines in definitions(Path(file)).items():
        if line in lines:
            relative = Path(file).relative_to(package).as_posix()
            yield relative, name
            if "." in name:
                yield relative, name.split(".")[0]


def _owner(owner: Any, package: Path) -> Iterable[Name]:
    """The class of an instance that a method ran on."""
    if owner is None or not owner[0].startswith("alignlab"):
        return
    path = package.parent / (owner[0].replace(".", "/") + ".py")
    path = path if path.exists() else path.with_suffix("") / "__init__.py"
    if path.exists() and owner[1] in definitions(path):
        yield path.relative_to(package).as_posix(), owner[1]


@cache
def definitions(path: Path) -> dict[str, set[int]]:
    """Lines of each function, method and class (without its methods) at a file's top level."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found: dict[str, set[int]] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, functions):
            found[node.name] = found.get(node.name, set()) | _lines(node)
        elif isinstance(node, ast.ClassDef):
            own = _lines(node)
            for method in node.body:
                if isinstance(method, functions):
                    name = f"{node.name}.{method.name}"  # a setter has its property's name
                    found[name] = found.get(name, set()) | _lines(method)
                    own -= _lines(method)
            found[node.name] = own
    return found


def _lines(node: Any) -> set[int]:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return set(range(first, node.end_lineno + 1))


@cache
def _classes(path: Path) -> set[str]:
    return {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.ClassDef)}


def _size(package: Path, name: Name) -> int:
    return len(definitions(package / name[0])[name[1]])


def yaml_files(subject: str, package: Path) -> dict[str, int]:
    """Lines with settings in the YAML files of a stage, or of a sweep and its stage."""
    experiment = package.parent / "experiments" / "quickstart"
    pipeline = yaml.safe_load((experiment / "pipeline.yaml").read_text())
    files = pipeline["stages"]["dpo" if subject == "sweep" else subject]["fit"]
    files = [files] if isinstance(files, str) else list(files)
    texts = {name: (experiment / name).read_text() for name in files}
    if subject == "sweep":
        texts |= {"pipeline.yaml": (experiment / "pipeline.yaml").read_text(), "SWEEP.yaml": SWEEP}
    return {
        name: sum(bool(line.strip()) and line.lstrip()[0] != "#" for line in text.split("\n"))
        for name, text in texts.items()
    }


def show(subject: str, found: list[Visit], settings: dict[str, int]) -> None:
    """Print the table of parts."""
    print(f"\n{subject:24} whole lines  files   straight lines  files")
    parts: dict[str, list[Visit]] = defaultdict(list)
    for visit in found:
        parts[visit.part].append(visit)
    counted = COUNTED[subject]
    rest = sorted(set(parts) - set(counted))
    listed = ", ".join(f"{name} {lines}" for name, lines in settings.items())
    lines = sum(settings.values())
    print(f"* {'YAML':22}{lines:11}{len(settings):7}{lines:17}{len(settings):7}  {listed}")
    for part in [*counted, *rest]:
        _row(part, parts[part], part in counted)
    of_counted = [visit for part in counted for visit in parts[part]]
    _row("sum of *", of_counted, True, lines, len(settings))
    _row("all that ran", found, False, lines, len(settings))


def _row(name: str, found: list[Visit], counted: bool, lines: int = 0, files: int = 0) -> None:
    cells = ""
    for part in (found, [visit for visit in found if visit.straight]):
        total = sum(visit.lines for visit in part) + lines
        cells += f"{total:11}{len({visit.file for visit in part}) + files:7}{'':6}"
    print(f"{'*' if counted else ' '} {name:22}{cells.rstrip()}")


def show_files(found: list[Visit], names: bool) -> None:
    """Print lines by file, with the definitions if asked."""
    by_file: dict[str, list[Visit]] = defaultdict(list)
    for visit in found:
        by_file[visit.file].append(visit)
    for file, inside in sorted(by_file.items(), key=lambda item: (item[1][0].part, item[0])):
        whole = sum(visit.lines for visit in inside)
        straight = sum(visit.lines for visit in inside if visit.straight)
        print(f"    {file:40}{whole:6}{straight:6}")
        if names:
            shown = (v.name if v.straight else f"({v.name})" for v in inside)
            print(f"        {', '.join(shown)}")


if __name__ == "__main__":
    main()
