"""Fixed points: where an objective converges with unlimited data and perfect optimisation.

This *own optimum* need not be the optimum pi* of reward minus KL. If it lies below pi*, no tuning
helps; if an objective stays below its own optimum, it lacks data or optimisation.

An own optimum is pi_ref(y) exp(t(y)) with a *tilt* t that depends on the reward r(y), the length
|y|, log pi_ref(y), and on W(y), the chance that y is preferred to a sample of the reference, whose
labels are drawn by Bradley-Terry from r. So a pool of samples gives its reward and its KL by the
same weights as those of pi* (``oracle.py``), and the same effective sample size says how far to
trust them. Formulas and their sources are in ``docs/direct.md`` and ``docs/policy_gradient.md``;
``tests/evaluation/test_fixed_points.py`` holds each against the minimum of the objective's loss.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logsumexp, wrightomega

from alignlab.evaluation.oracle import Optimum, log_base_of
from alignlab.results.pool import Pool
from alignlab.results.statistics import Floats

STRENGTHS = 2.0 ** np.arange(-12, 13)  # where the search for a budget's strength starts
NEWTON, CLOSE = 100, 1e-10  # most steps, and the size of one that is the last
BISECTIONS, FAR = 45, 60.0  # steps, and nats that no constant of interest goes beyond
POINTS = 64  # betas of the learned reward's own optima
Settings = Mapping[str, Any]
GOLD, LEARNED = "gold", "learned"  # what ``reward`` may be among the settings


class NoFixedPoint(Exception):
    """No own optimum of the objective is known; the message says why."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """The quantities that tilts depend on, each ``[P, N]``.

    Args:
        log_base: Log-weights that make the samples represent the reference; they sum to 1 over N.
        rewards: Gold rewards, from which the labels were drawn.
        log_ref: log pi_ref(y), nats.
        lengths: Tokens, or ``None`` where they are unknown.
        proxy: The learned reward, or ``None``.
    """

    log_base: Floats
    rewards: Floats
    log_ref: Floats
    lengths: Floats | None = None
    proxy: Floats | None = None
    _solved: dict[tuple[float, float], Floats] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, pool: Pool) -> "Samples":
        """The samples of a pool."""
        return cls(
            log_base=log_base_of(pool.rewards, pool.log_ratio),
            rewards=pool.rewards,
            log_ref=pool.log_ref,
            lengths=pool.lengths,
            proxy=pool.proxy,
        )

    @cached_property
    def tokens(self) -> Floats:
        """The lengths, of objectives that need them."""
        if self.lengths is None:
            raise NoFixedPoint("the pool was made without lengths: draw it again")
        return self.lengths

    @cached_property
    def wins(self) -> Floats:
        """``[P, N]`` W(y): the chance to be preferred to a sample; a draw against itself is 1/2."""
        return self.by_level(lambda gap, mass: expit(gap) @ mass)

    def smoothed(self, scale: float, shift: float) -> Floats:
        """``[P, N]`` Bradley-Terry scores of labels with chances ``scale * p + shift``."""
        if (scale, shift) == (1.0, 0.0):
            return self.rewards
        if (scale, shift) not in self._solved:
            self._solved[scale, shift] = self.by_level(
                lambda gap, mass: _bradley_terry(gap, mass, scale * expit(gap) + shift)
            )
        return self._solved[scale, shift]

    def by_level(self, solve: Callable[[Floats, Floats], Floats]) -> Floats:
        """``solve`` for each prompt, of its distinct rewards instead of its samples.

        Args:
            solve: Of each level's reward less each other's ``[K, K]`` and the levels' weights
                ``[K]``; returns a number for each level ``[K]``.
        """
        out = np.empty_like(self.rewards)
        for own, rewards, base in zip(out, self.rewards, np.exp(self.log_base), strict=True):
            levels, place = np.unique(rewards, return_inverse=True)
            mass: Floats = np.bincount(place, weights=base).astype(np.float64)
            gap: Floats = levels[:, None] - levels
            own[:] = solve(gap, mass)[place]
        return out

    def on_levels(self, tilt: Callable[["Samples"], Floats]) -> Floats:
        """``tilt`` of the distinct rewards of each prompt, spread to the samples ``[P, N]``."""
        small, place = self._levels
        return np.take_along_axis(tilt(small), place, 1)

    @cached_property
    def _levels(self) -> tuple["Samples", NDArray[np.int64]]:
        found = [np.unique(row, return_inverse=True) for row in self.rewards]
        width = max(len(levels) for levels, _ in found)
        place = np.stack([places for _, places in found])
        mass = np.zeros((len(found), width))
        np.add.at(mass, (np.arange(len(found))[:, None], place), np.exp(self.log_base))
        padded = [np.pad(levels, (0, width - len(levels)), mode="edge") for levels, _ in found]
        with np.errstate(divide="ignore"):
            log_base = np.log(mass)  # -inf where a prompt has fewer levels
        return Samples(log_base=log_base, rewards=np.stack(padded), log_ref=log_base), place

    def quantiles(self, name: str) -> Floats:
        """``[P, N]`` share of the reference whose reward of this name is no larger."""
        same = replace(self, rewards=self.reward_named(name))
        return same.by_level(lambda gap, mass: (gap >= 0) @ mass)

    def reward_named(self, name: str) -> Floats:
        """The rewards that an objective trains on: ``GOLD`` or ``LEARNED``."""
        if name == LEARNED and self.proxy is None:
            raise NoFixedPoint("the pool has no learned reward")
        found = self.proxy if name == LEARNED else self.rewards
        assert found is not None
        return found


class Aim(NamedTuple):
    """An objective's own optimum.

    Attributes:
        tilt: Of samples and settings; up to a constant of the prompt.
        strength: The setting that moves it along the frontier; empty if it is a single policy.
        reads: The other settings it depends on, with the objective's defaults.
    """

    tilt: Callable[[Samples, Settings], Floats]
    strength: str = "beta"
    reads: Settings = MappingProxyType({})


def tilted(samples: Samples, tilt: Floats, strength: float) -> Optimum:
    """Reward, KL and effective sample size of pi_ref exp(tilt), per prompt.

    Args:
        samples: Of the reference.
        tilt: ``[P, N]``, up to a constant of the prompt.
        strength: What the result's ``beta`` is.
    """
    log_z = _log_mean(samples.log_base, tilt)
    tilt = tilt - log_z
    weights = np.exp(samples.log_base + tilt)
    return Optimum(
        beta=strength,
        reward=(weights * samples.rewards).sum(1),
        kl=np.maximum((weights * tilt).sum(1), 0.0),
        ess=1 / np.square(weights).sum(1),
        log_z=log_z[:, 0],
    )


def own_optima(
    samples: Samples, objective: str, settings: Settings, budgets: Sequence[float]
) -> list[Optimum | None]:
    """The objective's own optimum whose mean KL is each of ``budgets``.

    An objective without a strength has one policy; below its KL, the chord from the reference to
    that policy is reached by mixing the two per prompt. ``None`` if no strength has this KL, or the
    pool does not represent it reliably.

    Args:
        samples: Of the reference.
        objective: Name of its class.
        settings: ``init_args`` of the class; with ``reward`` as ``GOLD`` or ``LEARNED``.
        budgets: KL in nats, each > 0.

    Raises:
        NoFixedPoint: Nothing is known for this objective or these settings.
    """
    if objective not in AIMS:
        raise NoFixedPoint(UNKNOWN.get(objective, "no formula is known"))
    aim = AIMS[objective]
    own = {**aim.reads, **{name: settings[name] for name in aim.reads if name in settings}}

    def at(log_strength: float) -> Optimum:
        strength = float(np.exp(log_strength))
        return tilted(samples, aim.tilt(samples, {**own, aim.strength: strength}), strength)

    def mean_kl(log_strength: float) -> float:
        return float(at(log_strength).kl.mean())

    if not aim.strength:
        end = at(0.0)
        return [_mixed(samples, end, budget) if end.reliable else None for budget in budgets]
    grid = np.log(STRENGTHS)
    kl = np.array([mean_kl(place) for place in grid])
    found: list[Optimum | None] = []
    for budget in budgets:
        # The weakest strength with this KL: from there on it is smaller.
        places = np.flatnonzero((kl[:-1] - budget) * (kl[1:] - budget) <= 0)
        solved = None
        if len(places):
            ends = grid[places[-1]], grid[places[-1] + 1]
            solved = at(brentq(lambda x, k=budget: mean_kl(x) - k, *ends, xtol=1e-9))
        found.append(solved if solved is not None and solved.reliable else None)
    return found


def proxy_optima(pool: Pool) -> list[Optimum]:
    """The optima of the learned reward, with their gold reward.

    They bound every objective that learns about the gold reward from this reward model alone.

    Args:
        pool: With learned rewards.

    Returns:
        Those that the pool represents reliably, KL rising.
    """
    samples = Samples.of(pool)
    proxy = samples.reward_named(LEARNED)
    spread = float(proxy.std(1).mean())
    if spread == 0:
        return []
    betas = spread * np.geomspace(8.0, 0.05, POINTS)  # KL is about (spread / beta)^2 / 2
    found = [tilted(samples, proxy / beta, float(beta)) for beta in betas]
    return [solved for solved in found if solved.reliable]


def _mixed(samples: Samples, end: Optimum, budget: float) -> Optimum | None:
    """The mixture of reference and ``end`` that spends ``budget``."""
    share = budget / float(end.kl.mean())
    if share > 1:
        return None
    reference = (np.exp(samples.log_base) * samples.rewards).sum(1)
    return replace(end, reward=reference + share * (end.reward - reference), kl=share * end.kl)


def _log_mean(log_base: Floats, tilt: Floats) -> Floats:
    """``[P, 1]`` log E_ref[exp(tilt)]."""
    terms = log_base + tilt
    top = terms.max(1, keepdims=True)
    out: Floats = top + np.log(np.exp(terms - top).sum(1, keepdims=True))
    return out


def _per_token(samples: Samples, tilt: Floats, score: Floats) -> Floats:
    """``tilt + |y| (score + c)``, ``c`` the constant of each prompt that normalises it.

    Newton's method on a convex function of ``c``: from the second step on it comes from above.
    """
    tilt = tilt + samples.tokens * score
    c = np.zeros((len(tilt), 1))
    for _ in range(NEWTON):
        terms = samples.log_base + tilt + samples.tokens * c
        excess = _log_mean(samples.log_base, tilt + samples.tokens * c)
        slope = (np.exp(terms - excess) * samples.tokens).sum(1, keepdims=True)
        c = c - excess / slope
        if np.abs(excess).max() < CLOSE:
            break
    return tilt + samples.tokens * c


def _normalised(
    log_base: Floats, tilt_at: Callable[[Floats], Floats], low: Floats, high: Floats
) -> Floats:
    """``tilt_at(c)`` for the ``c`` ``[P, 1]`` between the ends that normalises it; it rises."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            mean = np.exp(log_base + tilt_at(middle)).sum(1, keepdims=True)
            above = ~(mean <= 1)  # also where a tilt is infinite
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return tilt_at(low)


