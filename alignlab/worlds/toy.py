"""The toy world: a grammar that writes film reviews and a rule that scores them exactly.

No download, seconds to train on, and everything about it is known. A prompt opens a review ("the
plot of this old film is"), a completion continues it (" not very good but the acting was
superb ."). Opinions follow one another as a Markov chain over four levels, each put into words
with intensifiers and negations; the rule adds the opinions up. Strongly positive reviews are
rare, so the score is skewed to the right: at a divergence of 1 nat the best policy gains about
1.8 standard deviations of the grammar's own score (a Gaussian score would allow sqrt(2)).

Text is words with one space between them. A completion starts with its space, so that prompt +
completion is the review, and ``tokenizer().decode`` of a completion's ids gives it back exactly.

Everything is a pure function of (seed, row): the same rows come out whatever was written before.
"""

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alignlab.bounds import Count, Seed
from alignlab.errors import ConfigError
from alignlab.worlds.words import SPECIAL, word_tokenizer

Uniform = Callable[[], float]  # the next number in [0, 1) of a row's own stream

MAX_TOKENS = 20  # of a completion, its end-of-text token included

# ------------------------------------------------------------------------------ the rule

# Opinion words by level, with their score (logit-like: +1 says "odds of e that this is praise").
# All numbers are sums of powers of two, so that scores are exact and equal reviews tie exactly.
WORDS: dict[str, dict[str, float]] = {
    "harsh": {"awful": -1.75, "boring": -1.25},
    "poor": {"bad": -1.0, "dull": -0.75, "weak": -0.5},
    "fair": {"fine": 0.5, "good": 1.0, "fun": 1.0},
    "glowing": {"great": 1.5, "moving": 2.0, "superb": 2.5},
}
INTENSIFIERS = {"slightly": 0.5, "rather": 0.75, "very": 1.5, "extremely": 2.0}
NEGATORS = ("not", "never")
CONNECTIVES = ("and", "but", ",")
_VALUE = {word: value for words in WORDS.values() for word, value in words.items()}


def sentiment(completion: str) -> float:
    """The rule: how much praise a review holds, as a logit. Total over all texts.

    Words are read from left to right. Each opinion word adds its value, times the scale of the
    last intensifier before it, times -1 for each negator before it. An opinion word, a connective
    or a full stop forgets the intensifier and the negators read so far; other words say nothing.
    """
    total, sign, scale = 0.0, 1.0, 1.0
    for word in completion.split():
        if word in _VALUE:
            total += sign * scale * _VALUE[word]
        elif word in INTENSIFIERS:
            scale = INTENSIFIERS[word]
            continue
        elif word in NEGATORS:
            sign = -sign
            continue
        elif word not in CONNECTIVES and word != ".":
            continue
        sign, scale = 1.0, 1.0
    return total


# ------------------------------------------------------------------------------ the grammar

ASPECTS = ("plot", "acting", "ending", "story", "music", "dialogue")
AGES = ("", "old", "new", "short", "long")
KINDS = ("film", "movie", "show")
LEADS = ("", "honestly", "i think", "honestly i think")
TENSE = {"this": "is", "that": "was"}  # "of this film" goes on with "is", "of that film" with "was"

MIRROR = {"harsh": "glowing", "poor": "fair", "fair": "poor", "glowing": "harsh"}
NEGATED = {"harsh": 0.10, "poor": 0.30, "fair": 0.25, "glowing": 0.10}
NEGATOR_SHARE = {"not": 0.7, "never": 0.3}
WORD_SHARE: dict[str, dict[str, float]] = {
    "harsh": {"awful": 0.5, "boring": 0.5},
    "poor": {"bad": 0.35, "dull": 0.35, "weak": 0.3},
    "fair": {"fine": 0.3, "good": 0.4, "fun": 0.3},
    "glowing": {"great": 0.4, "moving": 0.3, "superb": 0.3},
}
INTENSIFIER_SHARE: dict[str, dict[str, float]] = {
    "harsh": {"": 0.60, "rather": 0.25, "very": 0.15},
    "poor": {"": 0.55, "slightly": 0.15, "rather": 0.15, "very": 0.15},
    "fair": {"": 0.55, "slightly": 0.15, "rather": 0.15, "very": 0.15},
    "glowing": {"": 0.60, "rather": 0.10, "very": 0.22, "extremely": 0.08},
}
FIRST = {"harsh": 0.20, "poor": 0.43, "fair": 0.27, "glowing": 0.10}
FIRST_HONESTLY = {"harsh": 0.26, "poor": 0.43, "fair": 0.23, "glowing": 0.08}
NEXT: dict[str, dict[str, float]] = {
    "harsh": {"harsh": 0.40, "poor": 0.40, "fair": 0.15, "glowing": 0.05},
    "poor": {"harsh": 0.22, "poor": 0.45, "fair": 0.26, "glowing": 0.07},
    "fair": {"harsh": 0.10, "poor": 0.30, "fair": 0.45, "glowing": 0.15},
    "glowing": {"harsh": 0.05, "poor": 0.15, "fair": 0.40, "glowing": 0.40},
}
GO_ON = {"harsh": 0.37, "poor": 0.37, "fair": 0.40, "glowing": 0.42}
AGREEING = {"and": 0.7, ",": 0.3}  # between opinions of the same sign; "but" between others
NEW_SUBJECT = 0.4  # how often a further opinion names another aspect ("and the music is ...")
# A further opinion takes at most 7 words and the full stop 1, and 19 words leave room for the end.
LAST_START = MAX_TOKENS - 1 - 8


