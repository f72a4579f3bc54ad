"""A model's completions of the held-out prompts at every temperature, each sampled once.

Two policies do not share noise: a win rate is about independent completions. A completion is a
function of the model's content, the prompt's place, the seed and its number, so it does not change
when the policies are listed in another order.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from alignlab.data.rows import Prompt, Refused, RowReport
from alignlab.data.sources import as_json
from alignlab.data.texts import CompletionText
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError, DataError
from alignlab.files import sha_of
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.loading import load_tokenizer, room_of
from alignlab.models.policy import Policy
from alignlab.rollouts.comparison import check_samples
from alignlab.rollouts.sampler import sample
from alignlab.winrate.memo import Memo
from alignlab.winrate.policies import Contender, identity_of
from alignlab.winrate.prompts import HeldOut
from alignlab.winrate.scored import RewardJudge

KEPT_AT_ONCE = 256  # prompts that are sampled between two writes


class Settings(NamedTuple):
    """How completions are sampled.

    Attributes:
        samples: Completions of a prompt; one at temperature 0, where all are equal.
        max_new_tokens: Bound on a completion.
        seed: Of the noise.
        batch_size: Completions per batch.
    """

    samples: int
    max_new_tokens: int
    seed: int
    batch_size: int


class Stream(NamedTuple):
    """Whose completions: a model, and which of its independent streams of noise.

    Attributes:
        source: Folder or hub id.
        identity: See ``identity_of``.
        number: 0; 1 for the opponent where a model meets itself.
        before: Text before every prompt.
        best_of: A completion is the best of this many.
        ranked_by: Folder of the reward model that ranks these.
    """

    source: str
    identity: str
    number: int
    before: str = ""
    best_of: int = 1
    ranked_by: str = ""

    @property
    def rollout(self) -> int:
        """The sampler's number of this noise."""
        return int(sha_of(self.identity)[:12], 16) + self.number


def stream_of(contender: Contender, seed: int) -> Stream:
    """Its completions of one seed; a contender of one seed has the same ones for all."""
    source = contender.sources[seed % len(contender.sources)]
    identity, before, best_of = identity_of(source), contender.before, contender.best_of
    if before or best_of > 1:  # the rankers of all seeds choose from the same samples
        identity = sha_of({"model": identity, "before": before, "best of": best_of})
    ranked_by = contender.ranked_by[seed % len(contender.ranked_by)] if best_of > 1 else ""
    return Stream(source, identity, 0, before, best_of, ranked_by)


def fitting(
    held: Sequence[HeldOut], readers: Sequence[tuple[str, str]], max_new_tokens: int
) -> list[HeldOut]:
    """The prompts that all models can read and complete; others are reported.

    Args:
        held: All of them.
        readers: Each model's folder or hub id, and the text before its prompts.
        max_new_tokens: Bound on a completion.

    Raises:
        DataError: None is left.
    """
    left = {one.place: one for one in held}
    for source, before in readers:
        report = RowReport(source, seen=len(held))
        room = room_of(source)
        tokenizer = load_tokenizer(source, missing="a model")
        trees = tokenise(_rows(held, before), tokenizer, report)
        long = [t for t in trees if room is not None and len(t.prompt) + max_new_tokens > room]
        for tree in long:
            why = f"with {max_new_tokens} more tokens longer than the context of {room}"
            report.add(tree.id, Refused(why))
        report.tell()
        report.require_rows(len(trees) - len(long))
        kept = {held[tree.row].place for tree in trees} - {held[tree.row].place for tree in long}
        left = {place: one for place, one in left.items() if place in kept}
    if not left:
        raise DataError("no prompt can be completed by all models. Compare fewer models.")
    return list(left.values())


