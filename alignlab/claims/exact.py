"""Claims that need no training run: their numbers are enumerated or computed in closed form.

The worlds are those of ``worlds.enumerable``: every completion is listed, so that means, variances
and divergences are sums in float64.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignlab.capacity.copies import bytes_of_copies, devices_for
from alignlab.functional import kl_full, kl_k1, kl_k2, kl_k3
from alignlab.objectives.base import PairLoss
from alignlab.objectives.dpo import dpo_loss
from alignlab.objectives.ipo import ipo_loss
from alignlab.objectives.on_policy import adapted_kl_coef
from alignlab.results.csv_tables import write_table
from alignlab.worlds.enumerable import EnumerableWorld, TabularPolicy, random_world

BATCH, BATCHES = 64, 4000  # completions of a batch, and batches drawn
GB = 1e9


def write_exact_tables(*, out: str | Path) -> None:
    """Stage: the exact tables, a few CPU seconds.

    ``estimators.csv``: mean, standard deviation and share of negative batches of the KL estimators,
    summed over the tokens of a completion. ``best_of_n.csv``: KL and win rate of best-of-n beside
    their bounds. ``two_arms.csv``: where DPO and IPO drive a policy that always sees the same
    winner. ``controller.csv``: the adaptive coefficient in closed loop with an exact optimum.
    ``gap.csv``: what DPO and IPO keep of the optimum's gain, from sampled labels. ``memory.csv``:
    bytes and cards of models of 175 billion parameters.

    Args:
        out: Folder to write.
    """
    tables = {
        "estimators": estimators,
        "best_of_n": best_of_n,
        "two_arms": two_arms,
        "controller": controller,
        "gap": gap,
        "memory": memory,
    }
    for name, rows in tables.items():
        write_table(Path(out) / f"{name}.csv", list(rows()))


def estimators() -> Iterator[dict[str, Any]]:
    """Policies at growing distance from the reference, of one prompt."""
    world, reference = random_world(11, vocabulary=6, length=4)
    step = torch.randn(
        reference.logits.shape, generator=torch.Generator().manual_seed(12), dtype=torch.float64
    )
    for scale in (0.1, 0.3, 1.0, 2.0):
        policy = TabularPolicy(world.completions, reference.logits + scale * step)
        yield from _estimated(world, policy, reference)


@torch.no_grad()
def _estimated(
    world: EnumerableWorld, policy: TabularPolicy, reference: TabularPolicy
) -> Iterator[dict[str, Any]]:
    logps = policy.sequence_logps()[0]
    chances = logps.exp()
    kl = world.kl(logps[None])
    draws = np.random.default_rng(0).multinomial(
        BATCH, chances.numpy() / chances.sum().item(), size=BATCHES
    )
    mask = world.completions.mask
    kinds: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}
    steps = {
        name: estimate(policy.token_logps(), reference.token_logps())[0]
        for name, estimate in kinds.items()
    }
    steps["rao_blackwell"] = kl_full(policy.next_logps(), reference.next_logps())[0]
    for name, table in steps.items():
        values = table.masked_fill(~mask, 0).sum(-1)
        mean = float(chances @ values)
        yield {
            "kl": kl,
            "estimator": name,
            "mean": mean,
            "sd": float(chances @ (values - mean).square()) ** 0.5,
            "negative_batches": float((draws @ values.numpy() < 0).mean()),
        }


def best_of_n() -> Iterator[dict[str, Any]]:
    """Best-of-n over rewards with and without ties, from a reference of small atoms."""
    for ties in (False, True):
        world, _ = random_world(3, vocabulary=6, length=4, ties=ties)
        even = torch.full_like(world.ref_logps, -math.log(world.ref_logps.shape[1]))
        world = EnumerableWorld(world.completions, even, world.rewards)
        for n in (2, 4, 16, 64):
            logps = world.best_of_n(n)
            yield {
                "ties": ties,
                "n": n,
                "completions": even.shape[1],
                "levels": len(world.rewards.unique()),
                "kl": world.kl(logps),
                "bound": math.log(n) - (n - 1) / n,
                "win_rate": _win_rate(world, logps),
                "win_bound": n / (n + 1),
            }


def _win_rate(world: EnumerableWorld, logps: Tensor) -> float:
    """Chance that the policy's completion beats one of the reference, a tie counting one half."""
    rewards = world.rewards[0]
    wins = (torch.sign(rewards[:, None] - rewards[None, :]) + 1) / 2
    return float(logps[0].exp() @ wins @ world.ref_logps[0].exp())


