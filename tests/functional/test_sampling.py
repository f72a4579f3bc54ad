import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.testing import assert_close
from transformers import TopKLogitsWarper, TopPLogitsWarper

from alignlab.errors import ConfigError
from alignlab.functional import SamplingSpec, inverse_cdf, uniform

CHANCES = [0.4, 0.3, 0.2, 0.1]
LOGITS = torch.tensor(CHANCES, dtype=torch.float64).log()


def kept(spec: SamplingSpec) -> list[float]:
    return spec.apply(LOGITS).softmax(-1).tolist()


@pytest.mark.parametrize(
    ("spec", "chances"),
    [
        (SamplingSpec(top_k=2), [4 / 7, 3 / 7, 0, 0]),
        (SamplingSpec(top_k=9), CHANCES),
        (SamplingSpec(top_p=0.05), [1, 0, 0, 0]),  # the most likely token always stays
        (SamplingSpec(top_p=0.65), [4 / 7, 3 / 7, 0, 0]),
        (SamplingSpec(top_p=0.75), [4 / 9, 3 / 9, 2 / 9, 0]),
        (SamplingSpec(temperature=0.5), [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
        # top-p sees what top-k left and the temperature made of it: 16/25 alone reach 0.6
        (SamplingSpec(temperature=0.5, top_k=2, top_p=0.6), [1, 0, 0, 0]),
        (SamplingSpec(temperature=0.0), CHANCES),
    ],
)
def test_golden_cases(spec: SamplingSpec, chances: list[float]) -> None:
    assert kept(spec) == pytest.approx(chances, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_hugging_face(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(20, 50, generator=g, dtype=torch.float64)
    ids = torch.zeros(20, 1, dtype=torch.long)
    for top_k in (1, 7, 50):
        assert_close(SamplingSpec(top_k=top_k).apply(logits), TopKLogitsWarper(top_k)(ids, logits))
    for top_p in (0.1, 0.5, 0.9, 0.999):
        theirs = TopPLogitsWarper(top_p)(ids, logits)
        assert_close(SamplingSpec(top_p=top_p).apply(logits), theirs)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -0.1}, "temperature must be >= 0, got -0.1"),
        ({"top_k": -1}, "top_k must be >= 0, got -1"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0.0"),
        ({"top_p": 1.1}, r"top_p must lie in \(0, 1\], got 1.1"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplingSpec(**setting)  # type: ignore[arg-type]


def draw(logits: Tensor, *numbers: float) -> list[int]:
    u = torch.tensor(numbers, dtype=torch.float64)
    return inverse_cdf(logits.expand(len(u), -1), u).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_the_cumulative_sum_passes_u(dtype: torch.dtype) -> None:
    numbers = (1e-9, 0.39, 0.41, 0.69, 0.71, 0.89, 0.91, 1 - 1e-9)
    assert draw(LOGITS.to(dtype), *numbers) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_impossible_tokens_are_never_drawn(dtype: torch.dtype) -> None:
    """First, middle and last tokens are impossible; u goes to the very ends of its range."""
    no = -torch.inf
    logits = torch.tensor([no, 0.0, no, no, 1.0, no, no], dtype=dtype)
    ends = [2.0**-53, 1 - 2.0**-53]
    assert draw(logits, *ends) == [1, 4]
    # Many roundings leave the last cumulative sum away from 1: 30,000 chances of 1/30,000.
    flat = torch.cat([torch.zeros(30_000), torch.full((5,), no)]).to(dtype)
    for shift in (0.0, 1e-3, 0.1):
        drawn = draw(flat + shift * torch.arange(30_005).sin().to(dtype), *ends)
        assert drawn[0] == 0
        assert drawn[1] < 30_000


def test_underflown_chances_are_never_drawn() -> None:
    logits = torch.tensor([0.0, -200.0, 0.0, -200.0])  # exp(-200) is 0 in float32
    assert draw(logits, 0.5 - 1e-7, 0.5, 0.5 + 1e-7, 1 - 2.0**-53) == [0, 2, 2, 2]


def test_sums_that_do_not_rise_monotonically_still_give_a_possible_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a parallel scan can round: an impossible token's sum is above its neighbour's."""
    sums = torch.tensor([[0.5, 0.5, 0.50001, 1.0]])
    monkeypatch.setattr(Tensor, "cumsum", lambda *_: sums)
    assert draw(torch.tensor([0.0, -torch.inf, -torch.inf, 0.1]), 0.500005) == [3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frequencies_are_the_softmax(dtype: torch.dtype) -> None:
    rows = 200_000
    logits = 2 * torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=dtype)
    logits = SamplingSpec(top_k=20).apply(logits)
    u = uniform(1, 0, torch.arange(rows), torch.zeros(rows).long(), 0)
    counts = inverse_cdf(logits.expand(rows, -1), u).bincount(minlength=30)
    possible = logits > -torch.inf
    expected = rows * logits.double().softmax(-1)
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible].numpy(), expected[possible].numpy()).pvalue > 1e-3


def test_rows_do_not_depend_on_their_batch() -> None:
    g = torch.Generator().manual_seed(3)
    logits, u = torch.randn(40, 17, generator=g), torch.rand(40, generator=g).double()
    together = inverse_cdf(logits, u)
    assert [inverse_cdf(logits[r : r + 1], u[r : r + 1]).item() for r in range(40)] == (
        together.tolist()
    )
