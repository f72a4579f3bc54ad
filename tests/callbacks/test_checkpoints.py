"""A checkpoint with one changed bit is never continued; the one before it is."""

import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from alignlab.callbacks import checkpoints
from alignlab.callbacks.checkpoints import LAST, PREVIOUS, is_whole, newest, put_in_place
from alignlab.errors import ConfigError


def write(folder: Path, step: int) -> Path:
    beside = checkpoints.temporary(folder)
    torch.save({"loops": {}, "global_step": step, "weights": torch.arange(300.0)}, beside)
    put_in_place(beside, folder)
    return folder / LAST


def step_of(path: Path) -> Any:
    return checkpoints.read(path)["global_step"]


def test_the_last_two_are_kept_and_nothing_else(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LAST, PREVIOUS]
    assert (step_of(tmp_path / LAST), step_of(tmp_path / PREVIOUS)) == (3, 2)
    assert torch.load(tmp_path / LAST, weights_only=True)["weights"][7] == 7
    assert zipfile.ZipFile(tmp_path / LAST).testzip() is None


def test_no_changed_bit_and_no_missing_byte_passes(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    right = path.read_bytes()
    rng = random.Random(0)
    seal = len(right) - 71  # where the comment begins: "sha256:" and 64 digits
    for at in [*rng.sample(range(seal - 2), 200), seal + 7, len(right) - 1]:
        wrong = bytearray(right)
        wrong[at] ^= 1 << rng.randrange(8)
        path.write_bytes(wrong)
        assert not is_whole(path), at
    for length in (0, 1, 100, len(right) // 2, seal - 3):
        path.write_bytes(right[:length])
        assert not is_whole(path), length
    path.write_bytes(right)
    assert is_whole(path)


def test_one_without_a_seal_is_checked_by_its_sums(tmp_path: Path) -> None:
    path = tmp_path / "epoch=1.ckpt"
    torch.save({"loops": {}, "weights": torch.arange(300.0)}, path)
    assert is_whole(path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(300.0).numpy().tobytes()) + 500] ^= 4
    path.write_bytes(content)
    assert not is_whole(path)


def test_the_newest_whole_one_is_found(tmp_path: Path) -> None:
    assert newest(tmp_path) == (None, [])
    for step in (1, 2):
        write(tmp_path, step)
    assert newest(tmp_path) == (tmp_path / LAST, [])
    (tmp_path / LAST).write_bytes(b"PK")
    assert newest(tmp_path) == (tmp_path / PREVIOUS, [f"{tmp_path / LAST} is damaged"])
    (tmp_path / LAST).unlink()  # killed between the two renames
    assert newest(tmp_path) == (tmp_path / PREVIOUS, [])
    (tmp_path / PREVIOUS).write_bytes(b"")
    assert newest(tmp_path) == (None, [f"{tmp_path / PREVIOUS} is damaged"])


def test_a_named_checkpoint_that_is_damaged(tmp_path: Path) -> None:
    for step in (1, 2):
        write(tmp_path, step)
    (tmp_path / LAST).write_bytes(b"")
    assert checkpoints.whole_or_previous(tmp_path / LAST) == tmp_path / PREVIOUS
    other = tmp_path / "other.ckpt"
    other.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"other\.ckpt: not a checkpoint, or a damaged one"):
        checkpoints.whole_or_previous(other)


def test_what_is_no_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(1)}, tmp_path / "weights.ckpt")
    with pytest.raises(ConfigError, match="not a checkpoint of a training run"):
        checkpoints.read(tmp_path / "weights.ckpt")
    (tmp_path / "text.ckpt").write_text("x")
    with pytest.raises(ConfigError, match="cannot be read as a checkpoint"):
        checkpoints.read(tmp_path / "text.ckpt")
