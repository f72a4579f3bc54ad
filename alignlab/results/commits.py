"""The commit of the code: what records name, and what two of them differ by."""

import subprocess
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
CHANGED = "-changed"  # behind a commit from which files differed


def present_commit() -> str:
    """The commit of the code; marked where files differ from it, ``unknown`` outside git."""
    head, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", ".")
    if head is None or changed is None:
        return "unknown"
    return f"{head.strip()}{CHANGED}" if changed else head.strip()


def git(*words: str) -> str | None:
    """What git prints about this package's repository; ``None`` where it fails or is not there."""
    command = ["git", *words]
    try:
        done = subprocess.run(command, cwd=PACKAGE, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def code_between(first: str, second: str) -> str:
    """What two recorded commits of the code differ by, in a phrase."""
    if not first or not second:
        return "not recorded for " + ("both" if not first and not second else "one of them")
    if first == second:
        return f"the same commit, {short(first)}"
    own, other = first.removesuffix(CHANGED), second.removesuffix(CHANGED)
    changed = git("diff", "--shortstat", own, other, "--", ".")
    known = (
        f" ({changed.strip() or 'no file of the package differs'})" if changed is not None else ""
    )
    return f"{short(first)} -> {short(second)}{known}"


def short(commit: str) -> str:
    """A commit as people write it."""
    known = f"{commit.removesuffix(CHANGED)[:12]}"
    return f"{known} with uncommitted changes" if commit.endswith(CHANGED) else known
