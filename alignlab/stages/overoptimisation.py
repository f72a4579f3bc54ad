"""The stage of over-optimisation: gold and learned reward over sqrt(KL), with Gao's fits."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from alignlab.errors import DataError
from alignlab.evaluation.comparison import interval, spread_of
from alignlab.evaluation.frontier import REPLICATES, common_prompts
from alignlab.evaluation.overoptimisation import Fit, Form, Run, decline, distance, fit
from alignlab.evaluation.power import enough
from alignlab.files import atomic_write
from alignlab.report.overoptimisation import draw_overoptimisation
from alignlab.results.csv_tables import write_table
from alignlab.results.prompt_tables import (
    PromptTable,
    read_prompt_tables,
    write_prompt_tables,
)
from alignlab.results.run_folder import SampleText, job_folders
from alignlab.results.run_records import CONFIGS, POINTS, table_of
from alignlab.results.statistics import Floats, clustered_se, half_weights
from alignlab.results.tables import read_points
from alignlab.stages.best_of_n import TABLE

GOLD, PROXY = "gold", "proxy"
SHOWN = 4  # prompts in the table of samples: the first ones, and as many whose gold fell most


def write_overoptimisation(
    *,
    out: str | Path,
    results: str | Path,
    best_of_n: str | Sequence[str],
    curves: Mapping[str, str],
    contrasts: Sequence[Sequence[str]] = (),
    reward_label: str = "gold reward",
) -> None:
    """Stage: gold against learned reward along sqrt(KL): tables, fits, a figure, samples.

    In ``out`` and in ``results``: ``overoptimisation.csv``, a row per curve, seed and checkpoint;
    ``fits.csv``, a row per curve and reward, with Gao's alpha, beta and peak, and how far the
    reward falls from the best checkpoint to the last; ``contrasts.csv``, differences of fitted gold
    gains at the largest d that both curves reach; ``overoptimisation.png``, ``.svg`` and ``.pdf``;
    ``peak_samples.csv``, texts of the same prompts at the peak and at the end of training, where
    the runs' folders are there. ``needs`` says how many seeds or prompts would resolve the rest.

    Args:
        out: Folder to write.
        results: The results folder, which has the runs' evaluations; it gets ``best_of_n.parquet``.
        best_of_n: Folders of ``measure_best_of_n``, one for each seed, or the folder of one seed.
        curves: Objective in ``points.csv`` -> name of the best-of-n curve by the reward model that
            the run was trained on, or that was its probe's proxy.
        contrasts: Pairs of curves to compare.
        reward_label: Name and unit of the gold reward.

    Raises:
        DataError: A curve without rows or without its best-of-n, or tables on different prompts.
    """
    folders = [best_of_n] if isinstance(best_of_n, str) else best_of_n
    sampled = [table for folder in folders for table in read_prompt_tables(Path(folder) / TABLE)]
    trained = _trained(Path(results), curves)
    write_prompt_tables(Path(results) / TABLE, sampled)
    study = _Study(sampled, trained, curves)
    fits = study.fits()
    unknown = [name for pair in contrasts for name in pair if (name, GOLD) not in fits]
    if unknown:
        raise DataError(f"contrasts name {unknown[0]!r}; the curves are {', '.join(study.curves)}.")
    rows = study.rows()
    fitted = [study.fit_row(*key, found) for key, found in fits.items()]
    tables = {"overoptimisation.csv": rows, "fits.csv": fitted}
    if contrasts:
        tables["contrasts.csv"] = [
            _contrast(first, second, fits[first, GOLD], fits[second, GOLD])
            for first, second in contrasts
        ]
    texts = list(_peak_samples(Path(results), trained, fits))
    if texts:
        tables["peak_samples.csv"] = texts
    for name, table in tables.items():
        write_table(Path(out) / name, table)
    drawn = draw_overoptimisation(Path(out), Path(out), reward_label=reward_label)
    for path in (*(Path(out) / name for name in tables), *drawn):
        atomic_write(Path(results) / path.name, path.read_bytes())


def draw_again(results: Path) -> None:
    """Write all of it but the samples again, from the tables that are kept in git.

    Raises:
        DataError: The folder has no config of the stage ``overoptimisation``.
    """
    path = results / CONFIGS / "overoptimisation.yaml"
    if not path.exists():
        raise DataError(
            f"{path}: no such config. Name the results folder of an experiment with a stage called "
            "overoptimisation, as experiments/quickstart has at the scale of this name."
        )
    args = yaml.safe_load(path.read_text(encoding="utf-8"))["args"]
    folders = {"out": results, "results": results, "best_of_n": str(results)}
    write_overoptimisation(**args | folders)


def _trained(results: Path, curves: Iterable[str]) -> list[PromptTable]:
    points = read_points(results / POINTS)
    runs = sorted({point.run_id for point in points if point.objective in {*curves}})
    return [table for run in runs for table in read_prompt_tables(table_of(results, run))]


class _Study:
    """All curves on the same prompts: best-of-n first, then training."""

    def __init__(
        self, sampled: Sequence[PromptTable], trained: Sequence[PromptTable], of: Mapping[str, str]
    ) -> None:
        self.prompts = common_prompts([*sampled, *trained])
        start = {(t.objective, t.seed): t for t in sampled if t.step == 1}
        self.curves: dict[str, dict[int, list[PromptTable]]] = defaultdict(dict)
        self._start: dict[tuple[str, int], PromptTable] = {}
        for table in [*sampled, *sorted(trained, key=lambda t: (t.objective, t.run_id, t.step))]:
            own = (of.get(table.objective, table.objective), table.seed)
            if own not in start:
                raise DataError(
                    f"{table.run_id}: no best-of-n called {own[0]!r} with seed {own[1]}, which "
                    "gives the reference's rewards. Name it in the stage's curves."
                )
            self._start[table.objective, table.seed] = start[own]
            if table is not start[own]:
                tables = self.curves[table.objective].setdefault(table.seed, [])
                if tables and tables[0].run_id != table.run_id:
                    raise DataError(
                        f"{table.objective} has two runs of seed {table.seed}, {tables[0].run_id} "
                        f"and {table.run_id}: a curve has one. Name the objective of each setting."
                    )
                tables.append(table)
        if missing := [name for name in of if name not in self.curves]:
            raise DataError(f"points.csv has no run of {missing[0]!r}. Run its stage first.")
        self.forms: dict[str, Form] = {
            name: "rl" if name in of else "best_of_n" for name in self.curves
        }
        self.weights = half_weights(len(self.prompts), REPLICATES, 0)

    def ordered(self, table: PromptTable, values: Floats) -> Floats:
        """``[P]`` values of a table, prompts in the order of all."""
        place = {prompt: i for i, prompt in enumerate(table.scores.prompt_ids)}
        found: Floats = values[[place[prompt] for prompt in self.prompts]]
        return found

    def gain(self, table: PromptTable, score: str) -> Floats | None:
        """``[P]`` reward less the reference's on the same prompt; ``None`` if it is not known."""
        name = {GOLD: "reward", PROXY: "proxy_reward"}[score]
        start = self._start[table.objective, table.seed]
        own, before = getattr(table.scores, name), getattr(start.scores, name)
        if own is None or before is None:
            return None
        return self.ordered(table, own) - self.ordered(start, before)

    def runs(self, curve: str, score: str) -> list[Run]:
        """A curve's checkpoints, a run per seed; none where the score was not measured."""
        found = []
        for seed, tables in sorted(self.curves[curve].items()):
            kl = [self.ordered(table, table.scores.kl) for table in tables]
            gains = [gain for table in tables if (gain := self.gain(table, score)) is not None]
            if len(gains) == len(tables):
                found.append(Run(seed=seed, kl=np.stack(kl), gain=np.stack(gains)))
        return found

    def fits(self) -> dict[tuple[str, str], Fit]:
        """Every curve's fits of gold and learned reward."""
        return {
            (curve, score): fit(runs, form, self.weights)
            for curve, form in self.forms.items()
            for score in (GOLD, PROXY)
            if (runs := self.runs(curve, score))
        }

    def rows(self) -> list[dict[str, Any]]:
        """Rows of ``overoptimisation.csv``."""
        rows = []
        for curve, by_seed in self.curves.items():
            for table in [table for _, tables in sorted(by_seed.items()) for table in tables]:
                kl = float(table.scores.kl.mean())
                row: dict[str, Any] = {"curve": curve, "form": self.forms[curve]}
                row |= {"seed": table.seed, "run_id": table.run_id, "step": table.step}
                row |= {"kl": kl, "d": float(distance(kl))}
                for score in (GOLD, PROXY):
                    gain = self.gain(table, score)
                    row[f"{score}_gain"] = None if gain is None else float(gain.mean())
                    row[f"{score}_gain_se"] = None if gain is None else clustered_se(gain)
                entropy = table.scores.entropy
                row["length"] = float(table.scores.length.mean())
                rows.append(row | {"entropy": None if entropy is None else float(entropy.mean())})
        return rows

    def fit_row(self, curve: str, score: str, found: Fit) -> dict[str, Any]:
        """A row of ``fits.csv``."""
        runs, n = self.runs(curve, score), len(self.prompts)
        row: dict[str, Any] = {"curve": curve, "form": found.form, "score": score}
        row |= {"seeds": len(runs), "prompts": n, "checkpoints": sum(len(run.kl) for run in runs)}
        for place, name in enumerate(("alpha", "beta")):
            row |= _estimate(name, found.coefficients[:, :, place], n)
        peak = found.peak()
        row |= {"r2": found.r2, "d_reached": found.reached}
        row["peak"] = None if peak is None else _finite(peak.d)
        row["peak_lo"] = None if peak is None else _finite(max(peak.lo, 0.0))
        row["peak_hi"] = None if peak is None else _finite(peak.hi)
        resolved = peak is not None and peak.hi <= found.reached
        row["peak_resolved"] = "yes" if resolved else "no"
        fall = decline(runs, self.weights)
        return row | _estimate("decline", fall, n) | _verdict([fall], n)


