"""The report on a source, counted by hand."""

import pytest

from alignlab.data.rows.report import RowReport
from alignlab.data.rows.values import Refused
from alignlab.errors import ConfigError, DataError


@pytest.fixture
def report() -> RowReport:
    """Ten rows of which five were refused, and two trees with three completions of six tokens."""
    report = RowReport("a.jsonl", seen=10, truncated=1, ended=2)
    for line in (1, 3, 5, 7):
        report.add(f"a.jsonl:{line}", Refused("empty completion", " in 'chosen'"))
    report.add("a.jsonl:9", Refused("missing column 'prompt'"))
    report.unused["extra"] = 4
    report.made([[5, 6], [7]])
    report.made([[5, 6, 7]])
    return report


def test_the_summary_counts_rows_reasons_and_trees(report: RowReport) -> None:
    assert report.summary().splitlines() == [
        "a.jsonl: 5 of 10 rows kept: 2 trees, 3 completions, 6 tokens",
        "  refused 4 x empty completion: a.jsonl:1 (in 'chosen'), a.jsonl:3, a.jsonl:5, ...",
        "  refused 1 x missing column 'prompt': a.jsonl:9",
        "  columns that nothing reads: extra",
        "  1 rows truncated; 0 with a token across the border of prompt and completion; 66.7% of "
        "completions end in a trained EOS",
    ]


def test_a_summary_has_few_lines(report: RowReport) -> None:
    """Seven: the rest is counted, and in the table."""
    report.read_as, report.repeats = "PreferencePair from chosen", {"copies of earlier rows": 3}
    for k in range(5):
        report.add("a.jsonl:10", Refused(f"reason {k}"))
    said = report.summary().splitlines()
    assert len(said) == 7
    assert said[1] == "  read as PreferencePair from chosen; copies of earlier rows: 3"
    assert said[5] == "  5 more lines: alignlab check-data shows them"
    assert said[6].startswith("  1 rows truncated")
    table = {(row["what"], row["reason"]): row["rows"] for row in report.table()}
    assert table["refused", "reason 4"] == 1
    assert table["repeated", "copies of earlier rows"] == 3


def test_the_table_has_the_same_numbers(report: RowReport) -> None:
    found = {(row["what"], row["reason"]): row["rows"] for row in report.table()}
    assert found == {
        ("read", ""): 10,
        ("kept", ""): 5,
        ("truncated", ""): 1,
        ("token across the border", ""): 0,
        ("refused", "empty completion"): 4,
        ("refused", "missing column 'prompt'"): 1,
        ("column not used", "extra"): 4,
    }


def test_a_report_without_remarks_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    RowReport("a.jsonl", seen=2).tell()
    assert capsys.readouterr().err == ""
    RowReport("a.jsonl", seen=2, truncated=1).tell("evaluation pairs")
    assert capsys.readouterr().err == "evaluation pairs: a.jsonl: 2 of 2 rows kept\n"


def test_prompts_have_no_completions_to_count() -> None:
    report = RowReport("a.jsonl", seen=2, truncated=1)
    report.made([])
    report.made([])
    assert report.summary().splitlines() == [
        "a.jsonl: 2 of 2 rows kept: 2 prompts",
        "  1 prompts truncated",
    ]


def test_the_first_refused_row_stops_if_that_was_asked_for() -> None:
    with pytest.raises(DataError, match=r"^a:3: empty\. Repair or remove the row, or set refuse"):
        RowReport("a", refuse="error").add("a:3", Refused("empty"))
    with pytest.raises(ConfigError, match="refuse must be one of"):
        RowReport("a", refuse="never")  # type: ignore[arg-type]


def test_nothing_left_names_the_reasons() -> None:
    report = RowReport("a.jsonl", seen=2)
    for line in (1, 2):
        report.add(f"a.jsonl:{line}", Refused("empty"))
    with pytest.raises(
        DataError, match=r"none of its 2 rows .*: empty \(2 rows, first a\.jsonl:1\)"
    ):
        report.require_rows(0)
    report.add("a.jsonl:3", Refused("wrong type in 'a'", ": wants a string,\ngot int '5'"))
    said = r"; wrong type in 'a' \(1 rows, first a\.jsonl:3: wants a string, got int '5'\)"
    with pytest.raises(DataError, match=said):
        report.require_rows(0)
    with pytest.raises(DataError, match="holds no rows"):
        RowReport("a.jsonl").require_rows(0)


def test_what_the_first_refused_row_held_stands_behind_it() -> None:
    reading, made = RowReport("a"), RowReport("a")
    for k, detail in enumerate((" (not JSON: at (3))", " in 'b'", ": " + "x" * 200)):
        reading.add(f"a:{k}", Refused("odd", detail))
        made.add(f"a:{k + 10}", Refused("odd", " of tokenising"))
    made.absorb(reading)
    assert made.examples("odd") == "a:0 (not JSON: at (3)), a:1, a:2, ..."
    report = RowReport("a")
    report.add("a:1", Refused("long", ": " + "x" * 200))
    assert report.details == {"long": "x" * 116 + " ..."}
