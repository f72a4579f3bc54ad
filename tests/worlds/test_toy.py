"""The toy world is frozen: what it writes, how it scores, and how much a policy can gain in it."""

import hashlib
import json
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from alignlab.errors import ConfigError
from alignlab.worlds import toy

PLAIN = "the plot of this film"  # asks for "is"
OPEN = "honestly the music"  # leaves the tense open
ENDED = "the plot of that old show was"


def sha(*lines: str) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def world() -> list[dict[str, str]]:
    train, _ = toy.split_prompts(seed=0, train=768, evaluation=256)
    return toy.make_demonstrations(train, seed=0, rows=20_000)


def test_vocabulary_is_frozen() -> None:
    words = toy.vocabulary()
    assert len(words) == len(set(words)) == 47
    assert words[:4] == ("<pad>", "<bos>", "<eos>", "<unk>")
    assert sha(*words) == "af4b4f17ed02a4ad5409ac2e9bb9201222bee93febcda9d2499a2c8ab2c02a77"


def test_rows_and_scores_are_frozen(world: list[dict[str, str]]) -> None:
    rows = world[:512]
    assert rows[0] == {
        "prompt": "the music of that old show",
        "completion": " was not weak , slightly good but the story was weak but moving .",
    }
    assert toy.sentiment(rows[0]["completion"]) == 0.5 + 0.5 * 1.0 - 0.5 + 2.0
    assert (
        sha(*(row["prompt"] + row["completion"] for row in rows))
        == "bcee2b1268200d21c23fa0a3c6a51b3934c191a2b9ec176bfdbc9cae29bd5678"
    )
    assert (
        sha(*(str(toy.sentiment(row["completion"])) for row in rows))
        == "dbb8e132e6871f8dcd046acfd38ecd2fdd7fa234c88de5077b7fb8ba2283c319"
    )


def test_prompts_are_frozen() -> None:
    prompts = toy.all_prompts()
    assert len(prompts) == len(set(prompts)) == 1044
    assert {len(prompt.split()) for prompt in prompts} == set(range(2, 9))
    assert (
        sha(*toy.split_prompts(seed=0, train=768, evaluation=256)[1])
        == "0eebca01ff15cf6115954155c7c0c6594db12d6d0d4afddf523010ad980f8b1d"
    )


def test_a_row_does_not_depend_on_how_many_are_written(world: list[dict[str, str]]) -> None:
    train, _ = toy.split_prompts(seed=0, train=768, evaluation=256)
    assert toy.make_demonstrations(train, seed=0, rows=7) == world[:7]
    assert toy.make_demonstrations(train, seed=1, rows=7) != world[:7]


def test_training_and_evaluation_prompts_share_no_text() -> None:
    train, held_out = toy.split_prompts(seed=3, train=788, evaluation=256)
    assert len(set(train)) == 788
    assert len(set(held_out)) == 256
    assert set(train) | set(held_out) == set(toy.all_prompts())
    assert toy.split_prompts(seed=4, train=788, evaluation=256)[1] != held_out


def test_validation_prompts_are_those_that_neither_training_nor_evaluation_has(
    tmp_path: Path,
) -> None:
    toy.write_world(tmp_path, demonstrations=1)
    toy.write_validation_prompts(tmp_path)
    before = {
        name: (tmp_path / f"prompts_{name}.jsonl") for name in ("train", "eval", "validation")
    }
    rows = {name: read(path) for name, path in before.items()}
    assert [row["id"] for row in rows["validation"]] == [f"validation-{i}" for i in range(128)]
    texts = {name: [row["prompt"] for row in own] for name, own in rows.items()}
    assert texts["validation"] == texts["eval"][128:]
    assert not set(texts["validation"]) & {*texts["train"], *texts["eval"][:128]}


def test_no_prompt_that_is_left_for_validation_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"of 64 eval_prompts none is left after 64\. Take more"):
        toy.write_validation_prompts(tmp_path, eval_prompts=64, after=64)
    assert not list(tmp_path.iterdir())


def test_more_prompts_for_training_leave_the_held_out_ones_alone() -> None:
    few, many = (toy.split_prompts(seed=0, train=n, evaluation=128) for n in (10, 700))
    assert few[1] == many[1]
    assert many[0][:10] == few[0]


