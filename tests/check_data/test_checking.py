"""What a call finds as a whole, and whether that is clean."""

from pathlib import Path
from typing import Any

import pytest

from alignlab.check_data.checking import checked, is_clean, reasons
from alignlab.check_data.show import Check
from alignlab.check_data.survey import Source
from tests.data.files import jsonl
from tests.data.tokens import words

GOOD = [{"prompt": "a", "chosen": " b", "rejected": f" {k}"} for k in "cd"]
BACK = {"prompt": "a", "chosen": " c", "rejected": " b"}
CYCLE = [{"prompt": "d", "chosen": f" {x}", "rejected": f" {y}"} for x, y in ("ab", "bc", "ca")]


def check(folder: Path, rows: list[Any], test: Any = None, tokenizer: str | None = None) -> Check:
    held_out = None if test is None else Source(str(jsonl(folder, test, "test.jsonl")))
    return checked(Source(str(jsonl(folder, rows))), held_out, tokenizer)


def test_a_contradicted_row_is_named_as_such_and_not_as_a_cycle(tmp_path: Path) -> None:
    found = check(tmp_path, [*GOOD, BACK, *CYCLE])
    opposite, cycle = ["another row says the opposite"], ["in a cycle of preferences"]
    assert reasons(found) == {
        **{"rows.jsonl:1": opposite, "rows.jsonl:3": opposite},
        **{f"rows.jsonl:{k}": cycle for k in (4, 5, 6)},
    }


@pytest.mark.parametrize(
    ("rows", "test", "clean"),
    [
        (GOOD, None, True),
        ([*GOOD, GOOD[0]], None, True),  # a copy is counted, and no fault
        (GOOD, [{**GOOD[0], "prompt": "d"}], True),
        (GOOD, [{**GOOD[0], "chosen": " e"}], False),  # a prompt of the training rows
        ([*GOOD, {**GOOD[0], "chosen": " "}], None, False),
        (GOOD, [{**GOOD[0], "prompt": "d"}, {**GOOD[0], "chosen": " "}], False),
        ([*GOOD, BACK], None, False),
        (CYCLE, None, False),
    ],
)
def test_clean(rows: list[Any], test: list[Any] | None, clean: bool, tmp_path: Path) -> None:
    assert is_clean(check(tmp_path, rows, test)) is clean


def test_what_tokenising_refuses_is_not_clean(tmp_path: Path) -> None:
    words().save_pretrained(tmp_path / "words")
    found = check(tmp_path, [*GOOD, {**GOOD[0], "rejected": "  b"}], None, str(tmp_path / "words"))
    assert reasons(found) == {"rows.jsonl:3": ["chosen and rejected are identical as tokens"]}
    assert not is_clean(found)
