"""What is left of a run that fails before its first batch, and of one that fails later."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignlab.errors import ConfigError
from alignlab.training.refused import nothing_left


def end(folder: Path, *, begun: bool, world_size: int = 1) -> None:
    """Write the files of a run into ``folder`` and then fail."""

    def train() -> None:
        with nothing_left(trainer, resume):
            (folder / "points").mkdir(parents=True)
            for name in ("config.yaml", "rows.csv", "run.json", "points/1.json", "own.txt"):
                (folder / name).write_text("new")
            resume.begun = begun
            raise ConfigError("no")

    trainer: Any = SimpleNamespace(
        log_dir=str(folder), default_root_dir="elsewhere", world_size=world_size
    )
    resume: Any = SimpleNamespace(begun=False)
    with pytest.raises(ConfigError):
        train()


def test_a_new_folder_goes_with_those_above_it_that_are_empty(tmp_path: Path) -> None:
    end(tmp_path / "results" / "logs" / "version_0", begun=False)
    assert not list(tmp_path.iterdir())
    (tmp_path / "results" / "logs" / "version_0").mkdir(parents=True)
    end(tmp_path / "results" / "logs" / "version_1", begun=False)
    assert [path.name for path in (tmp_path / "results" / "logs").iterdir()] == ["version_0"]


def test_of_a_folder_with_files_the_new_ones_of_a_training_go(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("old")
    end(tmp_path, begun=False)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"config.yaml", "own.txt", "points", "points/1.json"}


@pytest.mark.parametrize("how", [{"begun": True}, {"begun": False, "world_size": 2}])
def test_a_training_that_began_and_one_of_several_processes_keep_theirs(
    tmp_path: Path, how: Any
) -> None:
    end(tmp_path / "run", **how)
    assert (tmp_path / "run" / "run.json").is_file()
