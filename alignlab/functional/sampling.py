"""The distribution that is sampled from and scored: one description for rollout and training.

A policy that samples at temperature 0.7 and is scored at temperature 1 reports the divergence of a
distribution that nobody sampled from (it can even turn negative). So temperature, top-k and top-p
live in one ``SamplingSpec`` that the sampler and the training forward both apply.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignlab.errors import ConfigError

NO_DISTRIBUTION = (
    "the model's logits are NaN or infinite, so no token can be drawn: its weights have diverged. "
    "Lower the learning rate, or take an earlier checkpoint."
)


@dataclass(frozen=True)
class SamplingSpec:
    """How a next-token distribution is made from logits.

    Args:
        temperature: Divides the logits; 0 means greedy. 1 samples from the model itself.
        top_k: Keep only the k most likely tokens; 0 keeps all.
        top_p: Keep the smallest set of tokens whose probability reaches this; 1 keeps all.

    Raises:
        ConfigError: A negative temperature or top_k, or top_p outside (0, 1].
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature must be >= 0, got {self.temperature}. 0 is greedy.")
        if self.top_k < 0:
            raise ConfigError(f"top_k must be >= 0, got {self.top_k}. 0 keeps every token.")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must lie in (0, 1], got {self.top_p}. 1 keeps every token.")

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0

    @property
    def plain(self) -> bool:
        """Whether the distribution is the model's own, so that nothing needs to be applied."""
        return self.temperature == 1 and self.top_k == 0 and self.top_p == 1

    def apply(self, logits: Tensor) -> Tensor:
        """Logits ``[..., V]`` of the distribution that is sampled; dropped tokens are ``-inf``.

        Greedy leaves the logits alone: it is a choice of token, not a distribution to score.
        The order is temperature, top-k, top-p, as in Hugging Face ``generate``.
        """
        if self.plain or self.greedy:
            return logits
        logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            kth = logits.topk(self.top_k, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < kth, -torch.inf)
        if self.top_p < 1:
            ordered, order = logits.sort(dim=-1, descending=True)
            probs = ordered.softmax(-1)
            # A token stays if the mass before it has not yet reached top_p; the first always stays.
            drop = (probs.cumsum(-1) - probs) >= self.top_p
            dropped = torch.zeros_like(drop).scatter(-1, order, drop)
            logits = logits.masked_fill(dropped, -torch.inf)
        return logits


def distribution(logits: Tensor) -> Tensor:
    """``softmax(logits)`` ``[R, V]``, in the dtype of the logits.

    Raises:
        FloatingPointError: The logits of a row are NaN or infinite: there is no distribution.
    """
    probs = logits.softmax(-1)
    if bool(probs[:, 0].isnan().any()):  # then all of the row are
        raise FloatingPointError(NO_DISTRIBUTION)
    return probs


def inverse_cdf(logits: Tensor, u: Tensor) -> Tensor:
    """Tokens ``[R]`` drawn from ``softmax(logits)`` with one uniform number each.

    Args:
        logits: ``[R, V]``; ``-inf`` marks tokens that cannot be drawn.
        u: ``[R]`` in (0, 1).

    Raises:
        FloatingPointError: The logits of a row are NaN or infinite: there is no distribution.
    """
    return drawn_from(distribution(logits), u)


def drawn_from(probs: Tensor, u: Tensor) -> Tensor:
    """Tokens ``[R]`` of distributions ``[R, V]``, one for each uniform number ``u`` ``[R]``.

    A token of probability 0 is never drawn, however close to 1 ``u`` is and wherever rounding
    leaves the last cumulative sum.
    """
    cumulative = probs.cumsum(-1)
    total = cumulative[:, -1:]
    below_total = torch.nextafter(total, torch.zeros_like(total))
    target = torch.minimum(u[:, None].to(total.dtype) * total, below_total)
    tokens = torch.searchsorted(cumulative, target, right=True)
    drawable = probs.gather(-1, tokens) > 0
    if not drawable.all():  # sums made in parallel (CUDA) need not rise monotonically
        tokens = torch.where(drawable, tokens, probs.argmax(-1, keepdim=True))
    return tokens.squeeze(-1)
