"""Every template is parsed, planned and checked, with all of its parts; the wheel holds them."""

import glob
import tomllib
from pathlib import Path

import pytest
import yaml

from alignlab.errors import ConfigError
from alignlab.plan import overlay
from alignlab.plan.experiment import load_plan
from alignlab.start import fill
from alignlab.start.folder import VALUES, compare_values, parts_of
from alignlab.training import fit

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", [kind for kind in fill.KINDS if kind != "compare"])
def test_a_stage_is_parsed_and_its_constructors_take_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values = fill.settings(Path("own"), policy="m", reward="0.5*own/my_reward.py:score - length")
    stage = "sft.yaml" if kind == "sft-chat" else f"{kind}.yaml"
    fill.write(Path("own"), kind, {**values, "data": "rows.jsonl", "stage": stage})
    fit.Command(["--config", f"own/{stage}"])
    fit.check(overlay.read_yaml(Path("own") / stage))
    assert sorted(p.name for p in Path("own").iterdir()) == sorted(
        ["README.md", "my_reward.py", stage]
    )
    assert len(Path("own/README.md").read_text().splitlines()) <= 10
    with pytest.raises(ConfigError, match="own: it exists already"):
        fill.write(Path("own"), kind, values)


@pytest.mark.parametrize("reward", ["own/my_reward.py:score", None])
def test_a_comparison_of_all_objectives_is_planned_and_checked(
    reward: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text("{}\n")
    objectives = [name for name in VALUES if reward or name != "ppo"]
    values = fill.settings(Path("own"), policy="Org/m-0.5B", reward=reward)
    values = compare_values(values, "pairs.jsonl", objectives, settings=3, seeds=2)
    fill.write(Path("own"), "compare", values, parts_of(objectives, reward))
    plan = load_plan(Path("own"))
    per_objective = dict.fromkeys(objectives, 0)
    checked = set[str]()
    for job in plan.jobs.values():
        if "config" in job.spec and job.stage not in checked:  # a stage's runs differ in a number
            spec = plan.to_check(job)
            fit.check(spec["config"], evaluated=spec["evaluated"])
            checked.add(job.stage)
        if job.stage in per_objective:
            assert job.objective == (job.stage if reward else None)
            per_objective[job.stage] += 1
    assert set(per_objective.values()) == {6}  # three settings and two seeds
    assert ("pool" in plan.stages, "accuracy" in plan.stages) == (bool(reward), not reward)
    assert ("ppo.yaml" in {p.name for p in Path("own").iterdir()}) == bool(reward)


def test_the_wheel_holds_all_templates_experiments_and_recipes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    package, patterns = ROOT / "alignlab", project["tool"]["setuptools"]["package-data"]["alignlab"]
    held = {name for p in patterns for name in glob.glob(p, root_dir=package, recursive=True)}
    pages = {path.relative_to(package).as_posix() for path in package.rglob("*.html")}
    assert "base.html" in pages
    assert pages <= held
    for folder in ("start/files", "experiments"):
        files = [p for p in (package / folder).resolve().rglob("*") if p.is_file()]
        assert len(files) > 10
        for path in files:
            assert f"{folder}/{path.relative_to((package / folder).resolve())}" in held


@pytest.mark.parametrize(
    ("policy", "rate"),
    [("Qwen/Qwen2.5-0.5B", 3e-6), ("Org/llama-8b-instruct", 4e-7), ("Org/gpt", 3e-6)],
)
def test_the_rate_follows_the_size_in_the_name(policy: str, rate: float) -> None:
    assert fill.learning_rate(policy) == rate  # 1e-4 (5e6 / n) ** 0.75, one digit


def test_the_rate_follows_the_size_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(4_000))  # a thousand weights
    assert fill.learning_rate(str(tmp_path)) == 1e-4


@pytest.mark.parametrize("value", ["no", "{judge}", "0.5*a/b + length", "regex: x", "a", "3", None])
def test_a_value_is_read_back(value: str | None) -> None:
    assert yaml.safe_load(f"key: {fill._yaml(value)}") == {"key": value}
