"""The stage that tests trained reward models on held-out pairs."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml

from alignlab.bounds import Count, Positive
from alignlab.data.rows import PreferencePair, prompt_key
from alignlab.data.sources import read_rows
from alignlab.data.texts import completion_text, prompt_text
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import PromptTree, in_length_order
from alignlab.errors import ConfigError, DataError
from alignlab.models import ScoreModel
from alignlab.results.csv_tables import write_table
from alignlab.results.run_folder import RunFolder
from alignlab.results.statistics import Floats
from alignlab.rewards.base import checked_rewards
from alignlab.rewards.build import build_reward
from alignlab.rewards.model import check_trained_scorer
from alignlab.stages.agreement import Agreement, Bin, agreement


def check_reward_model(
    *,
    out: str | Path,
    models: str | Sequence[str],
    pairs: str | Mapping[str, str],
    gold: Mapping[str, Any] | str | None = None,
    gold_scale: Positive = 1.0,
    columns: Mapping[str, str] | None = None,
    max_length: Count | None = None,
    truncation: Literal["drop", "keep_start", "keep_end"] = "drop",
    batch_size: Count = 64,
) -> None:
    """Stage: write ``accuracy.csv`` and ``calibration.csv`` of reward models on held-out pairs.

    A row per model and file of pairs, measured against the labels. With ``gold`` there are also a
    row against the order of gold's scores (column ``against``), and a row of gold itself against
    the labels: if labels are noisy, no model can be expected to do better. ``longer`` is the
    accuracy of preferring the longer completion.

    Args:
        out: Folder to write.
        models: Folders of trained reward models.
        pairs: A file of pairs, or several by name.
        gold: The reward that made the labels: ``class_path`` and ``init_args``.
        gold_scale: Factor on its score differences, as in ``make_pairs``.
        columns: Column of the tables -> dotted key in the ``config.yaml`` beside each model.
        max_length: As in training.
        truncation: As in training.
        batch_size: Pairs per forward.

    Raises:
        ConfigError: A folder holds no reward model, or no such key in its config.
        DataError: No pair can be used, or none that gold has an opinion on.
    """
    files = {"": pairs} if isinstance(pairs, str) else dict(pairs)
    sets = {name: read_rows(path, PreferencePair) for name, path in files.items()}
    judge = None if gold is None else _Gold(gold, gold_scale)
    accuracy: list[dict[str, Any]] = []
    calibration: list[dict[str, Any]] = []
    for folder in [models] if isinstance(models, str) else models:
        check_trained_scorer(folder)
        model = ScoreModel.load_for_eval(folder)
        label = {"model": RunFolder(folder).long_name, **run_settings(folder, columns or {})}
        for name, (rows, read) in sets.items():
            report = deepcopy(read)  # each model continues a record of its own
            trees = tokenise(
                rows,
                model.tokenizer,
                report,
                max_length=max_length,
                truncation=truncation,
            )
            report.tell()
            gaps = score_gaps(model, trees, batch_size)
            told = {"longer": _longer(trees), "cut": report.truncated}
            told["refused"] = report.count
            for against, found in _against(gaps, kept_rows(rows, trees), judge):
                key = {**label, **_of(name), "against": against}
                accuracy.append({**key, **_accuracy(found), **told})
                calibration += [{**key, **_bin(b)} for b in found.bins]
    if judge is not None:
        for name, (rows, _) in sets.items():
            found = agreement(judge.gaps(rows), list(map(prompt_key, rows)))
            key = {"model": "gold", **_of(name), "against": "labels"}
            accuracy.append({**key, **_accuracy(found)})
    write_table(Path(out) / "accuracy.csv", accuracy)
    write_table(Path(out) / "calibration.csv", calibration)


@torch.no_grad()
def score_gaps(model: ScoreModel, trees: Sequence[PromptTree], batch_size: int) -> Floats:
    """``[N]`` score of each pair's first completion less the second one's.

    Args:
        model: In evaluation mode.
        trees: Pairs.
        batch_size: Pairs per forward.
    """
    gaps = np.zeros(len(trees))
    for places, batch in in_length_order(trees, 2 * batch_size):
        scores = model.scores(batch.to(model.device)).double().cpu().view(-1, 2)
        gaps[places] = (scores[:, 0] - scores[:, 1]).numpy()
    return gaps


class _Gold:
    """The reward that made the labels, with a cache of its scores."""

    def __init__(self, spec: Mapping[str, Any] | str, scale: float) -> None:
        self._reward, self._scale = build_reward(spec), scale
        self._known: dict[PreferencePair, float] = {}

    def gaps(self, rows: Sequence[PreferencePair]) -> Floats:
        """``[N]``, its score of the preferred completion less the other one's."""
        new = [row for row in rows if row not in self._known]
        if new:
            prompts = [prompt_text(row.prompt) for row in new]
            chosen = [completion_text(row.chosen, row.chosen_ends) for row in new]
            rejected = [completion_text(row.rejected, row.rejected_ends) for row in new]
            won, lost = (checked_rewards(self._reward, prompts, c) for c in (chosen, rejected))
            gaps = self._scale * (won - lost)
            self._known.update(zip(new, gaps.tolist(), strict=True))
        return np.array([self._known[row] for row in rows])


