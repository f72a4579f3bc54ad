"""Log-probabilities of given tokens without ever holding all logits.

Logits are by far the largest tensor of a language model's step, so they are computed for a chunk of
positions at a time. If memory matters in a large batch, they are recomputed in the backward pass,
so that only one chunk exists at any time.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from alignlab.errors import ConfigError
from alignlab.functional.sampling import SamplingSpec

Head = Callable[[Tensor], Tensor]
PLAIN = SamplingSpec()
LOGITS = 2**25  # logits held at once: 128 MiB in float32
CACHED, LEAST = 2**21, 256  # logits that stay in a processor's cache; positions of a fast product
KEPT = 2**27  # log-probs kept for the backward pass: 512 MiB in float32


class Chunks(NamedTuple):
    """How many positions go through the head at once, and for how many logits are kept.

    Attributes:
        size: Positions whose logits are computed at a time.
        kept: With more positions than this, logits are recomputed in the backward pass.
    """

    size: int
    kept: int


def positions_at_once(chunk: int, vocabulary: int) -> int:
    """``chunk``, or as many positions as have ``LOGITS`` logits in a large ``vocabulary``."""
    return min(chunk, max(1, LOGITS // vocabulary))


def chunks_of(chunk: int, vocabulary: int) -> Chunks:
    """The fastest chunks of at most ``chunk`` positions that memory allows."""
    size = min(positions_at_once(chunk, vocabulary), max(LEAST, CACHED // vocabulary))
    return Chunks(size, KEPT // vocabulary)


def token_logps(
    hidden: Tensor, head: Head, targets: Tensor, *, chunk: int | Chunks, spec: SamplingSpec = PLAIN
) -> Tensor:
    """Log-probs in nats of ``targets`` under ``softmax(spec.apply(head(hidden)))``.

    Args:
        hidden: ``[N, H]`` hidden states at the predicting positions.
        head: Maps ``[n, H]`` to logits ``[n, V]``; a module, so that gradients reach its weights.
        targets: ``[N]`` long.
        chunk: Positions whose logits exist at a time; if given, no more are kept for backward.
        spec: The distribution that is scored; a target that it drops has log-prob ``-inf``.

    Returns:
        ``[N]`` float32, or float64 where the logits are.

    Raises:
        ConfigError: chunk below 1.
    """
    return token_logps_with((), hidden, head, targets, chunk=chunk, spec=spec)[0]


def token_logps_and_entropies(
    hidden: Tensor, head: Head, targets: Tensor, *, chunk: int | Chunks, spec: SamplingSpec = PLAIN
) -> tuple[Tensor, Tensor]:
    """``token_logps`` and the entropies in nats of the same distributions, both ``[N]``."""
    logps, entropies = token_logps_with(
        ("entropies",), hidden, head, targets, chunk=chunk, spec=spec
    )
    return logps, entropies


def token_logps_with(
    also: Collection[str],
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    *,
    chunk: int | Chunks,
    spec: SamplingSpec = PLAIN,
) -> tuple[Tensor, ...]:
    """``token_logps``, then the statistics in ``also`` of the same distributions, each ``[N]``.

    ``entropies`` come first, in nats; then ``log_squares``, ``log sum_v p(v)^2``, which have no
    gradient.
    """
    size, kept = chunk if isinstance(chunk, Chunks) else (chunk, chunk)
    if size < 1:
        raise ConfigError(f"chunk must be at least 1 position, got {size}.")

    def score(hidden: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        logits = spec.apply(_at_least_float32(head(hidden)))
        last = (_log_squares(logits),) if "log_squares" in also else ()
        if "entropies" not in also:
            return (_Chosen.apply(logits, targets), *last)
        logps = logits.log_softmax(-1)
        return (logps.gather(-1, targets[:, None]).squeeze(-1), _entropy(logps), *last)

    if len(targets) <= size:  # recomputing a single chunk would save nothing
        return score(hidden, targets)
    tensors = 4 if "entropies" in also else 1  # as wide as the vocabulary, kept for each position
    again = len(targets) * tensors > kept
    parts = [
        checkpoint(score, h, t, use_reentrant=False) if again else score(h, t)
        for h, t in zip(hidden.split(size), targets.split(size), strict=True)
    ]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


class _Chosen(torch.autograd.Function):
    """``log_softmax`` at the targets. Its backward passes over the logits half as often."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        logps, targets = logits.log_softmax(-1), targets[:, None]
        ctx.save_for_backward(logps, targets)
        return logps.gather(-1, targets).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The gradient times (one-hot target - probabilities)."""
        logps, targets = ctx.saved_tensors
        gradient = gradient[:, None]
        return logps.exp().mul_(-gradient).scatter_add_(-1, targets, gradient), None


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _entropy(logps: Tensor) -> Tensor:
    finite = logps.masked_fill(logps == -torch.inf, 0)
    return -(logps.exp() * finite).sum(-1)


@torch.no_grad()
def _log_squares(logits: Tensor) -> Tensor:
    return (2 * logits.log_softmax(-1)).logsumexp(-1)
