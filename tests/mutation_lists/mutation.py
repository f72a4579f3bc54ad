"""A bug to put into the code, and the test that must see it."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One bug.

    Args:
        bug: What goes wrong, in a few words.
        file: The file it is put in, under ``alignlab/``.
        old: Source that is in the file exactly once.
        new: What it becomes.
        test: Node id of a test, under ``tests/``, that must fail.
        group: The list it is in.
    """

    bug: str
    file: str
    old: str
    new: str
    test: str
    group: str = ""

    def holds(self, words: str) -> bool:
        """Whether ``words`` are in its group, its bug or its test."""
        return any(words in text for text in (self.group, self.bug, self.test))

    def source(self) -> str:
        """The changed source.

        Raises:
            LookupError: ``old`` is not in the file exactly once: the code has changed.
        """
        text = (ROOT / "alignlab" / self.file).read_text()
        if text.count(self.old) != 1:
            raise LookupError(
                f"{self.bug}: {self.old!r} stands {text.count(self.old)} times in "
                f"alignlab/{self.file}. Bring the mutation up to date."
            )
        return text.replace(self.old, self.new)
