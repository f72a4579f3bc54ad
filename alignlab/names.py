"""Names of moved code: its present place, and the recorded name in tables and YAML files.

A stage's hash names functions and classes by the place that they had when the first results were
made, so that moving code makes no result stale. The old names keep working wherever a name is
text (in a YAML file, as ``class_path`` or ``call``, and on the command line) and in ``import``
statements. A line on stderr then says the present place.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Recorded name -> present place, of one function or class or of all that a module holds.
MOVED: dict[str, str] = {
    "alignlab.before_start": "alignlab.training.before_start",
    "alignlab.data.hh": "alignlab.worlds.hh",
    "alignlab.data.imdb": "alignlab.worlds.imdb",
    "alignlab.data.imdb_stages": "alignlab.worlds.imdb_stages",
    "alignlab.data.instruct": "alignlab.worlds.instruct",
    "alignlab.data.negatives": "alignlab.worlds.negatives",
    "alignlab.data.raters": "alignlab.worlds.raters",
    "alignlab.data.tally": "alignlab.worlds.tally",
    "alignlab.data.tldr": "alignlab.worlds.tldr",
    "alignlab.data.tldr_made_up": "alignlab.worlds.tldr_made_up",
    "alignlab.data.tldr_stages": "alignlab.worlds.tldr_stages",
    "alignlab.data.tokenise.tokenise_labelled": "alignlab.data.blocks.tokenise_labelled",
    "alignlab.data.tokenise.tokenise_texts": "alignlab.data.blocks.tokenise_texts",
    "alignlab.data.toy": "alignlab.worlds.toy",
    "alignlab.data.words": "alignlab.worlds.words",
    "alignlab.evaluation.agreement": "alignlab.stages.agreement",
    "alignlab.evaluation.collect": "alignlab.stages.collect",
    "alignlab.evaluation.commands.draw_pool": "alignlab.stages.pool_sampling.draw_pool",
    "alignlab.evaluation.csv_tables": "alignlab.results.csv_tables",
    "alignlab.evaluation.enumerable": "alignlab.worlds.enumerable",
    "alignlab.evaluation.exact_match": "alignlab.stages.exact_match",
    "alignlab.evaluation.findings": "alignlab.report.gather",
    "alignlab.evaluation.implicit_check": "alignlab.stages.implicit_check",
    "alignlab.evaluation.likelihood": "alignlab.stages.likelihood",
    "alignlab.evaluation.pool": "alignlab.results.pool",
    "alignlab.evaluation.pool_sampling": "alignlab.stages.pool_sampling",
    "alignlab.evaluation.prompt_tables": "alignlab.results.prompt_tables",
    "alignlab.evaluation.results": "alignlab.report.read",
    "alignlab.evaluation.reward_check": "alignlab.stages.reward_check",
    "alignlab.evaluation.reward_models": "alignlab.stages.reward_models",
    "alignlab.evaluation.sample_table": "alignlab.stages.sample_table",
    "alignlab.evaluation.statistics": "alignlab.results.statistics",
    "alignlab.evaluation.tables": "alignlab.results.tables",
    "alignlab.evaluation.training_log": "alignlab.stages.training_log",
    "alignlab.fit": "alignlab.training.fit",
    "alignlab.models.loading.Lora": "alignlab.models.adapters.Lora",
    "alignlab.models.stages": "alignlab.stages.policies",
    "alignlab.objectives.figures": "alignlab.objectives.metrics",
    "alignlab.objectives.pairs": "alignlab.objectives.base",
    "alignlab.objectives.referenced": "alignlab.models.reference",
    "alignlab.pipeline.overlay": "alignlab.plan.overlay",
    "alignlab.pipeline.plan": "alignlab.plan.experiment",
    "alignlab.rewards.classifier.fetch_classifier": "alignlab.stages.scorers.fetch_classifier",
    "alignlab.rewards.classifier.make_up_classifier": "alignlab.stages.scorers.make_up_classifier",
    "alignlab.rewards.normalise": "alignlab.stages.normalise",
    "alignlab.rewards.sentiment.compare_scorers": "alignlab.stages.scorers.compare_scorers",
    "alignlab.rewards.sentiment.fit_sentiment": "alignlab.stages.scorers.fit_sentiment",
    "alignlab.rollouts.best": "alignlab.stages.best",
    "alignlab.rollouts.cache": "alignlab.models.cache",
    "alignlab.rollouts.completed": "alignlab.stages.completed",
    "alignlab.rollouts.pairs": "alignlab.stages.pairs",
}


def present(name: str) -> str:
    """The place where ``name`` is now; one that has moved is reported in a line."""
    now = _replaced(name, MOVED)
    if now != name:
        _report(name, now)
    return now


def present_in(value: Any) -> Any:
    """``value``, nested as YAML is, with the present place of every name in it."""
    if isinstance(value, dict):
        return {key: present_in(item) for key, item in value.items()}
    if isinstance(value, list):
        return [present_in(item) for item in value]
    return present(value) if isinstance(value, str) else value


def recorded(name: str) -> str:
    """The recorded name of ``name``, which may be old or new."""
    return _replaced(name, {now: old for old, now in MOVED.items()})


def find(name: str) -> Any:
    """The function or class at ``package.module.name``.

    Raises:
        ImportError: There is no such module.
        AttributeError: The module has no such name.
        ValueError: ``name`` is no dotted name.
    """
    module, _, last = present(name).rpartition(".")
    return getattr(importlib.import_module(module), last)


class MovedModules(Loader, MetaPathFinder):
    """Imports a module by its former name, if no file has that name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec whose loader is this object, if :data:`MOVED` has ``fullname``."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Replace the empty ``module`` by the module at the present place, itself, no copy."""
        sys.modules[module.__name__] = importlib.import_module(present(module.__name__))


def moved_from(module: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for ``module`` that finds the functions and classes that have left it."""

    def find_moved(name: str) -> Any:
        if f"{module}.{name}" in MOVED:
            return find(f"{module}.{name}")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find_moved


def _replaced(name: str, table: Mapping[str, str]) -> str:
    """``name`` with its longest beginning that ``table`` has replaced."""
    if not name.startswith("alignlab."):
        return name
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        if start := table.get(".".join(parts[:length])):
            return ".".join([start, *parts[length:]])
    return name


@functools.cache
def _report(old: str, now: str) -> None:
    print(f"note: {old} moved to {now}", file=sys.stderr)