def _against(
    gaps: Floats, rows: Sequence[PreferencePair], judge: _Gold | None
) -> Iterator[tuple[str, Agreement]]:
    """Compare ``gaps`` with the labels and, if there is a gold reward, with its order."""
    prompts = list(map(prompt_key, rows))
    yield "labels", agreement(gaps, prompts)
    if judge is None:
        return
    signs = np.sign(judge.gaps(rows))
    decided = np.flatnonzero(signs)
    if not len(decided):
        raise DataError("gold scores the two completions alike in every pair. Use other pairs.")
    yield "gold", agreement((signs * gaps)[decided], [prompts[i] for i in decided])


def kept_rows(rows: Sequence[PreferencePair], trees: Sequence[PromptTree]) -> list[PreferencePair]:
    """The row of each tree."""
    return [rows[tree.row] for tree in trees]


def _of(name: str) -> dict[str, str]:
    return {"set": name} if name else {}


def run_settings(folder: str, columns: Mapping[str, str]) -> dict[str, Any]:
    """The value in a run's config at each column's dotted key.

    Raises:
        ConfigError: No such key.
    """
    if not columns:
        return {}
    config = yaml.safe_load(RunFolder(folder).config.read_text(encoding="utf-8"))
    return {column: _setting(config, key, folder) for column, key in columns.items()}


def _setting(config: Any, dotted: str, folder: str) -> Any:
    here = config
    for part in dotted.split("."):
        if not isinstance(here, Mapping) or part not in here:
            raise ConfigError(f"{RunFolder(folder).config} has no {dotted}. Check columns.")
        here = here[part]
    return here


def _longer(trees: Sequence[PromptTree]) -> float:
    ahead = [len(tree.completions[0]) - len(tree.completions[1]) for tree in trees]
    return float(np.mean((np.sign(ahead) + 1) / 2))


def _accuracy(found: Agreement) -> dict[str, Any]:
    return {
        "n": found.pairs,
        "prompts": found.prompts,
        "accuracy": found.accuracy,
        "accuracy_lo": found.interval.lo,
        "accuracy_hi": found.interval.hi,
        "log_loss": found.log_loss,
        "calibration_error": found.calibration_error,
    }


def _bin(found: Bin) -> dict[str, Any]:
    return {
        "bin_lo": found.lo,
        "bin_hi": found.hi,
        "n": found.pairs,
        "confidence": found.confidence,
        "accuracy": found.right,
        "accuracy_lo": found.interval.lo,
        "accuracy_hi": found.interval.hi,
    }