def _bradley_terry(gap: Floats, mass: Floats, told: Floats) -> Floats:
    """Scores ``[K]`` of least loss, where the labels of two levels have the mean ``told`` [K, K].

    The mean of softplus(s_i - s_j) - told_ij (s_i - s_j), by Newton's method; it is convex, also
    where a corrected label lies outside [0, 1], but then it may have no minimum. Scores have mean
    0 under ``mass``.
    """
    scores = gap[:, 0]  # the rewards
    pull = (told * mass).sum(1)
    for _ in range(NEWTON if pull.min() > 0 and pull.max() < 1 else 0):
        said = expit(scores[:, None] - scores)
        slope = (said * mass).sum(1) - pull  # of level i, divided by its mass
        curved = said * (1 - said) * mass
        step = np.linalg.solve(np.diag(curved.sum(1)) - curved + mass, slope)  # + mass: mean 0
        step *= min(1.0, 1 / np.abs(step).max(initial=CLOSE))  # a whole step may be far too long
        scores = scores - step
        if np.abs(step).max() < CLOSE:
            return scores - mass @ scores
    raise NoFixedPoint("none: the correction for flips that did not happen grows without end")


def _dpo(samples: Samples, at: Settings) -> Floats:
    if at["nll_coef"]:
        raise NoFixedPoint("no formula is known with a likelihood term")
    rate = at["label_smoothing"]
    return samples.smoothed(1 - 2 * rate, rate) / at["beta"]


