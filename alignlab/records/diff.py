"""``alignlab diff``: what two runs, or two arms, differ by, and whether their results do."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alignlab.evaluation.comparison import interval, spread_of
from alignlab.evaluation.power import POWER, Spread, enough
from alignlab.files import canonical
from alignlab.plan.content import WRITTEN, fingerprint
from alignlab.records.find import PARENT, Run, job_in, runs_named, texts_in
from alignlab.results.commits import code_between
from alignlab.results.prompt_tables import PromptScores
from alignlab.results.statistics import Floats, bootstrap_counts

REPLICATES = 1000
FEWEST = 4  # prompts in common; fewer give no interval


class Difference(NamedTuple):
    """The second's mean minus the first's, with its 95 % interval."""

    value: float
    lo: float
    hi: float
    spread: Spread

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes 0."""
        return self.lo > 0 or self.hi < 0


def diff(first: str, second: str, roots: Sequence[Path], wanted: float | None = None) -> str:
    """Settings, data, code and results of two runs or arms, as text.

    Args:
        first: A run, or all of its seeds: the name without ``-s<seed>``.
        second: Another one.
        roots: Where to look for names.
        wanted: Difference in reward whose seeds and prompts are asked for; the observed one unless
            given.

    Raises:
        ConfigError: There is no such run, or no such step.
        DataError: A record cannot be read.
    """
    arms = [runs_named(name, roots) for name in (first, second)]
    a, b = _alike(*arms)
    lines = [
        _line("A", _named(arms[0])),
        _line("B", _named(arms[1])),
        _line("settings", "\n".join(settings_between(a.config, b.config)) or "the same"),
        _line("data", "\n".join(data_between(a, b))),
        _line("code", code_between(a.commit, b.commit)),
        *_results(arms[0], arms[1], wanted),
    ]
    return "\n".join(lines)


def _line(name: str, text: str) -> str:
    return f"{name:<10}" + text.replace("\n", "\n" + " " * 10)


def _named(runs: Sequence[Run]) -> str:
    return (
        runs[0].label
        if len(runs) == 1
        else f"{len(runs)} runs: " + ", ".join(run.label for run in runs)
    )


def _alike(first: Sequence[Run], second: Sequence[Run]) -> tuple[Run, Run]:
    """A run of each, of one seed if they have one in common."""
    seeds = [{run.seed: run for run in runs} for runs in (first, second)]
    both = [seed for seed in seeds[0] if seed in seeds[1]]
    return (seeds[0][both[0]], seeds[1][both[0]]) if both else (first[0], second[0])


def settings_between(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """``key: value -> value`` of every setting that differs; ``-`` where one has no such key.

    Paths that a run writes to do not count. A path into a job's folder counts as the job's name.
    """
    a, b = dict(_leaves(first, "")), dict(_leaves(second, ""))
    keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key, "-") != b.get(key, "-")]
    return [f"{key}: {a.get(key, '-')} -> {b.get(key, '-')}" for key in keys]


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            if name not in (*WRITTEN, PARENT):
                yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _leaves(item, f"{key}.{number}")
    else:
        yield key, _of_job(value) if isinstance(value, str) else canonical(value)


def _of_job(text: str) -> str:
    """A path into a job's folder by the job's name, wherever its results folder is."""
    job = job_in(text)
    if job is None:
        return text
    parts = Path(text).parts
    return "/".join([f"{{{job.run_id}}}", *parts[len(job.results.parts) + 3 :]])


def data_between(first: Run, second: Run) -> Iterator[str]:
    """Jobs and files that the runs read, by name: which differ, are equal, or were not kept.

    A job is compared by its ``config_sha``, which covers what it read itself; a file by its bytes
    as they are now.
    """
    a, b = _read_by(first), _read_by(second)
    equal = []
    for name in dict.fromkeys([*a, *b]):
        shas = a.get(name), b.get(name)
        if None in shas:
            yield f"{name}: read by {'B' if shas[0] is None else 'A'} alone"
        elif "" in shas:
            yield f"{name}: not kept, so it cannot be compared"
        elif shas[0] == shas[1]:
            equal.append(name)
        else:
            yield f"{name}: {str(shas[0])[:12]} -> {str(shas[1])[:12]}"
    if equal or not (a or b):
        yield f"the same: {', '.join(equal)}" if equal else "none is named in the configs"


