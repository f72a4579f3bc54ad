"""What a budget buys, by hand; a comparison that is resized, continued, or refused."""

from pathlib import Path
from typing import Any

import pytest

from alignlab.errors import ConfigError
from alignlab.plan.experiment import load_plan
from alignlab.start import fill, folder

TIMES = "stage,job,seconds\ndata,all,10.0\npool,all,30.0\ndpo,beta0.1-s0,100.0\n"


@pytest.mark.parametrize(
    ("minutes", "size", "said"),
    [
        (10, (3, 2), "about 8 minutes"),  # (200 + 5 * 160) / 2 = 500 s; 3 x 3 needs 740 s
        (5.5, (1, 2), "about 3 minutes"),  # (200 + 160) / 2 = 180 s; 2 x 2 needs 340 s
        (1, (1, 1), "More does not fit"),
    ],
)
def test_settings_and_seeds_that_fit(
    minutes: float, size: tuple[int, int], said: str, tmp_path: Path
) -> None:
    (tmp_path / "stages.csv").write_text(TIMES + "simpo,beta2.5-s0,60.0\n")
    *found, why = folder.affordable(tmp_path, ["dpo", "simpo"], 60 * minutes, 2)
    assert tuple(found) == size
    assert "dpo 100 s, simpo 60 s" in why
    later = folder.affordable(tmp_path, ["dpo", "simpo"], 60 * minutes, 2, elapsed=60 * minutes)
    assert later[:2] == (1, 1)  # nothing is left of the time
    assert said in why


def test_ppo_trains_a_reward_model_for_each_seed(tmp_path: Path) -> None:
    (tmp_path / "stages.csv").write_text(TIMES + "ppo,k-s0,60.0\nreward_model,s0,100.0\n")
    # (300 + 100 + 5 * 160) / 2 = 600 s
    assert folder.affordable(tmp_path, ["dpo", "ppo"], 600, 2)[:2] == (3, 2)
    assert folder.affordable(tmp_path, ["dpo", "ppo"], 599, 2)[:2] == (2, 2)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    values = fill.settings(Path("own"), policy="m", reward="length")
    values = folder.compare_values(values, "pairs.jsonl", ["dpo", "simpo"], settings=1, seeds=1)
    fill.write(Path("own"), "compare", values, folder.parts_of(["dpo", "simpo"], "length"))
    return Path("own")


def test_a_larger_comparison_keeps_the_first_runs(own: Path) -> None:
    before = load_plan(own).jobs
    folder.resize(own, 3, 2, ["dpo", "simpo"])
    after = load_plan(own).jobs
    runs = [name for name in after if name.startswith(("dpo", "simpo"))]
    assert len(runs) == 12
    assert {"dpo-beta0.03-s1", "dpo-beta0.3-s0", "simpo-beta10-s1", "simpo-beta1-s0"} <= set(runs)
    for name, job in before.items():
        assert after[name].config_sha == job.config_sha
    with pytest.raises(ConfigError, match=r"seeds is not \[0\] any more"):
        folder.resize(own, 3, 3, ["dpo", "simpo"])


def test_other_options_are_refused_and_named(own: Path) -> None:
    options: dict[str, Any] = {"policy": "m", "max_length": 512}
    with pytest.raises(ConfigError, match="own: it exists and holds no comparison"):
        folder.opened(own, options)
    folder.write_record(own, options)
    assert folder.opened(own, options) == {"options": options}
    with pytest.raises(ConfigError, match=r"--max-length 256 \(it was 512\).* --out"):
        folder.opened(own, {**options, "max_length": 256})
    assert folder.opened(own.parent / "other", options) is None
