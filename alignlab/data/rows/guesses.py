"""Which column of a file may be the one that a row lacks, for messages: nothing is read by it."""

from collections.abc import Collection, Sequence

OFTEN = {  # what files call our columns
    "prompt": ("question", "query", "instruction", "input", "problem"),
    "completion": ("answer", "response", "output", "reply", "target"),
    "messages": ("conversation", "conversations", "dialogue", "dialog", "chat"),
    "chosen": ("chosen_response", "response_chosen", "preferred", "better", "accepted"),
    "rejected": ("rejected_response", "response_rejected", "dispreferred", "worse"),
    "completions": ("responses", "answers", "outputs", "candidates"),
    "ranks": ("rank", "ranking", "rankings"),
    "rating": ("score", "reward"),
    "ratings": ("scores", "rewards"),
    "text": ("content", "document", "review"),
}


def guess(name: str, found: Collection[str]) -> str | None:
    """The one of the columns found that is likeliest to hold ``name``, if any is likely."""
    plain = {column.strip().lower(): column for column in found}
    return next((plain[word] for word in (name, *OFTEN.get(name, ())) if word in plain), None)


def unknown(needs: Sequence[str], found: Collection[str]) -> int:
    """How many of the columns needed no column found may be."""
    return sum(guess(name, found) is None for name in needs)


def mapping(missing: Sequence[str], found: Collection[str]) -> str:
    """The setting that would read the columns found as those missing, as far as it can be guessed.

    ``columns: {prompt: question}``; ``COLUMN`` stands for a name that only the reader knows.
    """
    pairs = ", ".join(f"{name}: {guess(name, found) or 'COLUMN'}" for name in missing)
    return f"columns: {{{pairs}}}"
