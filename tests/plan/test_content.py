"""What counts as content: files, folders, and code of the user's."""

from pathlib import Path

import pytest

from alignlab.errors import ConfigError
from alignlab.plan import content as content_module
from alignlab.plan.content import by_content, source_of
from alignlab.plan.experiment import Plan, load_plan
from tests.plan.conftest import DPO, changed, shas, write


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


def test_data_count_by_content_not_by_place(experiment: Path, tmp_path: Path) -> None:
    def with_file(path: Path) -> Plan:
        stages = {"world": {"call": "m.world", "args": {"source": str(path)}}}
        return load_plan(write(experiment, pipeline={"stages": stages}))

    first, second = tmp_path / "a.jsonl", tmp_path / "deeper.jsonl"
    first.write_text("rows")
    second.write_text("rows")
    before = with_file(first)
    assert shas(before) == shas(with_file(second))
    second.write_text("rowz")
    assert changed(before, with_file(second)) == {"world"}


def test_a_folder_counts_by_the_content_of_its_files(experiment: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    stages = {"world": {"call": "m.world", "args": {"source": str(model)}}}
    before = load_plan(write(experiment, pipeline={"stages": stages}))
    (model / "weights").write_text("w")
    assert changed(before, load_plan(experiment)) == {"world"}


def test_a_pattern_counts_by_the_content_of_what_it_matches(
    experiment: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_text("a")
    stages = {"world": {"call": "m.world", "args": {"source": f"{tmp_path}/*.jsonl"}}}
    before = load_plan(write(experiment, pipeline={"stages": stages}))
    (tmp_path / "b.txt").write_text("b")
    assert changed(before, load_plan(experiment)) == set()
    (tmp_path / "b.jsonl").write_text("b")
    assert changed(before, load_plan(experiment)) == {"world"}


def test_what_a_run_writes_is_none_of_its_inputs(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(experiment, dpo=DPO | {"reference_cache": "cache/logps", "logs": {"save_dir": "logs/x"}})
    before = shas(load_plan(experiment))
    for made in ("cache/logps", "logs/x"):
        Path(made).mkdir(parents=True)
        (Path(made) / "file").write_text("made by the run")
    assert shas(load_plan(experiment)) == before


@pytest.mark.parametrize("text", ["/", "./", "../", "a/" * 3000])
def test_text_that_is_a_path_by_chance_is_text(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(experiment, pipeline={"stages": {"one": {"call": "m.f", "args": {"stop": text}}}})
    before = shas(load_plan(experiment))
    (tmp_path / "new").write_text("")
    assert shas(load_plan(experiment)) == before


def test_a_folder_of_very_many_files_is_no_input(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_module, "MOST_FILES", 3)
    for i in range(content_module.MOST_FILES + 1):
        (tmp_path / "demo" / f"f{i}").touch()
    stages = {"one": {"call": "m.f", "args": {"source": str(tmp_path / "demo")}}}
    write(experiment, pipeline={"stages": stages})
    with pytest.raises(ConfigError, match="a folder of more than 3 files"):
        load_plan(experiment)
