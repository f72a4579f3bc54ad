"""K-wise ranking: three by hand, ties in any order, two as Bradley-Terry, one forward each."""

import math
from functools import partial
from itertools import combinations, permutations

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import DataError
from alignlab.models import ScoreModel
from alignlab.objectives.kwise_rm import KWiseRewardModel, kwise_rm_loss
from alignlab.objectives.rm import RewardModel, rm_loss
from tests.objectives.scorers import fixed

ADAM = partial(torch.optim.AdamW, lr=1e-2)
LOG2, LOG3, LOG4 = math.log(2), math.log(3), math.log(4)


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_three_worked_by_hand():
    """Odds 4 : 2 : 1 ranked so: the pairs win 2/3, 4/5 and 2/3, each weighing one third."""
    losses = kwise_rm_loss(f64(LOG4, LOG2, 0), torch.zeros(3).long(), torch.tensor([0, 1, 2]))
    assert_close(losses, f64((2 * math.log(3 / 2) + math.log(5 / 4)) / 3))


def test_gradient_of_three_worked_by_hand():
    """Each pair pulls with a third of the chance that it is wrong: 1/3, 1/5, 1/3."""
    scores = f64(LOG4, LOG2, 0).requires_grad_()
    kwise_rm_loss(scores, torch.zeros(3).long(), torch.tensor([0, 1, 2])).sum().backward()
    first, outer, last = 1 / 9, 1 / 15, 1 / 9
    assert_close(scores.grad, f64(-first - outer, first - last, outer + last))


def test_equal_scores_are_still_pairs():
    """What is counted are ranks that differ, never losses or scores that do."""
    scores, rank = f64(5, 5, 5), torch.tensor([0, 1, 2])
    assert_close(kwise_rm_loss(scores, torch.zeros(3).long(), rank), f64(LOG2))


def test_prompts_weigh_the_same_whatever_their_number_of_completions():
    """Nine equal completions cost log 2, as two do."""
    group = torch.tensor([0] * 9 + [1] * 2)
    rank = torch.tensor([*range(9), 0, 1])
    losses = kwise_rm_loss(torch.zeros(11, dtype=torch.float64), group, rank)
    assert_close(losses, f64(LOG2, LOG2))


def test_the_order_of_tied_completions_does_not_matter():
    """Ranks 0, 1, 1, 2 in every order in which they can be written down."""
    scores, rank = f64(LOG3, 0.5, -0.25, 1), torch.tensor([0, 1, 1, 2])
    one = torch.zeros(4).long()
    expected = kwise_rm_loss(scores, one, rank)
    for order in map(list, permutations(range(4))):
        assert_close(kwise_rm_loss(scores[order], one, rank[order]), expected)
    # By hand: five pairs, the tied one not among them.
    gaps = [LOG3 - 0.5, LOG3 + 0.25, LOG3 - 1, 0.5 - 1, -0.25 - 1]
    assert float(expected) == pytest.approx(sum(math.log1p(math.exp(-g)) for g in gaps) / 5)


def test_two_completions_are_bradley_terry_to_the_bit():
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    scores = torch.stack([rejected, chosen], 1).flatten()
    rank = torch.tensor([1, 0] * 7)
    losses = kwise_rm_loss(scores, torch.arange(7).repeat_interleave(2), rank)
    assert torch.equal(losses, rm_loss(chosen, rejected).losses)


# ---------------------------------------------------------------- the module


def test_means_are_over_prompts_of_a_prompts_pairs():
    """Scores 2, 0, 1 against ranks 0, 1, 2: two pairs of three right; then a tie."""
    trees = [
        PromptTree(0, "a", (1,), ((3,), (4,), (5,)), labels=(0, 1, 2)),
        PromptTree(1, "b", (1,), ((3,), (4,)), labels=(1, 0)),
    ]
    module = KWiseRewardModel(fixed([2.0, 0.0, 1.0, 4.0, 4.0]), ADAM)
    losses, means = module.losses(collate(trees))
    assert losses.shape == (2,)
    assert float(means["accuracy"]) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert float(means["margin"]) == pytest.approx(((2 + 1 - 1) / 3 + 0) / 2)
    assert float(means["score"]) == pytest.approx((1 + 4) / 2)


def test_pairs_have_no_ranks():
    module = KWiseRewardModel(fixed([1.0, 0.0]), ADAM)
    with pytest.raises(DataError, match=r"needs ranks\. Use RankingData"):
        module.losses(collate([PromptTree(0, "a", (1,), ((3,), (4,)))]))


@pytest.fixture
def scorer(build, tmp_path) -> ScoreModel:
    build("llama", dtype="float64").save(tmp_path / "lm")
    return ScoreModel(str(tmp_path / "lm"), dtype="float64", layout="flat")


def test_one_forward_per_completion_gives_the_gradient_of_all_pairs(scorer, monkeypatch):
    """K completions go through the model where their pairs, one by one, send K (K - 1)."""
    completions = ((3, 2), (4, 5, 2), (6, 2), (7, 8, 9, 2))
    ranking = PromptTree(0, "a", (1, 9), completions, labels=(2, 0, 1, 3))
    best_first = [completions[i] for i in (1, 2, 0, 3)]
    pairs = [PromptTree(i, "p", (1, 9), pair) for i, pair in enumerate(combinations(best_first, 2))]
    read = []
    hidden_states = scorer.hidden_states

    def counted(trees, select, *, after):
        read.append(len(trees.group))
        return hidden_states(trees, select, after=after)

    monkeypatch.setattr(scorer, "hidden_states", counted)
    losses, _ = KWiseRewardModel(scorer, ADAM).losses(collate([ranking]))
    losses.sum().backward()
    together = scorer.head.weight.grad.clone()
    assert read == [4]
    scorer.zero_grad()
    one_by_one, _ = RewardModel(scorer, ADAM).losses(collate(pairs))
    one_by_one.mean().backward()
    assert read == [4, 12]
    assert_close(losses[0], one_by_one.mean())
    assert_close(together, scorer.head.weight.grad)
