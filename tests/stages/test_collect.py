from pathlib import Path

import pytest
from scipy import stats

from alignlab.errors import DataError
from alignlab.results.csv_tables import read_table
from alignlab.stages.collect import average_seeds, collect_tables


def stage(folder: Path, text: str, file: str = "t.csv") -> str:
    folder.mkdir(parents=True)
    (folder / file).write_text(text)
    return str(folder)


def test_tables_of_several_runs_become_one_in_the_results_folder(tmp_path: Path) -> None:
    runs = [stage(tmp_path / "check" / f"s{k}", f"seed,x\n{k},0.{k}\n") for k in range(2)]
    one = stage(tmp_path / "posts" / "all", "seed,x\n,9\n")
    collect_tables(
        out=tmp_path / "out",
        results=str(tmp_path / "results"),
        tables={
            "both.csv": {"folders": [one, runs], "file": "t.csv"},
            "one.csv": {"folders": one, "file": "t.csv"},
        },
    )
    for folder in ("out", "results"):
        assert (tmp_path / folder / "both.csv").read_text() == (
            "stage,seed,x\nposts,,9\ncheck-s0,0,0.0\ncheck-s1,1,0.1\n"
        )
        assert (tmp_path / folder / "one.csv").read_text() == "stage,seed,x\nposts,,9\n"


def test_tables_of_different_shape_are_refused(tmp_path: Path) -> None:
    folders: list[str | list[str]] = [
        stage(tmp_path / "a" / "all", "x\n1\n"),
        stage(tmp_path / "b" / "all", "y\n1\n"),
    ]
    with pytest.raises(DataError, match=r"b/all/t\.csv: columns stage, y, but stage, x before it"):
        collect_tables(
            out=tmp_path, results=str(tmp_path), tables={"t": {"folders": folders, "file": "t.csv"}}
        )


def test_means_over_seeds_with_students_interval(tmp_path: Path) -> None:
    rows = "pairs,seed,accuracy\n1,0,0.5\n2,0,0.7\n1,1,0.6\n2,1,0.9\n1,2,0.55\n"
    source = stage(tmp_path / "check" / "all", rows)
    average_seeds(out=tmp_path, source=source, file="t.csv", by=["pairs"], value="accuracy")
    one, two = read_table(tmp_path / "summary.csv")
    assert (one["pairs"], one["seeds"], one["accuracy"]) == ("1", "3", "0.550000")
    ends = stats.t.interval(0.95, 2, loc=0.55, scale=stats.sem([0.5, 0.6, 0.55]))
    assert [float(one[f"accuracy_{end}"]) for end in ("lo", "hi")] == pytest.approx(ends, abs=1e-6)
    assert (two["pairs"], two["seeds"], two["accuracy"]) == ("2", "2", "0.800000")


def test_one_seed_has_no_interval_and_twice_the_same_is_an_error(tmp_path: Path) -> None:
    source = stage(tmp_path / "check" / "all", "pairs,seed,accuracy\n1,0,0.5\n")
    average_seeds(out=tmp_path, source=source, file="t.csv", by=["pairs"], value="accuracy")
    (row,) = read_table(tmp_path / "summary.csv")
    assert (row["accuracy_lo"], row["accuracy_hi"]) == ("", "")
    twice = stage(tmp_path / "twice" / "all", "pairs,seed,accuracy\n1,0,0.5\n1,0,0.6\n")
    with pytest.raises(DataError, match=r"a seed occurs twice where \['pairs'\] are \('1',\)"):
        average_seeds(out=tmp_path, source=twice, file="t.csv", by=["pairs"], value="accuracy")
