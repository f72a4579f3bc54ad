import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from alignlab.errors import ConfigError
from alignlab.sweep import storage
from alignlab.sweep.storage import has_password, open_storage, shown, without_password

URL = "postgresql://lab:s3cret@127.0.0.1:1/db"


def open_and_close(url: str) -> None:
    with open_storage(url):
        pass


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"storage postgresql.*lab:\*\*\*@127.0.0.1:1/db: ") as e:
        open_and_close(URL)
    assert "s3cret" not in str(e.value)


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        (URL, "postgresql://lab:***@127.0.0.1:1/db"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("postgresql://lab:s3:cr@et@host:port/db", "postgresql://***"),
        (
            "postgresql://host/db?password=s3%26t&user=lab",
            "postgresql://host/db?password=***&user=lab",
        ),
    ],
)
def test_what_is_shown_of_a_url(url: str, safe: str) -> None:
    assert shown(url) == safe


def test_a_password_in_a_message_is_blotted_out_as_given_and_decoded() -> None:
    url = "postgresql://lab:a%40b@host/db"
    assert without_password(url, "no a%40b and no a@b here") == "no *** and no *** here"
    url = "postgresql://host/db?password=a%40b"
    assert without_password(url, "no a%40b and no a@b here") == "no *** and no *** here"
    assert has_password(url)
    assert not has_password("postgresql://lab@host/db")


@pytest.mark.parametrize("url", ["mysql://lab:s3cret@host/db", "study.db", "redis://:s3cret@host"])
def test_other_kinds_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"of an unknown kind\. Known: sqlite:///FILE") as caught:
        open_and_close(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite", "sqlite:///", "sqlite://lab:s3cret@host/x.db", "journal://", "journal:///",
        "journal://tmp/x.log", "postgresql://", "postgresql://lab:s3cret@host:port/db",
    ],
)  # fmt: skip
def test_urls_that_name_nothing(url: str) -> None:
    with pytest.raises(
        ConfigError, match=r"is not the URL of a storage\. Known: sqlite:///FILE"
    ) as e:
        open_and_close(url)
    assert "s3cret" not in str(e.value)


@pytest.mark.parametrize("content", [b"import x", b'{"a": 1}\n', b"[3]\n", b"\xff\xfe\n"])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "setup.py"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"not a study's journal\. Name another file"):
        open_and_close(f"journal:///{path}")
    assert path.read_bytes() == content


def test_a_journal_with_a_broken_line(tmp_path: Path) -> None:
    with open_storage(f"journal:///{tmp_path}/x.log") as opened:
        opened.create_new_study([StudyDirection.MINIMIZE], "x")
    open_and_close(f"journal:///{tmp_path}/x.log")
    lines = (tmp_path / "x.log").read_text()
    (tmp_path / "x.log").write_text(f"{lines}no journal\n{lines}")
    with pytest.raises(ConfigError, match="not a study's journal"):
        open_and_close(f"journal:///{tmp_path}/x.log")


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Name a file that can be written"):
        open_and_close(f"journal:///{tmp_path}/file/x.log")
    with pytest.raises(ConfigError, match="Name a file that can be written"):
        open_and_close(f"sqlite:///{tmp_path}/file/x.db")
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(ConfigError, match="Nothing is lost"):
        open_and_close(f"sqlite:///{tmp_path}/folder.db")


def test_a_locked_database_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 0.1)
    url = f"sqlite:///{tmp_path}/study.db"
    locked = r"study\.db: database is locked\. Nothing is lost"
    with pytest.raises(ConfigError, match=locked):
        write_while_locked(url, tmp_path / "study.db")


def write_while_locked(url: str, database: Path) -> None:
    with open_storage(url) as opened, closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        opened.create_new_study([], "x")


def test_of_two_processes_that_claim_a_trial_at_once_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is delayed between reading that the trial waits and writing that it runs."""
    check = optuna.storages.RDBStorage.check_trial_is_updatable

    def slow(self: Any, *args: Any) -> None:
        check(self, *args)
        time.sleep(0.2)

    url = f"sqlite:///{tmp_path}/study.db"
    with open_storage(url) as one, open_storage(url) as other:
        study = optuna.create_study(storage=one)
        study.enqueue_trial({"x": 1})
        trial_id = study.trials[0]._trial_id
        monkeypatch.setattr(optuna.storages.RDBStorage, "check_trial_is_updatable", slow)
        with ThreadPoolExecutor(2) as pool:
            claims = [
                pool.submit(each.set_trial_state_values, trial_id, TrialState.RUNNING)
                for each in (one, other)
            ]
        assert sorted(claim.result() for claim in claims) == [False, True]