def _read_by(run: Run) -> dict[str, str]:
    """Name of a job or file -> hash of its content; empty where it is not known."""
    found = {job.run_id: job.config_sha for job in run.inputs}
    for text in texts_in(run.config):
        path = Path(text) if "/" in text and job_in(text) is None else None
        if path is not None and path.is_file():
            found[text] = fingerprint(path)
    return found


def _results(first: Sequence[Run], second: Sequence[Run], wanted: float | None) -> Iterator[str]:
    scores = [_scores(runs) for runs in (first, second)]
    if not all(scores):
        lacking = " and ".join(name for name, own in zip("AB", scores, strict=True) if not own)
        yield _line("result", f"not resolved: {lacking} has no evaluation that was kept")
        return
    ids = _common_prompts(scores)
    if len(ids) < FEWEST:
        yield _line("result", f"not resolved: they have {len(ids)} evaluated prompts in common")
        return
    for name in ("reward", "kl", "length"):
        found = difference([_measure(own, name, ids) for own in scores])
        if found[:3] == (0, 0, 0):
            yield _line(name, "equal on every prompt")
            continue
        text = f"B - A = {found.value:.4g} [{found.lo:.4g}, {found.hi:.4g}], "
        text += "not resolved" if not found.resolved else f"{'B' if found.value > 0 else 'A'} above"
        yield _line(name, text)
        if name == "reward" and (wanted is not None or not found.resolved):
            yield _line("", _to_resolve(found, wanted))
    yield _line("", _basis(scores, len(ids)))


def _to_resolve(found: Difference, wanted: float | None) -> str:
    size = found.value if wanted is None else wanted
    answer = enough(replace(found.spread, difference=size))
    return (
        f"to resolve a true difference of {size:.4g} with a chance of {100 * POWER:g} %: {answer}"
    )


def _basis(scores: Sequence[Mapping[int, PromptScores]], prompts: int) -> str:
    common = scores[0].keys() & scores[1].keys()
    seeds = len(common) or min(map(len, scores))
    said = f"95 %, {prompts} prompts by a paired bootstrap, {seeds} seed{'s' * (seeds != 1)}"
    if not common:
        said += " each, in none of which both were run"
    return said + (": variance over training seeds is not counted" if seeds == 1 else "")


def _scores(runs: Sequence[Run]) -> dict[int, PromptScores]:
    """Seed -> per-prompt results after the last step, or the one that was asked for."""
    found = {}
    for run in runs:
        point = run.asked
        own = None if point is None else run.scores(point.step)
        if point is not None and own is not None:
            found[point.seed] = own
    return found


def _common_prompts(scores: Sequence[Mapping[int, PromptScores]]) -> list[str]:
    named = [each.prompt_ids for own in scores for each in own.values()]
    return [name for name in named[0] if all(name in other for other in map(set, named[1:]))]


def _measure(
    scores: Mapping[int, PromptScores], name: str, ids: Sequence[str]
) -> dict[int, Floats]:
    """Seed -> a measure of the prompts ``ids``, in their order."""
    found = {}
    for seed, own in sorted(scores.items()):
        place = {prompt: i for i, prompt in enumerate(own.prompt_ids)}
        found[seed] = getattr(own, name)[[place[prompt] for prompt in ids]]
    return found


def difference(measures: Sequence[Mapping[int, Floats]]) -> Difference:
    """The second's mean minus the first's, seed by seed where both have it.

    Args:
        measures: Of each, seed -> a number for each of the same prompts.
    """
    first, second = measures
    prompts = len(next(iter(first.values())))
    counts = bootstrap_counts(prompts, REPLICATES, seed=0)
    weights = np.vstack([np.ones(prompts), counts]) / prompts
    common = sorted(first.keys() & second.keys())
    if common:
        values = [[second[seed] - first[seed] for seed in common]]
    else:
        values = [[*second.values()], [-own for own in first.values()]]
    parts = [np.stack(own) @ weights.T for own in values]
    value, lo, hi = interval(parts, prompts)
    return Difference(value, lo, hi, spread_of(parts, prompts))
