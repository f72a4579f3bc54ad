"""TL;DR's rows in all their forms, and prompts that never lose their end."""

import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignlab.data.rows import Refused
from alignlab.errors import DataError
from alignlab.worlds.tldr import (
    Compared,
    Fitted,
    Post,
    Summarised,
    fit_prompt,
    prompt_of,
    read_comparisons,
    read_posts,
)
from tests.data.files import jsonl
from tests.data.tokens import bytewise

HEAD = "SUBREDDIT: r/tifu\n\nTITLE: Hot tea\n\nPOST: "
TAIL = "\n\nTL;DR:"


def post(text: str = "It is hot.") -> Post:
    return Post("t3_1", "tifu", "Hot tea", text)


def row(**changes: Any) -> dict[str, Any]:
    fields = {"id": "t3_1", "subreddit": "tifu", "title": "Hot tea", "post": "It is hot."}
    return fields | {"summary": "It was hot.", "split": "train"} | changes


def test_prompt_as_published() -> None:
    expected = "SUBREDDIT: r/tifu\n\nTITLE: Hot tea\n\nPOST: It is hot.\n\nTL;DR:"
    assert prompt_of(post()) == expected


# ---------------------------------------------------------------- truncation: a token a character

LINES = "One line. More\nTwo here. And then it goes on and on for ever"


def fitted(text: str, room: int, fullest: float = 0.5) -> Fitted:
    """The post cut so that ``room`` of its characters fit."""
    bound = len(HEAD) + room + len(TAIL)
    found = fit_prompt(post(text), bytewise(trim_offsets=False), bound, fullest=fullest)
    assert found.prompt.startswith(HEAD)
    assert found.prompt.endswith(TAIL)
    return Fitted(found.prompt[len(HEAD) : -len(TAIL)], found.cut)


@pytest.mark.parametrize(
    ("room", "fullest", "kept", "cut"),
    [
        (len(LINES), 0.5, LINES, ""),
        (20, 0.5, "One line. More", "newline"),
        (40, 0.5, "One line. More\nTwo here.", "sentence"),
        (40, 0.0, "One line. More", "newline"),
        (40, 0.9, "One line. More\nTwo here. And then it", "word"),
        (12, 0.5, "One line.", "sentence"),
        (7, 0.5, "One", "word"),
        (2, 0.5, "On", "character"),
    ],
)
def test_where_a_post_is_cut(room: int, fullest: float, kept: str, cut: str) -> None:
    assert fitted(LINES, room, fullest) == (kept, cut)


def test_title_that_fills_the_bound_is_refused() -> None:
    with pytest.raises(Refused, match=r"no room for the post in 30 tokens"):
        fit_prompt(post(), bytewise(), 30)


def test_prompts_keep_their_bound_and_their_end_whatever_the_tokens() -> None:
    """ " b" and "ab" are tokens here, and a line break may be one with the next."""
    rng = random.Random(0)
    tokenizers = [bytewise(), bytewise(double_newline=True)]
    for _ in range(200):
        text = "".join(rng.choices("ab \n.", k=rng.randint(1, 200))).strip() or "a"
        bound = rng.randint(len(HEAD) + len(TAIL) + 1, 150)
        tokenizer = rng.choice(tokenizers)
        found = fit_prompt(post(text), tokenizer, bound)
        assert len(tokenizer(found.prompt, add_special_tokens=False)["input_ids"]) <= bound
        assert found.prompt.startswith(HEAD)
        assert found.prompt.endswith(TAIL)
        kept = found.prompt[len(HEAD) : -len(TAIL)]
        assert text.startswith(kept)
        assert (kept == text) == (found.cut == "")


