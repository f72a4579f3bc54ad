"""The stage that sets a reward model's zero and unit, which comparisons leave open.

Bradley-Terry does not change when a constant is added to all scores. InstructGPT adds the one at
which demonstrations score 0 (Ouyang et al. 2022, arXiv:2203.02155, section 3.5). Ziegler et al.
2019 (arXiv:1909.08593) also divide by the deviation: ``kl_coef`` then means the same for every
reward model.
"""

import json
from pathlib import Path

from alignlab.bounds import Count
from alignlab.data.rows import Demonstration
from alignlab.data.sources import read_rows
from alignlab.data.tokenise import tokenise
from alignlab.errors import DataError
from alignlab.models import ScoreModel
from alignlab.rewards.model import check_trained_scorer, score_trees


def normalise_reward(
    *,
    out: str | Path,
    model: str,
    source: str,
    unit_deviation: bool = False,
    limit: Count | None = None,
    batch_size: Count = 64,
) -> None:
    """Stage: a copy of a reward model under which given completions score 0 on average.

    Shift and scale are in the folder's ``config.json`` (``score_shift``, ``score_scale``); every
    later use of it as a reward or a value function applies them. ``normalisation.json`` says what
    they were made from. Weights stay as they are, so other libraries read the scores without them.

    Args:
        out: Folder to write.
        model: Folder or hub id of a trained reward model.
        source: Demonstrations, or samples of the SFT policy: a file or hub id with ``prompt`` and
            ``completion``, or ``messages``.
        unit_deviation: Also divide, so that the completions' scores have standard deviation 1.
        limit: How many rows to use, from the start.
        batch_size: Completions per forward.

    Raises:
        ConfigError: ``model`` is no reward model.
        DataError: No usable row, or ``unit_deviation`` of scores that do not vary.
    """
    check_trained_scorer(model)
    scorer = ScoreModel.load_for_eval(model, layout="flat")
    rows, report = read_rows(source, Demonstration, limit=limit)
    trees = tokenise(rows, scorer.tokenizer, report, max_length=scorer.room)
    report.tell()
    scores = score_trees(scorer, trees, batch_size)
    mean, deviation = float(scores.mean()), float(scores.std(correction=0))
    scorer.shift += scorer.scale * mean
    if unit_deviation:
        if not deviation > 0:
            raise DataError(
                f"{source}: its {len(trees)} completions all score {mean:g}, so there is no "
                "deviation to divide by. Use more rows, or unit_deviation=false."
            )
        scorer.scale *= deviation
    scorer.save(out)
    record = {
        "source": source,
        "completions": len(trees),
        "refused": report.counts,
        "mean_before": mean,
        "deviation_before": deviation,
        "score_shift": scorer.shift,
        "score_scale": scorer.scale,
    }
    (Path(out) / "normalisation.json").write_text(json.dumps(record, indent=2) + "\n")
