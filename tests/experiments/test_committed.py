"""The hashes of today's plans against those in the committed results."""

import csv
import json
import re
from pathlib import Path

import pytest

from alignlab.plan.experiment import load_plan
from alignlab.plan.space import Point
from alignlab.sweep.spec import load_sweep

DATA = Path("../shared/data")  # real data sets, which count by their content where they are
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")
TABLES = [
    ("quickstart", None, "quickstart-reference", set[str]()),
    ("quickstart", "full", "quickstart-full", set()),
    ("instruct", None, "instruct-reference", set()),
    ("ratings", None, "ratings-reference", set()),
    ("study", None, "study", set()),
    ("claims", None, "claims", set()),
    pytest.param("imdb", "full", "imdb-small", set(), marks=needs_data),
    pytest.param("tldr", None, "tldr-small", set(), marks=needs_data),
    # The last stage of hh collects more tables than it did.
    pytest.param("hh", "small", "hh-small", {"tables"}, marks=needs_data),
]


def in_points(results: Path) -> dict[str, str]:
    """Run -> ``config_sha``, from ``points.csv``."""
    with (results / "points.csv").open(newline="") as file:
        return {row["run_id"]: row["config_sha"] for row in csv.DictReader(file)}


def in_configs(results: Path) -> dict[str, str]:
    """Job -> ``config_sha``, from the first line of each file in ``configs``."""
    first = [path.read_text().partition("\n")[0] for path in (results / "configs").glob("*.yaml")]
    head = re.compile(r"# (\S+), config_sha (\w{64})(, sha256 \w{64})?")
    found = map(head.fullmatch, first)
    return {line[1]: line[2] for line in found if line}


@pytest.mark.parametrize(("experiment", "scale", "folder", "changed"), TABLES)
def test_committed_results_are_still_those_of_the_plan(
    experiment: str, scale: str | None, folder: str, changed: set[str]
) -> None:
    results = Path("results") / folder
    recorded = in_configs(results)
    if (results / "points.csv").exists():
        points = in_points(results)
        assert points
        assert points.items() <= recorded.items()
    jobs = load_plan(Path("experiments") / experiment, scale=scale).jobs
    planned = {name: jobs[name].config_sha for name in recorded if name in jobs}
    differing = {name for name in recorded if planned.get(name) != recorded[name]}
    assert recorded
    assert differing == changed


def test_committed_trials_are_still_those_of_the_sweep() -> None:
    results = Path("results/sweep-quickstart-reference")
    sweep = load_sweep(Path("sweeps/quickstart.yaml"))
    with (results / "trials.csv").open(newline="") as file:
        trials = [row for row in csv.DictReader(file) if row["arm"] == "dpo"]  # PPO has changed
    values = [
        {name.partition("/")[2]: value for name, value in json.loads(trial["params"]).items()}
        for trial in trials
    ]
    planned = {
        job.name: job.config_sha for each in values for job in sweep.jobs(Point("dpo", each))
    }
    recorded = {run: sha for run, sha in in_points(results).items() if run.startswith("dpo-")}
    assert recorded
    assert planned == recorded
