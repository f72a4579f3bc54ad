"""Gathering what the report shows beside tables: completions, configs, and where it was made."""

import importlib.metadata
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alignlab.errors import DataError
from alignlab.evaluation.effects import effects, importances, last_points
from alignlab.evaluation.frontier import Frontier
from alignlab.evaluation.power import Spread
from alignlab.report.look import EVERYTHING, Look
from alignlab.report.read import Results, read_commands
from alignlab.report.win_rates import read_win_rates
from alignlab.results.csv_tables import read_table
from alignlab.results.notes import Remarks, read_remarks
from alignlab.results.pool import REFERENCE, Pool
from alignlab.results.progress import Progress
from alignlab.results.run_folder import SampleText, job_folders
from alignlab.results.tables import (
    Comparison,
    Effect,
    FrontierRow,
    Hypervolume,
    Importance,
    Point,
    WinRate,
)

SAMPLES = 4  # completions of a checkpoint, of the same prompts as far as they were kept
TEXT_LIMIT = 2_500_000  # bytes of completions on a page; last checkpoints go first
TRIALS, COMPLETE = "trials.csv", "complete"
SAMPLE_TABLE = "samples.csv"
LIBRARIES = ("torch", "lightning", "transformers", "optuna", "numpy")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that the page shows.

    Args:
        title: What was run.
        reward_label: Name and unit of the reward.
        rows: Frontier rows, at the table's budgets and between them.
        points: Every checkpoint.
        comparisons: Of the trained objectives with each other, and the spreads behind them.
        hypervolumes: Of the trained objectives.
        effects: Of the hyperparameters.
        importances: Of the hyperparameters.
        trials: Of a sweep, those that did not complete: rows of its ``trials.csv``.
        win_rates: Of the folders that have some.
        samples: ``run_id, step N`` -> completions of that checkpoint.
        references: Prompt id -> one completion of the reference and its reward.
        configs: Name -> text of a resolved config.
        environment: Name -> version or place.
        command: What made the runs, as far as that is known, and what makes the page again.
        remarks: Run -> notes and tags.
        look: The objectives and budgets to show, and their names.
        live: How far the runs are, while they are made.
    """

    title: str
    reward_label: str
    rows: Sequence[FrontierRow]
    points: Sequence[Point]
    comparisons: Mapping[Comparison, Spread | None]
    hypervolumes: Sequence[Hypervolume]
    effects: Sequence[Effect]
    importances: Sequence[Importance]
    trials: Sequence[Mapping[str, str]]
    win_rates: Sequence[WinRate]
    samples: Mapping[str, Sequence[SampleText]]
    references: Mapping[str, tuple[str, float]]
    configs: Mapping[str, str]
    environment: Mapping[str, str]
    command: str
    remarks: Mapping[str, Remarks] = field(default_factory=dict)
    look: Look = EVERYTHING
    live: Progress | None = None


def key_of(point: Point) -> str:
    """How the page names a checkpoint."""
    return f"{point.run_id}, step {point.step}"


def gather(
    folders: Sequence[Path],
    found: Results,
    frontier: Frontier,
    *,
    out: Path,
    title: str,
    reward_label: str,
    look: Look = EVERYTHING,
    live: Progress | None = None,
) -> Findings:
    """All that the report's page in ``out`` shows of the results in ``folders``."""
    samples = read_samples(folders, found.points)
    references = {} if found.pool is None else reference_texts(found.pool)
    if not samples:
        samples, references = read_kept(folders, found.points)
    again = f"alignlab frontier {' '.join(map(str, folders))}"
    return Findings(
        title=title,
        reward_label=reward_label,
        rows=frontier.rows,
        points=found.points,
        comparisons=frontier.comparisons,
        hypervolumes=frontier.hypervolumes,
        effects=effects(found.points),
        importances=importances(found.points),
        trials=read_trials([out] if (out / TRIALS).exists() else folders),
        win_rates=[row for folder in folders for row in read_win_rates(folder)],
        samples=samples,
        references=references,
        configs=read_configs(folders, found.points),
        environment=environment(found.points),
        command="\n".join([*read_commands(folders), again]),
        remarks={run: own for folder in folders for run, own in read_remarks(folder).items()},
        look=look,
        live=live,
    )


def read_trials(folders: Iterable[Path]) -> list[dict[str, str]]:
    """Trials of the folders' sweeps that ended otherwise than complete, each once."""
    found: dict[tuple[str, ...], dict[str, str]] = {}
    for folder in folders:
        if (folder / TRIALS).exists():
            rows = read_table(folder / TRIALS, min_rows=0)
            found |= {tuple(row.values()): row for row in rows if row["state"] != COMPLETE}
    return list(found.values())


