"""The exact optimum of reward minus beta * KL, by importance sampling from a pool of samples.

For one prompt the optimum is pi*(y) = pi_ref(y) exp(r(y) / beta) / Z (Rafailov et al. 2023,
arXiv:2305.18290, Eq. 4). Its reward and its KL to the reference are means under pi_ref of functions
of r alone, so a pool of samples with known rewards and known log-probs gives both, for every beta.

Samples may come from the reference only, or also from trained policies, which visit the texts that
pi* likes and the reference rarely writes. With n_j of the N samples from proposal q_j, each sample
is weighted by the balance heuristic (Veach and Guibas 1995), pi_ref / m with the mixture
m = sum_j (n_j / N) q_j: E_ref[g] ~ sum_i base_i g(y_i) with base_i ~ pi_ref(y_i) / m(y_i).
The weights are normalised within each prompt, so the pool is a discrete reference distribution
and everything below is exact for it; KL is never negative and is 0 at beta = infinity.

    w_i = base_i exp(r_i / beta) / Z,     Z = sum_i base_i exp(r_i / beta)
    R* = sum_i w_i r_i
    KL* = sum_i w_i log(w_i / base_i) = R* / beta - log Z

**The dual bound.** By Lagrange duality no policy of mean KL k has more reward than
mean_p(beta log Z_p) + beta k, whatever beta is; the optimum's own beta makes it an equality. But
the logarithm of an estimated Z is too low on average (Jensen). Let A and B be two halves of a
prompt's samples. A logarithm lies below its tangents, log Z <= log Z_A + Z / Z_A - 1, and Z_B is
an unbiased estimate of Z that is independent of Z_A, so log Z_A + Z_B / Z_A - 1 errs upwards on
average, whatever the number of samples. No weight is normalised here: base_i is pi_ref / m itself.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from alignlab.results.pool import Pool
from alignlab.results.statistics import Floats

MIN_ESS = 50.0
POOR_SHARE = 0.05  # of the prompts may fall below MIN_ESS
_SMALLEST = (
    1e-6  # beta below which all weight is on the best samples, in units of the rewards' range
)
MIN_BOUND_ESS = 10.0  # where the bound's limit still holds (the tests simulate it)
_ONE_SIDED = 1.645  # standard errors that a normal variable exceeds with a chance of 5 %
_COARSER = 4  # the bound takes every fourth beta of the grid
_GRID, _MARGIN = 96, 1.5  # betas, and how far they reach beyond those of the observed prompts


@dataclass(frozen=True, kw_only=True, eq=False)
class Optimum:
    """The optimum at one beta, an entry per prompt.

    Args:
        beta: Strength of the KL penalty, the same for all prompts.
        reward: ``[P]`` expected reward R*.
        kl: ``[P]`` KL(pi* || pi_ref) in nats.
        ess: ``[P]`` effective sample size 1 / sum w^2.
        log_z: ``[P]`` log E_ref[exp(r / beta)].
    """

    beta: float
    reward: Floats
    kl: Floats
    ess: Floats
    log_z: Floats

    @property
    def ess_reached(self) -> float:
        """The effective sample size that at most 5 % of the prompts fall below."""
        return float(np.sort(self.ess)[int(POOR_SHARE * len(self.ess))])

    @property
    def reliable(self) -> bool:
        """Whether at most 5 % of the prompts have an effective sample size under 50."""
        return self.ess_reached >= MIN_ESS


def log_base_of(rewards: Floats, log_proposal_ratio: Floats | None) -> Floats:
    """Normalised log-weights ``[P, N]`` that make the pool stand for the reference.

    ``log_proposal_ratio`` is log(pi_ref / m), known up to a constant per prompt; ``None`` means
    that all samples come from the reference.
    """
    if log_proposal_ratio is None:
        return np.full(rewards.shape, -np.log(rewards.shape[1]))
    return log_proposal_ratio - _logsumexp(log_proposal_ratio)[:, None]


def optimum(rewards: Floats, beta: float, log_proposal_ratio: Floats | None = None) -> Optimum:
    """Reward, KL and effective sample size of the optimum at ``beta``, per prompt.

    Args:
        rewards: ``[P, N]`` float64, reward of each sample.
        beta: > 0; ``inf`` is the reference itself.
        log_proposal_ratio: ``[P, N]`` log(pi_ref / mixture), ``None`` for reference samples.
    """
    if not beta > 0:
        raise ValueError(f"beta must be > 0, got {beta}")
    return _tilted(rewards, log_base_of(rewards, log_proposal_ratio), beta)


def _tilted(rewards: Floats, log_base: Floats, beta: float) -> Optimum:
    top = rewards.max(1)
    score = (rewards - top[:, None]) / beta  # <= 0, so that no reward overflows
    logits = log_base + score
    peak = logits.max(1)
    w = np.exp(logits - peak[:, None])
    total = w.sum(1)
    log_sum = peak + np.log(total)
    return Optimum(
        beta=beta,
        reward=_dot(w, rewards) / total,
        kl=np.maximum(_dot(w, score) / total - log_sum, 0.0),
        ess=total**2 / _dot(w, w),
        log_z=log_sum + top / beta,
    )


def _dot(a: Floats, b: Floats) -> Floats:
    """Row by row ``[P, N], [P, N] -> [P]``, without a table of products."""
    out: Floats = np.einsum("pn,pn->p", a, b)
    return out


def optimum_at_kl(pool: Pool, budget: float) -> Optimum | None:
    """The optimum whose KL, averaged over prompts, is ``budget``; one beta for all prompts.

    That is the best policy with this mean KL: a prompt where reward is cheap may spend more.

    Returns:
        ``None`` if the pool cannot represent so large a KL (all weight on its best samples).
    """
    if budget <= 0:
        raise ValueError(f"a KL budget must be > 0, got {budget}")
    log_base = log_base_of(pool.rewards, pool.log_ratio)
    if budget > _largest_kl(pool.rewards, log_base):
        return None
    return _solve_anywhere(pool.rewards, log_base, budget)


class DualBound(NamedTuple):
    """An upper bound on the reward of every policy within a KL budget, mean over prompts.

    Attributes:
        reward: The estimate, which errs upwards on average.
        limit: One-sided 95 % limit: ``reward`` and the sampling error of these prompts' pool.
    """

    reward: float
    limit: float


class OracleCurve:
    """The optimum at many budgets, and for resampled prompts.

    By duality R*(k) = min over beta of mean_p(beta log Z_p(beta)) + beta k, flat around its
    minimum: a grid of betas gives the optimum of any reweighting of the prompts to 1e-3 of the
    gain at the price of a matrix product. The observed prompts' own optimum is solved exactly.

    Args:
        pool: The samples.
        budgets: ``[G]`` KL budgets, nats, each > 0.

    Attributes:
        optima: The exact optimum at each budget; ``None`` where the pool ends.
    """

    def __init__(self, pool: Pool, budgets: Floats) -> None:
        self.budgets, self._pool = budgets, pool
        self.optima: list[Optimum | None] = [None] * len(budgets)
        self._betas, self._dual = np.ones(0), np.zeros((len(pool.rewards), 0))
        rewards, log_base = pool.rewards, log_base_of(pool.rewards, pool.log_ratio)
        reachable = np.flatnonzero(budgets <= _largest_kl(rewards, log_base))
        if not len(reachable):
            return
        least, most = budgets[reachable].min(), budgets[reachable].max()
        smallest = _solve_anywhere(rewards, log_base, float(most)).beta
        largest = _solve_anywhere(rewards, log_base, float(least)).beta
        self._betas = np.geomspace(smallest / _MARGIN, largest * _MARGIN, _GRID)
        grid = [_tilted(rewards, log_base, float(beta)) for beta in self._betas]
        kl = np.array([solved.kl.mean() for solved in grid])  # falls along the grid
        self._dual = np.stack([solved.beta * solved.log_z for solved in grid], axis=1)
        for k in reachable:
            right = int(np.clip((kl > budgets[k]).sum(), 1, _GRID - 1))
            lo, hi = self._betas[right - 1], self._betas[right]
            self.optima[k] = _solve(rewards, log_base, float(budgets[k]), float(lo), float(hi))

    def resampled(self, weights: Floats) -> Floats:
        """Optimal reward ``[B, G]`` under prompt weights ``[B, P]`` (rows sum to 1)."""
        out = np.full((len(weights), len(self.budgets)), np.nan)
        dual = weights @ self._dual
        for k, solved in enumerate(self.optima):
            if solved is not None:
                out[:, k] = (dual + self._betas * self.budgets[k]).min(1)
        return out

    def bounds(self) -> list[DualBound | None]:
        """The dual bound at each budget.

        Beta is chosen on the half of the samples whose tangent is used. So it is as independent of
        the other half as the tangent is, and the mean still errs upwards.

        Returns:
            ``None`` where the optimum's effective sample size is under 10, or a proposal has fewer
            than 4 samples per prompt: the limit is not reliable either.
        """
        counts = np.bincount(self._pool.proposal)
        if not len(self._betas) or counts[counts > 0].min() < 4:
            return [None] * len(self.budgets)
        betas = self._betas[::_COARSER]
        grid = [log_z_by_half(self._pool, float(beta)) for beta in betas]
        plain, above, variance = np.stack([np.mean(each, axis=2) for each in grid], axis=2)
        rows = np.arange(2)
        found: list[DualBound | None] = []
        for solved, budget in zip(self.optima, self.budgets, strict=True):
            best = (betas * (plain + budget)).argmin(1)
            reward = float((betas[best] * (above[rows, best] + budget)).mean())
            errors = betas[best] ** 2 * variance[rows, best] / len(self._pool.prompt_ids)
            limit = reward + _ONE_SIDED * float(np.sqrt(errors.mean()))
            known = solved is not None and solved.ess_reached >= MIN_BOUND_ESS
            found.append(DualBound(reward, limit) if known else None)
        return found


class LogZ(NamedTuple):
    """Estimates of log Z, a row for each half of the samples, ``[2, P]``.

    Attributes:
        plain: The logarithm of the half's Z, which errs downwards on average.
        above: Its tangent at the half's Z, read at the other half's, which errs upwards.
        variance: Of the sampling error of ``above`` for a given half.
    """

    plain: Floats
    above: Floats
    variance: Floats


def log_z_by_half(pool: Pool, beta: float) -> LogZ:
    """log Z at ``beta`` from either half of the samples: every second one of each proposal.

    Args:
        pool: At least 2 samples per prompt from each proposal.
        beta: > 0.
    """
    score = pool.rewards / beta + (0.0 if pool.log_ratio is None else pool.log_ratio)
    top = score.max(1)
    terms = np.exp(score - top[:, None])
    z, error = np.zeros((2, len(terms))), np.zeros((2, len(terms)))
    for j in np.unique(pool.proposal):
        own = np.flatnonzero(pool.proposal == j)
        share = len(own) / terms.shape[1]
        for k in (0, 1):
            drawn = terms[:, own[k::2]]
            z[k] += share * drawn.mean(1)
            error[k] += share**2 * drawn.var(1) / max(drawn.shape[1] - 1, 1)
    plain = top + np.log(z)
    return LogZ(plain, plain + z[::-1] / z - 1, error[::-1] / z**2)


def reference_reward(pool: Pool) -> Floats:
    """``[P]`` mean reward of the reference: the pool at beta = infinity."""
    return (np.exp(log_base_of(pool.rewards, pool.log_ratio)) * pool.rewards).sum(1)


def oracle_efficiency(reward: float, reference: float, optimal: float) -> float:
    """Share of the possible gain: (R - R_ref) / (R* - R_ref), all on the same prompts."""
    return (reward - reference) / (optimal - reference)


def _logsumexp(x: Floats) -> Floats:
    top = x.max(1)
    return top + np.log(np.exp(x - top[:, None]).sum(1))


def _largest_kl(rewards: Floats, log_base: Floats) -> float:
    """Mean KL with all weight on the best samples; 0 where the reward is constant."""
    spread = float(np.ptp(rewards))
    return float(_tilted(rewards, log_base, spread * _SMALLEST).kl.mean()) if spread else 0.0


def _solve_anywhere(rewards: Floats, log_base: Floats, budget: float) -> Optimum:
    lo = hi = float(np.ptp(rewards))
    while _tilted(rewards, log_base, hi).kl.mean() > budget:
        hi *= 4
    while lo > _SMALLEST * hi and _tilted(rewards, log_base, lo).kl.mean() < budget:
        lo /= 4
    return _solve(rewards, log_base, budget, lo, hi)


def _solve(rewards: Floats, log_base: Floats, budget: float, lo: float, hi: float) -> Optimum:
    """The optimum with mean KL ``budget``; its beta lies between ``lo`` and ``hi``."""

    def excess(log_beta: float) -> float:
        return float(_tilted(rewards, log_base, float(np.exp(log_beta))).kl.mean()) - budget

    log_beta = brentq(excess, np.log(lo), np.log(hi), xtol=1e-11)
    return _tilted(rewards, log_base, float(np.exp(log_beta)))
