import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from alignlab.errors import ConfigError
from alignlab.functional import SamplingSpec, token_logps, token_logps_and_entropies
from alignlab.functional.logps import Chunks, chunks_of, positions_at_once, token_logps_with

N, H, V = 11, 5, 13


def case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, nn.Linear, Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(H, V, dtype=dtype)
    return torch.randn(N, H, dtype=dtype, requires_grad=True), head, torch.randint(V, (N,))


def gradients(loss: Tensor, hidden: Tensor, head: nn.Module) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, [hidden, *head.parameters()])


def test_values_worked_by_hand() -> None:
    """Logits 0, log 2, log 5 are chances 1/8, 2/8, 5/8; at temperature 1/2, 1/30, 4/30, 25/30."""
    logits = torch.tensor([[0.0, math.log(2), math.log(5)]] * 3, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2])

    def logps(spec: SamplingSpec) -> list[float]:
        return token_logps(logits, nn.Identity(), targets, chunk=2, spec=spec).exp().tolist()

    assert logps(SamplingSpec()) == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    assert logps(SamplingSpec(temperature=0.5)) == pytest.approx([1 / 30, 4 / 30, 25 / 30])
    assert logps(SamplingSpec(top_k=2)) == pytest.approx([0, 2 / 7, 5 / 7])
    assert logps(SamplingSpec(top_p=0.6)) == pytest.approx([0, 0, 1])


def test_equals_a_loop_over_tokens() -> None:
    hidden, head, targets = case()
    ours = token_logps(hidden, head, targets, chunk=4)
    for n in range(N):
        logits = [
            sum(hidden[n, h].item() * head.weight[v, h].item() for h in range(H))
            + head.bias[v].item()
            for v in range(V)
        ]
        total = math.log(math.fsum(math.exp(x) for x in logits))
        assert ours[n].item() == pytest.approx(logits[int(targets[n])] - total, abs=1e-12)


@pytest.mark.parametrize("spec", [SamplingSpec(), SamplingSpec(0.7, top_k=9, top_p=0.9)])
@pytest.mark.parametrize("chunk", [1, 4, 10])
def test_chunks_change_neither_values_nor_gradients(chunk: int, spec: SamplingSpec) -> None:
    hidden, head, _ = case()
    targets = spec.apply(head(hidden)).argmax(-1)  # never a dropped token
    weights = torch.randn(2, N, dtype=torch.float64)
    results = []
    for size in (chunk, N):
        logps, entropies = token_logps_and_entropies(hidden, head, targets, chunk=size, spec=spec)
        loss = (weights[0] * logps + weights[1] * entropies).sum()
        results.append((logps, entropies, *gradients(loss, hidden, head)))
    for chunked, whole in zip(*results, strict=True):
        assert_close(chunked, whole, atol=1e-12, rtol=0)


def test_logits_of_a_chunk_only_exist_and_none_wait_for_backward() -> None:
    hidden, head, targets = case()
    rows: list[int] = []
    saved: list[torch.Size] = []
    head.register_forward_hook(lambda _, args, __: rows.append(len(args[0])))

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logps = token_logps(hidden, head, targets, chunk=4)
    assert rows == [4, 4, 3]
    assert all(V not in shape[-1:] for shape in saved)
    logps.sum().backward()
    assert sorted(rows) == [3, 3, 4, 4, 4, 4]


def test_logits_of_few_positions_are_made_once() -> None:
    hidden, head, targets = case()
    found = []
    for kept, again in ((N, 0), (N - 1, N)):
        rows: list[int] = []
        hook = head.register_forward_hook(lambda _, args, __, rows=rows: rows.append(len(args[0])))
        logps = token_logps(hidden, head, targets, chunk=Chunks(4, kept))
        assert rows == [4, 4, 3]
        found.append((logps, *gradients(logps.square().sum(), hidden, head)))
        assert sum(rows) == N + again
        hook.remove()
    for mine, theirs in zip(*found, strict=True):
        assert torch.equal(mine, theirs)


def test_memory_bounds_what_is_made_at_once_and_kept() -> None:
    """In float32, 8 MiB (but 256 positions) at once and 512 MiB for the backward pass."""
    assert chunks_of(4096, 32) == (4096, 2**22)
    assert chunks_of(4096, 4096) == (512, 2**15)
    assert chunks_of(100, 4096) == (100, 2**15)
    assert chunks_of(4096, 2**17) == (256, 1024)
    assert chunks_of(4096, 2**20) == (32, 128)