@pytest.mark.parametrize(("train", "evaluation"), [(1000, 45), (0, 10), (10, 0)])
def test_impossible_split_is_refused(train: int, evaluation: int) -> None:
    with pytest.raises(ConfigError, match=f"train_prompts {train} .* at most 1044"):
        toy.split_prompts(seed=0, train=train, evaluation=evaluation)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("", 0.0),
        (" is good .", 1.0),
        (" is not good .", -1.0),
        (" is very good .", 1.5),
        (" is not very good .", -1.5),
        (" is very not good .", -1.5),  # nothing but the scale and the sign is remembered
        (" is slightly awful .", -0.875),
        (" is extremely superb .", 5.0),
        (" is extremely slightly fun .", 0.5),  # the last intensifier counts
        (" is never not bad .", -1.0),
        (" is not good and bad .", -2.0),  # negation ends with the opinion ...
        (" is good and not bad .", 2.0),
        (" is not , good .", 1.0),  # ... and with a connective
        (" is very . good .", 1.0),
        (" is rather boring but the music is never dull .", -1.25 * 0.75 + 0.75),
        ("not the not film weak weak", -1.0),  # two flips on the first, none on the second
        ("superb superb <unk> qwerty not", 5.0),
    ],
)
def test_rule_by_hand(text: str, score: float) -> None:
    assert toy.sentiment(text) == score


def test_grammar_recognises_what_it_writes(world: list[dict[str, str]]) -> None:
    for row in world:
        assert toy.is_review(row["prompt"], row["completion"]), row
        assert len(row["completion"].split()) + 1 <= toy.MAX_TOKENS  # + 1: end of text


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        (PLAIN, " is good and the music is rather fun ."),
        (OPEN, " was not good ."),
        (OPEN, " is fun , not bad but dull ."),
        (ENDED, " awful and the acting was weak but never boring ."),
    ],
)
def test_reviews(prompt: str, completion: str) -> None:
    assert toy.is_review(prompt, completion)


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        (PLAIN, "is good ."),  # no leading space
        (PLAIN, " is good"),  # no full stop
        (PLAIN, " was good ."),  # tense
        (PLAIN, " good ."),  # no verb
        (PLAIN, " ."),
        (ENDED, " ."),
        (ENDED, " was good ."),  # a second verb
        (OPEN, " is good and the plot was fun ."),  # tense changes
        (OPEN, " is good and the music is fun ."),  # the subject again
        (OPEN, " is good and the film is fun ."),
        (OPEN, " is good and the ."),
        (OPEN, " is good but fun ."),  # connectives must fit
        (OPEN, " is good and bad ."),
        (OPEN, " is good , ."),
        (OPEN, " is slightly superb ."),  # no such phrase
        (OPEN, " is extremely good ."),
        (OPEN, " is very very good ."),
        (OPEN, " is good . good ."),
        (OPEN, " is" + " good and" * 6 + " good ."),  # begun too late
    ],
)
def test_not_reviews(prompt: str, completion: str) -> None:
    assert not toy.is_review(prompt, completion)


def test_latest_start_leaves_room_for_twenty_tokens() -> None:
    longest = " is very good" + " and good" * 4 + " and the plot is not very bad ."
    assert len(longest.split()) + 1 == toy.MAX_TOKENS
    assert toy.is_review(OPEN, longest)
    assert not toy.is_review(OPEN, longest.replace("and good", "and very good", 1))


def test_first_phrases_follow_the_tables() -> None:
    """Shares of the first opinion over 40,000 reviews, each within 4.5 standard errors."""
    uniform = random.Random("first phrases").random
    n = 40_000
    seen: Counter[str] = Counter()
    for _ in range(n):
        words = toy.write_completion(ENDED, uniform).split()
        end = next(i for i, w in enumerate(words) if w in (*toy.CONNECTIVES, "."))
        seen[" ".join(words[:end])] += 1
    # By hand: P(poor) * P(negated) * P("not") * P(no intensifier) * P("good" among fair words).
    assert seen["not good"] / n == pytest.approx(0.43 * 0.3 * 0.7 * 0.55 * 0.4, abs=0.0025)
    assert seen["awful"] / n == pytest.approx(0.2 * 0.9 * 0.6 * 0.5, abs=0.004)
    assert seen["extremely superb"] / n == pytest.approx(0.1 * 0.9 * 0.08 * 0.3, abs=0.001)
    assert seen["never very dull"] / n == pytest.approx(0.27 * 0.25 * 0.3 * 0.15 * 0.35, abs=0.0008)


@pytest.mark.parametrize(
    "table",
    [
        toy.FIRST,
        toy.FIRST_HONESTLY,
        toy.AGREEING,
        toy.NEGATOR_SHARE,
        *toy.NEXT.values(),
        *toy.WORD_SHARE.values(),
        *toy.INTENSIFIER_SHARE.values(),
        *toy.PHRASES.values(),
    ],
)
def test_tables_are_distributions(table: dict[str, float]) -> None:
    assert math.fsum(table.values()) == pytest.approx(1, abs=1e-12)


