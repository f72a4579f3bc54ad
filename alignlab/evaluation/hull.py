"""Upper concave hulls of points on the reward-KL plane, many replicates at once.

Every point on a chord of the hull can be reached by a policy: flip a coin per prompt between the
policies at its ends. Mean KL and mean reward then lie on the chord (the KL of the mixture is even
smaller).
"""

import numpy as np
from numpy.typing import NDArray

from alignlab.results.statistics import Floats


def hull_vertices(kl: Floats, reward: Floats) -> NDArray[np.int64]:
    """Vertices of the upper concave hull of each row's points, from the origin rightwards.

    Args:
        kl: ``[B, C]``; column 0 is the origin, KL 0 and the reference's reward.
        reward: ``[B, C]``.

    Returns:
        ``[B, V]`` columns of the vertices in order of KL, the first always 0; a row with fewer
        vertices than the widest repeats its last.
    """
    rows = np.arange(len(kl))
    current = np.zeros(len(kl), dtype=np.int64)
    vertices = [current]
    while True:  # gift wrapping: the next vertex is the one seen under the steepest slope
        run = kl - kl[rows, current][:, None]
        rise = reward - reward[rows, current][:, None]
        right = run > 0
        slope = np.where(right, rise / np.where(right, run, 1.0), -np.inf)
        best = slope.max(1, keepdims=True)
        farthest = np.where(right & (slope == best), run, -np.inf).argmax(1)
        current = np.where(right.any(1), farthest, current)
        if (current == vertices[-1]).all():
            return np.stack(vertices, axis=1)
        vertices.append(current)


def interpolate(kl: Floats, reward: Floats, budgets: Floats) -> Floats:
    """Reward at each budget on the line through each row's points, sorted by KL.

    Args:
        kl: ``[B, V]``, at least one point of each row at or below every budget.
        reward: ``[B, V]``.
        budgets: ``[G]``.

    Returns:
        ``[B, G]``; beyond the largest KL, the reward there (the caller knows what was reached).
    """
    order = np.argsort(kl, axis=1, kind="stable")
    kl = np.take_along_axis(kl, order, 1)
    reward = np.take_along_axis(reward, order, 1)
    last = kl.shape[1] - 1
    right = (kl[:, None, :] <= budgets[:, None]).sum(2)  # [B, G] points at or below the budget
    left, right = right - 1, np.minimum(right, last)
    k0, k1 = np.take_along_axis(kl, left, 1), np.take_along_axis(kl, right, 1)
    r0, r1 = np.take_along_axis(reward, left, 1), np.take_along_axis(reward, right, 1)
    width = k1 - k0
    share = np.where(width > 0, (budgets - k0) / np.where(width > 0, width, 1.0), 0.0)
    return r0 + share * (r1 - r0)
