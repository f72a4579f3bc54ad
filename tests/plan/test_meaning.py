from pathlib import Path

import pytest
from jsonargparse import ArgumentParser, Namespace

from alignlab.errors import ConfigError
from alignlab.plan.meaning import check_meaning, check_words


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        (1, 1.0),
        ("word", "word"),
        (None, None),
        ([1, "a"], [1, "a"]),
        ({"class_path": "a.B", "init_args": {"x": 1}},
         Namespace(class_path="a.B", init_args=Namespace(x=1.0, y="default"))),
        ("a.B", Namespace(class_path="a.B")),
    ],
)  # fmt: skip
def test_what_means_the_same(given: object, parsed: object) -> None:
    check_meaning({"model": given}, Namespace(model=parsed))


@pytest.mark.parametrize(
    ("given", "parsed", "shown"),
    [
        ("0.1", 0.1, "model.0 is the text '0.1' and would be read as the number 0.1"),
        ("null", None, "would be read as null"),
        ("true", True, "would be read as true"),
        (
            {"rate": "1"},
            Namespace(class_path="a.B", init_args=Namespace(rate=1.0)),
            "model.0.rate is the text '1'",
        ),
        ("[a]", ["a"], "would be read as ['a']"),
        ("[0.9, 0.95]", (0.9, 0.95), "would be read as (0.9, 0.95)"),
        ("a: b", {"a": "b"}, "would be read as {'a': 'b'}"),
    ],
)
def test_text_that_is_read_as_something_else(given: object, parsed: object, shown: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_meaning({"model": [given]}, Namespace(model=[parsed]))
    assert shown in str(caught.value)


def test_this_is_what_the_parser_would_do() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--split", type=str | None)
    parser.add_argument("--rate", type=float)
    given = {"split": "null", "rate": "0.1"}
    parsed = parser.parse_object(given)
    assert (parsed.split, parsed.rate) == (None, 0.1)
    with pytest.raises(ConfigError, match="the text"):
        check_meaning(given, parsed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config", "one.yaml"], "model.init_args.rate is the text '0.1'"),
        (["--config=one.yaml", "--model.init_args.x", "1"], "rate is the text '0.1'"),
        (["--config", "two.yaml", "--config", "one.yaml"], "rate is the text '0.1'"),
        (["--config", "one.yaml", "--model.init_args.rate", "0.2"], None),
        (["--config", "one.yaml", "--config", "two.yaml"], None),
        (["--config", "one.yaml", "--model.class_path", "a.B"], None),
    ],
)
def test_files_of_a_command_line_but_for_what_its_words_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text('model: {init_args: {rate: "0.1"}}\n')
    Path("two.yaml").write_text("model: {init_args: {rate: 0.1}}\n")
    parsed = Namespace(model=Namespace(class_path="a.B", init_args=Namespace(rate=0.1, x=1)))
    if said is None:
        check_words(words, parsed)
    else:
        with pytest.raises(ConfigError, match=said):
            check_words(words, parsed)
