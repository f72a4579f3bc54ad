"""A*-PO by hand: the optimal value of a pool, the regression, and what a phase is turned into."""

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError, DataError
from alignlab.functional.sampling import SamplingSpec
from alignlab.objectives.astar_po import AStarPO, astar_po_loss, optimal_value
from alignlab.objectives.on_policy import Sampling
from tests.cells import WordCount
from tests.objectives.direct import column
from tests.rewards.pools import write_pool

ADAM = partial(torch.optim.AdamW, lr=1e-2)
PROMPTS = [
    PromptTree(7, "a", (1, 5), (), source=" w5"),
    PromptTree(3, "b", (1, 8), (), source=" w8"),
]


@pytest.fixture
def make(build, tmp_path: Path):
    """The pool's rewards are 1 and 2 words for one prompt, 3 words for the other."""
    rated = {" w5": {" w3": 1.0, " w3 w4": 2.0}, " w8": {" w3 w4 w5": 3.0}}
    pool = write_pool(tmp_path / "candidates.jsonl", rated)

    def made(**settings) -> AStarPO:
        sampling = Sampling(6, centre_rewards=settings.pop("centre_rewards", False))
        policy = build("llama")
        objective = AStarPO(policy, WordCount(), sampling, pool, optimizer=ADAM, **settings)
        objective.setup("fit")
        return objective

    return made


def test_the_optimal_value_worked_by_hand() -> None:
    """exp of 0, 0 and log 10 is 4 on average; a beta of 2 doubles what doubled rewards say."""
    assert optimal_value([0.0, 0.0, math.log(10)], beta=1.0) == pytest.approx(math.log(4))
    assert optimal_value([0.0, 0.0, 2 * math.log(10)], beta=2.0) == pytest.approx(2 * math.log(4))
    assert optimal_value([-1e6, 3.0], beta=0.1) == pytest.approx(3 - 0.1 * math.log(2))


def test_value_and_gradient_worked_by_hand() -> None:
    """0.5 times a log-ratio of 2 misses an advantage of 2 by 1."""
    logps, ref, advantages = column(-1, -3, 2)
    loss = astar_po_loss(logps.requires_grad_(), ref, advantages, beta=0.5)
    loss.sum().backward()
    assert loss.item() == 1.0
    assert logps.grad is not None
    assert logps.grad.item() == -1.0  # 2 * -1 * 0.5


def test_finite_for_extreme_log_ratios() -> None:
    logps = torch.tensor([200.0, -200.0])
    assert astar_po_loss(logps, -logps, torch.zeros(2), beta=2.0).tolist() == [640000.0] * 2


@pytest.mark.parametrize("centre", [False, True])
def test_a_phase_has_the_reward_minus_its_prompts_optimal_value(make, centre: bool) -> None:
    """Whether rewards are centred or not: the value is centred with them."""
    objective = make(beta=0.5, value_beta=2.0, centre_rewards=centre)
    batch = objective.collect(PROMPTS, samples=3, rollout=0)
    lengths = (batch.trees.completion_ids >= 3).sum(1)  # of words
    first = 2 * math.log((math.exp(1 / 2) + math.exp(2 / 2)) / 2)
    values = torch.tensor([first] * 3 + [3.0] * 3, dtype=torch.float64)
    assert_close(batch.advantages[:, 0].double(), lengths - values)
    with torch.no_grad():
        losses, means = objective.losses(batch, objective.policy(batch.trees))
    assert_close(losses, (lengths - values).square())  # at the start the log-ratios are 0
    assert_close(means["loss"], losses.mean())


def test_without_a_beta_of_its_own_the_value_has_the_losss(make) -> None:
    assert make(beta=0.7).value_beta == 0.7


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"beta": 0.0}, "AStarPO needs beta > 0"), ({"value_beta": -1.0}, "needs value_beta > 0")],
)
def test_impossible_settings_are_refused(make, settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**settings)


def test_what_the_pool_does_not_know_is_refused(build, make) -> None:
    for sampling in (Sampling(6, missing_eos_penalty=1.0), Sampling(6, SamplingSpec(0.7))):
        with pytest.raises(ConfigError, match="AStarPO compares rewards with those of a pool"):
            AStarPO(build("llama"), WordCount(), sampling, "", optimizer=ADAM)
    with pytest.raises(DataError, match="no samples of the prompt ' w9'"):
        make().collect([PromptTree(0, "c", (1, 9), (), source=" w9")], samples=1, rollout=0)
    with pytest.raises(DataError, match="c: cut to max_length"):
        make().collect([PromptTree(0, "c", (1, 9), ())], samples=1, rollout=0)
