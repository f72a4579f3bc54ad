"""Code that has moved: its present place, and the name by which records and YAML files know it.

A stage's hash names functions and classes by the place that they had when the first results were
made, so that moving code makes no result stale. The old names keep working wherever a name is
text: in a YAML file, as ``class_path`` or ``call``, and on the command line.
"""

import functools
import importlib
import sys
from collections.abc import Mapping
from typing import Any

# Recorded name -> present place, of one function or class or of all that a module holds.
MOVED: dict[str, str] = {
    "alignlab.data.hh": "alignlab.worlds.hh",
    "alignlab.data.imdb_stages": "alignlab.worlds.imdb_stages",
    "alignlab.data.instruct": "alignlab.worlds.instruct",
    "alignlab.data.raters": "alignlab.worlds.raters",
    "alignlab.data.tldr_made_up": "alignlab.worlds.tldr_made_up",
    "alignlab.data.tldr_stages": "alignlab.worlds.tldr_stages",
    "alignlab.data.toy": "alignlab.worlds.toy",
    "alignlab.evaluation.collect": "alignlab.stages.collect",
    "alignlab.evaluation.commands.draw_pool": "alignlab.stages.pool_sampling.draw_pool",
    "alignlab.evaluation.exact_match": "alignlab.stages.exact_match",
    "alignlab.evaluation.implicit_check": "alignlab.stages.implicit_check",
    "alignlab.evaluation.likelihood": "alignlab.stages.likelihood",
    "alignlab.evaluation.reward_check": "alignlab.stages.reward_check",
    "alignlab.evaluation.reward_models": "alignlab.stages.reward_models",
    "alignlab.evaluation.sample_table": "alignlab.stages.sample_table",
    "alignlab.evaluation.training_log": "alignlab.stages.training_log",
    "alignlab.models.stages": "alignlab.stages.policies",
    "alignlab.rewards.classifier.fetch_classifier": "alignlab.stages.scorers.fetch_classifier",
    "alignlab.rewards.classifier.make_up_classifier": "alignlab.stages.scorers.make_up_classifier",
    "alignlab.rewards.normalise": "alignlab.stages.normalise",
    "alignlab.rewards.sentiment.compare_scorers": "alignlab.stages.scorers.compare_scorers",
    "alignlab.rewards.sentiment.fit_sentiment": "alignlab.stages.scorers.fit_sentiment",
    "alignlab.rollouts.best": "alignlab.stages.best",
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
    """The name by which records know ``name``, old or new."""
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