def _robust(samples: Samples, at: Settings) -> Floats:
    """Labels are as they were drawn, without the flips that the objective corrects for."""
    kept = 1 - 2 * at["label_smoothing"]
    return samples.smoothed(1 / kept, -at["label_smoothing"] / kept) / at["beta"]


def _tilted(samples: Samples, at: Settings) -> Floats:
    """As DPO's: weights of pairs or updates of the reference do not change it."""
    return samples.rewards / at["beta"]


def _beta_dpo(samples: Samples, at: Settings) -> Floats:
    if at["rho"] != 1:
        raise NoFixedPoint("no formula is known when pairs are dropped")
    return _tilted(samples, at)


def _ipo(samples: Samples, at: Settings) -> Floats:
    score = samples.wins / at["tau"]
    return _per_token(samples, np.zeros_like(score), score) if at["per_token"] else score


def _rdpo(samples: Samples, at: Settings) -> Floats:
    return (samples.rewards - at["alpha"] * samples.tokens) / at["beta"]


def _lndpo(samples: Samples, at: Settings) -> Floats:
    score = samples.rewards / at["beta"]
    return _per_token(samples, np.zeros_like(score), score)


def _simpo(samples: Samples, at: Settings) -> Floats:
    if at["gamma"] or at["gamma_beta_ratio"] or at["alpha"]:
        raise NoFixedPoint("no formula is known with gamma, gamma_beta_ratio or alpha")
    return _per_token(samples, -samples.log_ref, samples.rewards / at["beta"])


