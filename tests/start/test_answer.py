"""The sentences of an answer, from comparisons and tables made by hand."""

from pathlib import Path

from alignlab.evaluation.power import Spread, enough
from alignlab.results.csv_tables import write_table
from alignlab.results.tables import Comparison
from alignlab.start.answer import accuracy_answer, sentences


def row(other: str, budget: float, difference: float, half: float) -> Comparison:
    return Comparison(
        objective="dpo",
        other=other,
        kl_budget=budget,
        difference=difference,
        lo=difference - half,
        hi=difference + half,
        n_seeds=2,
        n_prompts=64,
    )


SPREAD = Spread(difference=0.1, seeds=2, seed_sd=0.05, prompts=64, prompt_sd=0.2)


def test_what_is_resolved_and_what_is_not_at_the_largest_budget() -> None:
    rows = {
        row("simpo", 0.25, -0.3, 0.1): SPREAD,
        row("simpo", 0.5, -0.4, 0.1): SPREAD,
        row("simpo", 1.0, 0.1, 0.2): SPREAD,
    }
    found, open_ = sentences(rows)
    assert found == (
        "Found: at KL 0.5, simpo has 0.4 more reward than dpo (95 % interval 0.3 to 0.5, 2 seeds, "
        "64 prompts)."
    )
    needed = enough(SPREAD).seeds
    assert needed is not None
    assert open_ == (
        "Not resolved: at KL 1, dpo has 0.1 more reward than simpo (95 % interval -0.1 to 0.3, "
        f"2 seeds, 64 prompts), and {needed - 2} more seeds would resolve a difference of this "
        "size."
    )


def test_nothing_to_compare_says_what_to_do() -> None:
    found, open_ = sentences({})
    assert found == "Found: no difference that is larger than its interval."
    assert "no two objectives reached a KL budget" in open_
    assert "--steps" in open_


def test_accuracy_is_of_the_setting_that_the_tuning_pairs_choose(tmp_path: Path) -> None:
    def rows(dpo: tuple[float, float], simpo: float, half: float) -> list[dict[str, object]]:
        each = [("dpo", "beta0.1", "log_ratio", dpo[0]), ("dpo", "beta1", "log_ratio", dpo[1])]
        each += [("simpo", "beta2", "mean_logp", simpo), ("simpo", "beta2", "log_ratio", 0.9)]
        return [
            {
                "policy": f"{stage}-{setting}-s{seed}",
                "stage": stage,
                "reward": kind,
                "accuracy": value,
                "accuracy_lo": value - half,
                "accuracy_hi": value + half,
            }
            for stage, setting, kind, value in each
            for seed in (0, 1)
        ]

    write_table(tmp_path / "tuning.csv", rows((0.5, 0.7), 0.6, 0.1))
    write_table(tmp_path / "accuracy.csv", rows((0.9, 0.65), 0.55, 0.05))
    said = accuracy_answer(tmp_path, ["dpo", "simpo"]).splitlines()
    assert said[0] == "Found: dpo above simpo by 0.100 ± 0.071."  # sqrt(2) * 0.05
    assert said[1] == "Not resolved: nothing."
    assert "dpo prefers the chosen reply in 0.650 ± 0.050" in said[2]
    assert "(beta1, 2 seeds)" in said[2]
    assert said[3].startswith("To ask a judge: alignlab winrate --policy dpo=")
    write_table(tmp_path / "accuracy.csv", rows((0.9, 0.61), 0.55, 0.05))
    said = accuracy_answer(tmp_path, ["dpo", "simpo"]).splitlines()
    # 0.0707 / 0.06, squared: 1.39
    assert "dpo against simpo, 0.060 ± 0.071; about 2 times the held-out pairs" in said[1]