def optimum(scores: np.ndarray, budget: float) -> float:
    """Mean score of the policy proportional to exp(score / beta) whose divergence is ``budget``."""
    low, high = 1e-2, 1e2
    for _ in range(50):
        beta = math.sqrt(low * high)
        weights = np.exp((scores - scores.max()) / beta)
        weights /= weights.sum()
        kl = sum(w * math.log(w * len(scores)) for w in weights.tolist() if w > 0)
        low, high = (beta, high) if kl > budget else (low, beta)
    return float(weights @ scores)


def test_best_policy_at_one_nat_gains_at_least_1_5_standard_deviations(
    world: list[dict[str, str]],
) -> None:
    """A Gaussian score allows sqrt(2); measured over 60,000 reviews: 0.79, 1.18, 1.79, 2.77, 3.62
    at 0.25, 0.5, 1, 2, 3 nats, standard deviation 1.83, skewness 0.75."""
    scores = np.array([toy.sentiment(row["completion"]) for row in world])
    spread = scores.std()
    assert spread == pytest.approx(1.83, abs=0.06)
    assert ((scores - scores.mean()) ** 3).mean() / spread**3 == pytest.approx(0.75, abs=0.08)
    gains = [(optimum(scores, kl) - scores.mean()) / spread for kl in (0.25, 0.5, 1.0, 2.0)]
    assert gains == pytest.approx([0.79, 1.18, 1.79, 2.77], abs=0.06)
    assert gains[2] >= 1.5


def test_prompts_differ_little(world: list[dict[str, str]]) -> None:
    """ "honestly" sounds a little harsher; prompts explain under 1 % of the variance."""
    scores = np.array([toy.sentiment(row["completion"]) for row in world])
    honest = np.array(["honestly" in row["prompt"] for row in world])
    gap = scores[~honest].mean() - scores[honest].mean()
    assert 0.1 < gap < 0.4
    assert honest.mean() * (1 - honest.mean()) * gap**2 / scores.var() < 0.01


def test_word_order_decides() -> None:
    one, other = " is not good but fun .", " is good but not fun ."
    assert Counter(one.split()) == Counter(other.split())
    assert toy.sentiment(" is not great and good .") != toy.sentiment(" is great and not good .")


def test_tokenizer_gives_completions_back_exactly(world: list[dict[str, str]]) -> None:
    tokenizer = toy.tokenizer()
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert len(tokenizer) == 47
    for row in world[:500]:
        prompt, joint = (
            tokenizer.encode(t) for t in (row["prompt"], row["prompt"] + row["completion"])
        )
        assert joint[: len(prompt)] == prompt
        assert len(joint) == len((row["prompt"] + row["completion"]).split())
        assert min(joint) > 3  # neither special nor unknown
        ended = [*joint[len(prompt) :], tokenizer.eos_token_id]
        assert tokenizer.decode(ended, skip_special_tokens=True) == row["completion"]


def test_unknown_words_are_marked_not_refused() -> None:
    tokenizer = toy.tokenizer()
    assert tokenizer.encode("the xylophone") == [tokenizer.encode("the")[0], 3]


def test_files_hold_the_world(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    toy.write_world(tmp_path / "a", demonstrations=50, train_prompts=20, eval_prompts=10)
    rows = read(tmp_path / "a/demonstrations.jsonl")
    train, held_out = (read(tmp_path / f"a/prompts_{split}.jsonl") for split in ("train", "eval"))
    assert (len(rows), len(train), len(held_out)) == (50, 20, 10)
    assert {row["prompt"] for row in rows} <= {row["prompt"] for row in train}
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in held_out}
    assert [row["id"] for row in held_out][:2] == ["eval-0", "eval-1"]
    loaded = AutoTokenizer.from_pretrained(tmp_path / "a/tokenizer")
    text = rows[0]["prompt"] + rows[0]["completion"]
    assert loaded.encode(text) == toy.tokenizer().encode(text)
    assert loaded.decode(loaded.encode(text)) == " " + text


def test_writing_again_gives_the_same_bytes_and_nothing_else(tmp_path: Path) -> None:
    for _ in range(2):
        toy.write_world(tmp_path / "a", demonstrations=50, train_prompts=20, eval_prompts=10)
    toy.write_world(tmp_path / "b", demonstrations=50, train_prompts=20, eval_prompts=10)
    a, b = (
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (tmp_path / "a", tmp_path / "b")
    )
    assert a == b
    assert {p.parts[0] for p in a} == {
        "tokenizer",
        "demonstrations.jsonl",
        "prompts_train.jsonl",
        "prompts_eval.jsonl",
    }
    assert len(list((tmp_path / "a").iterdir())) == 4  # no scratch folder stays behind


def test_no_rows_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="demonstrations must be >= 1, got 0"):
        toy.write_world(tmp_path / "a", demonstrations=0)
    assert not (tmp_path / "a").exists()