def completions(
    stream: Stream,
    held: Sequence[HeldOut],
    temperatures: Sequence[float],
    settings: Settings,
    memo: Memo,
) -> dict[float, list[list[CompletionText]]]:
    """The completions of every prompt, by temperature; what the memo lacks is sampled.

    Of several with the highest score, the first is the best.

    Raises:
        ConfigError: The samples are not what the policy's forward scores (see ``check_samples``).
        DataError: A prompt that leaves no room for ``max_new_tokens``.
    """
    if stream.best_of > 1:
        more = settings._replace(samples=settings.samples * stream.best_of)
        pool = completions(stream._replace(best_of=1), held, temperatures, more, memo)
        return {t: _best(stream, held, texts, memo) for t, texts in pool.items()}
    policy: Policy | None = None
    for temperature in temperatures:
        keys = [_key(stream, one, temperature, settings) for one in held]
        absent = [k for k, key in enumerate(keys) if key not in memo]
        for start in range(0, len(absent), KEPT_AT_ONCE):
            policy = policy or Policy.load_for_eval(stream.source)
            some = absent[start : start + KEPT_AT_ONCE]
            drawn = _draw(policy, [held[k] for k in some], stream, temperature, settings)
            memo.keep({keys[k]: texts for k, texts in zip(some, drawn, strict=True)})
    return {
        temperature: [
            [CompletionText(text, text, ends) for text, ends in memo[key]]
            for key in (_key(stream, one, temperature, settings) for one in held)
        ]
        for temperature in temperatures
    }


def _best(
    stream: Stream, held: Sequence[HeldOut], texts: Sequence[list[CompletionText]], memo: Memo
) -> list[list[CompletionText]]:
    """Of every ``best_of`` neighbours the one with the highest score."""
    ranker, n = RewardJudge(stream.ranked_by), stream.best_of
    asked = [(one.text, text) for one, own in zip(held, texts, strict=True) for text in own]
    scores = iter(ranker.scores(asked, memo))
    found = []
    for own in texts:
        scored = [(next(scores), text) for text in own]
        groups = [scored[k : k + n] for k in range(0, len(scored), n)]
        found.append([max(group, key=lambda each: each[0])[1] for group in groups])
    return found


def _rows(held: Sequence[HeldOut], before: str) -> list[Prompt]:
    """The prompts as a model reads them.

    Raises:
        ConfigError: Text before a prompt that is a conversation.
    """
    if not before:
        return [one.row for one in held]
    if any(not isinstance(one.row.prompt, str) for one in held):
        raise ConfigError("examples can be put before prompts that are text, not conversations.")
    return [replace(one.row, prompt=before + str(one.row.prompt)) for one in held]


def _key(stream: Stream, one: HeldOut, temperature: float, settings: Settings) -> str:
    question = {
        "sample of": stream.identity,
        "prompt": as_json(one.row.prompt),
        "temperature": temperature,
        "max_new_tokens": settings.max_new_tokens,
    }
    if temperature > 0:
        question["noise"] = [settings.seed, stream.number, one.place, settings.samples]
    return sha_of(question)


def _draw(
    policy: Policy,
    held: Sequence[HeldOut],
    stream: Stream,
    temperature: float,
    settings: Settings,
) -> list[list[tuple[str, bool]]]:
    """Text and whether it ended, of each completion of each prompt."""
    rows = _rows(held, stream.before)
    tokenised = tokenise(rows, policy.tokenizer, RowReport(stream.source, seen=len(rows)))
    trees: list[PromptTree] = [replace(tree, index=held[tree.row].place) for tree in tokenised]
    samples = settings.samples if temperature > 0 else 1
    drawn = sample(
        policy,
        trees,
        samples=samples,
        max_new_tokens=settings.max_new_tokens,
        spec=SamplingSpec(temperature),
        seed=settings.seed,
        rollout=stream.rollout,
        stop_ids=policy.stop_ids,
        batch_size=settings.batch_size,
    )
    check_samples(policy, drawn, SamplingSpec(temperature))
    _, said = drawn.texts(policy.tokenizer)
    ends = [each for row in drawn.finished for each in row]
    texts = [(str(text), end) for text, end in zip(said, ends, strict=True)]
    return [texts[k : k + samples] for k in range(0, len(texts), samples)]
