"""The win rate at equal length.

Judges prefer longer answers, so a policy can win by length alone. As in AlpacaEval 2 (Dubois et
al. 2024, arXiv:2404.04475, equation 2), the verdicts are regressed on the difference of lengths,
``logit P(win) = theta + phi tanh(difference / sd)``, and the rate is read off at a difference of 0:
``sigmoid(theta)``. The paper's third term, the difficulty of a prompt for a pool of models, needs
such a pool and is left out.
"""

import numpy as np

from alignlab.results.statistics import Floats

PRIOR = 0.01  # of theta^2 / 2 + phi^2 / 2 in the penalty: keeps both finite if length decides all
STEPS, FARTHEST, EXACT = 200, 2.0, 1e-10  # of Newton's method: most, largest, when it is done


def length_controlled(values: Floats, differences: Floats, weights: Floats) -> Floats | None:
    """The rate at equal length, for every row of weights.

    Args:
        values: ``[N]`` verdicts in [0, 1].
        differences: ``[N]`` characters of the policy's completion less the opponent's.
        weights: ``[R, N]`` how often each counts in each replicate.

    Returns:
        ``[R]`` rates; ``None`` where all differences are equal, so that nothing can be learned
        about length.
    """
    spread = float(differences.std())
    if not spread > 0:
        return None
    x = np.tanh(differences / spread)
    at: Floats = np.zeros((len(weights), 2))
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-(at[:, :1] + at[:, 1:] * x)))
        miss = weights * (values - chance)
        slope = np.stack([miss.sum(1), miss @ x], axis=1) - PRIOR * at
        curve = weights * chance * (1 - chance)
        aa, ab, bb = curve.sum(1) + PRIOR, curve @ x, curve @ (x * x) + PRIOR
        determinant = aa * bb - ab * ab
        step = np.stack(
            [bb * slope[:, 0] - ab * slope[:, 1], aa * slope[:, 1] - ab * slope[:, 0]], axis=1
        )
        step /= determinant[:, None]
        size = np.abs(step).max(1, keepdims=True)
        at += step * np.minimum(1.0, FARTHEST / np.maximum(size, EXACT))
        if float(size.max()) < EXACT:
            break
    rates: Floats = 1 / (1 + np.exp(-at[:, 0]))
    return rates