def _phrases(level: str) -> dict[str, float]:
    """Every way to put an opinion of ``level`` into words, with its probability."""
    negators = {"": 1 - NEGATED[level]}
    negators |= {n: NEGATED[level] * share for n, share in NEGATOR_SHARE.items()}
    table = {}
    for (negator, p), (intensifier, q) in product(
        negators.items(), INTENSIFIER_SHARE[level].items()
    ):
        words = WORD_SHARE[MIRROR[level] if negator else level]
        for word, share in words.items():
            table[" ".join(filter(None, (negator, intensifier, word)))] = p * q * share
    return table


PHRASES = {level: _phrases(level) for level in WORDS}
_LEVEL = {phrase: level for level, phrases in PHRASES.items() for phrase in phrases}


def praises(level: str) -> bool:
    """Whether opinions of ``level`` are favourable; two that agree in this are joined by "and"."""
    return level in ("fair", "glowing")


def _draw(table: Mapping[str, float], uniform: Uniform) -> str:
    left = uniform()
    for key, probability in table.items():
        left -= probability
        if left < 0:
            return key
    return key  # the table's sum fell short of 1 by a rounding error


def write_completion(prompt: str, uniform: Uniform) -> str:
    """Write one review of the grammar that continues ``prompt`` (one of ``all_prompts()``)."""
    given = prompt.split()
    aspect = given[given.index("the") + 1]
    verb = verb_of(given) or ("is" if uniform() < 0.5 else "was")
    words = [] if given[-1] == verb else [verb]
    level = _draw(FIRST_HONESTLY if "honestly" in given else FIRST, uniform)
    while True:
        words += _draw(PHRASES[level], uniform).split()
        if len(words) > LAST_START or uniform() >= GO_ON[level]:
            return " " + " ".join([*words, "."])
        before, level = level, _draw(NEXT[level], uniform)
        agree = praises(before) == praises(level)
        words.append(_draw(AGREEING, uniform) if agree else "but")
        if uniform() < NEW_SUBJECT:
            others = [other for other in ASPECTS if other != aspect]
            aspect = others[int(uniform() * len(others))]
            words += ["the", aspect, verb]


def verb_of(given: list[str]) -> str | None:
    """The tense that a prompt asks for, or ``None`` when it leaves it open."""
    if given[-1] in TENSE.values():
        return given[-1]
    return next((verb for det, verb in TENSE.items() if det in given), None)


def is_review(prompt: str, completion: str) -> bool:
    """Whether the grammar can write ``completion`` after ``prompt`` (one of ``all_prompts()``)."""
    given, words = prompt.split(), completion.split()
    if completion != " " + " ".join(words) or words[-1:] != ["."]:
        return False
    starts = [i for i, word in enumerate(words) if word in CONNECTIVES]
    if starts and starts[-1] > LAST_START:
        return False
    verb = verb_of(given)
    first = 0 if given[-1] == verb else 1
    if first and words[0] not in ([verb] if verb else TENSE.values()):
        return False
    clauses = [words[start:end] for start, end in pairwise([first, *starts, len(words) - 1])]
    return _is_chain(clauses, given[given.index("the") + 1], verb or words[0])


def _is_chain(clauses: list[list[str]], aspect: str, verb: str) -> bool:
    """Whether ``clauses`` are opinions with the right connectives, subjects and tense."""
    before = ""
    for clause in clauses:
        connective, clause = (clause[0], clause[1:]) if before else ("", clause)
        if before and clause[:1] == ["the"] and len(clause) > 3:
            if clause[1] == aspect or clause[1] not in ASPECTS or clause[2] != verb:
                return False
            aspect, clause = clause[1], clause[3:]
        level = _LEVEL.get(" ".join(clause))
        if level is None:
            return False
        if before and (connective == "but") == (praises(before) == praises(level)):
            return False
        before = level
    return True


# ------------------------------------------------------------------------------ rows and files


@cache
def all_prompts() -> tuple[str, ...]:
    """Every prompt of the world: 2 to 8 words, each once, in a fixed order."""
    subjects = [("", "")] + [
        (f"of {det} {age} {kind}".replace("  ", " "), verb)
        for (det, verb), age, kind in product(TENSE.items(), AGES, KINDS)
    ]
    texts = []
    for lead, aspect, (subject, tense) in product(LEADS, ASPECTS, subjects):
        for verb in ["", tense] if tense else ["", *TENSE.values()]:
            texts.append(" ".join(filter(None, (lead, "the", aspect, subject, verb))))
    return tuple(text for text in texts if len(text.split()) <= 8)


