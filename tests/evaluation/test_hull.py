"""Concave hulls drawn by hand, and against scipy's convex hull."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from alignlab.evaluation.hull import hull_vertices, interpolate


def test_a_hull_drawn_by_hand() -> None:
    """(0,0) (1,2) (2,3) (4,1) are on it; (1.5,2) and (3,1.5) hang below; order does not matter."""
    kl = np.array([[0.0, 3.0, 1.0, 4.0, 1.5, 2.0]])
    reward = np.array([[0.0, 1.5, 2.0, 1.0, 2.0, 3.0]])
    assert hull_vertices(kl, reward).tolist() == [[0, 2, 5, 3]]


def test_the_hull_starts_at_the_reference_even_when_all_points_are_worse() -> None:
    kl = np.array([[0.0, 1.0, 2.0]])
    reward = np.array([[5.0, 1.0, 3.0]])
    assert hull_vertices(kl, reward).tolist() == [[0, 2]]


def test_points_on_a_chord_are_passed_over() -> None:
    kl = np.array([[0.0, 1.0, 2.0, 3.0]])
    reward = np.array([[0.0, 1.0, 2.0, 3.0]])
    assert hull_vertices(kl, reward).tolist() == [[0, 3]]


def test_a_point_at_kl_zero_never_replaces_the_reference() -> None:
    """A step-0 policy that was lucky is still the reference."""
    kl = np.array([[0.0, 0.0, 1.0]])
    reward = np.array([[0.0, 0.3, 1.0]])
    assert hull_vertices(kl, reward).tolist() == [[0, 2]]


def test_rows_are_independent_and_padded_with_their_last_vertex() -> None:
    kl = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    reward = np.array([[0.0, 2.0, 3.0], [0.0, 0.1, 3.0]])
    assert hull_vertices(kl, reward).tolist() == [[0, 1, 2], [0, 2, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_scipys_convex_hull(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kl = np.concatenate([[0.0], rng.random(30)])
    reward = np.concatenate([[0.0], rng.random(30)])
    # Far points below close the hull, so that what scipy finds above them is the upper hull.
    closed = np.vstack([np.c_[kl, reward], [[0, -9], [kl.max(), -9]]])
    corners = sorted((i for i in ConvexHull(closed).vertices if i < 31), key=lambda i: kl[i])
    assert hull_vertices(kl[None], reward[None])[0].tolist() == corners


def test_reading_between_points_at_points_and_beyond() -> None:
    kl = np.array([[0.0, 1.0, 3.0], [0.0, 3.0, 1.0]])  # the second row out of order
    reward = np.array([[0.0, 2.0, 3.0], [0.0, 3.0, 2.0]])
    budgets = np.array([0.5, 1.0, 2.0, 3.0, 7.0])
    wanted = [1.0, 2.0, 2.5, 3.0, 3.0]
    assert interpolate(kl, reward, budgets).tolist() == [wanted, wanted]


def test_reading_where_two_points_share_a_kl() -> None:
    kl = np.array([[0.0, 1.0, 1.0, 2.0]])
    reward = np.array([[0.0, 2.0, 4.0, 5.0]])
    assert interpolate(kl, reward, np.array([0.5, 1.5])).tolist() == [[1.0, 4.5]]
