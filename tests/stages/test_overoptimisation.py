"""Tables of over-optimisation from made-up runs that lie on the curves."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from alignlab.errors import DataError
from alignlab.results.csv_tables import read_table
from alignlab.results.prompt_tables import PromptScores, PromptTable, write_prompt_tables
from alignlab.results.run_folder import Evaluation, SampleText
from alignlab.results.run_records import table_of
from alignlab.results.tables import merge_points
from alignlab.stages import overoptimisation
from alignlab.stages.best_of_n import TABLE
from alignlab.stages.overoptimisation import draw_again, write_overoptimisation

IDS = tuple(f"p{i}" for i in range(8))
LEVEL = np.arange(8.0)  # the reference's reward differs by prompt, which gains must not see
TEXTS = ("overoptimisation.csv", "fits.csv", "contrasts.csv", "overoptimisation.svg")


def table(name: str, run: str, seed: int, step: int, d: float, gold: float) -> PromptTable:
    """A checkpoint at ``d``; the learned reward gains 2 d, whatever gold does."""
    order = np.arange(8) if step % 2 else np.arange(8)[::-1]  # prompts in any order
    scores = PromptScores(
        prompt_ids=tuple(IDS[i] for i in order),
        kl=np.full(8, d * d),
        kl_k1=np.full(8, d * d),
        reward=LEVEL[order] + gold,
        proxy_reward=3 * LEVEL[order] + 2 * d,
        length=np.full(8, 5.0),
        n_samples=np.full(8, 4),
    )
    return PromptTable(objective=name, run_id=run, seed=seed, step=step, scores=scores)


def write_run(results: Path, tables: Sequence[PromptTable]) -> None:
    """As the pipeline leaves a run."""
    run_id = tables[0].run_id
    path = table_of(results, run_id)
    path.parent.mkdir(exist_ok=True)
    write_prompt_tables(path, tables)
    shared = {"experiment": "e", "hparams": {}, "config_sha": "c", "git_sha": "g", "seconds": 1.0}
    merge_points(results / "points.csv", [table.point(**shared) for table in tables])


@pytest.fixture
def no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figure, which takes a second."""
    monkeypatch.setattr(overoptimisation, "draw_overoptimisation", lambda *_, **__: [])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two seeds of best-of-n, PPO with alpha 1.5 (and 1.7) and beta 1, DPO with alpha 1."""
    results = tmp_path / "results"
    results.mkdir()
    for seed in (0, 1):
        folder = tmp_path / f"best_of_n-s{seed}"
        folder.mkdir()
        sampled = [
            table("best_of_n", f"best_of_n-s{seed}", seed, n, d, d * (1 - 0.25 * d))
            for n, d in ((1, 0.0), (2, 0.4), (4, 0.8), (8, 1.1))
        ]
        write_prompt_tables(folder / TABLE, sampled)
        for name, alpha in (("ppo", 1.5 + 0.2 * seed), ("dpo", 1.0)):
            steps = [(10 * k, 0.6 * k) for k in range(1, 7)]
            write_run(
                results,
                [
                    table(name, f"{name}-s{seed}", seed, step, d, d * (alpha - math.log(d)))
                    for step, d in steps
                ],
            )
    return results


def write(results: Path, **changes: Any) -> None:
    args: dict[str, Any] = {
        "best_of_n": [str(results.parent / f"best_of_n-s{seed}") for seed in (0, 1)],
        "curves": {"ppo": "best_of_n", "dpo": "best_of_n"},
        "contrasts": [["ppo", "dpo"], ["ppo", "best_of_n"]],
    }
    out = results / "stages" / "overoptimisation" / "all"
    write_overoptimisation(out=out, results=results, **(args | changes))


def texts_at(results: Path, step: int, rewards: Sequence[float]) -> None:
    evaluation = Evaluation(results / "stages" / "ppo" / "s0" / "train", step)
    evaluation.scores.parent.mkdir(parents=True, exist_ok=True)
    evaluation.scores.write_bytes(b"")
    evaluation.write_texts(
        SampleText(f"p{i}", f"q{i}", f"said at {step}", reward, 0.5, 1.0, 5)
        for i, reward in enumerate(rewards)
    )
    evaluation.seal(1.0)


@pytest.mark.usefixtures("no_figure")
def test_the_curves_that_made_the_runs_are_found(results: Path) -> None:
    write(results)
    fits = {(row["curve"], row["score"]): row for row in read_table(results / "fits.csv")}
    assert fits.keys() == {(c, s) for c in ("best_of_n", "ppo", "dpo") for s in ("gold", "proxy")}
    for curve, alpha, beta, peak in (
        ("best_of_n", 1.0, 0.25, 2.0),
        ("ppo", 1.6, 1.0, math.exp(0.6)),
        ("dpo", 1.0, 1.0, 1.0),
    ):
        row = fits[curve, "gold"]
        found = [float(row[name]) for name in ("alpha", "beta", "peak")]
        assert found == pytest.approx([alpha, beta, peak], abs=1e-5)
    # Student's t of two seeds: 0.1 * 12.706 on either side of PPO's alpha; nothing else scatters.
    ppo = fits["ppo", "gold"]
    assert float(ppo["alpha_hi"]) == pytest.approx(1.6 + 0.1 * 12.7062, abs=1e-4)
    assert float(ppo["beta_lo"]) == pytest.approx(1.0, abs=1e-5)
    assert float(ppo["d_reached"]) == pytest.approx(3.6)
    # d = 0.6 k: DPO is best at k = 2, d = 1.2, PPO of seed 0 at k = 3.
    assert float(fits["dpo", "gold"]["decline"]) == pytest.approx(
        1.2 * (1 - math.log(1.2)) - 3.6 * (1 - math.log(3.6)), abs=1e-5
    )
    assert fits["dpo", "gold"]["peak_resolved"] == fits["dpo", "gold"]["resolved"] == "yes"
    assert (ppo["peak_resolved"], fits["best_of_n", "gold"]["peak_resolved"]) == ("no", "no")
    assert float(fits["dpo", "proxy"]["alpha"]) == pytest.approx(2, abs=1e-5)
    assert float(fits["dpo", "proxy"]["beta"]) == pytest.approx(0, abs=1e-5)
    rows = read_table(results / "overoptimisation.csv")
    assert [row["step"] for row in rows if row["curve"] == "best_of_n"] == ["2", "4", "8"] * 2
    assert len(rows) == 6 + 24
    first = next(row for row in rows if row["run_id"] == "dpo-s1")
    assert float(first["gold_gain"]) == pytest.approx(0.6 * (1 - math.log(0.6)), abs=1e-5)
    assert float(first["proxy_gain"]) == pytest.approx(1.2, abs=1e-5)
    assert float(first["gold_gain_se"]) == pytest.approx(0, abs=1e-6)


@pytest.mark.usefixtures("no_figure")
def test_curves_are_compared_where_both_have_been(results: Path) -> None:
    """PPO's alphas are 0.5 and 0.7 more than DPO's, 0.6 d at d = 3.6; 1.1 is all of best-of-n."""
    write(results)
    against_dpo, against_sampling = read_table(results / "contrasts.csv")
    assert float(against_dpo["d"]) == pytest.approx(3.6)
    assert float(against_dpo["difference"]) == pytest.approx(0.6 * 3.6, abs=1e-4)
    assert float(against_dpo["difference_hi"]) == pytest.approx(
        0.6 * 3.6 + 0.1 * 3.6 * 12.7062, abs=1e-3
    )
    assert against_dpo["resolved"] == "no"
    assert against_dpo["needs"] == "3 seeds"
    assert float(against_sampling["d"]) == pytest.approx(1.1)


@pytest.mark.slow  # six figures
def test_samples_stand_side_by_side_and_tables_without_them_are_drawn_again(results: Path) -> None:
    gold = [float(i) for i in range(10)]
    texts_at(results, 30, gold)  # d = 1.8, the nearest to exp(0.6) = 1.82
    texts_at(results, 60, [gold[i] - (i % 5) for i in range(10)])
    write(results)
    rows = read_table(results / "peak_samples.csv")
    assert [(row["chosen"], row["prompt"]) for row in rows] == [
        *(("first", f"q{i}") for i in range(4)),
        *(("largest fall", f"q{i}") for i in (4, 9, 8, 7)),
    ]
    row = rows[4]
    assert (row["peak_step"], row["end_step"]) == ("30", "60")
    assert (row["peak_text"], row["end_text"]) == ("said at 30", "said at 60")
    assert (float(row["peak_gold"]), float(row["end_gold"])) == (4, 0)
    before = {name: (results / name).read_bytes() for name in (*TEXTS, "peak_samples.csv")}
    args = {
        "curves": {"ppo": "best_of_n", "dpo": "best_of_n"},
        "contrasts": [["ppo", "dpo"], ["ppo", "best_of_n"]],
        "results": "elsewhere",
    }
    (results / "configs").mkdir()
    text = "# overoptimisation, config_sha x\n" + yaml.safe_dump({"call": "x", "args": args})
    (results / "configs" / "overoptimisation.yaml").write_text(text)
    for name in TEXTS:
        (results / name).unlink()
    (results / "stages").rename(results / "elsewhere")
    draw_again(results)
    assert {name: (results / name).read_bytes() for name in before} == before


@pytest.mark.usefixtures("no_figure")
def test_what_does_not_fit_is_refused(results: Path) -> None:
    with pytest.raises(DataError, match="ppo-s0: no best-of-n called 'best_of_16' with seed 0"):
        write(results, curves={"ppo": "best_of_16"})
    with pytest.raises(DataError, match=r"points\.csv has no run of 'kto'"):
        write(results, curves={"dpo": "best_of_n", "kto": "best_of_n"})
    with pytest.raises(DataError, match="contrasts name 'ipo'; the curves are best_of_n, dpo"):
        write(results, curves={"dpo": "best_of_n"}, contrasts=[["dpo", "ipo"]])
    with pytest.raises(DataError, match="no such config"):
        draw_again(results)
    write_run(results, [table("dpo", "dpo-beta2-s0", 0, 10 * k, 0.6 * k, 0.0) for k in (1, 2, 3)])
    with pytest.raises(DataError, match="dpo has two runs of seed 0, dpo-beta2-s0 and dpo-s0"):
        write(results)
