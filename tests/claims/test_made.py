"""Rules find what stages write and what experiments name: no claim is left for a wrong word."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignlab.claims.card import REVIEWS, SUMMARIES, TOY
from alignlab.claims.cards.overoptimisation import EPOCHS, WORLDS
from alignlab.claims.cards.ppo import LONG, PHASE, SHORT
from alignlab.claims.finding import NOT_RUN
from alignlab.plan.experiment import load_plan
from alignlab.results.prompt_tables import write_prompt_tables
from alignlab.stages import overoptimisation
from alignlab.stages.best_of_n import TABLE
from alignlab.winrate import contest
from alignlab.winrate.matches import Judge, Verdict
from tests.claims.decided import verdicts
from tests.stages.test_overoptimisation import table, write_run
from tests.winrate.made import match

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
JUDGE: Any = type("ByHand", (), {"name": "judge", "both_orders": False})


def scale(experiment: str, name: str) -> dict[str, Any]:
    path = EXPERIMENTS / experiment / "scales" / f"{name}.yaml"
    stages: dict[str, Any] = yaml.safe_load(path.read_text())["stages"]
    return stages


@pytest.mark.parametrize(
    ("experiment", "name", "runs"),
    [
        (
            "claims",
            None,
            {
                *("simpo-s0", "simpo_no_margin-s0", "simpo_fast-s0"),
                *("ppo_no_whitening-s0", "ppo_value_sft-s0", "ppo_kl_in_loss-s0"),
                *("little-s0", "orpo_little-s0", "sft_little-s0"),
                *(f"ppo_lengths-max_new_tokens{tokens}-s0" for tokens in (LONG, SHORT)),
            },
        ),
        (
            "quickstart",
            "overoptimisation",
            {f"reward_model{end}-s0" for end in ("", "_256", "_8192", "_8")} | {"dpo-beta0.1-s0"},
        ),
        (
            "imdb",
            "overoptimisation",
            {f"reward_model{end}-s0" for end in ("", "_512", "_8192", "_h64")} | {"dpo-beta0.1-s0"},
        ),
        ("tldr", "temperature", {"reward_model-s0", "dpo-beta0.5-s0"}),
        (
            "hh",
            "policies",
            {"reward_model-limit2048-s0", "dpo-beta0.05-s0", "dpo-beta0.2-s0"},
        ),
        ("hh", "small", {"reward_model-limit1000-s0", "reward_model-limit4000-s0"}),
    ],
)
def test_experiments_have_the_runs(experiment: str, name: str | None, runs: set[str]) -> None:
    assert runs <= load_plan(EXPERIMENTS / experiment, scale=name).jobs.keys()


@pytest.mark.parametrize(
    ("experiment", "name", "objectives"),
    [
        ("imdb", "tuned", {"dpo", "ppo", "ppo_gt", "unlikelihood", "preferred_ft"}),
        ("study", None, {"dpo", "ipo", "cpo", "kto", "orpo", "rdpo", "slic", "simpo", "lndpo"}),
    ],
)
def test_experiments_have_the_objectives(
    experiment: str, name: str | None, objectives: set[str]
) -> None:
    plan = load_plan(EXPERIMENTS / experiment, scale=name)
    assert objectives <= {job.objective for job in plan.jobs.values()}


def test_sizes_of_the_experiments() -> None:
    for world, experiment in zip(WORLDS, ("quickstart", "imdb"), strict=True):
        samples = scale(experiment, "overoptimisation")["best_of_n"]["args"]["samples"]
        assert world.last[1] == samples // 2
    settings = scale("imdb", "overoptimisation")["dpo"]["set"]
    assert settings["trainer.max_epochs"] == EPOCHS
    data = yaml.safe_load((EXPERIMENTS / "quickstart" / "_prompts.yaml").read_text())["data"]
    own = data["init_args"]
    assert own["inner_epochs"] * own["rollout_size"] // own["batch_size"] == PHASE


@pytest.mark.parametrize(("folder", "experiment"), [(TOY, "quickstart"), (REVIEWS, "imdb")])
def test_over_optimisation(
    folder: str, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Curves of one seed under the names of the scale, through its own stage."""
    monkeypatch.setattr(overoptimisation, "draw_overoptimisation", lambda *_, **__: [])
    stages = scale(experiment, "overoptimisation")
    given = stages["overoptimisation"]["args"]
    results, sampled = tmp_path / folder, tmp_path / "best_of_n"
    for path in (results, sampled):
        path.mkdir()
    proxies = stages["best_of_n"]["args"]["proxies"]
    sizes = [2**k for k in range(stages["best_of_n"]["args"]["samples"].bit_length() - 1)]
    picked = [
        table(name, f"{name}-s0", 0, n, math.log(n), math.log(n) * (1 - 0.1 * math.log(n)))
        for name in proxies
        for n in sizes
    ]
    write_prompt_tables(sampled / TABLE, picked)
    for name in given["curves"]:
        steps = [(10 * k, 0.6 * k) for k in range(1, 7)]
        run = [table(name, f"{name}-s0", 0, k, d, d * (1.5 - math.log(d))) for k, d in steps]
        write_run(results, run)
    overoptimisation.write_overoptimisation(
        out=tmp_path / "out",
        results=results,
        best_of_n=str(sampled),
        curves=given["curves"],
        contrasts=given["contrasts"],
    )
    place = [world.folder for world in WORLDS].index(folder)
    found = verdicts(tmp_path, "C5")[3 * place : 3 * place + 3]
    found += verdicts(tmp_path, "C17")[9 * place : 9 * place + 9]
    found += verdicts(tmp_path, "C18")[3 * place : 3 * place + 3]
    if folder == REVIEWS:
        found.append(verdicts(tmp_path, "C18")[-1])
    assert NOT_RUN not in found


def test_win_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One prompt in four is won, by policies with the names of the scale's runs."""
    monkeypatch.setattr(contest, "draw_win_rates", lambda *_: [])
    monkeypatch.setattr(contest, "write_win_page", lambda _: None)
    jobs = load_plan(EXPERIMENTS / "tldr", scale="temperature").jobs
    names = [job.removesuffix("-s0") for job in jobs if job.startswith(("dpo-", "ppo-"))]
    names = [name for name in dict.fromkeys(names) if not name.endswith(("-s1", "-s2"))]
    assert len(names) == 2
    matches = [
        match(policy=policy, against="completion", temperature=t, place=k, own="xy" * k)
        for policy in (*names, "best of n")
        for t in (0.0, 0.25, 0.5, 0.75, 1.0)
        for k in range(4)
    ]
    won = [Verdict(float(one.place == 1), None) for one in matches]
    judge: Judge = JUDGE()
    contest.write_results(tmp_path / SUMMARIES, matches, won, judge)
    shutil.copytree(tmp_path / SUMMARIES, tmp_path / SUMMARIES / "elsewhere")
    found = [*verdicts(tmp_path, "C3"), *verdicts(tmp_path, "C4"), verdicts(tmp_path, "C5")[-1]]
    assert NOT_RUN not in found
