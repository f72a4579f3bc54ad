"""The stage that measures reward models' loss on held-out pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from alignlab.bounds import Count
from alignlab.data.rows import PreferencePair, RowReport
from alignlab.data.sources import read_rows
from alignlab.data.tokenise import tokenise
from alignlab.models import ScoreModel
from alignlab.results.csv_tables import write_table
from alignlab.results.run_folder import RunFolder
from alignlab.rewards.model import check_trained_scorer
from alignlab.stages.reward_check import score_gaps


def measure_log_loss(
    *,
    out: str | Path,
    models: Mapping[str, str | Sequence[str]],
    pairs: str,
    batch_size: Count = 256,
) -> None:
    """Stage: ``log_loss.csv``, a row per reward model: how well it predicts held-out labels.

    ``log_loss`` is the mean of ``-log sigma(score(chosen) - score(rejected))`` in nats;
    ``accuracy`` the share of pairs that it orders as labelled, a tie counting one half.

    Args:
        out: Folder to write.
        models: Name in the table -> folder of a reward model, or one folder for each seed.
        pairs: A file of pairs.
        batch_size: Pairs per forward.
    """
    rows, report = read_rows(pairs, PreferencePair)
    report.tell()
    table = []
    for name, given in models.items():
        for folder in [given] if isinstance(given, str) else given:
            check_trained_scorer(folder)
            model = ScoreModel.load_for_eval(folder)
            trees = tokenise(rows, model.tokenizer, RowReport(pairs, refuse="error"))
            gaps = score_gaps(model, trees, batch_size)
            table.append(
                {
                    "model": name,
                    "run": RunFolder(folder).run_id,
                    "pairs": len(gaps),
                    "log_loss": float(np.logaddexp(0, -gaps).mean()),
                    "accuracy": float(((np.sign(gaps) + 1) / 2).mean()),
                }
            )
    write_table(Path(out) / "log_loss.csv", table)
