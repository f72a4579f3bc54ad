"""Online DPO: the loss and the judge's labels by hand, and what a phase is turned into."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.models import Scores
from alignlab.objectives.dpo import dpo_loss
from alignlab.objectives.on_policy import Sampling, Scored
from alignlab.objectives.online_dpo import OnlineDPO, label, online_dpo_loss
from alignlab.rewards.base import Reward
from tests.objectives.direct import by_loop, column, moved, random_logps

ADAM = partial(torch.optim.AdamW, lr=1e-3)
PROMPTS = [PromptTree(10 * i + 3, str(i), (1, 3 + i), ()) for i in range(6)]


class Length(Reward):
    def __call__(self, prompts, completions):
        return torch.tensor([float(len(text.split())) for text in completions])


@pytest.fixture
def make(build):
    def online(**settings) -> OnlineDPO:
        chosen = {"labels": "sampled"} | settings
        return OnlineDPO(build("llama"), Length(), Sampling(6), optimizer=ADAM, **chosen)

    return online


def test_value_worked_by_hand():
    """Margin 1, preferred with 0.75: 0.75 * 0.313262 + 0.25 * 1.313262."""
    losses, first, second = online_dpo_loss(*column(-1, -4, -2, -3, 0.75), beta=0.5)
    assert losses.item() == pytest.approx(0.563262, abs=1e-6)
    assert (first.item(), second.item()) == (0.5, -0.5)


def test_a_plain_label_is_dpo():
    pc, pr, rc, rr = random_logps(0)
    one, zero = torch.ones(5), torch.zeros(5)
    told = online_dpo_loss(pc, pr, rc, rr, one, beta=0.3).losses
    assert_close(told, dpo_loss(pc, pr, rc, rr, beta=0.3).losses)
    told = online_dpo_loss(pc, pr, rc, rr, zero, beta=0.3).losses
    assert_close(told, dpo_loss(pr, pc, rr, rc, beta=0.3).losses)


def test_labels_worked_by_hand():
    """Rewards 2 and 1 at scale 0.5: sigma(0.5) = 0.622459."""
    first, second = torch.tensor([2.0, 1.0, 3.0]), torch.tensor([1.0, 2.0, 3.0])
    noise = torch.tensor([0.63, 0.37, 0.49])
    soft = label(first, second, noise, labels="soft", scale=0.5)
    assert soft.tolist() == pytest.approx([0.622459, 0.377541, 0.5])
    assert label(first, second, noise, labels="sampled", scale=0.5).tolist() == [0.0, 1.0, 1.0]
    assert label(first, second, noise, labels="argmax", scale=0.5).tolist() == [1.0, 0.0, 0.5]


def scored(online: OnlineDPO, scores: list[float]) -> Scored:
    pairs = [PromptTree(t.index, t.id, t.prompt, ((5, 6, 2), (7,))) for t in PROMPTS]
    trees = collate(pairs[: len(scores) // 2])
    zero = torch.zeros(trees.loss_mask.shape, dtype=torch.float64)
    return Scored(trees, zero, zero - 0.5, torch.tensor(scores, dtype=torch.float64))


def test_preferences_stand_where_advantages_do(make):
    batch = make(labels="argmax").advantages(scored(make(), [1.0, 0.0, 2.0, 5.0, 3.0, 3.0]))
    assert batch.advantages[:, 0].tolist() == [1.0, 0.0, 0.0, 1.0, 0.5, 0.5]
    soft = make(labels="soft", scale=2.0).advantages(scored(make(), [1.0, 0.5]))
    assert soft.advantages[:, 0].tolist() == pytest.approx([0.731059, 0.268941], abs=1e-6)
    assert batch.ref_token_logps is not None


def test_sampled_labels_are_a_function_of_seed_phase_and_prompt(make):
    online = make(labels="sampled")
    flat = scored(online, [0.0] * 12)

    def at(rollout: int) -> list[float]:
        online.rollout = rollout
        return online.advantages(flat).advantages[::2, 0].tolist()

    phases = [at(r) for r in range(400)]
    assert at(7) == phases[7]
    assert phases[0] != phases[1]
    assert sum(map(sum, phases)) / 2400 == pytest.approx(0.5, abs=0.03)  # 3 standard errors


def test_a_phase_of_its_own_completions(make):
    online = make(labels="argmax", beta=0.4)
    batch = online.collect(PROMPTS, samples=2, rollout=3)
    assert online.rollout == 3
    trees = batch.trees
    lengths = trees.completion_lengths.view(-1, 2)  # a word a token, an end-of-text token is none
    words = lengths - (trees.completion_ids == 2).sum(1).view(-1, 2)
    expected = (1 + (words[:, 0] - words[:, 1]).sign()) / 2
    assert batch.advantages[::2, 0].tolist() == expected.tolist()
    ref = online.reference.token_logps(trees).sum(1)
    moved(online.policy)
    rows = [
        PromptTree(0, "", tuple(p), (tuple(c[:n]),))
        for p, c, n in zip(
            trees.prompt_ids[trees.group].tolist(),
            trees.completion_ids.tolist(),
            trees.completion_lengths.tolist(),
            strict=True,
        )
    ]
    sums, _ = by_loop(online.policy, rows)
    with torch.no_grad():
        losses, means = online.losses(batch, online.policy(trees))
    four = sums[::2], sums[1::2], ref[::2], ref[1::2]
    told = online_dpo_loss(*four, batch.advantages[::2, 0], beta=0.4)
    assert_close(losses, told.losses)
    assert_close(means["loss"], told.losses.mean())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, r"OnlineDPO needs beta > 0"),
        ({"scale": 0.0}, r"OnlineDPO needs scale > 0"),
        ({"labels": "best"}, "sampled, soft, argmax, got 'best'"),
    ],
)
def test_impossible_settings_are_refused(make, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(**settings)


def test_it_takes_two_to_compare(make):
    with pytest.raises(ConfigError, match=r"samples_per_prompt to 2"):
        make().collect(PROMPTS, samples=3, rollout=0)


def test_a_tie_is_half_right(make):
    """Four pairs: the policy agrees, disagrees, has no opinion, and the judge has none."""
    online = make(labels="argmax", beta=1.0)
    flat = scored(online, [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 2.0, 2.0])
    batch = online.advantages(flat)
    ref = batch.ref_token_logps
    lead = torch.tensor([0.3, 0.0, -0.3, 0.0, 0.0, 0.0, 0.3, 0.0], dtype=ref.dtype)
    scores = Scores(ref, ref != 0, ref.sum(1) + lead, (ref != 0).sum(1), batch.trees.group)
    _, means = online.losses(batch, scores)
    assert means["rewards/accuracies"].item() == pytest.approx((1 + 0 + 0.5 + 0.5) / 4)
