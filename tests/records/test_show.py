"""What is said about a number and about a run."""

from pathlib import Path

import pytest

from alignlab.errors import ConfigError
from alignlab.records.show import show
from alignlab.results.notes import Note, add_remark
from tests.records.conftest import lone

ROOTS = [Path("results")]


def lines(what: str) -> dict[str, str]:
    """Label -> text; lines without a label belong to the one above."""
    found: dict[str, str] = {}
    label = ""
    for line in show(what, ROOTS).split("\n"):
        label = line[:10].strip() or label
        found[label] = f"{found[label]}\n{line[10:]}" if label in found else line[10:]
    return found


def test_a_cell_leads_to_all_that_made_it(toy: Path) -> None:
    add_remark(
        toy, "dpo-beta0.5-s0", Note("repeats itself", "2026-11-28", "sha-dpo-beta0.5-s0"), []
    )
    add_remark(toy, "dpo-beta0.5-s0", Note("old", "2026-11-01", "another"), ["hacked"])
    text = show("results/toy/points.csv:3:reward", ROOTS)
    assert text.startswith("results/toy/points.csv:3:reward is 2  (objective dpo, run_id dpo-beta")
    found = lines("dpo-beta0.5-s0")
    assert "\n".join(text.split("\n")[3:]) == "\n".join(
        show("dpo-beta0.5-s0, step 20", ROOTS).split("\n")[1:]
    )
    assert found["run"] == "results/toy/dpo-beta0.5-s0"
    assert found["what"] == "dpo, seed 0"
    assert found["settings"] == "beta 0.5"
    assert found["tags"] == "hacked"
    assert found["note"] == (
        "2026-11-28: repeats itself\n2026-11-01: old (of this run with an earlier config)"
    )
    # Rewards 1, 2, 3, 2: standard error sqrt(2/3) / 2 = 0.408, times 1.96.
    assert found["result"] == (
        "step 20: KL 2 ± 0, reward 2 ± 0.8 (95 %, prompts only), 32 completions of 4 prompts"
    )
    assert found["config"] == "results/toy/configs/dpo-beta0.5-s0.yaml, config_sha sha-dpo-beta"
    assert found["commit"] == "1234567890ab"
    assert found["command"] == "alignlab run experiments/toy"
    assert found["folder"] == "results/toy/stages/dpo/beta0.5-s0"
    assert found["inputs"] == "results/toy/sft (not kept)\nresults/toy/pairs-s0 (not kept)"
    assert found["samples"] == (
        "results/toy/stages/dpo/beta0.5-s0/train/points/step-000020.texts.jsonl\n"
        "prompt: A film\ncompletion, reward 1: is good0\n"
        "prompt: A film\ncompletion, reward 2: is good1"
    )


def test_without_its_folder_a_run_has_what_the_tables_kept(toy: Path) -> None:
    found = lines("ppo-s0")
    assert found["folder"] == "its weights and logs were not kept"
    assert found["samples"] == (
        "results/toy/samples.csv: 1 of this checkpoint\n"
        "prompt: A book\ncompletion, reward 4: is long"
    )
    assert lines("dpo-beta1-s0")["samples"] == "not kept"
    assert lines("sft")["config"] == "results/toy/configs/sft.yaml, config_sha abc123"


def test_a_run_of_fit_tells_its_own_command(toy: Path) -> None:
    found = lines(str(lone(Path("lightning_logs/version_0"))))
    assert found["command"] == "alignlab fit --config a.yaml"
    assert found["commit"] == "abc"
    assert "reward 2 ± 1.3" in found["result"]


def test_several_cells_or_runs_are_listed_by_their_addresses(toy: Path) -> None:
    text = show("92.5 %", ROOTS)
    assert text.split("\n") == [
        "2 cells print as 92.5 %. Show one by its address:",
        "  results/toy/frontier.csv:2:oracle_efficiency is 0.9249  (objective dpo, kl_budget 1)",
        "  results/toy/frontier.csv:3:oracle_efficiency is 0.9249  (objective oracle, kl_budget 1)",
    ]
    text = show("1.35", ROOTS)
    assert "It is of 4 runs." in text
    assert "  results/toy/dpo-beta1-s1  KL 2, reward 2 after step 20" in text
    assert "No run made it" in show("results/toy/frontier.csv:3", ROOTS)


def test_a_parent_is_shown(toy: Path) -> None:
    path = toy / "configs" / "sft.yaml"
    path.write_text("parent: {run: results/a/sft, config_sha: abc}\ncall: m.sft\n")
    assert lines("sft")["parent"] == "results/a/sft, config_sha abc"


def test_what_is_nowhere_is_refused(toy: Path) -> None:
    with pytest.raises(ConfigError, match=r"77\.7: no cell of a table in results prints as this"):
        show("77.7", ROOTS)
    with pytest.raises(ConfigError, match=r"no evaluation after step 7\. Steps: 10, 20"):
        show("ppo-s0, step 7", ROOTS)


def test_texts_are_of_the_step_that_was_asked_for(toy: Path) -> None:
    assert "step-000020" in show("dpo-beta0.5-s0, step 20", ROOTS)
    assert "samples   not kept" in show("dpo-beta0.5-s0, step 10", ROOTS)