def split_prompts(*, seed: int, train: int, evaluation: int) -> tuple[list[str], list[str]]:
    """``train`` and ``evaluation`` prompts that share no text; the order depends on ``seed`` only.

    Raises:
        ConfigError: More prompts than the world has.
    """
    texts = all_prompts()
    if train < 1 or evaluation < 1 or train + evaluation > len(texts):
        raise ConfigError(
            f"toy world: train_prompts {train} + eval_prompts {evaluation} must each be at least 1 "
            f"and together at most {len(texts)}, the number of different prompts. Ask for fewer."
        )
    shuffled = sorted(texts, key=lambda text: hashlib.sha256(f"{seed}/{text}".encode()).digest())
    return shuffled[evaluation : evaluation + train], shuffled[:evaluation]


def make_demonstrations(prompts: list[str], *, seed: int, rows: int) -> list[dict[str, str]]:
    """``rows`` reviews by the grammar, each after a prompt drawn from ``prompts``."""
    out = []
    for row in range(rows):
        uniform = random.Random(f"{seed}/{row}").random
        prompt = prompts[int(uniform() * len(prompts))]
        out.append({"prompt": prompt, "completion": write_completion(prompt, uniform)})
    return out


@cache
def vocabulary() -> tuple[str, ...]:
    """All words, special tokens first; a word's place is its id."""
    texts = (*all_prompts(), *TENSE.values(), *NEGATORS, *INTENSIFIERS, *CONNECTIVES, ".")
    words = {word: None for text in texts for word in text.split()}
    return (*SPECIAL, *words, *_VALUE)


def tokenizer() -> Any:
    """The world's tokenizer: one token a word (see ``word_tokenizer``)."""
    return word_tokenizer(vocabulary()[len(SPECIAL) :])


def write_world(
    out: Path,
    *,
    seed: Seed = 0,
    demonstrations: Count = 32768,
    train_prompts: Count = 768,
    eval_prompts: Count = 256,
) -> None:
    """Write ``tokenizer/``, ``demonstrations.jsonl`` and ``prompts_{train,eval}.jsonl``.

    Each file appears whole or not at all. Demonstrations use the training prompts only.

    Args:
        out: Folder to write into; made if need be.
        seed: Chooses the rows and which prompts are held out.
        demonstrations: Reviews to write.
        train_prompts: Different prompts to train on.
        eval_prompts: Different prompts held out for evaluation.

    Raises:
        ConfigError: More prompts than the world has, or no rows.
    """
    if demonstrations < 1:
        raise ConfigError(f"toy world: demonstrations must be >= 1, got {demonstrations}.")
    train, held_out = split_prompts(seed=seed, train=train_prompts, evaluation=eval_prompts)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=".writing-") as name:
        work = Path(name)
        tokenizer().save_pretrained(work / "tokenizer")
        rows = make_demonstrations(train, seed=seed, rows=demonstrations)
        _write_jsonl(work / "demonstrations.jsonl", rows)
        for split, prompts in (("train", train), ("eval", held_out)):
            named = ({"id": f"{split}-{i}", "prompt": p} for i, p in enumerate(prompts))
            _write_jsonl(work / f"prompts_{split}.jsonl", named)
        for file in sorted(work.rglob("*")):
            if file.is_file():
                target = out / file.relative_to(work)
                target.parent.mkdir(exist_ok=True)
                os.replace(file, target)


def write_validation_prompts(
    out: Path, *, seed: Seed = 0, eval_prompts: Count = 256, after: Count = 128
) -> None:
    """Write ``prompts_validation.jsonl``: held-out prompts behind those that are evaluated.

    They are the evaluation prompts of ``write_world`` without the first ``after``, which the runs
    are evaluated on (``probe.limit``). No validation prompt is a training prompt. All prompts are
    of one grammar, so parts of them ("of this old film") occur in several.

    Args:
        out: Folder to write into; made if need be.
        seed: As in ``write_world``.
        eval_prompts: As in ``write_world``.
        after: How many of them are left to the evaluation.

    Raises:
        ConfigError: None is left, or more prompts than the world has.
    """
    if after >= eval_prompts:
        raise ConfigError(
            f"toy world: of {eval_prompts} eval_prompts none is left after {after}. Take more "
            "eval_prompts, or a smaller 'after'."
        )
    _, held_out = split_prompts(seed=seed, train=1, evaluation=eval_prompts)
    out.mkdir(parents=True, exist_ok=True)
    rows = ({"id": f"validation-{i}", "prompt": p} for i, p in enumerate(held_out[after:]))
    _write_jsonl(out / "prompts_validation.jsonl", rows)


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
