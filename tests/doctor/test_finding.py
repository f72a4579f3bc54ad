"""Findings as text and JSON, and what errors of a check become."""

import json

from alignlab.doctor.finding import Finding, as_json, count, findings, ok, table, warning
from alignlab.errors import DataError


def refuse(_: object) -> None:
    raise DataError("row 3 is empty. Fill it.")


def break_down(_: object) -> None:
    raise RuntimeError("out of\nmemory")


def test_a_users_error_is_a_stop_and_any_other_failure_a_warning() -> None:
    checks = {
        "rows": lambda n: ok(f"{n} rows"),
        "cells": refuse,
        "nothing": lambda _: None,
        "memory": break_down,
    }
    found = findings(checks, 7)
    assert found == [
        Finding("rows", "ok", "7 rows"),
        Finding("cells", "stop", "row 3 is empty. Fill it."),
        Finding("memory", "warning", "not checked: RuntimeError: out of memory"),
    ]
    assert count(found) == "1 check ok, 1 warning, 1 stop"
    assert count(found[:1]) == "1 check ok"
    assert json.loads(as_json(found))[1] == {
        "name": "cells", "state": "stop", "advice": "row 3 is empty. Fill it."
    }  # fmt: skip


def test_a_table_has_a_line_for_each_finding() -> None:
    found = findings({"a": lambda _: ok("fine"), "long": lambda _: warning("Look.")}, None)
    assert table(found) == "ok       a     fine\nwarning  long  Look."
