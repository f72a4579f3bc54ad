"""The answer of a comparison: resolved and unresolved differences, and each objective's best."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.results.csv_tables import read_table
from alignlab.results.run_folder import ALL, STAGES

if TYPE_CHECKING:
    from alignlab.evaluation.power import Spread
    from alignlab.results.tables import Comparison, FrontierRow, Point


def answer(results: Path) -> str:
    """The answer of a comparison that was measured by a reward."""
    from alignlab.evaluation.frontier import build_frontier
    from alignlab.report.read import read_results

    found = read_results([results])
    assert found.pool is not None  # the experiment draws one
    frontier = build_frontier(found.tables, found.pool)
    return "\n".join(
        (
            *sentences(frontier.comparisons),
            _reached(found.points, frontier.rows),
        )
    )


def sentences(comparisons: "Mapping[Comparison, Spread | None]") -> tuple[str, str]:
    """Resolved and unresolved differences of each two objectives, each at its largest KL budget."""
    resolved: dict[tuple[str, str], Comparison] = {}
    unresolved: dict[tuple[str, str], Comparison] = {}
    for row in sorted(comparisons, key=lambda row: row.kl_budget):
        pair = row.objective, row.other
        (unresolved if row.lo <= 0 <= row.hi else resolved)[pair] = row
    found = "; ".join(map(_said, resolved.values()))
    first = (
        f"Found: {found}." if found else "Found: no difference that is larger than its interval."
    )
    parts = [f"{_said(row)}{_needs(comparisons[row])}" for row in unresolved.values()]
    second = "; ".join(parts) if parts else "nothing at the budgets that two objectives reach"
    if not comparisons:
        second = (
            "everything, because no two objectives reached a KL budget of the table (0.25 and up); "
            "train longer (--steps), or raise --lr"
        )
    return first, f"Not resolved: {second}."


def _said(row: "Comparison") -> str:
    better, worse, sign = (row.objective, row.other, 1)
    if row.difference < 0:
        better, worse, sign = row.other, row.objective, -1
    ends = sorted((sign * row.lo, sign * row.hi))
    return (
        f"at KL {row.kl_budget:g}, {better} has {abs(row.difference):.3g} more reward than {worse} "
        f"(95 % interval {ends[0]:.3g} to {ends[1]:.3g}, {row.n_seeds} seeds, "
        f"{row.n_prompts} prompts)"
    )


def _needs(spread: "Spread | None") -> str:
    from alignlab.evaluation.power import enough

    if spread is None:
        return ""
    needed = enough(spread)
    if needed.seeds is not None and needed.seeds > spread.seeds:
        more = needed.seeds - spread.seeds
        return f", and {more} more seeds would resolve a difference of this size"
    return f", and {needed} would resolve a difference of this size"


def _reached(points: "Sequence[Point]", rows: "Sequence[FrontierRow]") -> str:
    """The highest final reward of each objective, with its KL and its setting."""
    reference = next((r.reward for r in rows if r.objective == "reference"), None)
    last: dict[str, Point] = {}
    for point in points:
        if point.run_id not in last or point.step > last[point.run_id].step:
            last[point.run_id] = point
    by: dict[tuple[str, str], list[Point]] = {}
    for point in last.values():
        setting = ", ".join(f"{name} {value:g}" for name, value in point.hparams.items())
        by.setdefault((point.objective, setting), []).append(point)
    best: dict[str, tuple[float, float, str]] = {}
    for (objective, setting), own in sorted(by.items()):
        reward, kl = (statistics.fmean(getattr(p, name) for p in own) for name in ("reward", "kl"))
        best[objective] = max(best.get(objective, (-math.inf, 0.0, "")), (reward, kl, setting))
    ends = "; ".join(
        f"{objective} ends highest with {setting}: reward {reward:.3g} at KL {kl:.2g}"
        for objective, (reward, kl, setting) in best.items()
    )
    start = "" if reference is None else f" The reference has reward {reference:.3g}."
    return f"Settings: {ends}.{start}"


def accuracy_answer(results: Path, objectives: Sequence[str]) -> str:
    """The answer of a comparison without a reward: accuracy on held-out pairs.

    Each objective's setting is the one with the highest accuracy on the tuning pairs, mean over
    seeds; its accuracy is that on the test pairs.
    """
    kinds = {"simpo": "mean_logp", "orpo": "mean_logp"}
    tuning, test = (read_table(results / name) for name in ("tuning.csv", "accuracy.csv"))
    chosen: dict[str, tuple[float, float, int, str]] = {}
    for stage in dict.fromkeys(row["stage"] for row in test if row["stage"] in objectives):
        kind = kinds.get(stage, "log_ratio")
        tuned = _by_setting(tuning, stage, kind)
        best = max(
            tuned, key=lambda setting: statistics.fmean(r["accuracy"] for r in tuned[setting])
        )
        own = _by_setting(test, stage, kind)[best]
        mean = statistics.fmean(row["accuracy"] for row in own)
        half = statistics.fmean((row["hi"] - row["lo"]) / 2 for row in own)
        chosen[stage] = mean, half, len(own), best
    said = "; ".join(
        f"{stage} prefers the chosen reply in {mean:.3f} ± {half:.3f} of held-out pairs "
        f"({setting}, {seeds} seeds)"
        for stage, (mean, half, seeds, setting) in chosen.items()
    )
    (first, a), *others = sorted(chosen.items(), key=lambda item: -item[1][0])
    resolved, unresolved = [], []
    for other, b in others:
        half, gap = math.hypot(a[1], b[1]), a[0] - b[0]
        if gap > half:
            resolved.append(f"{first} above {other} by {gap:.3f} ± {half:.3f}")
        else:
            times = "many times" if gap <= 0.001 else f"about {math.ceil((half / gap) ** 2)} times"
            unresolved.append(
                f"{first} against {other}, {gap:.3f} ± {half:.3f}; {times} the held-out pairs "
                "would resolve a difference of this size"
            )
    return "\n".join(
        (
            f"Found: {'; '.join(resolved) or 'no difference that is larger than its interval'}.",
            f"Not resolved: {'; '.join(unresolved) or 'nothing'}.",
            f"Accuracy: {said}.",
            _judge(results, {name: found[3] for name, found in chosen.items()}),
        )
    )


def _judge(results: Path, settings: Mapping[str, str]) -> str:
    """The command that asks a judge which of the chosen settings' replies are better."""
    stages = results / STAGES
    seeds = {n: sorted((stages / n).glob(f"{setting}-s*")) for n, setting in settings.items()}
    named = [f"{name}={','.join(map(str, folders))}" for name, folders in seeds.items()]
    others = " ".join(f"--against {name}" for name in named[1:])
    return (
        f"To ask a judge: alignlab winrate --policy {named[0]} {others} "
        f"--prompts {stages}/data/{ALL}/prompts.jsonl --endpoint URL --judge-model NAME "
        "--question dialogue (docs/winrate.md)"
    )


def _by_setting(
    rows: Sequence[Mapping[str, str]], stage: str, kind: str
) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["stage"] == stage and row["reward"] == kind:
            setting = row["policy"].rpartition("-s")[0].removeprefix(f"{stage}-")
            numbers = {
                name: float(row[column])
                for name, column in (
                    ("accuracy", "accuracy"),
                    ("lo", "accuracy_lo"),
                    ("hi", "accuracy_hi"),
                )
            }
            found.setdefault(setting, []).append(numbers)
    return found
