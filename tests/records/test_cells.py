"""Cells by place and by what they print as, and the runs behind a row."""

import json
from pathlib import Path

import pytest

from alignlab.errors import ConfigError, DataError
from alignlab.records.cells import cell_at, cells_with, prints_as, runs_of, tables_in
from alignlab.results.csv_tables import write_table


@pytest.mark.parametrize(
    ("cell", "number", "factor", "same"),
    [
        ("0.921902", "0.92", 1, True),
        ("0.925", "0.92", 1, False),  # the double is a little above: it prints as 0.93
        ("0.9249", "0.92", 1, True),
        ("0.9151", "0.92", 1, True),
        ("0.9149", "0.92", 1, False),
        ("0.921902", "92.2", 100, True),
        ("0.921902", "92", 100, True),
        ("-0.004", "0.00", 1, True),
        ("12345.6", "1.23e4", 1, True),
        ("12345.6", "1.24e4", 1, False),
        ("2.5", "2.50", 1, True),
        ("", "0", 1, False),
        ("dpo", "0", 1, False),
    ],
)
def test_a_cell_prints_as_a_number(cell: str, number: str, factor: float, same: bool) -> None:
    assert prints_as(cell, number, factor) == same


def places(number: str, *roots: str) -> list[str]:
    found = cells_with(number, tables_in([Path(root) for root in roots or ("results",)]))
    return [f"{cell.path}:{cell.line}:{cell.column}" for cell in found]


def test_numbers_are_found_where_they_stand(toy: Path) -> None:
    assert places("1.35") == ["results/toy/frontier.csv:2:reward"]  # curves.csv has it, too
    assert places("1.46") == ["results/toy/frontier.csv:2:reward_hi"]
    assert places("92.5 %") == [f"results/toy/frontier.csv:{n}:oracle_efficiency" for n in (2, 3)]
    assert places("1.35 ± 0.11") == ["results/toy/frontier.csv:2:reward"]
    assert places("1.35 ± 0.12") == []
    assert places("0.92±0.03") == places("92.5 %")
    assert places("2.5", "results/toy/points.csv") == ["results/toy/points.csv:5:reward"]
    # The standard error over rewards 1, 2, 3, 4 is sqrt(5/3) / 2 = 0.6455; times 1.96: 1.27.
    assert places("2.50 ± 1.27") == ["results/toy/points.csv:5:reward"]
    assert places("dpo") == []


def test_an_address_is_a_line_and_a_column(toy: Path) -> None:
    cell = cell_at("results/toy/points.csv:5:reward")
    assert cell is not None
    assert (cell.row["run_id"], cell.row["step"], cell.row["reward"]) == (
        "dpo-beta0.5-s1",
        "20",
        "2.5",
    )
    assert cell_at("results/toy") is None
    with pytest.raises(ConfigError, match=r"no row begins in line 12\. Lines with rows: 2 to 11"):
        cell_at("results/toy/points.csv:12")
    with pytest.raises(ConfigError, match="no column 'rewards'"):
        cell_at("results/toy/points.csv:5:rewards")
    with pytest.raises(DataError, match="no such table"):
        cell_at("results/toy/gone.csv:5")


def test_a_row_after_a_text_of_several_lines_has_its_own_line(toy: Path) -> None:
    rows = [{"run": "ppo-s0, step 20", "text": "a\nb\nc"}, {"run": "dpo-beta1-s0", "text": "d"}]
    write_table(toy / "samples.csv", rows)
    assert names("results/toy/samples.csv:2") == ["ppo-s0"]
    assert names("results/toy/samples.csv:5") == ["dpo-beta1-s0"]
    cell = cell_at("results/toy/samples.csv:2")
    assert cell is not None
    assert runs_of(cell)[0].step == 20


def names(place: str) -> list[str]:
    cell = cell_at(place)
    assert cell is not None
    return [run.run_id for run in runs_of(cell)]


def test_a_row_leads_to_its_runs(toy: Path) -> None:
    dpo = ["dpo-beta0.5-s0", "dpo-beta0.5-s1", "dpo-beta1-s0", "dpo-beta1-s1"]
    assert names("results/toy/frontier.csv:2") == dpo
    assert names("results/toy/frontier.csv:3") == []  # the oracle
    assert names("results/toy/points.csv:4:kl") == ["dpo-beta0.5-s1"]
    tables: dict[str, dict[str, object]] = {
        "effects": {"objective": "dpo", "hparam": "beta", "value": "1"},
        "comparisons": {"objective": "dpo", "other": "ppo"},
        "stages": {"stage": "sft", "job": "all", "seconds": "1"},
        "trials": {
            "slot": 0,
            "arm": "dpo",
            "params": json.dumps({"dpo/model.init_args.beta": 0.5}),
        },
        "accuracy": {"model": "ppo-s0", "accuracy": 0.5},
    }
    expected = [dpo[2:], [*dpo, "ppo-s0"], ["sft"], dpo[:2], ["ppo-s0"]]
    for (name, row), runs in zip(tables.items(), expected, strict=True):
        write_table(toy / f"{name}.csv", [row])
        assert names(f"results/toy/{name}.csv:2") == runs, name
