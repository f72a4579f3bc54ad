"""What two runs differ by, against differences written by hand."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alignlab.files import write_record
from alignlab.plan.overlay import write_yaml
from alignlab.records.diff import data_between, diff, difference, settings_between
from alignlab.records.find import Run
from alignlab.results.prompt_tables import write_prompt_tables
from tests.records.conftest import config, table, write_toy

ROOTS = [Path("results")]


def lines(first: str, second: str, wanted: float | None = None) -> list[str]:
    return diff(first, second, ROOTS, wanted).split("\n")


def test_an_interval_counts_prompts_and_seeds() -> None:
    """Differences 1, 3 and 2, 4 of two seeds, on 200 prompts each.

    Means 2 and 3 of the seeds: standard error 0.5, times t(1) = 12.706. Means 1.5 and 3.5 of the
    prompts: standard deviation 1, so 1 / sqrt(400) times t(399) = 1.966 by the bootstrap.
    """
    zero = np.zeros(400)
    first = {0: zero, 1: zero + 7}
    second = {0: np.tile([1.0, 3.0], 200), 1: np.tile([2.0, 4.0], 200) + 7}
    found = difference([first, second])
    assert found.value == pytest.approx(2.5)
    assert not found.resolved
    assert found.hi - 2.5 == pytest.approx(math.hypot(12.706 / 2, 1.966 / 20), rel=1e-3)
    assert found.spread.seed_sd == pytest.approx(math.sqrt(0.5))
    one = difference([{0: zero}, {0: second[0]}])
    assert one.hi - one.value == pytest.approx(1.966 / 20, rel=0.05)
    assert one.resolved


def test_without_a_seed_in_common_the_arms_are_compared_by_their_means() -> None:
    """What prompts share still drops out; the squares of both arms' seeds add up."""
    easy = np.linspace(0, 100, 50)
    first = {0: easy + 1, 1: easy + 3}
    second = {2: easy + 10, 3: easy + 14}
    found = difference([first, second])
    assert found.value == pytest.approx(10.0)
    assert found.hi - found.value == pytest.approx(12.706 * math.hypot(1, 2), rel=1e-3)


def test_two_arms(toy: Path) -> None:
    """Reward: -0.5 for both seeds; prompts -0.5, -0.5, -0.75, -0.25: sd 0.177, and t(3) = 3.18."""
    found = lines("results/toy/dpo-beta0.5", "dpo-beta1")
    assert found[:2] == [
        "A         2 runs: results/toy/dpo-beta0.5-s0, results/toy/dpo-beta0.5-s1",
        "B         2 runs: results/toy/dpo-beta1-s0, results/toy/dpo-beta1-s1",
    ]
    assert found[2] == "settings  model.init_args.beta: 0.5 -> 1"
    assert found[4:6] == [
        "          the same: sft", "code      the same commit, 1234567890ab",
    ]  # fmt: skip
    reward = found[6].replace("[", "").replace("],", ",").replace(",", "").split()
    assert reward[:5] == ["reward", "B", "-", "A", "="]
    assert [float(x) for x in reward[5:8]] == pytest.approx([-0.5, -0.78, -0.22], abs=0.02)
    assert reward[8:] == ["A", "above"]
    assert found[7:] == [
        "kl        equal on every prompt",
        "length    equal on every prompt",
        "          95 %, 4 prompts by a paired bootstrap, 2 seeds",
    ]


def test_one_seed_and_what_would_resolve_it(toy: Path) -> None:
    found = lines("dpo-beta0.5-s0, step 10", "ppo-s0")
    assert found[1] == "B         results/toy/ppo-s0"
    assert "settings  model.class_path: alignlab.objectives.dpo.DPO -> " in found[2]
    assert any("not resolved" in line for line in found)
    assert any("to resolve a true difference of 0 with a chance of 80 %" in x for x in found)
    assert found[-1].endswith("1 seed: variance over training seeds is not counted")
    asked = lines("dpo-beta0.5", "dpo-beta1", 0.1)
    # (1.96 + 0.84)^2 (0.177 / 0.1)^2 = 25, by Student's t 27; the bootstrap's sd is off by 3 %.
    (answer,) = [line for line in asked if "to resolve" in line]
    assert int(answer.rpartition(": ")[2].split()[0]) == pytest.approx(27, abs=4)


def test_other_prompts_resolve_nothing(toy: Path) -> None:
    other = table("ppo-s0", 20)
    names = tuple(f"q{i}" for i in range(4))
    scores = replace(other.scores, prompt_ids=names)
    write_prompt_tables(toy / "points" / "ppo-s0.parquet", [replace(other, scores=scores)])
    found = lines("dpo-beta1-s0", "ppo-s0")
    assert found[-1] == "result    not resolved: they have 0 evaluated prompts in common"
    assert lines("dpo-beta1-s0", "sft")[-1] == (
        "result    not resolved: B has no evaluation that was kept"
    )


def test_settings_are_compared_without_places(toy: Path) -> None:
    a, b = config(Path("results/toy"), "ppo-s0"), config(Path("/else/where"), "ppo-s0")
    b["trainer"] |= {"default_root_dir": "there", "max_steps": 9}
    b["model"]["init_args"]["lora"] = None
    assert settings_between(a, b) == [
        "trainer.max_steps: 20 -> 9",
        "model.init_args.lora: - -> null",
    ]


def test_data_are_compared_by_what_they_were_made_of(toy: Path) -> None:
    other = write_toy(Path("results/other"))
    pairs = {toy: "pairs-one", other: "pairs-two"}
    for folder, sha in pairs.items():
        record = {"config_sha": sha, "git_sha": "g"}
        write_record(folder / "stages" / "pairs" / "s0" / "job.json", record)
        write_record(folder / "stages" / "pairs" / "s0" / "done.json", record)
        Path(f"{folder.name}.jsonl").write_text(folder.name)
        own = config(folder, "ppo-s0") | {"extra": f"./{folder.name}.jsonl"}
        (folder / "configs" / "ppo-s0.yaml").write_text(write_yaml(own))
    found = list(data_between(Run(toy, "ppo-s0"), Run(other, "ppo-s0")))
    assert found == [
        "pairs-s0: pairs-one -> pairs-two",
        "./toy.jsonl: read by A alone",
        "./other.jsonl: read by B alone",
        "the same: sft",
    ]
    (other / "configs" / "sft.yaml").unlink()
    found = list(data_between(Run(toy, "ppo-s0"), Run(other, "ppo-s0")))
    assert found[0] == "sft: not kept, so it cannot be compared"