@pytest.mark.parametrize("spec", [SamplingSpec(), SamplingSpec(0.5), SamplingSpec(top_k=2)])
def test_gradient_worked_by_hand(spec: SamplingSpec) -> None:
    """Of log p[1] by the logits it is 1 - p[1] at 1 and -p elsewhere, over the temperature."""
    logits = torch.tensor([[0.0, math.log(2), math.log(5)]], dtype=torch.float64)
    odds = [x ** (1 / spec.temperature) for x in (0.0 if spec.top_k else 1.0, 2.0, 5.0)]
    logits.requires_grad_()
    logps = token_logps(logits, nn.Identity(), torch.tensor([1]), chunk=1, spec=spec)
    (grad,) = torch.autograd.grad(3 * logps.sum(), logits)
    p = [x / sum(odds) for x in odds]
    wanted = [3 / spec.temperature * x for x in (-p[0], 1 - p[1], -p[2])]
    assert grad.tolist() == [pytest.approx(wanted)]


def test_a_large_vocabulary_has_shorter_chunks() -> None:
    assert positions_at_once(4096, 32) == 4096
    assert positions_at_once(4096, 2**17) == 256
    assert positions_at_once(4096, 2**26) == 1


def test_entropies_worked_by_hand() -> None:
    """1/2, 1/4, 1/4 has 1.5 log 2; without the last two tokens nothing is uncertain."""
    logits = torch.tensor([[0.5, 0.25, 0.25]] * 2, dtype=torch.float64).log().requires_grad_()
    targets = torch.tensor([0, 0])
    for spec, bits in ((SamplingSpec(), 1.5), (SamplingSpec(top_k=1), 0.0)):
        _, entropies = token_logps_and_entropies(logits, nn.Identity(), targets, chunk=1, spec=spec)
        assert entropies.tolist() == pytest.approx([bits * math.log(2)] * 2)
        (grad,) = torch.autograd.grad(entropies.sum(), logits)
        assert grad.isfinite().all()


def test_squares_worked_by_hand() -> None:
    """1/8, 2/8 and 5/8 have squares of 30/64; at temperature 1/2, 1/30, 4/30 and 25/30, 642/900."""
    logits = torch.tensor([[0.0, math.log(2), math.log(5)]] * 2, dtype=torch.float64)
    targets = torch.tensor([0, 2])
    for spec, squares in (
        (SamplingSpec(), 30 / 64),
        (SamplingSpec(temperature=0.5), 642 / 900),
        (SamplingSpec(top_k=1), 1.0),
    ):
        _, found = token_logps_with(
            ["log_squares"], logits, nn.Identity(), targets, chunk=1, spec=spec
        )
        assert found.tolist() == pytest.approx([math.log(squares)] * 2)


@pytest.mark.parametrize("chunk", [4, Chunks(4, N)])
def test_squares_are_kept_for_no_backward_pass(chunk: int | Chunks) -> None:
    """Nor do they change the log-probs and their gradients, whether or not chunks are repeated."""
    kept: list[list[tuple[int, ...]]] = []
    found = []
    for also in ([], ["log_squares"]):
        hidden, head, targets = case()
        kept.append([])

        def pack(x: Tensor) -> Tensor:
            kept[-1].append(tuple(x.shape))
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            logps, *squares = token_logps_with(also, hidden, head, targets, chunk=chunk)
        found.append((logps, *gradients(logps.square().sum(), hidden, head)))
        assert all(not x.requires_grad for x in squares)
    assert kept[0] == kept[1]
    for mine, theirs in zip(*found, strict=True):
        assert torch.equal(mine, theirs)
    both = token_logps_with(["log_squares", "entropies"], *case(), chunk=chunk)
    assert_close(both[2], squares[0])
    assert_close(both[1], token_logps_and_entropies(*case(), chunk=chunk)[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_result_is_float32_or_float64(dtype: torch.dtype) -> None:
    hidden, head, targets = case(dtype)
    logps = token_logps(hidden, head, targets, chunk=4)
    assert logps.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_bfloat16_is_normalised_in_float32() -> None:
    hidden, head, targets = case(torch.bfloat16)
    exact = head(hidden).double().log_softmax(-1)[range(N), targets]
    assert_close(token_logps(hidden, head, targets, chunk=4).double(), exact, atol=1e-6, rtol=0)


def test_no_tokens_at_all() -> None:
    hidden, head, targets = case()
    logps = token_logps(hidden[:0], head, targets[:0], chunk=4)
    assert logps.shape == (0,)
    logps.sum().backward()


def test_chunk_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="got 0"):
        token_logps(*case(), chunk=0)


def test_without_gradients_the_values_are_the_same() -> None:
    hidden, head, targets = case()
    trained = token_logps(hidden, head, targets, chunk=4)
    with torch.inference_mode():
        assert torch.equal(token_logps(hidden, head, targets, chunk=4), trained)