def _cpo(samples: Samples, at: Settings) -> Floats:
    if at["lam"]:
        raise NoFixedPoint("no formula is known with lam > 0 (imitation of chosen completions)")
    return samples.rewards / at["beta"] - samples.log_ref


def _orpo(samples: Samples, at: Settings) -> Floats:
    if at["lam"]:
        raise NoFixedPoint("no formula is known with lam > 0 (the odds-ratio term)")
    return np.log(samples.wins / samples.tokens)


def _online(samples: Samples, at: Settings) -> Floats:
    if at["labels"] == "argmax":
        raise NoFixedPoint("none: with labels argmax the policy drifts without end")
    return at["scale"] * samples.reward_named(at["reward"]) / at["beta"]


def _f_dpo(samples: Samples, at: Settings) -> Floats:
    """``beta f'(pi / pi_ref)`` is the reward and a constant of the prompt (arXiv:2309.16240)."""
    divergence = at["divergence"] or {}
    kind = str(divergence.get("class_path", "")).rpartition(".")[2]
    if at["max_margin"] is not None:
        raise NoFixedPoint("no formula is known with max_margin")
    if kind not in INVERSES:
        raise NoFixedPoint("no formula is known for this divergence")
    inverse = INVERSES[kind](**(divergence.get("init_args") or {}))
    return samples.on_levels(lambda small: _with_slope(small, inverse, at["beta"]))


def _with_slope(samples: Samples, inverse: Callable[[Floats], Floats], beta: float) -> Floats:
    score = samples.rewards / beta
    ends = -score.max(1, keepdims=True), -score.min(1, keepdims=True)
    return _normalised(samples.log_base, lambda c: inverse(score + c), *ends)


def _forward(x: Floats) -> Floats:
    """Solve ``1 - exp(-t) = x``."""
    return -np.log(np.maximum(1 - x, 0))


def _jensen_shannon(x: Floats) -> Floats:
    """Solve ``log 2 + log sigmoid(t) = x``."""
    return x - np.log(np.maximum(2 - np.exp(np.minimum(x, 1)), 0))


def _chi_squared(x: Floats) -> Floats:
    """Solve ``exp(t) - 1 + t = x``: with z = exp(t), ``z + log z = x + 1``."""
    return x + 1 - wrightomega(x + 1)


def _alpha(alpha: float = 0.5) -> Callable[[Floats], Floats]:
    """Solve ``(1 - exp(-alpha t)) / alpha = x``."""
    return lambda x: _forward(alpha * x) / alpha


def _sppo(samples: Samples, at: Settings) -> Floats:
    """``t + mu exp(t) = (W - 1/2) / beta``, ``mu`` the multiplier that normalises ``t``."""

    def tilt(own: Samples) -> Floats:
        alone = (own.wins - 0.5) / at["beta"]  # without the multiplier
        far = np.full((len(alone), 1), FAR + float(np.abs(alone).max()))
        return _normalised(own.log_base, lambda c: alone - wrightomega(alone - c), -far, far)

    return samples.on_levels(tilt)


def _nca(samples: Samples, at: Settings) -> Floats:
    """``(W + 1/2) sigmoid(beta t) - W + mu exp(t) = 0`` at each completion, ``mu`` as above."""
    return samples.on_levels(lambda own: _with_win_rate(own, at["beta"]))


