"""Every stage of the experiments' largest scales, on tiny models and without a network."""

from pathlib import Path

import pytest

from alignlab.pipeline import run_experiment
from alignlab.plan.experiment import load_plan
from alignlab.results.tables import read_points

pytestmark = pytest.mark.slow

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("imdb", "paper"),
        ("imdb", "full"),
        ("imdb", "tuned"),
        ("imdb", "overoptimisation"),
        ("quickstart", "overoptimisation"),
        ("tldr", "paper"),
        ("tldr", "temperature"),
        ("hh", "paper"),
        ("hh", "policies"),
    ],
)
def test_every_stage_works(
    name: str, scale: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a folder that has no data beside it, and with no hub to ask.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    results = Path("results")
    assert run_experiment(EXPERIMENTS / name, scale=scale, smoke=True, results=results) == 0
    plan = load_plan(EXPERIMENTS / name, scale=scale, smoke=True, results=results)
    points = read_points(results / "points.csv")
    assert {point.run_id for point in points} == {job.name for job in plan.runs}
    for figure in ("frontier.csv", "frontier.png", "frontier.svg", "report.html", "samples.csv"):
        assert (results / figure).stat().st_size
