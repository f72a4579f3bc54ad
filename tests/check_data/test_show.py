"""The report in a terminal and on a page: escaping, marks, tables."""

from pathlib import Path
from typing import Any

from alignlab.check_data.checking import checked
from alignlab.check_data.show import (
    BEGIN,
    END,
    PASSAGES,
    Check,
    as_json,
    as_page,
    as_text,
    clean,
    sections,
)
from alignlab.check_data.survey import Source
from tests.data.files import jsonl

EVIL = "<script>alert('x')</script> & \x1b[31mred"


def check(folder: Path, records: list[Any], test: list[Any] | None = None) -> Check:
    held_out = Source(str(jsonl(folder, test, "test.jsonl"))) if test else None
    return checked(Source(str(jsonl(folder, records))), held_out)


def test_users_text_is_escaped(tmp_path: Path) -> None:
    """In texts, ids, names of columns and passages."""
    run = " ".join(f"w{k}" for k in range(14))
    rows = [{"id": EVIL, "prompt": EVIL, "completion": f" {run} {EVIL}", EVIL: 1}]
    found = check(tmp_path, [*rows, *rows, {**rows[0], "completion": " "}], rows)
    page, said = as_page(found), as_text(found, colours=False)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#39;x&#39;)") > 4
    assert "\x1b" not in said
    assert said.count("\\x1b[31mred") > 4
    assert "http" not in page  # nothing is loaded from elsewhere


def test_what_is_trained_on_is_marked(tmp_path: Path) -> None:
    found = check(tmp_path, [{"prompt": "a", "completion": " b"}])
    assert "  completion:\n    a« b»" in as_text(found, colours=False)
    assert "  completion:\n    a\x1b[32m b\x1b[0m" in as_text(found, colours=True)
    assert "<pre>a<mark> b</mark></pre>" in as_page(found)


def test_labels_are_counted_and_shown_beside_the_rows(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": f" {k}", "label": k > 0} for k in range(3)]
    found = check(tmp_path, rows)
    said = as_text(found, colours=False)
    assert "  labels: 2 desirable, 1 undesirable\n" in said
    for k, label in enumerate(("undesirable", "desirable", "desirable")):
        assert f"rows.jsonl:{k + 1} ({label})\n  completion:" in said
        assert f"<h3>rows.jsonl:{k + 1} ({label})</h3>" in as_page(found)
        assert as_json(found)["examples"][k]["label"] == label
    assert as_json(found)["data"]["labels"] == {"desirable": 2, "undesirable": 1}
    plain = check(tmp_path, [{"text": "a"}])
    assert "labels:" not in as_text(plain, colours=False)


def test_long_texts_keep_both_ends_in_a_terminal(tmp_path: Path) -> None:
    long = "x" * BEGIN + "y" * 1234 + "z" * END
    found = check(tmp_path, [{"prompt": long, "completion": " b"}])
    assert f"{'x' * BEGIN} [... 1,234 characters ...] {'z' * END}« b»" in as_text(
        found, colours=False
    )
    assert long in as_page(found)


def test_columns_are_aligned(tmp_path: Path) -> None:
    rows = [{"prompt": "a " * k, "completion": " b"} for k in (5, 1000, 3)]
    lines = as_text(check(tmp_path, rows), colours=False).split("\n")
    at = lines.index("Lengths in words (all 3 usable rows)")
    assert lines[at + 1 : at + 5] == [
        "  part                         shortest  median   95 %   99 %  longest",
        "  prompt                              3       5  1,000  1,000    1,000",
        "  completion                          1       1      1      1        1",
        "  prompt + longest completion         4       6  1,001  1,001    1,001",
    ]


def test_a_long_passage_keeps_both_ends(tmp_path: Path) -> None:
    rows = [{"text": " ".join(f"w{k}" for k in range(100))}]
    (line,) = (s for s in as_text(check(tmp_path, rows, rows), colours=False).split("\n")
               if "test.jsonl:1  " in s)  # fmt: skip
    passage = line.partition("test.jsonl:1   ")[2]
    assert passage.startswith("w0 w1 w2 ")
    assert passage.endswith(" w98 w99")
    assert len(passage) == 100


def test_only_what_there_is_has_a_section(tmp_path: Path) -> None:
    titles = [section.title for section in sections(check(tmp_path, [{"text": "a"}]))]
    assert titles == [
        "Recognised",
        "Lengths in words (all 1 usable rows)",
        "1 rows as they are trained on, with trained texts; --tokenizer DIR shows tokens marked",
    ]


def test_the_rarest_passages_have_room(tmp_path: Path) -> None:
    rows = [{"text": " ".join(f"w{k}" for k in range(20 * n, 20 * n + 13))}
            for n in range(PASSAGES + 5)]  # fmt: skip
    (section,) = (s for s in sections(check(tmp_path, rows, rows)) if s.title.startswith("Overlap"))
    assert len(section.cells) == PASSAGES
    assert section.lines[-1] == f"the {PASSAGES} rarest of {PASSAGES + 5} passages:"


def test_clean_keeps_letters_and_line_breaks() -> None:
    assert clean("é\n\t👩‍🚀 \x07\x9b\ud800") == "é\n\t👩‍🚀 \\x07\\x9b\\ud800"
