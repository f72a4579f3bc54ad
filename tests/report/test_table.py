"""The printed table, to the character, and its sentences."""

from alignlab.report.table import frontier_sentences, frontier_table
from alignlab.results.tables import FrontierRow


def row(objective: str, budget: float, reward: float | None, share: float | None) -> FrontierRow:
    return FrontierRow(
        objective=objective,
        kl_budget=budget,
        reward=reward,
        reward_lo=None if reward is None else reward - 0.125,
        reward_hi=None if reward is None else reward + 0.125,
        oracle_reward=2.0,
        oracle_ess=120.4,
        oracle_efficiency=share,
        efficiency_lo=None if share is None else share - 0.03,
        efficiency_hi=None if share is None else share + 0.03,
        n_seeds=3,
        n_prompts=64,
    )


ROWS = [
    row("dpo", 1.0, 1.5, 0.9),
    row("dpo", 10.0, None, None),
    row("ppo_gt", 1.0, 1.75, 0.95),
    row("ppo_gt", 10.0, 3.0, None),
    row("oracle", 1.0, 2.0, 1.0),
    row("oracle", 10.0, None, None),
    row("reference", 1.0, -0.5, 0.0),
    row("reference", 10.0, -0.5, None),
]


def test_the_table() -> None:
    assert frontier_table(ROWS).splitlines() == [
        "reward (95 % interval)",
        "KL budget           1          10",
        "dpo         1.50±0.12           -",
        "ppo_gt      1.75±0.12   3.00±0.12",
        "oracle      2.00±0.12           -",
        "reference  -0.50±0.12  -0.50±0.12",
        "",
        "oracle efficiency: share of the optimum's gain over the reference (95 % interval)",
        "KL budget               1   10",
        "dpo           0.900±0.030    -",
        "ppo_gt        0.950±0.030    -",
        "oracle's ESS          120  120",
    ]


def test_the_sentences_keep_the_rows_order_and_explain_the_blanks() -> None:
    lines = frontier_sentences(ROWS).splitlines()
    assert lines[0] == (
        "Share of the optimum's gain at KL 1: dpo 90.0 % [87.0, 93.0], ppo_gt 95.0 % [92.0, 98.0]."
    )
    assert lines[1].startswith("- : beyond the largest KL")
    assert "effective sample size under 50" in lines[2]
    assert len(lines) == 3


def test_one_seed_is_said() -> None:
    single = FrontierRow(objective="dpo", kl_budget=1.0, reward=1.0, oracle_efficiency=None)
    assert "One seed" not in frontier_sentences([])
    said = frontier_sentences([FrontierRow(**{**vars(single), "n_seeds": 1})])
    assert "One seed: intervals count prompts only" in said
