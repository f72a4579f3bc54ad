"""Made-up TL;DR rows with the columns and the defects of the real sets: for smoke runs."""

import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

from alignlab.bounds import Count, Seed
from alignlab.worlds.tldr import Post, prompt_of
from alignlab.worlds.tldr_stages import gather_posts, write_comparisons, write_parquet

_WHO = ("My brother", "My roommate", "The neighbour", "A friend of mine", "My boss", "Our cat")
_WHAT = ("broke the window", "sold my bike", "ate all the cake", "lost the keys", "moved out")
_WHEN = ("last week", "on my birthday", "in the middle of the night", "without telling me")


def make_up_posts(
    *,
    out: str | Path,
    posts: Count = 200,
    columns: Literal["fields", "prompt"] = "fields",
    elsewhere: Sequence[str] = (),
    seed: Seed = 0,
) -> None:
    """Stage: the files of ``gather_posts``, from made-up posts.

    Args:
        out: Folder to write.
        posts: Posts in all.
        columns: The post's fields as in OpenAI's own set, or the prompt as in ``trl-lib/tldr``.
        elsewhere: As in ``gather_posts``; posts are of relationships, tifu and AskReddit.
        seed: Decides all of them.
    """
    rng = random.Random(seed)
    rows = [_post(k, rng) for k in range(posts)]
    rows[0] |= {"split": "train", "title": ""}
    rows[1] |= {"split": "train", "summary": " "}
    rows[2] |= {"split": "train"}
    rows.append(rows[2] | {"id": "t3_again", "split": "test"})
    if columns == "prompt":
        rows = [
            {
                "prompt": prompt_of(_as_post(row)),
                "completion": f" {row['summary']}",
                "split": row["split"],
            }
            for row in rows
        ]
    source = Path(out) / "made_up.parquet"
    write_parquet(source, rows)
    gather_posts(out=out, source=str(source), elsewhere=elsewhere)


def make_up_comparisons(
    *, out: str | Path, tokenizer: str, max_prompt: Count, pairs: Count = 60, seed: Seed = 0
) -> None:
    """Stage: the files of ``write_comparisons``, from made-up choices with OpenAI's columns.

    Args:
        out: Folder to write.
        tokenizer: As in ``write_comparisons``.
        max_prompt: As in ``write_comparisons``.
        pairs: Comparisons in all.
        seed: Decides all of them.
    """
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for k in range(pairs):
        post = _post(k, rng)
        texts = [f" {post['summary']}", f" {rng.choice(_WHO)} did it."]
        rows.append(
            {
                "info": {key: post[key] for key in ("id", "subreddit", "title", "post")},
                "summaries": [{"text": text, "policy": "made_up", "note": None} for text in texts],
                "choice": k % 2,
                "worker": "nobody",
                "batch": "batch0",
                "split": "train" if k % 4 else "valid1",
                "extra": {"confidence": 5},
            }
        )
    rows[1]["info"]["post"] = None  # a news article, of which the real set has some
    source = Path(out) / "made_up.parquet"
    write_parquet(source, rows)
    write_comparisons(out=out, source=str(source), tokenizer=tokenizer, max_prompt=max_prompt)


def _post(number: int, rng: random.Random) -> dict[str, Any]:
    stories = list(product(_WHO, _WHAT, _WHEN))
    story = " ".join(stories[number * 7 % len(stories)])
    return {
        "id": f"t3_made_up_{number}",
        "subreddit": rng.choice(["relationships", "tifu", "AskReddit"]),
        "title": f"{story}, part {number}",
        "post": f"Hello number {number}.\n\n{story}. "
        + "We talked about it. " * rng.randint(1, 30)
        + "\nWhat should I do?",
        "summary": f"{story}; what now?",
        "split": rng.choice(["train"] * 6 + ["validation", "test"]),
    }


def _as_post(row: dict[str, Any]) -> Post:
    return Post(row["id"], row["subreddit"], row["title"], row["post"])
