import numpy as np
import pytest
import torch
from scipy import stats

from alignlab.functional import noise, permutation, uniform

MASK = (1 << 64) - 1


def splitmix_in_python(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def many(n: int, **fixed: int) -> np.ndarray:
    """Numbers of n neighbours in whatever is not fixed."""
    values = {"rollout": 0, "prompt": 0, "sample": 0, "position": 0} | fixed
    columns = {
        name: torch.arange(n) if value < 0 else torch.full((n,), value)
        for name, value in values.items()
    }
    return uniform(
        3, values["rollout"], columns["prompt"], columns["sample"], columns["position"]
    ).numpy()


def test_published_sequence_of_splitmix64() -> None:
    """The first outputs of the reference C code for seed 1234567 (Vigna, splitmix64.c)."""
    golden = 0x9E3779B97F4A7C15
    states = [noise._signed(1234567 + k * golden) for k in (1, 2, 3)]
    ours = [x & MASK for x in noise._mix(torch.tensor(states)).tolist()]
    assert ours == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_tensor_arithmetic_equals_unbounded_integers() -> None:
    words = torch.randint(-(2**63), 2**63 - 1, (1000,), generator=torch.Generator().manual_seed(0))
    words = torch.cat([words, torch.tensor([0, -1, -(2**63), 2**63 - 1])])
    ours = [x & MASK for x in noise._mix(words).tolist()]
    assert ours == [splitmix_in_python(x & MASK) for x in words.tolist()]


def test_extreme_bits_stay_strictly_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = torch.tensor([0, -1, 2**63 - 1, -(2**63)])
    monkeypatch.setattr(noise, "_hash", lambda *_, **__: bits)
    u = uniform(0, 0, bits, bits, 0)
    assert u.tolist() == [2.0**-53, 1 - 2.0**-53, 0.5 - 2.0**-53, 0.5 + 2.0**-53]


@pytest.mark.parametrize("moving", ["prompt", "sample", "position"])
def test_neighbours_are_uniform_and_uncorrelated(moving: str) -> None:
    u = many(100_000, **{moving: -1})
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    for lag in (1, 2, 64):
        assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) < 4 / np.sqrt(len(u))
    low_bits = np.floor(u * 2**40) % 256
    assert stats.chisquare(np.bincount(low_bits.astype(int), minlength=256)).pvalue > 1e-3


def test_every_argument_matters_and_none_is_swapped_for_another() -> None:
    one, two = torch.tensor([1]), torch.tensor([2])
    calls = [
        (seed, rollout, prompt, sample, position)
        for seed in (1, 2)
        for rollout in (1, 2)
        for prompt in (one, two)
        for sample in (one, two)
        for position in (1, 2)
    ]
    assert len({uniform(*call).item() for call in calls}) == 32


def test_rows_do_not_depend_on_their_batch() -> None:
    prompt, sample = torch.arange(50) % 7, torch.arange(50) // 7
    position = torch.arange(50) % 5
    together = uniform(5, 2, prompt, sample, position)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    shuffled = uniform(5, 2, prompt[order], sample[order], position[order])
    assert torch.equal(shuffled, together[order])
    for row in range(50):
        alone = uniform(5, 2, prompt[row : row + 1], sample[row : row + 1], int(position[row]))
        assert torch.equal(alone, together[row : row + 1])


def test_values_are_frozen() -> None:
    """Published runs depend on them: a change of the hash is a change of every sample."""
    u = uniform(0, 1, torch.tensor([2, 3]), torch.tensor([4, 5]), 6)
    assert u.dtype == torch.float64
    assert u.tolist() == [0.3150796335933669, 0.2640154034833838]
    assert permutation(0, 1, 8).tolist() == [3, 5, 2, 6, 0, 7, 1, 4]


def test_permutation_is_pure_and_a_permutation() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    order = permutation(7, 3, 1000)
    assert torch.equal(torch.get_rng_state(), state)
    assert order.dtype == torch.long
    assert torch.equal(order.sort().values, torch.arange(1000))
    torch.manual_seed(1)
    assert torch.equal(permutation(7, 3, 1000), order)
    assert not torch.equal(permutation(7, 4, 1000), order)
    assert not torch.equal(permutation(8, 3, 1000), order)
    assert permutation(7, 3, 0).shape == (0,)
    assert permutation(2**64 - 1, 3, 5).tolist() == permutation(-1, 3, 5).tolist()


def test_permutations_are_evenly_spread() -> None:
    seen = np.zeros(24)
    codes: dict[tuple[int, ...], int] = {}
    for epoch in range(4800):
        order = tuple(permutation(0, epoch, 4).tolist())
        seen[codes.setdefault(order, len(codes))] += 1
    assert stats.chisquare(seen).pvalue > 1e-3
