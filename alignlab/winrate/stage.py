"""Win rates as a stage of an experiment."""

import os
import re
from collections.abc import Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any, Required, TypedDict

from alignlab.bounds import Count, Seed
from alignlab.data.rows import Demonstration
from alignlab.data.sources import read_rows
from alignlab.data.texts import prompt_text
from alignlab.errors import ConfigError, DataError
from alignlab.files import atomic_write
from alignlab.report.win_rates import VERDICTS
from alignlab.results.run_folder import RunFolder
from alignlab.winrate.contest import TEMPERATURES, Contest, hold
from alignlab.winrate.endpoint import KEY, Endpoint, EndpointJudge
from alignlab.winrate.matches import Judge
from alignlab.winrate.policies import Contender
from alignlab.winrate.questions import read_question
from alignlab.winrate.sampling import Settings
from alignlab.winrate.scored import RewardJudge

Models = str | list[str]  # folder of one seed, or of each


class Variant(TypedDict, total=False):
    """A model that is not simply sampled.

    ``model`` is its folder. ``examples`` is a file of demonstrations, of which the first ``shots``
    (3) stand before every prompt. ``best_of`` samples are ranked by the reward model in the folder
    ``ranked_by``, or by that of each seed, and the best is kept.
    """

    model: Required[str]
    examples: str
    shots: int
    best_of: int
    ranked_by: Models


class Served(TypedDict):
    """A judge behind an endpoint: its URL, its name there, and the question (see ``QUESTIONS``)."""

    url: str
    model: str
    question: str


def measure_win_rates(
    *,
    out: str | Path,
    policies: dict[str, Models] | list[Models],
    prompts: str,
    max_new_tokens: Count,
    variants: dict[str, Variant] | None = None,
    against: dict[str, Models] | None = None,
    columns: Sequence[str] = (),
    reward: Mapping[str, Any] | str | None = None,
    endpoint: Served | None = None,
    limit: Count | None = 256,
    temperatures: Sequence[float] = TEMPERATURES,
    against_temperature: float | None = None,
    samples: Count = 1,
    seed: Seed = 0,
    batch_size: Count = 256,
    memo: str | None = None,
    results: str | None = None,
) -> None:
    """Stage: win rates over temperature: ``winrates.csv``, ``verdicts.csv``, a figure and a page.

    Args:
        out: Folder to write.
        policies: Name -> folder of its model, or of those of its seeds; or folders of stages alone,
            which are named by their runs, those that differ in the seed alone together.
        prompts: Held-out pairs, demonstrations or prompts.
        max_new_tokens: Bound on a completion.
        variants: Further policies by name: prompted with examples, or best of n.
        against: Opponents by name, as ``policies``.
        columns: Opponents in the file of prompts: chosen, rejected or completion.
        reward: Decides, unless ``endpoint`` does: ``class_path`` and ``init_args``.
        endpoint: Asks this served model, with the key in ``OPENAI_API_KEY`` if it is set.
        limit: Prompts, from the start of the file.
        temperatures: Of the policies.
        against_temperature: Of the opponents; that of the policy when left out.
        samples: Completions of a prompt.
        seed: Of the sampling noise.
        batch_size: Completions per batch.
        memo: File that keeps samples, scores and replies, such as
            ``{results}/stages/cache/winrate.jsonl``, from which a stopped stage is continued. In
            ``out`` when left out, which is emptied before a stage starts again.
        results: Folder that gets the tables, the figure and the page, too.

    Raises:
        ConfigError: Not exactly one of ``reward`` and ``endpoint``, a variant that lacks a key, or
            as ``hold``.
        DataError: Examples that cannot be read, or too few.
    """
    opponents: list[Contender | str] = [*_contenders(against or {}), *columns]
    contest = Contest(
        policies=[*_contenders(policies), *starmap(_variant, (variants or {}).items())],
        against=opponents,
        prompts=prompts,
        limit=limit,
        temperatures=temperatures,
        against_temperature=against_temperature,
        sampling=Settings(samples, max_new_tokens, seed, batch_size),
    )
    hold(contest, _judge(reward, endpoint), Path(out), memo=None if memo is None else Path(memo))
    if results is not None:
        for path in (*Path(out).glob("winrate*"), Path(out) / VERDICTS):
            atomic_write(Path(results) / path.name, path.read_bytes())


def _contenders(given: Mapping[str, Models] | Sequence[Models]) -> list[Contender]:
    if not isinstance(given, Mapping):
        runs: dict[str, list[str]] = {}
        for models in given:
            for folder in [models] if isinstance(models, str) else models:
                runs.setdefault(re.sub(r"-s\d+$", "", RunFolder(folder).run_id), []).append(folder)
        given = dict(runs)
    return [
        Contender(name, (models,) if isinstance(models, str) else tuple(models))
        for name, models in given.items()
    ]


def _variant(name: str, given: Variant) -> Contender:
    best_of, shots = given.get("best_of", 1), given.get("shots", 3)
    rankers = given.get("ranked_by", ())
    ranked_by = (rankers,) if isinstance(rankers, str) else tuple(rankers)
    if best_of < 1 or (best_of > 1) != bool(ranked_by):
        raise ConfigError(
            f"variant {name!r}: best_of and ranked_by belong together, got {best_of} and "
            f"{list(ranked_by)}. Give best_of >= 2 with ranked_by, or neither."
        )
    if "shots" in given and ("examples" not in given or shots < 1):
        raise ConfigError(f"variant {name!r}: shots must be at least 1, with examples.")
    before = _solved(given["examples"], shots) if "examples" in given else ""
    sources = (given["model"],) * max(1, len(ranked_by))
    return Contender(name, sources, before, best_of, ranked_by)


def _solved(file: str, shots: int) -> str:
    """The first demonstrations of a file with their completions, a blank line after each.

    Raises:
        DataError: There are fewer.
    """
    rows, _ = read_rows(file, Demonstration, limit=shots)
    if len(rows) < shots:
        raise DataError(f"{file}: {len(rows)} demonstrations, {shots} wanted. Lower shots.")
    return "".join(f"{prompt_text(row.prompt)}{row.completion}\n\n" for row in rows)


def _judge(reward: Mapping[str, Any] | str | None, endpoint: Served | None) -> Judge:
    if reward is not None and endpoint is None:
        return RewardJudge(reward)
    if endpoint is None or reward is not None:
        raise ConfigError("win rates need one judge: give reward or endpoint.")
    asked = Endpoint(
        url=endpoint["url"],
        model=endpoint["model"],
        question=read_question(endpoint["question"]),
        key=os.environ.get(KEY),
    )
    return EndpointJudge(asked, lambda: True)