def test_a_beginning_that_costs_more_tokens_than_the_whole_word_is_cut_again() -> None:
    """ "aa b" is one token and "aa" two: the cut at the space would be one token too long."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "b"), ("a", "Ġb"), ("a", "aĠb")]
    vocab = {letter: k for k, letter in enumerate([*letters, *map("".join, merges)])}
    inner = Tokenizer(models.BPE(vocab, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    bound = len(HEAD) + 1 + len(TAIL)
    found = fit_prompt(post("aa bc and more"), tokenizer, bound)
    assert found.prompt == HEAD + "a" + TAIL


def test_posts_far_longer_than_the_bound_are_cut_as_if_coded_whole() -> None:
    long = "word " * 5000
    assert fitted(long, 21).prompt == "word word word word"


# ---------------------------------------------------------------- posts


def test_posts_and_why_rows_are_refused(tmp_path: Path) -> None:
    rows = [
        row(title=" Hot\n tea ", summary=" It was hot. "),
        row(title=""),
        row(post=" \n"),
        row(summary=" "),
        row(summary=None),
        row(post=["no"]),
        row(post="IT is\n hot."),
        row(post="Seen", split="valid"),
        row(post="seen  "),
        row(post="Held out", split="test_openai"),
        row(post="held out", split="valid"),
    ]
    parts = read_posts(jsonl(tmp_path, rows))
    assert parts["train"].rows == [
        Summarised("t3_1", "tifu", "Hot tea", "It is hot.", "It was hot.")
    ]
    assert parts["train"].refusals.counts == {
        "missing column 'summary'": 1,
        "no title": 1,
        "empty post": 1,
        "empty completion": 1,
        "wrong type in 'post'": 1,
        "post occurs twice": 1,
        "post is also in the validation part": 1,
    }
    assert parts["train"].refusals.seen == 8
    assert [found.post for found in parts["validation"].rows] == ["Seen"]
    assert parts["validation"].refusals.counts == {"post is also in the test part": 1}
    assert [found.post for found in parts["test"].rows] == ["Held out"]
    assert list(parts) == ["train", "validation", "test"]


def test_prompts_already_put_together_are_taken_apart(tmp_path: Path) -> None:
    """The form of ``trl-lib/tldr``; a post may hold what looks like another field."""
    text = "One.\n\nPOST: two\n\nthree"
    rows = [
        {"prompt": HEAD + text + TAIL, "completion": " It was hot.", "split": "train"},
        {"prompt": "Summarise: one", "completion": " It was hot.", "split": "train"},
    ]
    found = read_posts(jsonl(tmp_path, rows))["train"]
    assert found.rows == [Summarised("rows.jsonl:1", "tifu", "Hot tea", text, "It was hot.")]
    assert prompt_of(found.rows[0]) == rows[0]["prompt"]
    assert found.refusals.counts == {"prompt is not written as a TL;DR prompt": 1}


def test_without_named_parts_they_are_a_function_of_the_post(tmp_path: Path) -> None:
    rows = [row(id=str(k), post=f"Post {k}", split=None) for k in range(400)]
    parts = read_posts(jsonl(tmp_path, rows))
    sizes = {part: len(found.rows) for part, found in parts.items()}
    assert sum(sizes.values()) == 400
    assert all(8 <= sizes[part] <= 40 for part in ("validation", "test"))
    later = read_posts(jsonl(tmp_path, rows[::-1][:300], "later.jsonl"))
    for part, found in later.items():
        assert {one.post for one in found.rows} <= {one.post for one in parts[part].rows}
    assert [p.post for p in parts["train"].rows] != [r["post"] for r in rows][: sizes["train"]]


def test_unknown_part_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1: unknown split 'dev'. Name it train, "):
        read_posts(jsonl(tmp_path, [row(split="dev")]))


# ---------------------------------------------------------------- comparisons


def openai(choice: Any = 1, **info: Any) -> dict[str, Any]:
    known = {"id": "t3_1", "subreddit": "tifu", "title": "Hot tea", "post": "It is hot."}
    return {
        "info": known | {"article": None, "site": None} | info,
        "summaries": [{"text": " First.", "policy": "ref"}, {"text": " Second.", "policy": "sup4"}],
        "choice": choice,
        "worker": "w",
        "split": "train",
    }


def test_openais_comparisons(tmp_path: Path) -> None:
    """A post may be compared several times, but on one side of the split."""
    rows = [
        openai(1),
        openai(0),
        openai(2),
        openai(post=None, article="News."),
        openai(post="Held out") | {"split": "valid1"},
        openai(post="held out"),
    ]
    parts = read_comparisons(jsonl(tmp_path, rows))
    found = {one.id: (one.chosen, one.rejected) for one in parts["train"].rows}
    assert found == {
        "t3_1/rows.jsonl:1": ("Second.", "First."),
        "t3_1/rows.jsonl:2": ("First.", "Second."),
    }
    assert parts["train"].refusals.counts == {
        "wrong type in 'choice'": 1,
        "about a news article, not a post": 1,
        "post is also in the validation part": 1,
    }
    assert [one.post for one in parts["validation"].rows] == ["Held out"]


def test_pairs_plain_and_as_conversations(tmp_path: Path) -> None:
    """The forms of ``trl-lib/tldr-preference``; and ties are no choice."""
    prompt = prompt_of(post())
    asked = {"role": "user", "content": prompt}
    plain = {"prompt": prompt, "chosen": " Good.", "rejected": " Bad.", "split": "train"}
    rows = [
        plain,
        plain
        | {
            "chosen": [asked, {"role": "assistant", "content": "Good."}],
            "rejected": [asked, {"role": "assistant", "content": "Bad."}],
        },
        plain | {"tie": True},
        plain | {"rejected": "Good."},
    ]
    found = read_comparisons(jsonl(tmp_path, rows))["train"]
    for one in found.rows:
        assert one == Compared(one.id, "tifu", "Hot tea", "It is hot.", "Good.", "Bad.")
    assert [one.id for one in found.rows] == ["rows.jsonl:1", "rows.jsonl:2"]
    assert found.refusals.counts == {"a tie": 1, "chosen and rejected are identical": 1}


# ---------------------------------------------------------------- the hub


def test_which_parts_and_configuration_the_hub_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datasets

    asked = []

    def load(path: str, split: str, **parts: str):
        asked.append((path, split, parts))
        rows = [openai(post=split) if parts else row(post=split, split=None)]
        return datasets.Dataset.from_list(rows).remove_columns("split")

    monkeypatch.setattr(datasets, "load_dataset", load)
    posts = read_posts("trl-lib/tldr")
    assert {part: found.rows[0].post for part, found in posts.items()} == {
        "train": "train",
        "validation": "validation",
        "test": "test",
    }
    comparisons = read_comparisons("openai/summarize_from_feedback")
    assert list(comparisons) == ["train", "validation"]
    assert asked == [
        ("trl-lib/tldr", "train", {}),
        ("trl-lib/tldr", "validation", {}),
        ("trl-lib/tldr", "test", {}),
        ("openai/summarize_from_feedback", "train", {"name": "comparisons"}),
        ("openai/summarize_from_feedback", "validation", {"name": "comparisons"}),
    ]
