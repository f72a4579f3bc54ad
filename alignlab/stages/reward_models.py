"""Compare reward models with known ratings of held-out rows."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignlab.bounds import Count
from alignlab.data.rows import RatedCompletion, RowReport, prompt_key
from alignlab.data.sources import read_rows
from alignlab.data.tokenise import tokenise
from alignlab.errors import DataError
from alignlab.models import ScoreModel
from alignlab.results.csv_tables import write_table
from alignlab.results.statistics import Floats, t_interval
from alignlab.rewards.model import check_trained_scorer, score_trees

FIGURES = ("accuracy", "correlation", "correlation_within")


def compare_reward_models(
    *,
    out: str | Path,
    models: Mapping[str, str | Sequence[str]],
    source: str,
    batch_size: Count = 256,
) -> None:
    """Stage: write ``reward_models.csv``, a row per model, from scores of rated completions.

    ``accuracy``: share of a prompt's pairs with different ratings whose better one scores higher, a
    tie counting one half. ``correlation``: Pearson's of score and rating over all completions;
    ``correlation_within``: after taking each prompt's mean off both, which is all that comparisons
    within prompts can teach. Each with the ends of a 95 % t-interval over seeds.

    Args:
        out: Folder to write.
        models: Name in the table -> folder of a reward model, or one folder per seed.
        source: File or hub id with ``prompt``, ``completion`` and ``rating``, the known reward.
        batch_size: Completions per forward.

    Raises:
        ConfigError: A folder holds no reward model.
        DataError: No prompt has two completions of different rating.
    """
    rows, report = read_rows(source, RatedCompletion)
    report.tell()
    table = []
    for name, folders in models.items():
        each = [folders] if isinstance(folders, str) else list(folders)
        found = [measure(rows, _scores(folder, rows, batch_size)) for folder in each]
        entry: dict[str, Any] = {"model": name, "seeds": len(each), "completions": len(rows)}
        for figure in FIGURES:
            values = [one[figure] for one in found]
            lo, hi = t_interval(values)
            entry |= {figure: fmean(values), f"{figure}_lo": lo, f"{figure}_hi": hi}
        table.append(entry)
    write_table(Path(out) / "reward_models.csv", table)


def measure(rows: Sequence[RatedCompletion], scores: Floats) -> dict[str, float]:
    """Accuracy and correlations of ``scores`` ``[N]`` with the rows' ratings.

    Raises:
        DataError: No prompt has two completions of different rating.
    """
    ratings = np.array([row.rating for row in rows])
    _, prompt = np.unique([prompt_key(row) for row in rows], return_inverse=True)
    hits = []
    for which in range(prompt.max() + 1):
        for i, j in combinations(np.flatnonzero(prompt == which), 2):
            if ratings[i] != ratings[j]:
                agree = np.sign(ratings[i] - ratings[j]) * np.sign(scores[i] - scores[j])
                hits.append((float(agree) + 1) / 2)
    if not hits:
        raise DataError(
            "no prompt has two completions with different ratings, so there is nothing to tell "
            "apart. Give several rated completions of each prompt."
        )
    return {
        "accuracy": fmean(hits),
        "correlation": float(np.corrcoef(scores, ratings)[0, 1]),
        "correlation_within": float(
            np.corrcoef(_within(scores, prompt), _within(ratings, prompt))[0, 1]
        ),
    }


def _within(x: Floats, prompt: NDArray[np.intp]) -> Floats:
    """Each number less the mean of its prompt."""
    return x - (np.bincount(prompt, weights=x) / np.bincount(prompt))[prompt]


def _scores(folder: str, rows: Sequence[RatedCompletion], batch_size: int) -> Floats:
    check_trained_scorer(folder)
    scorer = ScoreModel.load_for_eval(folder, layout="flat")
    # No row may be refused: models that refuse different rows could not be compared.
    trees = tokenise(rows, scorer.tokenizer, RowReport(folder, refuse="error"))
    return score_trees(scorer, trees, batch_size).numpy()