def two_arms(steps: int = 300) -> Iterator[dict[str, Any]]:
    """Two completions, of which the first is always preferred; the reference gives both 1/2.

    Gradient descent on the exact loss. ``fixed_point`` is IPO's, sigma(1 / (2 tau)) (Azar et al.
    2023, arXiv:2310.12036, section 5); DPO's loss has none, so its probability grows on to 1.
    """
    even = torch.full((1,), -math.log(2), dtype=torch.float64)
    objectives: dict[str, tuple[Callable[..., PairLoss], str, float]] = {
        "dpo": (dpo_loss, "beta", 50.0),
        "ipo": (ipo_loss, "tau", 0.25),  # whose loss is a parabola: the distance halves each step
    }
    for strength in (0.1, 0.3, 1.0):
        for name, (loss, setting, rate) in objectives.items():
            logit = torch.zeros(1, dtype=torch.float64, requires_grad=True)
            for _ in range(steps):
                arms = logsigmoid(logit), logsigmoid(-logit)
                losses = loss(*arms, even, even, **{setting: strength}).losses
                (slope,) = torch.autograd.grad(losses.sum(), logit)
                logit.data -= rate * slope
            stays = 1 / (1 + math.exp(-1 / (2 * strength)))
            yield {
                "objective": name,
                "strength": strength,
                "preferred": float(logit.detach().sigmoid()),
                "fixed_point": stays if name == "ipo" else 1.0,
            }


def controller(
    phases: int = 800, episodes: int = 256, horizon: int = 10_000
) -> Iterator[dict[str, Any]]:
    """The controller against a policy that is always at its optimum for the coefficient."""
    world, _ = random_world(5, vocabulary=6, length=4)
    for target in (0.25, 0.5, 1.0):
        for start in (0.1, 10.0):
            coef = start
            for _ in range(phases):
                kl = world.optimum(coef).kl
                coef = adapted_kl_coef(coef, kl, target=target, episodes=episodes, horizon=horizon)
            yield {
                "target": target,
                "start": start,
                "phases": phases,
                "coefficient": coef,
                "kl": world.optimum(coef).kl,
            }


def gap(pairs: int = 65536, seeds: int = 5) -> Iterator[dict[str, Any]]:
    """DPO and IPO at the minimum of their loss on pairs of one prompt's 21 completions.

    Both completions are drawn from the reference, and the label by Bradley-Terry. ``share`` is the
    gain in reward over that of the exact optimum at the same KL.
    """
    world, start = random_world(0, vocabulary=5, length=2)
    before = world.reward(world.ref_logps)
    objectives: dict[str, Callable[..., PairLoss]] = {
        "dpo": partial(dpo_loss, beta=0.5),
        "ipo": partial(ipo_loss, tau=0.2),
    }
    for seed, (name, loss) in product(range(seeds), objectives.items()):
        policy = TabularPolicy(world.completions, start.logits)
        _minimise(policy, world, _drawn(world, pairs, seed), loss)
        logps = policy.sequence_logps().detach()
        kl, reward = world.kl(logps), world.reward(logps)
        best = world.optimum(world.beta_for_kl(kl)).reward
        yield {
            "run": f"{name}-s{seed}",
            "objective": name,
            "pairs": pairs,
            "kl": kl,
            "reward": reward,
            "optimum": best,
            "share": (reward - before) / (best - before),
        }


def _drawn(world: EnumerableWorld, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Preferred and other completion ``[B]`` and the share of the pairs that are this one."""
    each = torch.arange(world.rewards.shape[1])
    won, lost = torch.cartesian_prod(each, each).T
    rewards, logps = world.rewards[0], world.ref_logps[0]
    chances = (logps[won] + logps[lost] + logsigmoid(rewards[won] - rewards[lost])).exp()
    chances[won == lost] = 0
    drawn = np.random.default_rng(seed).multinomial(size, (chances / chances.sum()).numpy())
    return won, lost, torch.from_numpy(drawn / size)


def _minimise(
    policy: TabularPolicy,
    world: EnumerableWorld,
    pairs: tuple[Tensor, Tensor, Tensor],
    loss: Callable[..., PairLoss],
) -> None:
    won, lost, weight = pairs
    optimizer = torch.optim.LBFGS(
        policy.parameters(),
        max_iter=100,
        tolerance_grad=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        logps, ref = policy.sequence_logps()[0], world.ref_logps[0]
        mean = (weight * loss(logps[won], logps[lost], ref[won], ref[lost]).losses).sum()
        mean.backward()
        return mean.item()

    optimizer.step(closure)


def memory(size: float = 175e9, card: float = 80 * GB) -> Iterator[dict[str, Any]]:
    """Policy and value function trained, reference and reward model frozen, 175 billion each."""
    for gradient in (2.0, 4.0):
        held = bytes_of_copies([size, size], [size, size], gradient=gradient)
        yield {
            "bytes_per_trained_parameter": 14 + gradient,
            "terabytes": held / 1e12,
            "cards": devices_for(held, card),
        }
