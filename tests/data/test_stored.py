"""Tokenised rows in a file are those in memory, whatever happens to the file."""

import errno
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from alignlab.data import sources, stored
from alignlab.data.modules import (
    DemonstrationData,
    JudgedData,
    LabelledData,
    PreferenceData,
    PromptData,
    RankingData,
    TextData,
    TreeData,
)
from alignlab.data.rows import Turn
from alignlab.data.stored import StoredTrees, cache_folder
from alignlab.data.tree import TreeBounds, bounds_of
from alignlab.errors import DataError
from tests.data.files import jsonl
from tests.data.tokens import CHATML, bytewise, merging


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, for files of any size, with few trees in a batch."""
    monkeypatch.setenv(stored.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "STORED_FROM", 0)
    monkeypatch.setattr(stored, "AT_ONCE", 3)
    monkeypatch.setattr("alignlab.data.tokenise.AT_ONCE", 2)  # before all rows are read
    return tmp_path / "cache"


def made(data: TreeData, tokenizer: Any) -> TreeData:
    data.connect(tokenizer)
    data.setup()
    return data


SAID = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "cc"},
    {"role": "assistant", "content": "d", "name": "x"},
]
PAIRS: list[dict[str, Any]] = [
    {"prompt": "c" * (k % 3 + 1), "chosen": "a" * (k % 4 + 1), "rejected": "d", "id": "twice"}
    for k in range(11)
]
PAIRS[4] |= {"margin": 1.25}
PAIRS[6]["chosen"] = "d"
PAIRS[3]["chosen"] = "a" * 200
KINDS: list[tuple[type[TreeData], list[dict[str, Any]]]] = [
    (PreferenceData, PAIRS),
    (DemonstrationData, [{"messages": SAID[: 2 + 2 * (k % 2)]} for k in range(8)]),
    (RankingData, [{"prompt": "c", "completions": ["a", "b", "d"], "ranks": [1, 3, 2]}] * 4),
    (JudgedData, [{"prompt": "c", "completion": "ab"[k % 2], "label": k % 2} for k in range(5)]),
    (PromptData, [{"prompt": SAID[:1]}, {"prompt": SAID[:3]}] * 3),
    (PromptData, [{"prompt": "c"}, {"prompt": "ca"}, {"prompt": 5}] * 3),
    (TextData, [{"text": "acd" * (k + 1), "label": 1} for k in range(9)]),
    (LabelledData, [{"text": "acd" * (k + 1), "label": k} for k in range(9)]),
]


def everything(data: TreeData) -> list[Any]:
    """What other code sees of the rows."""
    trees = [*data.train_trees, *data.validation_trees]
    joined = data.train_trees + data.validation_trees  # type: ignore[operator]
    assert list(joined) == trees
    return [
        trees,
        [(tree.row, tree.source) for tree in trees],
        (len(data.train_trees), len(data.validation_trees), data.shared_prompts),
        (data.report(), data.report_table()),
        data.train_rows,
        data.validation_rows,
    ]


@pytest.mark.parametrize(
    ("kind", "rows", "held_out"),
    [
        (kind, rows, held_out)
        for kind, rows in KINDS
        for held_out in ("nothing", "share", "file")
        # A share is held out by prompt, and the other kinds have too few prompts for two sides.
        if held_out != "share" or kind in (PreferenceData, TextData, LabelledData)
    ],
)
def test_trees_reports_and_batches_are_those_in_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, rows: Any, held_out: str
) -> None:
    source = str(jsonl(folder.parent, rows))
    settings: dict[str, Any] = {"batch_size": 2, "max_length": 150, "seed": 3}
    if held_out == "share":
        settings |= {"validation_share": 0.4}
    elif held_out == "file":
        settings |= {"validation_source": source, "validation_limit": 4, "limit": 5}
    tokenizer = bytewise(CHATML, eos="<|im_end|>")
    own = [made(kind(source, **settings), tokenizer) for _ in range(2)]  # written, read again
    assert len(list(folder.glob("*.arrow"))) == 1
    monkeypatch.setattr(sources, "STORED_FROM", 1e9)
    held = made(kind(source, **settings), tokenizer)
    assert isinstance(held.train_trees, list)
    for data in own:
        assert isinstance(data.train_trees, StoredTrees)
        assert everything(data) == everything(held)
        for ours, theirs in zip(data.train_dataloader(), held.train_dataloader(), strict=True):
            assert torch.equal(ours.completion_ids, theirs.completion_ids)
            assert torch.equal(ours.loss_mask, theirs.loss_mask)
            assert (ours.ids, ours.totals) == (theirs.ids, theirs.totals)


def test_a_tree_is_found_at_its_place(folder: Path) -> None:
    rows = [{"prompt": "c" * (k + 1), "completion": "a"} for k in range(8)]
    trees = made(DemonstrationData(str(jsonl(folder.parent, rows)), 2), merging()).train_trees
    assert [len(tree.prompt) for tree in trees] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert isinstance(trees, StoredTrees)
    assert trees.lengths == [4, 5, 6, 7, 8, 9, 10, 11]
    assert (trees[-1].index, trees[2].id) == (7, "rows.jsonl:3")
    assert [tree.index for tree in trees[5:2:-1]] == [5, 4, 3]
    with pytest.raises(IndexError):
        trees[8]


def test_ids_take_two_bytes_each_and_masks_a_bit(folder: Path) -> None:
    rows = [{"prompt": "c" * 400, "completion": "d" * 1600}] * 6
    data = made(DemonstrationData(str(jsonl(folder.parent, rows)), 2, max_length=3000), merging())
    tokens = sum(tree.longest for tree in data.train_trees)
    (file,) = folder.glob("*.arrow")
    assert tokens * 2 < file.stat().st_size < tokens * 2.5
    chats = [{"messages": [SAID[0], {"role": "assistant", "content": "d" * 1600}, *SAID[2:]]}] * 6
    data = made(DemonstrationData(str(jsonl(folder.parent, chats)), 2, max_length=3000),
                bytewise(CHATML, eos="<|im_end|>"))  # fmt: skip
    tokens = sum(tree.longest for tree in data.train_trees)
    (other,) = set(folder.glob("*.arrow")) - {file}
    assert data.train_trees[0].loss_masks is not None
    assert tokens * 2 < other.stat().st_size < tokens * 2.6


# ---------------------------------------------------------------- the cache


def pairs(folder: Path, **settings: Any) -> PreferenceData:
    source = folder.parent / "rows.jsonl"
    if not source.exists():
        jsonl(folder.parent, PAIRS)
    return PreferenceData(str(source), **{"batch_size": 2, "max_length": 40, **settings})


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.arrow")}


def test_rows_are_tokenised_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = made(pairs(folder), merging())
    assert f"tokenised rows: {folder}" in capsys.readouterr().err

    def again(*_: Any) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(PreferenceData, "_rows", again)
    second = made(pairs(folder, batch_size=4), merging())
    assert list(second.train_trees) == list(first.train_trees)
    assert second.report() == first.report()


def test_other_rows_tokenizer_template_length_or_code_have_a_file_of_their_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(tokenizer: Any, **settings: Any) -> int:
        made(pairs(folder, **settings), tokenizer)
        return len(files(folder))

    assert add(bytewise()) == 1
    assert add(bytewise(), seed=9) == 1  # shuffles alone
    assert add(bytewise(CHATML)) == 2
    assert add(bytewise(double_newline=True)) == 3
    assert add(bytewise(eos="<|im_end|>")) == 4
    assert add(bytewise(), max_length=30) == 5
    assert add(bytewise(), refuse="drop", limit=3) == 6
    assert add(bytewise(), validation_share=0.5, seed=0) == 7
    assert add(bytewise(), validation_share=0.5, seed=1) == 8
    jsonl(folder.parent, PAIRS[:-1])
    assert add(bytewise()) == 9
    (folder.parent / "code.py").write_text("other = True\n")
    monkeypatch.setattr(stored, "_ROOM", folder.parent)
    assert add(bytewise()) == 10


@pytest.mark.parametrize("harm", ["a bit", "its end", "its record", "its record's bit"])
def test_a_damaged_file_is_written_again_with_a_line(
    folder: Path, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    before = made(pairs(folder), merging())
    trees, report = list(before.train_trees), before.report()
    (path,) = folder.glob("*.arrow")
    whole, record = path.read_bytes(), path.with_suffix(".json")
    if harm == "a bit":
        path.write_bytes(whole[:900] + bytes([whole[900] ^ 1]) + whole[901:])
    elif harm == "its end":
        path.write_bytes(whole[:-1])
    elif harm == "its record":
        record.unlink()
    else:
        record.write_text(record.read_text().replace("rows", "sows", 1))
    capsys.readouterr()
    after = made(pairs(folder), merging())
    assert f"{path} is damaged or incomplete; its rows are tokenised again" in (
        capsys.readouterr().err
    )
    assert list(after.train_trees) == trees
    assert after.report() == report
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_means_memory(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write_text("a file where the folder should be")
    data = made(pairs(folder), merging())
    assert len(data.train_trees) == 9
    said = capsys.readouterr().err
    assert "note: tokenised rows are held in memory" in said
    assert "File exists. Set ALIGNLAB_CACHE" in said


def test_a_disk_that_fills_up_means_memory_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, calls = pa.ipc.RecordBatchFileWriter.write_batch, []

    def full(self: Any, batch: Any) -> None:
        calls.append(len(batch))
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, batch)

    monkeypatch.setattr(pa.ipc.RecordBatchFileWriter, "write_batch", full)
    data = made(pairs(folder), merging())
    assert "No space left on device. Set ALIGNLAB_CACHE" in capsys.readouterr().err
    assert len(data.train_trees) == 9
    assert data.reports["train"].seen == 11
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_rows_that_cannot_be_used_are_no_fault_of_the_folder(folder: Path) -> None:
    jsonl(folder.parent, [{"prompt": "c", "chosen": "a", "rejected": "a"}])
    with pytest.raises(DataError, match="none of its 1 rows can be used: chosen and rejected"):
        made(pairs(folder), merging())
    assert files(folder) == set()


def test_one_writes_and_others_wait(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs(folder)
    together, entered, found = threading.Barrier(4), [], []
    rows = PreferenceData._rows

    def slowly(self: Any, *args: Any) -> Any:
        entered.append(threading.get_ident())
        threading.Event().wait(0.2)
        return rows(self, *args)

    monkeypatch.setattr(PreferenceData, "_rows", slowly)

    def work() -> None:
        data, tokenizer = pairs(folder), merging()
        together.wait()
        found.append(list(made(data, tokenizer).train_trees))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(entered) == 1
    assert found == [found[0]] * 4


class Own(PreferenceData):
    """Of this test, not of alignlab."""


def test_small_files_and_other_peoples_rows_stay_in_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs(folder)
    data = made(Own(str(folder.parent / "rows.jsonl"), 2), merging())
    assert isinstance(data.train_trees, list)
    monkeypatch.setattr(sources, "STORED_FROM", 10_000)
    assert isinstance(made(pairs(folder), merging()).train_trees, list)
    assert not folder.exists()


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, wanted in (("", None), ("/some/where", Path("/some/where"))):
        monkeypatch.setenv(stored.FOLDER, value)
        assert cache_folder() == wanted
    monkeypatch.delenv(stored.FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/alignlab/rows")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "alignlab" / "rows"


def test_a_conversation_comes_back_as_turns(folder: Path) -> None:
    data = made(
        PromptData(str(jsonl(folder.parent, [{"prompt": SAID[:3]}])), 1),
        bytewise(CHATML, eos="<|im_end|>"),
    )
    assert data.train_trees[0].source == (
        Turn("user", "a"),
        Turn("assistant", "b"),
        Turn("user", "cc"),
    )


def test_a_file_knows_its_longest_tree_and_its_largest_id(folder: Path) -> None:
    rows = [{"prompt": "ccdcc", "completion": "a"}, *([{"prompt": "c", "completion": "a"}] * 5)]
    data = made(DemonstrationData(str(jsonl(folder.parent, rows)), 2), merging())
    assert bounds_of(data.train_trees) == TreeBounds(8, 6)  # bos c c d c c a eos, d is 6
    assert bounds_of(list(data.train_trees)) == TreeBounds(8, 6)


def test_memory_does_not_grow_with_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """800 more pairs of 300 tokens cost hashes of theirs; their text alone has 300 bytes a pair."""
    monkeypatch.setattr(stored, "AT_ONCE", 16)
    monkeypatch.setattr("alignlab.data.tokenise.AT_ONCE", 16)
    tokenizer = bytewise(CHATML, eos="<|im_end|>")

    def peak(pairs: int) -> int:
        row = {"prompt": "ca" * 50, "chosen": "a" * 100, "rejected": "d" * 100}
        rows = [row | {"prompt": f"{row['prompt']}{k}"} for k in range(pairs)]
        at = folder.parent / str(pairs)
        at.mkdir()
        data = PreferenceData(str(jsonl(at, rows)), batch_size=2, max_length=300)
        data.connect(tokenizer)
        tracemalloc.start()
        try:
            data.setup()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # what is imported and compiled at the first use
    assert peak(1600) - peak(800) < 800 * 100
