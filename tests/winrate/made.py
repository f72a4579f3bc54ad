"""Matches that are made up."""

from typing import Any

from alignlab.winrate.matches import Match


def match(own: str = "x", theirs: str = "y", **given) -> Match:
    """A match between two texts."""
    usual: dict[str, Any] = {"policy": "p", "against": "q", "temperature": 1.0, "pair": 0}
    named = {"place": 0, "prompt_id": "r0", "sample": 0, "prompt": "Say something."}
    return Match(**(usual | named | {"own": own, "theirs": theirs} | given))


def round_of(texts: list[tuple[str, str]], **given) -> list[Match]:
    """A match a prompt."""
    return [
        match(own, theirs, place=k, prompt_id=f"r{k}", prompt=f"Question {k}?", **given)
        for k, (own, theirs) in enumerate(texts)
    ]
