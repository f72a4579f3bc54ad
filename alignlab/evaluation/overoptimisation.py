"""Over-optimisation of a learned reward: the gold reward along optimisation, and where it peaks.

With d = sqrt(KL(policy || reference)), Gao, Schulman and Hilton 2022 (arXiv:2210.10760) describe
the gain in gold reward over the reference by

    best-of-n:  R(d) = d (alpha - beta d),      largest at d = alpha / (2 beta)
    RL:         R(d) = d (alpha - beta log d),  largest at d = exp(alpha / beta - 1)

Both are linear in alpha and beta, so least squares has a closed form, here for each seed.

Intervals are those of ``comparison.interval``: prompts by a bootstrap that repeats the fit, seeds
by Student's t, because a percentile bootstrap over three seeds is far too narrow. The peak is a
function of the ratio alpha / beta, whose interval is Fieller's (1954): all ratios r for which 0
lies in the interval of alpha - r beta. It has no upper end where beta is not clearly above 0: then
no peak has been observed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import xlogy

from alignlab.errors import DataError
from alignlab.results.statistics import Floats, halves, t_quantile

Form = Literal["best_of_n", "rl"]
FEWEST = 3  # checkpoints of a seed: two numbers are fitted to them


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """T checkpoints of one seed, on the same P prompts as all others.

    Args:
        seed: Of the training.
        kl: ``[T, P]`` in nats.
        gain: ``[T, P]`` reward less that of the reference on the same prompt.
    """

    seed: int
    kl: Floats
    gain: Floats


class Peak(NamedTuple):
    """Where a curve is largest, as d, and the ends of its 95 % interval; ``hi`` may be infinite."""

    d: float
    lo: float
    hi: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A fitted curve.

    Args:
        form: Which of the two formulas.
        seeds: Names of the S seeds.
        coefficients: ``[S, 1 + B, 2]`` alpha and beta of each seed in each replicate; row 0 is the
            observed sample itself.
        r2: Share of the variance of all checkpoints' gains that the mean curve explains; NaN where
            all gains are equal.
        reached: The d that every seed reached.
        n_prompts: Behind them.
    """

    form: Form
    seeds: tuple[int, ...]
    coefficients: Floats
    r2: float
    reached: float
    n_prompts: int

    def gains(self, d: float) -> Floats:
        """``[S, 1 + B]`` gain of the fitted curves at ``d``."""
        return self.coefficients @ terms(self.form, np.array(d))

    def peak(self) -> Peak | None:
        """The mean curve's peak; ``None`` where it has none, because beta is not positive."""
        alpha, beta = self.coefficients[:, 0].mean(0)
        if not beta > 0:
            return None
        lo, hi = fieller(alpha, beta, self._squares())
        return Peak(*(peak_of(self.form, ratio) for ratio in (alpha / beta, lo, hi)))

    def _squares(self) -> Floats:
        """``[2, 2]`` M: the interval of ``v @ (alpha, beta)`` has the half-width sqrt(v @ M @ v).

        It adds the squares of the two half-widths, as ``comparison.interval`` does.
        """
        prompts = np.cov(self.coefficients.mean(0)[1:].T)
        squares: Floats = t_quantile(self.n_prompts - 1) ** 2 * prompts
        n = len(self.coefficients)
        if n > 1:
            squares = squares + t_quantile(n - 1) ** 2 * np.cov(self.coefficients[:, 0].T) / n
        return squares


def terms(form: Form, d: Floats) -> Floats:
    """``[..., 2]`` what alpha and beta are multiplied by at ``d``; both are 0 at 0."""
    bend = d * d if form == "best_of_n" else xlogy(d, d)
    return np.stack([d, -bend], axis=-1)


def distance(kl: Any) -> Any:
    """``d``, the square root of KL; an estimate at the reference may be rounded to below 0."""
    return np.sqrt(np.maximum(kl, 0.0))


def peak_of(form: Form, ratio: float) -> float:
    """The d at which the curve with alpha / beta = ``ratio`` is largest."""
    if form == "best_of_n":
        return ratio / 2
    return math.exp(ratio - 1) if ratio < 700 else math.inf  # exp overflows near 710


def fit(runs: Sequence[Run], form: Form, weights: Floats) -> Fit:
    """Fit the curve of one optimiser against one reward model.

    Args:
        runs: One for each seed.
        form: The formula.
        weights: ``[1 + B, P]`` of the prompts in each replicate (see ``half_weights``).

    Raises:
        DataError: A seed has fewer than three checkpoints, or they do not differ in KL.
    """
    found, observed = [], []
    for run in runs:
        x = terms(form, distance(weights @ run.kl.T / 2))  # [1 + B, T, 2]
        y = (weights @ run.gain.T / 2)[..., None]
        across = x.swapaxes(1, 2)
        try:
            if len(run.kl) < FEWEST:
                raise np.linalg.LinAlgError
            found.append(np.linalg.solve(across @ x, across @ y)[..., 0])
        except np.linalg.LinAlgError:
            raise DataError(
                f"seed {run.seed}: {len(run.kl)} checkpoints, but a fit needs {FEWEST} or more of "
                "different KL. Evaluate more often."
            ) from None
        observed.append((x[0], y[0, :, 0]))
    coefficients = np.stack(found)
    x, y = (np.concatenate(parts) for parts in zip(*observed, strict=True))
    residuals = y - x @ coefficients[:, 0].mean(0)
    spread = float(np.sum((y - y.mean()) ** 2))
    return Fit(
        form=form,
        seeds=tuple(run.seed for run in runs),
        coefficients=coefficients,
        r2=1 - float(residuals @ residuals) / spread if spread else math.nan,
        reached=min(float(distance(run.kl.mean(1).max())) for run in runs),
        n_prompts=weights.shape[1],
    )


def fieller(alpha: float, beta: float, squares: Floats) -> tuple[float, float]:
    """The ratios r with ``(alpha - r beta)^2 <= (1, -r) squares (1, -r)``, for a positive ``beta``.

    Where ``beta`` itself might be 0 or less, the set is unbounded: the upper end is then infinite,
    and the lower end is the smallest ratio that the set allows to a positive beta, or minus
    infinity if it allows them all.
    """
    a = beta**2 - squares[1, 1]
    b = alpha * beta - squares[0, 1]
    c = alpha**2 - squares[0, 0]
    root = b * b - a * c  # the set is a r^2 - 2 b r + c <= 0
    if a > 0:
        return (b - math.sqrt(max(root, 0.0))) / a, (b + math.sqrt(max(root, 0.0))) / a
    if root <= 0 or a == 0:
        return -math.inf, math.inf
    return (b - math.sqrt(root)) / a, math.inf


def decline(runs: Sequence[Run], weights: Floats) -> Floats:
    """``[S, 1 + B]`` gain at the best checkpoint less that at the last one.

    The best of noisy checkpoints is biased upwards. So it is chosen on every other prompt and
    evaluated on the rest, and vice versa: a curve that does not fall has a decline of 0 or, by
    chance, less.

    Args:
        runs: One for each seed, checkpoints in the order of training.
        weights: As in ``fit``.
    """
    parts = halves(weights.shape[1])
    falls = []
    for run in runs:
        gains = [weights[:, half] @ run.gain[:, half].T for half in parts]  # [1 + B, T] each
        best = [own.argmax(1)[:, None] for own in gains]
        read = [
            np.take_along_axis(gains[1 - k], best[k], 1)[:, 0] - gains[1 - k][:, -1] for k in (0, 1)
        ]
        falls.append((read[0] + read[1]) / 2)
    return np.stack(falls)
