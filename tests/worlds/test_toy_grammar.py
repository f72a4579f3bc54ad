"""The grammar's next words against hand-made probabilities and against what it writes."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from alignlab.worlds.toy import all_prompts, is_review, write_completion
from alignlab.worlds.toy_grammar import END, bigrams, next_words

PROMPT = "the plot of this old film is"


def test_the_first_words_by_hand() -> None:
    """After "is" comes an opinion, and a plain "superb" is a glowing one (0.1)."""
    found = next_words(PROMPT, ())
    # glowing 0.10, not negated 0.9, no intensifier 0.6, superb 0.3
    assert found["superb"] == pytest.approx(0.10 * 0.9 * 0.6 * 0.3)
    # negators open 0.10, 0.30, 0.25, 0.10 of the four levels' opinions, "never" 0.3 of them
    negated = 0.20 * 0.10 + 0.43 * 0.30 + 0.27 * 0.25 + 0.10 * 0.10
    assert found["never"] == pytest.approx(0.3 * negated)
    assert sum(found.values()) == pytest.approx(1.0)


def test_within_an_opinion_by_hand() -> None:
    """After "very": only levels that are not negated, each as often as it says "very"."""
    very = {
        "harsh": 0.20 * 0.90 * 0.15,
        "poor": 0.43 * 0.70 * 0.15,
        "fair": 0.27 * 0.75 * 0.15,
        "glowing": 0.10 * 0.90 * 0.22,
    }
    found = next_words(PROMPT, ("very",))
    assert found["superb"] == pytest.approx(0.3 * very["glowing"] / sum(very.values()))
    assert found["awful"] == pytest.approx(0.5 * very["harsh"] / sum(very.values()))
    assert sum(found.values()) == pytest.approx(1.0)
    assert "very" not in found


def test_after_an_opinion_by_hand() -> None:
    """A glowing review goes on with 0.42: to praise (0.8) with "and" or a comma, else "but"."""
    found = next_words(PROMPT, ("superb",))
    expected = {
        ".": 0.58,
        "and": 0.42 * 0.8 * 0.7,
        ",": 0.42 * 0.8 * 0.3,
        "but": 0.42 * 0.2,
    }
    assert found == pytest.approx(expected)


def test_the_end_and_what_cannot_be() -> None:
    assert next_words(PROMPT, ("superb", ".")) == {END: 1.0}
    assert next_words(PROMPT, ("superb", ".", "and")) == {}
    assert next_words(PROMPT, ("is",)) == {}
    assert next_words("the plot", ()) == pytest.approx({"is": 0.5, "was": 0.5})
    late = ("not", "very", "fun", "and", "the", "music", "is", "not", "very", "fun", "but", "fun")
    assert next_words(PROMPT, late)["."] == 1.0  # no further opinion begins after 11 words


def test_another_aspect_in_the_same_tense() -> None:
    found = next_words(PROMPT, ("superb", "and", "the"))
    assert found == pytest.approx(
        dict.fromkeys(("acting", "ending", "story", "music", "dialogue"), 0.2)
    )
    assert next_words(PROMPT, ("superb", "and", "the", "music")) == {"is": 1.0}


def test_what_is_written_can_be_and_has_the_frequency_that_is_said() -> None:
    counts: Counter[str] = Counter()
    for k in range(4000):
        luck = random.Random(f"check/{k}")
        prompt = luck.choice(all_prompts())
        words = tuple(write_completion(prompt, luck.random).split())
        if k < 200:
            assert all(next_words(prompt, words[:t]).get(words[t]) for t in range(len(words)))
            assert set(pairwise(words)) <= bigrams()
        counts[write_completion(PROMPT, luck.random).split()[0]] += 1
    for word, chance in next_words(PROMPT, ()).items():
        error = (chance * (1 - chance) / 4000) ** 0.5
        assert abs(counts[word] / 4000 - chance) < 4.5 * error


def test_a_text_that_is_no_review_breaks_and_one_that_is_does_not() -> None:
    luck = random.Random(5)
    for k in range(300):
        prompt = all_prompts()[k]
        words = write_completion(prompt, luck.random).split()
        place = luck.randrange(len(words))
        words[place] = luck.choice(["and", "is", "fun", "not", "the", "."])
        follows = all(next_words(prompt, tuple(words[:t])).get(words[t]) for t in range(len(words)))
        whole = follows and words[-1] == "." and words.count(".") == 1
        assert whole == is_review(prompt, " " + " ".join(words))


def test_bigrams() -> None:
    assert (".", END) in bigrams()
    assert ("very", "superb") in bigrams()
    assert ("the", "music") in bigrams()
    for pair in [("superb", END), ("and", "and"), ("not", "."), ("superb", "superb")]:
        assert pair not in bigrams()
