from pathlib import Path

import pytest

from alignlab.errors import ConfigError
from alignlab.plan import overlay

# Twelve lines that YAML's aliases make ten to the eleventh values of.
BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 10}]\n" for i in range(1, 12))


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: 5e-7\nb: 1E3\nc: 2\nd: .5e1\ne: e1\nf: 1e\n")
    assert overlay.read_yaml(file) == {"a": 5e-7, "b": 1e3, "c": 2, "d": 5.0, "e": "e1", "f": "1e"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: 1\nb:\n  c: 1\n  c: 2\n", "key c given twice"),
        (b"a: [1\n", "not valid YAML"),
        (b"- a\n- b\n", "expected keys and values, got list"),
        (b"\xff\xfe\x00\x81", "not a text file"),
        (b"a: 2024-01-01\n", "line 1, column 4: 2024-01-01 would be read as a date"),
        (b"a: {b: 0123}\n", "0123 would be read as a number to base 8 or 60"),
        (b"a: [1:30:00]\n", "1:30:00 would be read as a number to base 8 or 60"),
        (b"a: 1:30.5\n", "1:30.5 would be read as a number to base 60"),
        (b"a: No\n", "No would be read as a switch"),
        (b"a: .NaN\n", r"\.NaN is not a number, or too large"),
        (b"a: -1e999\n", "-1e999 is not a number, or too large"),
        (b"a: 9223372036854775808\n", "more than 64 bits"),
        (b"a: " + b"9" * 5000, "more than 64 bits"),
        (b"a:\n  7: b\n  c: d\n", "line 2, column 3: key 7 is not text"),
        (b"a: {true: b}\n", "key true is not text"),
        (b"a: {1: b, 1: c}\n", "key 1 given twice"),
        (b"? [a]\n: b\n", "key of several values is not text"),
        (b"a: !!binary aGk=\n", "a value of type bytes"),
        (b"a: !!set {b}\n", "a value of type set"),
        (b'a: "\\0"\n', "a character that is not valid text"),
        (b'a: "\\ud800"\n', "a character that is not valid text"),
        (b"a: &a [*a]\n", "an alias inside itself"),
        (b"a: " + b"[" * 41 + b"]" * 41, "more than 40 levels"),
        (b"a: " + b"[" * 20_000, "more than 40 levels"),
        (b"a: {<<: {b: 1}, <<: {c: 2}}\n", "key << given twice"),
        (b"#" * 2**18 + b"#", "more than the 262,144 bytes"),
        (BOMB.encode(), "more than 100,000 values"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        overlay.read_yaml(file)
    assert str(caught.value).startswith(str(file))


def test_merge_keys_put_in_what_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "deep: {b: &b {<<: &a {x: 1, y: 1}, x: 2}}\n"
        "one: {<<: *b, x: 3}\n"
        "list: {<<: [{y: 5}, *b], z: 4}\n"
    )
    assert overlay.read_yaml(file) == {
        "deep": {"b": {"x": 2, "y": 1}},
        "one": {"x": 3, "y": 1},
        "list": {"x": 2, "y": 5, "z": 4},
    }


def test_a_change_of_one_place_leaves_its_alias_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("model: {policy: &p {source: a}, reference: *p}\n")
    config = overlay.merge({}, overlay.read_yaml(file))
    overlay.set_dotted(config, "model.policy.source", "b")
    assert config == {"model": {"policy": {"source": "b"}, "reference": {"source": "a"}}}


def test_text_stays_text_and_a_byte_order_mark_is_none_of_it(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        '\ufeffa: "2024-01-01"\nb: "on"\nc: 08\nd: y\ne: .inf\nf: {0: 1}\n', encoding="utf-8"
    )
    assert overlay.read_yaml(file) == {
        "a": "2024-01-01", "b": "on", "c": "08", "d": "y", "e": float("inf"), "f": {0: 1}
    }  # fmt: skip


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        overlay.read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        overlay.read_yaml(tmp_path)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# nothing yet\n")
    assert overlay.read_yaml(tmp_path / "a.yaml") == {}


def test_merge_goes_deep_and_replaces_lists() -> None:
    base = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    over = {"a": {"c": [3], "e": None}, "d": {"f": 2}}
    assert overlay.merge(base, over) == {"a": {"b": 1, "c": [3], "e": None}, "d": {"f": 2}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


def test_another_class_does_not_inherit_arguments() -> None:
    base = {"class_path": "a.Old", "init_args": {"beta": 0.1}}
    assert overlay.merge(base, {"class_path": "a.New"}) == {"class_path": "a.New"}
    same = overlay.merge(base, {"class_path": "a.Old", "init_args": {"lr": 1}})
    assert same["init_args"] == {"beta": 0.1, "lr": 1}


def test_a_base_without_a_class_keeps_its_arguments_for_whichever_is_named() -> None:
    base = {"model": {"init_args": {"lr": 1, "beta": 2}}}
    over = {"model": {"class_path": "a.New", "init_args": {"beta": 3}}}
    assert overlay.merge(base, over) == {
        "model": {"class_path": "a.New", "init_args": {"lr": 1, "beta": 3}}
    }


def test_dotted_keys_make_mappings_and_step_into_lists() -> None:
    config = {"trainer": {"callbacks": [{"every": 1}, {"every": 2}]}, "model": None}
    overlay.set_dotted(config, "trainer.callbacks.1.every", 5)
    overlay.set_dotted(config, "model.init_args.beta", 0.5)
    overlay.set_dotted(config, "trainer", {"max_steps": 3})
    assert config == {
        "trainer": {"callbacks": [{"every": 1}, {"every": 5}], "max_steps": 3},
        "model": {"init_args": {"beta": 0.5}},
    }


@pytest.mark.parametrize("dotted", ["a.b", "l.2", "l.x", "l.0.b"])
def test_a_dotted_key_that_leads_nowhere_is_an_error(dotted: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot set '{dotted}'"):
        overlay.set_dotted({"a": 1, "l": [1, 2]}, dotted, 0)


def test_placeholders_keep_types_and_leave_doubled_braces_alone() -> None:
    values = {"seed": 3, "sft": "stages/sft", "runs": ["a", "b"]}
    filled = overlay.fill(
        {
            "alone": "{seed}",
            "inside": ["{sft}/model-{seed}"],
            "list": "{runs}",
            "template": "{{seed}} {% if x %}",
            "json": '{"a": 1}',
            "number": 7,
        },
        values.__getitem__,
    )
    assert filled == {
        "alone": 3,
        "inside": ["stages/sft/model-3"],
        "list": ["a", "b"],
        "template": "{{seed}} {% if x %}",
        "json": '{"a": 1}',
        "number": 7,
    }


def test_a_list_of_folders_cannot_stand_inside_a_text() -> None:
    with pytest.raises(ConfigError, match=r"'runs' has 2 runs, so \{runs\} must stand alone"):
        overlay.fill("{runs}/model", {"runs": ["a", "b"]}.__getitem__)


@pytest.mark.parametrize(
    "text", ["5e-7", "1E3", "012", "2024-01-01", "yes", "null", "1:30", "a: b"]
)
def test_text_that_looks_like_something_else_is_written_in_quotes(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(overlay.write_yaml({"a": text, "b": [5e-7, 1e3, None, True]}))
    assert overlay.read_yaml(file) == {"a": text, "b": [5e-7, 1e3, None, True]}
