import subprocess
from pathlib import Path

import pytest

from alignlab.results import commits
from alignlab.results.commits import code_between, present_commit, short


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one file in one commit, which counts as the package."""
    monkeypatch.setattr(commits, "PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text("1\n")
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    commit(tmp_path)
    return tmp_path


def commit(folder: Path) -> None:
    who = ["-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run(["git", *who, "commit", "-qam", "m"], cwd=folder, check=True)


def test_a_commit_is_marked_where_files_differ_from_it(repository: Path) -> None:
    first = present_commit()
    assert len(first) == 40
    assert short(first) == first[:12]
    (repository / "a.py").write_text("2\n")
    assert present_commit() == f"{first}-changed"
    assert short(f"{first}-changed") == f"{first[:12]} with uncommitted changes"


def test_two_commits_differ_by_files(repository: Path) -> None:
    first = present_commit()
    (repository / "a.py").write_text("2\n")
    commit(repository)
    second = present_commit()
    assert code_between(first, second) == (
        f"{first[:12]} -> {second[:12]} (1 file changed, 1 insertion(+), 1 deletion(-))"
    )
    assert code_between(first, first) == f"the same commit, {first[:12]}"
    assert code_between("", first) == "not recorded for one of them"
    assert code_between("", "") == "not recorded for both"
    assert code_between("feed", "beef") == "feed -> beef"  # not of this repository


def test_outside_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "PACKAGE", tmp_path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert present_commit() == "unknown"
