import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest

from alignlab.data.rows import PreferencePair, Prompt, Ranking, RatedCompletion
from alignlab.data.sources import read_rows, write_rows
from alignlab.errors import ConfigError
from alignlab.worlds.raters import Rater, World, write_gold, write_judgements
from alignlab.worlds.toy import all_prompts, is_review, sentiment

Write = Callable[..., Path]
KINDS: dict[str, Any] = {
    "ratings": RatedCompletion,
    "ratings_even": RatedCompletion,
    "ratings_centred": RatedCompletion,
    "comparisons": PreferencePair,
    "rankings": Ranking,
}


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    write_rows(path, [Prompt(f"p{i}", text) for i, text in enumerate(all_prompts()[:40])])
    return str(path)


@pytest.fixture
def write(tmp_path: Path, prompts: str) -> Write:
    def written(**settings) -> Path:
        out = tmp_path / "out"
        write_judgements(out=out, prompts=prompts, **settings)
        return out

    return written


def test_all_kinds_on_one_budget(write: Write) -> None:
    out = write(judgements=40, ranking_size=5)
    found = {name: read_rows(out / f"{name}.jsonl", kind)[0] for name, kind in KINDS.items()}
    assert [len(rows) for rows in found.values()] == [40, 40, 40, 40, 8]
    for row in found["rankings"]:
        assert len(set(row.completions)) == 5
        assert sorted(row.ranks) == [0, 1, 2, 3, 4]
        assert all(is_review(row.prompt, text) for text in row.completions)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["reviews_read"] == {"ratings": 40, "comparisons": 80, "rankings": 40}


def test_offsets_move_ratings_by_rater_and_nothing_else(write: Write) -> None:
    """Even ratings are those of raters without offset; comparisons cannot tell the difference."""
    settings = {"judgements": 60, "raters": 3, "seed": 4}
    out = write(offset_deviation=0.0, **settings)
    level = {name: read_rows(out / f"{name}.jsonl", kind)[0] for name, kind in KINDS.items()}
    write(offset_deviation=3.0, **settings)
    moved = {name: read_rows(out / f"{name}.jsonl", kind)[0] for name, kind in KINDS.items()}
    for name in ("comparisons", "rankings"):
        assert moved[name] == level[name]
    shifts = set()
    for plain, even, given in zip(
        level["ratings"], moved["ratings_even"], moved["ratings"], strict=True
    ):
        assert even.rating == pytest.approx(plain.rating)
        shifts.add(round(given.rating - plain.rating, 9))
    raters = json.loads((out / "summary.json").read_text())["raters"]
    assert shifts == {round(rater["offset"], 9) for rater in raters}
    assert len(shifts) == 3


def test_centred_ratings_have_mean_zero_for_every_rater(write: Write) -> None:
    out = write(judgements=60, raters=3)
    given, even, centred = (
        read_rows(out / f"{name}.jsonl", RatedCompletion)[0] for name in list(KINDS)[:3]
    )
    by_rater: dict[float, list[float]] = {}
    for a, b, c in zip(given, even, centred, strict=True):
        by_rater.setdefault(round(a.rating - b.rating, 9), []).append(c.rating)
    assert len(by_rater) == 3
    for ratings in by_rater.values():
        assert fmean(ratings) == pytest.approx(0, abs=1e-9)


def test_noise_is_unbiased_and_comparisons_follow_bradley_terry() -> None:
    """One rater of noise 0.8: ratings are right on average, choices win by sigmoid(gap / 0.8)."""
    world = World(all_prompts()[:20], [Rater(offset=1.5, noise=0.8)], seed=2)
    errors = [
        row.rating - sentiment(str(row.completion)) for _, row in map(world.rating, range(4000))
    ]
    assert fmean(errors) == pytest.approx(1.5, abs=4 * 0.8 * 1.2825 / math.sqrt(4000))
    assert pstdev(errors) == pytest.approx(0.8 * math.pi / math.sqrt(6), rel=0.05)
    surprise, variance = 0.0, 0.0
    for row in map(world.comparison, range(4000)):
        gap = abs(sentiment(str(row.chosen)) - sentiment(str(row.rejected)))
        right = sentiment(str(row.chosen)) > sentiment(str(row.rejected))
        if gap:
            chance = 1 / (1 + math.exp(-gap / 0.8))
            surprise += right - chance
            variance += chance * (1 - chance)
    assert abs(surprise) < 4 * math.sqrt(variance)
    assert variance > 100


def test_a_sharp_eye_chooses_and_ranks_as_the_rule_does() -> None:
    world = World(all_prompts()[:20], [Rater(offset=-3.0, noise=1e-9)], seed=3)
    for row in range(40):
        pair = world.comparison(row)
        assert sentiment(str(pair.chosen)) >= sentiment(str(pair.rejected))
        ranking = world.ranking(row, 5)
        best_first = sorted(zip(ranking.ranks, ranking.completions, strict=True))
        scores = [sentiment(str(text)) for _, text in best_first]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] > scores[-1]


def test_rows_do_not_depend_on_what_was_written_before(write: Write) -> None:
    few = (write(judgements=20) / "comparisons.jsonl").read_text()
    more = (write(judgements=40) / "comparisons.jsonl").read_text()
    other = (write(judgements=20, seed=1) / "comparisons.jsonl").read_text()
    assert more.startswith(few)
    assert other != few


def test_gold_is_the_rules_own_score(tmp_path: Path, prompts: str) -> None:
    write_gold(out=tmp_path, prompts=prompts, completions=3)
    rows, _ = read_rows(tmp_path / "gold.jsonl", RatedCompletion)
    assert len(rows) == len({(row.prompt, row.completion) for row in rows}) == 120
    assert all(row.rating == sentiment(str(row.completion)) for row in rows)


@pytest.mark.parametrize(
    "settings",
    [
        {"raters": 0},
        {"noise": (0.0, 1.0)},
        {"noise": (2.0, 1.0)},
        {"offset_deviation": -1.0},
        {"ranking_size": 1},
        {"judgements": 3},
    ],
)
def test_impossible_values(write: Write, settings: dict) -> None:
    with pytest.raises(ConfigError, match="judgements need"):
        write(**settings)
