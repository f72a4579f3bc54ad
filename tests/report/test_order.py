"""Whether an order survives, with shares and differences made by hand."""

from pathlib import Path

import pytest

from alignlab.errors import ConfigError, DataError
from alignlab.report.look import EVERYTHING, Look
from alignlab.report.order import order_caption, order_grid, order_rows, read_case
from alignlab.results.tables import Comparison, FrontierRow, Order, write_rows
from tests.report.test_table_command import called


def write_case(
    folder: Path, shares: dict[str, float | None], differences: dict[tuple[str, str], float]
) -> Path:
    """Half-widths are 0.1; at KL 2 everything is the other way round."""
    rows, pairs = [], []
    for name, share in [*shares.items(), ("best_of_n", 0.99), ("reference", 0.0)]:
        own = FrontierRow(objective=name, kl_budget=1.0, n_seeds=0 if share is None else 3)
        if share is not None:
            ends = {"efficiency_lo": share - 0.1, "efficiency_hi": share + 0.1}
            own = FrontierRow(**{**vars(own), "oracle_efficiency": share, **ends})
        rows += [own, FrontierRow(objective=name, kl_budget=2.0, oracle_efficiency=0.5)]
    for (first, second), difference in differences.items():
        for budget, sign in ((1.0, 1), (2.0, -1)):
            mean = sign * difference
            pairs.append(
                Comparison(
                    objective=first,
                    other=second,
                    kl_budget=budget,
                    difference=mean,
                    lo=mean - 0.1,
                    hi=mean + 0.1,
                    n_seeds=3,
                    n_prompts=8,
                )
            )
    write_rows(folder / "curves.csv", FrontierRow, rows)
    write_rows(folder / "comparisons.csv", Comparison, pairs)
    return folder


@pytest.fixture
def cases(tmp_path: Path) -> list[Path]:
    """The base resolves b above a, b above c and a above c, and not d; e is in the base alone."""
    base = write_case(
        tmp_path / "base",
        {"a": 0.8, "b": 0.9, "c": 0.5, "d": 0.85, "e": 0.1},
        {("a", "b"): -0.2, ("a", "c"): 0.3, ("b", "c"): 0.4, ("b", "d"): 0.05, ("a", "e"): 0.7},
    )
    small = write_case(
        tmp_path / "small",
        {"a": 0.7, "b": 0.6, "c": 0.4, "d": 0.75, "f": 0.2},
        {("a", "b"): 0.15, ("a", "c"): 0.3, ("b", "c"): 0.05, ("b", "d"): -0.3},
    )
    few = write_case(
        tmp_path / "few", {"a": 0.3, "b": 0.6, "c": None, "d": 0.2}, {("a", "b"): -0.3}
    )
    return [base, small, few]


def rows_of(cases: list[Path], look: Look = EVERYTHING) -> list[Order]:
    base, *others = map(read_case, cases)
    return order_rows(base, others, look)


def test_a_resolved_pair_survives_is_reversed_or_is_not_resolved(cases: list[Path]) -> None:
    found = {
        (row.results, row.objective): (row.rank, row.survives, row.reversed, row.not_resolved)
        for row in rows_of(cases)
    }
    assert found == {
        ("base", "b"): (1, "a c", "", ""),
        ("base", "d"): (2, "", "", ""),
        ("base", "a"): (3, "c", "", ""),
        ("base", "c"): (4, "", "", ""),
        ("small", "b"): (3, "", "a", "c"),
        ("small", "d"): (1, "", "", ""),
        ("small", "a"): (2, "c", "", ""),
        ("small", "c"): (4, "", "", ""),
        ("few", "b"): (1, "a", "", "c"),
        ("few", "d"): (3, "", "", ""),
        ("few", "a"): (2, "", "", "c"),
        ("few", "c"): (None, "", "", ""),
    }


def test_the_table_has_shares_ranks_and_counts(cases: list[Path]) -> None:
    look = Look(names={"b": "B"})
    table = order_grid(rows_of(cases, look), look)
    assert table.columns == ["B", "d", "a", "c", "order survives", "reversed", "not resolved"]
    assert table.labels == ["base", "small", "few"]
    assert table.cells[1] == [
        *("0.600±0.100 (3)", "0.750±0.100 (1)", "0.700±0.100 (2)", "0.400±0.100 (4)"),
        *("1/3", "1", "1"),
    ]
    assert table.cells[0][-3:] == ["3/3", "0", "0"]
    assert table.cells[2][-4:] == ["-", "1/3", "0", "2"]
    assert table.bold == {(1, 5)}
    caption = order_caption(rows_of(cases, look), look)
    assert "base resolves 3 of 6 pairs" in caption
    assert caption.endswith(
        "Reversed in small: B above a. Not resolved in small: B above c. "
        "Not resolved in few: B above c, a above c."
    )


def test_the_arms_that_are_shown_are_ranked_among_themselves(cases: list[Path]) -> None:
    found = rows_of(cases, Look(arms=("c", "a")))
    assert [(row.objective, row.rank, row.survives) for row in found[:4]] == [
        ("c", 2, ""), ("a", 1, "c"), ("c", 2, ""), ("a", 1, "c")
    ]  # fmt: skip


def test_the_command_writes_the_same_table_twice(
    cases: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    made = []
    for _ in range(2):
        assert called(cases[0], "--order", *cases[1:], "--markdown") == 0
        made.append((capsys.readouterr().out, (cases[0] / "order.csv").read_bytes()))
    assert made[0] == made[1]
    assert "| small | 0.600 ± 0.100 (3) | 0.750 ± 0.100 (1) |" in made[0][0]
    assert b"small,b,0.6,0.5,0.7,3,3,,a,c\n" in made[0][1]
    called(cases[0], "--order", *cases[1:], "--latex")
    assert r"few & $0.600 \pm 0.100$ (1) & $0.200 \pm 0.100$ (3)" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"--order: --into writes a frontier only"):
        called(cases[0], "--into", cases[0] / "x.md", "--order", cases[1])
    with pytest.raises(ConfigError, match=r"--budgets: --order compares at KL 1 only"):
        called(cases[0], "--budgets", "2", "--order", cases[1])


def test_folders_that_cannot_be_compared_are_refused(cases: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing/curves\.csv: no such table.*frontier .*nothing"):
        read_case(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="two folders have the same name"):
        rows_of([cases[0], cases[1], cases[1]])
    other = write_case(tmp_path / "other", {"a": 0.1, "z": 0.2}, {})
    with pytest.raises(DataError, match="base has 1 objectives in common with the others"):
        rows_of([cases[0], other])