def _estimate(name: str, values: Floats, n_prompts: int) -> dict[str, float]:
    mean, lo, hi = interval([values], n_prompts)
    return {name: mean, f"{name}_lo": lo, f"{name}_hi": hi}


def _verdict(parts: Sequence[Floats], n_prompts: int) -> dict[str, str]:
    """Whether an interval excludes 0, and how many seeds or prompts would make it."""
    _, lo, hi = interval(parts, n_prompts)
    resolved = lo > 0 or hi < 0
    needs = "" if resolved else str(enough(spread_of(parts, n_prompts)))
    return {"resolved": "yes" if resolved else "no", "needs": needs}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _contrast(first: str, second: str, one: Fit, other: Fit) -> dict[str, Any]:
    """A row of ``contrasts.csv``: seed by seed, on the same prompts."""
    d = min(one.reached, other.reached)
    seeds = [seed for seed in one.seeds if seed in other.seeds]
    if not seeds:
        raise DataError(
            f"{first} and {second} have no seed in common. Run them with the same seeds."
        )
    gains = [own.gains(d)[[own.seeds.index(seed) for seed in seeds]] for own in (one, other)]
    parts = [gains[0] - gains[1]]
    row: dict[str, Any] = {"first": first, "second": second, "seeds": len(seeds), "d": d}
    return row | _estimate("difference", parts[0], one.n_prompts) | _verdict(parts, one.n_prompts)


