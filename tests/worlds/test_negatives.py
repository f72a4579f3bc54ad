"""Worse summaries: what each kind keeps and what it breaks."""

from collections import Counter

import pytest

from alignlab.data.rows import Refused
from alignlab.worlds.negatives import (
    KINDS,
    generic_summary,
    kind_of,
    other_summary,
    shuffled_words,
)

IDS = [f"t3_{k}" for k in range(600)]


def test_kinds_are_even_and_a_function_of_seed_and_id() -> None:
    drawn = [kind_of(id, KINDS, 0) for id in IDS]
    assert all(150 <= n <= 250 for n in Counter(drawn).values())  # 200 expected, sd 12
    assert drawn == [kind_of(id, KINDS, 0) for id in IDS]
    assert drawn != [kind_of(id, KINDS, 1) for id in IDS]
    assert {kind_of(id, ["words"], 0) for id in IDS} == {"words"}


def test_another_posts_summary_is_never_ones_own() -> None:
    pool = ["own", "own", "one", "two"]
    found = Counter(other_summary(id, "own", pool, 0) for id in IDS)
    assert found.keys() == {"one", "two"}
    with pytest.raises(Refused, match="no other summary"):
        other_summary("t3_1", "own", ["own", "own"], 0)


def test_shuffled_words_are_the_same_words() -> None:
    text = "my cat ate cake"
    found = {shuffled_words(id, text, 0) for id in IDS}  # 25 of 600 draws are the same order
    assert all(sorted(one.split()) == sorted(text.split()) for one in found)
    assert len(found) == 23
    assert text not in found
    with pytest.raises(Refused, match="too few words to shuffle"):
        shuffled_words("t3_1", "no no no way out", 0)


def test_generic_summaries_are_about_as_long_and_their_halves_share_no_sentence() -> None:
    def sentences(text: str) -> set[str]:
        return {part.strip(" .?") for part in text.replace("?", ".").split(". ") if part}

    wholes: dict[str, set[str]] = {"train": set(), "held_out": set()}
    for side, seen in wholes.items():
        for words in (8, 20, 40):
            own = " ".join(["word"] * words)
            made = [generic_summary(id, own, side, 0) for id in IDS]  # type: ignore[arg-type]
            assert all(abs(len(one.split()) - words) <= 8 for one in made)
            seen.update(one for one in made if words == 8)
    assert not wholes["train"] & wholes["held_out"]
    assert min(map(len, wholes.values())) > 40
    assert generic_summary("t3_1", "a b", "train", 0) != generic_summary("t3_1", "a b", "train", 1)