def _with_win_rate(samples: Samples, beta: float) -> Floats:
    wins = samples.wins
    alone = np.log(2 * wins) / beta  # without the multiplier
    if (logsumexp(samples.log_base + alone, axis=1) < 0).any():
        raise NoFixedPoint("none of this strength: its unnormalised chances sum to less than 1")

    def tilt_at(c: Floats) -> Floats:  # mu = exp(-c)
        low, high = np.minimum(alone, c) - FAR / beta, alone
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            above = (wins + 0.5) * expit(beta * middle) - wins + np.exp(middle - c) > 0
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return low

    far = np.full((len(wins), 1), FAR)
    return _normalised(samples.log_base, tilt_at, -far, far)


def _rated(samples: Samples, at: Settings) -> Floats:
    if at["value_beta"] not in (None, at["beta"]):
        raise NoFixedPoint("no formula is known if value_beta differs from beta")
    return samples.reward_named(at["reward"]) / at["beta"]


def _qrpo(samples: Samples, at: Settings) -> Floats:
    return samples.quantiles(at["reward"]) / at["beta"]


def _penalised(samples: Samples, at: Settings) -> Floats:
    """The optimum of the reward that it trains on, less ``kl_coef`` times KL."""
    if at["ptx_coef"]:
        raise NoFixedPoint("no formula is known with a likelihood term")
    if at["kl_in"] != "reward":
        raise NoFixedPoint("no formula is known for a per-token KL penalty in the loss")
    if at["n"] is None:
        return samples.reward_named(at["reward"]) / at["kl_coef"]
    return (at["n"] - 1) * np.log(samples.quantiles(at["reward"])) / at["kl_coef"]  # vBoN


INVERSES: Mapping[str, Callable[..., Callable[[Floats], Floats]]] = {
    "ReverseKL": lambda: np.asarray,
    "ForwardKL": lambda: _forward,
    "JensenShannon": lambda: _jensen_shannon,
    "ChiSquaredKL": lambda: _chi_squared,
    "Alpha": _alpha,
}
_SCORED = {"reward": GOLD, "ptx_coef": 0.0, "kl_in": "reward", "n": None}
AIMS: Mapping[str, Aim] = {
    "DPO": Aim(_dpo, reads={"label_smoothing": 0.0, "nll_coef": 0.0}),
    "RobustDPO": Aim(_robust, reads={"label_smoothing": 0.0}),
    "IPO": Aim(_ipo, "tau", {"per_token": True}),
    "RDPO": Aim(_rdpo, reads={"alpha": 0.05}),
    "LNDPO": Aim(_lndpo),
    "SimPO": Aim(_simpo, reads={"gamma": None, "gamma_beta_ratio": None, "alpha": 0.0}),
    "CPO": Aim(_cpo, reads={"lam": 1.0}),
    "ORPO": Aim(_orpo, "", {"lam": 0.1}),
    "WPO": Aim(_tilted),
    "TRDPO": Aim(_tilted),
    "BetaDPO": Aim(_beta_dpo, reads={"rho": 0.8}),
    "FDPO": Aim(_f_dpo, reads={"divergence": None, "max_margin": None}),
    "SPPO": Aim(_sppo),
    "NCA": Aim(_nca),
    "QRPO": Aim(_qrpo, reads={"reward": LEARNED}),
    "DDORM": Aim(_rated, reads={"reward": LEARNED, "value_beta": None}),
    "AStarPO": Aim(_rated, reads={"reward": LEARNED, "value_beta": None}),
    "OnlineDPO": Aim(_online, reads={"labels": "", "scale": 1.0, "reward": GOLD}),
    **dict.fromkeys(
        ("PPO", "REINFORCE", "RLOO", "AWR", "GSPO", "CISPO", "REINFORCEPlusPlus"),
        Aim(_penalised, "kl_coef", _SCORED),
    ),
    "GRPO": Aim(_penalised, "kl_coef", {**_SCORED, "kl_in": "loss"}),
}
UNKNOWN: Mapping[str, str] = {
    "EXO": "no formula is known for more than two completions",
    "BCO": "no formula is known, because its shift depends on the policy",
    "APO": "none: probability moves to completions that win more often than they lose",
    "Hinge": "no formula is known for more than two completions",
    "SLiC": "no formula is known for more than two completions",
    "KTO": "none: probability moves to completions that are desirable more often than not",
    "Unlikelihood": "none: its loss has no lower bound",
    "SFT": "it depends on the source of the demonstrations",
}
