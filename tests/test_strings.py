"""Strings in and out, against the same models asked token by token."""

from collections.abc import Callable

import pytest
import torch

from alignlab.errors import DataError
from alignlab.models.policy import Policy
from alignlab.rewards.rule import Length
from alignlab.strings import Point, frontier, generate, point, score


@pytest.fixture(scope="module")
def pair(build: Callable[..., Policy]) -> tuple[Policy, Policy]:
    """A policy, and another of the same family with flatter distributions."""
    return build(), build(spread=0.2)


def by_hand(policy: Policy, prompt: list[int], completion: list[int]) -> list[torch.Tensor]:
    """The next-token log-probs before each token of the completion, from one plain forward."""
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        logps = policy.model(input_ids=ids).logits[0].log_softmax(-1)
    return [logps[len(prompt) - 1 + t] for t in range(len(completion))]


def ids_of(words: str) -> list[int]:
    """The ids of " w4 w9": the number is the id."""
    return [int(word[1:]) for word in words.split()]


def test_scores_are_the_plain_forwards(pair: tuple[Policy, Policy]) -> None:
    policy, _ = pair
    texts = [(" w4 w9", " w7 w5"), (" w4 w9", " w30"), (" w8", ""), (" w8", " w3 w3 w3")]
    found = score(policy, [p for p, _ in texts], [c for _, c in texts])
    for value, (prompt, completion) in zip(found.tolist(), texts, strict=True):
        ids = [*ids_of(completion), 2]  # <eos>
        rows = by_hand(policy, [1, *ids_of(prompt)], ids)
        assert value == pytest.approx(sum(row[i].item() for row, i in zip(rows, ids, strict=True)))


def test_an_empty_completion_is_scored_after_its_own_prompt(pair: tuple[Policy, Policy]) -> None:
    """Also beside the prompt before it, whose place among the other rows is the same."""
    prompts, completions = [" w4 w9 w5", " w8"], [" w7", ""]
    found = score(pair[0], prompts, completions)
    first = by_hand(pair[0], [1, 4, 9, 5], [7, 2])
    (end,) = by_hand(pair[0], [1, 8], [2])
    assert found.tolist() == pytest.approx([(first[0][7] + first[1][2]).item(), end[2].item()])


def test_kl_and_reward_of_sampled_texts(pair: tuple[Policy, Policy]) -> None:
    policy, reference = pair
    prompts = [" w4 w9", " w8", " w5 w6"]
    drawn = generate(policy, prompts, samples=3, max_new_tokens=5, seed=4)
    assert [len(texts) for texts in drawn] == [3, 3, 3]
    repeated = [prompt for prompt in prompts for _ in range(3)]
    texts = [text for own in drawn for text in own]
    found = point(policy, reference, repeated, texts, Length())
    wanted = []
    for prompt, text in zip(repeated, texts, strict=True):
        ids = [*ids_of(text), *[2] * text.ends]  # type: ignore[attr-defined]
        start = [1, *ids_of(prompt)]
        each = zip(by_hand(policy, start, ids), by_hand(reference, start, ids), strict=True)
        wanted.append(sum((p.exp() * (p - q)).sum().item() for p, q in each))
    assert found.kl == pytest.approx(sum(wanted) / 9)
    assert found.reward == pytest.approx(sum(len(text.split()) for text in texts) / 9)
    means = [sum(wanted[3 * i : 3 * i + 3]) / 3 for i in range(3)]
    spread = sum((mean - found.kl) ** 2 for mean in means) / 2
    assert found.kl_se == pytest.approx((spread / 3) ** 0.5)


def test_a_policy_has_no_kl_to_itself(pair: tuple[Policy, Policy]) -> None:
    policy, _ = pair
    found = point(policy, policy, [" w4", " w8"], [" w7", " w9 w9"], Length())
    assert (found.kl, found.reward) == (0.0, 1.5)


def test_a_frontier_is_the_hull() -> None:
    """By hand: the point at KL 2 lies below the chord from (1, 2) to (3, 4)."""
    points = [Point(1.0, 0.1, 2.0, 0.1), Point(2.0, 0.1, 2.5, 0.1), Point(3.0, 0.1, 4.0, 0.1)]
    assert frontier(0.0, points, [0.5, 2, 3, 5]) == [1.0, 3.0, 4.0, None]


def test_what_cannot_be_used_is_an_error(pair: tuple[Policy, Policy]) -> None:
    policy, _ = pair
    with pytest.raises(DataError, match="2 prompts for 1 completions"):
        score(policy, [" w4", " w5"], [" w4"])
    with pytest.raises(DataError, match=r"text 2: .*completion"):
        score(policy, [" w4", " w5"], [" w4", 7])  # type: ignore[list-item]


def test_equal_prompts_have_noise_of_their_own(pair: tuple[Policy, Policy]) -> None:
    first, second = generate(pair[0], [" w4", " w4"], max_new_tokens=12)
    assert first != second