def _peak_samples(
    results: Path, trained: Sequence[PromptTable], fits: Mapping[tuple[str, str], Fit]
) -> Iterable[dict[str, Any]]:
    """Texts at the fitted peak and at the end, of each objective's first seed."""
    folders = {folder.run_id: folder for folder in job_folders(results)}
    first: dict[str, str] = {}
    for table in sorted(trained, key=lambda table: (table.seed, table.run_id)):
        first.setdefault(table.objective, table.run_id)
    for objective, run_id in first.items():
        evaluations = folders[run_id].evaluations if run_id in folders else []
        kl = {t.step: float(t.scores.kl.mean()) for t in trained if t.run_id == run_id}
        peak = fits[objective, GOLD].peak()
        if not evaluations or peak is None:
            continue
        at = {evaluation.step: evaluation for evaluation in evaluations}
        top = min(kl, key=lambda step: abs(float(distance(kl[step])) - peak.d))
        pair = [(step, at[step].read_texts()) for step in (top, max(kl))]
        for chosen, before, after in _chosen(*(texts for _, texts in pair)):
            row: dict[str, Any] = {"curve": objective, "run_id": run_id, "chosen": chosen}
            row["prompt"] = before.prompt
            for when, (step, _), text in zip(("peak", "end"), pair, (before, after), strict=True):
                row |= {f"{when}_step": step, f"{when}_kl": kl[step], f"{when}_gold": text.reward}
                row |= {f"{when}_proxy": text.proxy_reward, f"{when}_text": text.completion}
            yield row


def _chosen(
    peak: Sequence[SampleText], end: Sequence[SampleText]
) -> Iterable[tuple[str, SampleText, SampleText]]:
    """The first prompts, and those whose gold reward fell most: each once."""
    pairs = list(zip(peak, end, strict=True))
    rest = sorted(pairs[SHOWN:], key=lambda pair: pair[1].reward - pair[0].reward)
    yield from (("first", *pair) for pair in pairs[:SHOWN])
    yield from (("largest fall", *pair) for pair in rest[:SHOWN])
