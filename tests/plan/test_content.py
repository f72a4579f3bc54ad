"""What counts as content: files, folders, and code of the user's."""

from pathlib import Path

import pytest

from alignlab.plan.content import by_content, source_of


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_edited_reward_counts_and_so_does_what_it_imports_of_the_users(here: Path) -> None:
    (here / "kit").mkdir()
    (here / "myrewards.py").write_text("import torch\nfrom kit import words\nclass Ints: ...\n")
    (here / "kit" / "__init__.py").write_text("")
    (here / "kit" / "words.py").write_text("from . import deep\n")
    (here / "kit" / "deep.py").write_text("x = 1\n")
    (here / "kit" / "other.py").write_text("")
    config = {"reward": {"class_path": "myrewards.Ints", "init_args": {"k": 1}}}
    first = by_content(config)
    assert first["reward"]["class_path"]["code"] == "myrewards.Ints"
    assert by_content(config) == first
    (here / "kit" / "other.py").write_text("nobody imports this")
    assert by_content(config) == first
    for name in ("myrewards.py", "kit/words.py", "kit/deep.py", "kit/__init__.py"):
        before = by_content(config)
        with (here / name).open("a") as file:
            file.write("# another thought\n")
        assert by_content(config) != before, name
    by_name = by_content({"reward": "myrewards.Ints", "call": "myrewards.make"})
    assert all("sha256" in found for found in by_name.values())


@pytest.mark.parametrize(
    "name",
    [
        "alignlab.objectives.dpo.DPO",
        "torch.optim.AdamW",
        "collections.Counter",
        "no.such.thing",
        "w3.w4",
        "1.5",
    ],
)
def test_our_own_and_libraries_count_by_name(name: str) -> None:
    assert by_content({"class_path": name}) == {"class_path": name}


def test_code_that_does_not_parse_counts_by_its_bytes(here: Path) -> None:
    (here / "broken.py").write_text("def (")
    first = source_of("broken.Reward")
    (here / "broken.py").write_text("def ((")
    assert None not in (first, source_of("broken.Reward"))
    assert source_of("broken.Reward") != first


def test_files_and_folders_count_wherever_they_lie(here: Path) -> None:
    for folder in ("a", "b"):
        (here / folder).mkdir()
        (here / folder / "rows.jsonl").write_text("{}")
    assert by_content("./a/rows.jsonl") == by_content("./b/rows.jsonl")
    assert by_content("./a") == by_content("./b") == by_content("{experiment}/a", here)
    before = by_content("./a")
    (here / "a" / "rows.jsonl").write_text("{1}")
    assert by_content("./a") != before