def read_samples(folders: Sequence[Path], points: Sequence[Point]) -> dict[str, list[SampleText]]:
    """Some completions of each checkpoint that still has them, up to ``TEXT_LIMIT`` in all."""
    last = {key_of(point) for own in last_points(points).values() for point in own}
    ordered = sorted(points, key=lambda point: (key_of(point) not in last, point.order))
    found = {
        f"{run.run_id}, step {evaluation.step}": evaluation
        for folder in folders
        for run in job_folders(folder)
        for evaluation in run.evaluations
        if evaluation.texts.exists()
    }
    kept, size = {}, 0
    for key in map(key_of, ordered):
        if key in found and size < TEXT_LIMIT:
            try:
                texts = found[key].read_texts()
            except DataError as error:
                print(f"{error} Its texts are left out.", file=sys.stderr)
                continue
            kept[key] = sorted(texts, key=lambda text: text.prompt_id)[:SAMPLES]
            size += sum(len(text.completion.encode()) for text in kept[key])
    return kept


def read_kept(
    folders: Sequence[Path], points: Sequence[Point]
) -> tuple[dict[str, list[SampleText]], dict[str, tuple[str, float]]]:
    """Completions and references in the folders' ``samples.csv``, for runs that are gone.

    Raises:
        DataError: A row that cannot be read.
    """
    known = {key_of(point) for point in points}
    samples: dict[str, list[SampleText]] = {}
    references = {}
    for path in (folder / SAMPLE_TABLE for folder in folders):
        for row in read_table(path, min_rows=0) if path.exists() else []:
            try:
                prompt, reference = row.get("prompt", "(prompt not kept)"), row["reference"]
                name = f"{prompt}\n{reference}"
                text = SampleText(
                    name, prompt, row["completion"], float(row["reward"]), None, 0.0, 0
                )
                if row["run"] in known:
                    samples.setdefault(row["run"], []).append(text)
                if row["reference_reward"]:
                    references[name] = reference, float(row["reference_reward"])
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"{path}: a row cannot be read ({error!r}). Delete the file to draw without it."
                ) from error
    return samples, references


def reference_texts(pool: Pool) -> dict[str, tuple[str, float]]:
    """The reference's first completion of each prompt, and its reward."""
    if pool.texts is None:
        return {}
    own = [i for i, j in enumerate(pool.proposal) if pool.proposals[j] == REFERENCE]
    return {
        prompt_id: (texts[own[0]], float(rewards[own[0]]))
        for prompt_id, texts, rewards in zip(pool.prompt_ids, pool.texts, pool.rewards, strict=True)
    }


def sample_rows(found: Findings) -> list[dict[str, object]]:
    """Texts from both ends of each objective's frontier, beside the reference's.

    They are those of the runs that ended with the least and with the most KL.
    """
    rows: list[dict[str, object]] = []
    for own in last_points(found.points).values():
        kept = sorted((p for p in own if key_of(p) in found.samples), key=lambda p: p.kl)
        for point in dict.fromkeys(key_of(p) for p in (*kept[:1], *kept[-1:])):
            kl = next(p.kl for p in kept if key_of(p) == point)
            for sample in found.samples[point]:
                text, reward = found.references.get(sample.prompt_id, ("", None))
                rows.append(
                    {
                        "run": point,
                        "kl": kl,
                        "prompt": sample.prompt,
                        "completion": sample.completion,
                        "reward": sample.reward,
                        "reference": text,
                        "reference_reward": reward,
                    }
                )
    return rows


def read_configs(folders: Sequence[Path], points: Iterable[Point]) -> dict[str, str]:
    """A resolved config of each objective, that of its first run."""
    configs = {}
    for objective, own in last_points(points).items():
        first = min(own, key=lambda point: point.order)
        for folder in folders:
            path = folder / "configs" / f"{first.run_id}.yaml"
            if path.exists():
                name = f"Config of {first.run_id}, the first run of {objective}"
                configs[name] = path.read_text(encoding="utf-8")
    return configs


def environment(points: Iterable[Point]) -> dict[str, str]:
    """Versions, machine, and the commits that the runs were made from."""
    commits = sorted({point.git_sha for point in points})
    return {
        "commit": ", ".join(commits),
        "Python": sys.version.split()[0],
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
        "machine": f"{platform.system()} {platform.machine()}",
    }
