"""A world so small that every completion can be listed, so that optima are exact numbers.

Reward minus ``beta`` times KL has the optimum pi*(y) = pi_ref(y) exp(r(y) / beta) / Z (Rafailov et
al. 2023, arXiv:2305.18290, Eq. 4). Here the sum Z over all completions is a sum, not an estimate:
objectives are compared with pi*, estimators with enumeration.

A completion is a string of tokens that ends with the end-of-text token or at full length. Tensors
over completions are ``[P, S]``: P prompts, S completions, the same for every prompt.
"""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError
from alignlab.functional import kl_full

EOS = 0  # the end-of-text token's id


@dataclass(frozen=True, eq=False)
class Completions:
    """All completions over a vocabulary, and the prefixes they share.

    Args:
        vocabulary: Number of tokens V, the end-of-text token 0 included.
        tokens: ``[S, T]`` long, 0 behind the end.
        mask: ``[S, T]`` bool, which positions are tokens (the end-of-text token is one).
        prefix: ``[S, T + 1]`` long; column t names the first t tokens. Prefixes that go on have the
            numbers 0 (the empty one) to ``open_prefixes - 1``; a complete text has one above them,
            and behind its end the name stays.
        open_prefixes: How many prefixes go on: states in which a token is chosen.
    """

    vocabulary: int
    tokens: Tensor
    mask: Tensor
    prefix: Tensor
    open_prefixes: int

    @property
    def lengths(self) -> Tensor:
        """``[S]`` long, tokens of each completion."""
        return self.mask.sum(1)


def all_completions(vocabulary: int, length: int) -> Completions:
    """Every completion of at most ``length`` tokens, shorter ones first.

    With V tokens there are 1 + (V-1) + ... + (V-1)^(T-1) that end by themselves and (V-1)^T cut
    off at full length.

    Raises:
        ConfigError: Fewer than 2 tokens or 1 position, or more than 8^4 completions.
    """
    if vocabulary < 2 or length < 1 or vocabulary**length > 8**4:
        raise ConfigError(
            "an enumerable world needs vocabulary >= 2, length >= 1 and vocabulary ** length "
            f"<= 4096, got {vocabulary} and {length}."
        )
    going_on = [prefix for t in range(length) for prefix in product(range(1, vocabulary), repeat=t)]
    texts = [(*prefix, EOS) for prefix in going_on]
    texts += product(range(1, vocabulary), repeat=length)
    texts.sort(key=lambda text: (len(text), text))
    number = {prefix: i for i, prefix in enumerate(going_on)}
    number |= {text: len(going_on) + s for s, text in enumerate(texts)}
    return Completions(
        vocabulary=vocabulary,
        tokens=torch.tensor([text + (EOS,) * (length - len(text)) for text in texts]),
        mask=torch.tensor([[t < len(text) for t in range(length)] for text in texts]),
        prefix=torch.tensor([[number[text[:t]] for t in range(length + 1)] for text in texts]),
        open_prefixes=len(going_on),
    )


class TabularPolicy(nn.Module):
    """An autoregressive policy with a free table of logits for every prompt and prefix.

    Args:
        completions: What it is a distribution over.
        logits: ``[P, open_prefixes, V]`` float64, copied into the parameter ``logits``.
    """

    def __init__(self, completions: Completions, logits: Tensor) -> None:
        super().__init__()
        self.completions = completions
        self.logits = nn.Parameter(logits.detach().clone())

    def next_logps(self) -> Tensor:
        """``[P, S, T, V]`` log-probs of every next token along every completion.

        Behind a completion's end they are those of the empty prefix and mean nothing.
        """
        at = self.completions.prefix[:, :-1].masked_fill(~self.completions.mask, 0)
        return self.logits.log_softmax(-1)[:, at]

    def token_logps(self) -> Tensor:
        """``[P, S, T]`` log-probs of the completions' own tokens, 0 behind the end."""
        tokens = self.completions.tokens.expand(len(self.logits), -1, -1)
        logps = self.next_logps().gather(-1, tokens[..., None]).squeeze(-1)
        return logps.masked_fill(~self.completions.mask, 0)

    def sequence_logps(self) -> Tensor:
        """``[P, S]`` log-probs of the completions; they sum to 1 over S."""
        return self.token_logps().sum(-1)


@dataclass(frozen=True)
class ExactOptimum:
    """The optimum at one ``beta``: its log-probs ``[P, S]``, mean reward and mean KL in nats."""

    beta: float
    logps: Tensor
    reward: float
    kl: float


@dataclass(frozen=True, eq=False)
class EnumerableWorld:
    """A reference and a reward over all completions, and what is exactly true of them.

    Args:
        completions: The completions.
        ref_logps: ``[P, S]`` float64, the reference's log-probs; they sum to 1 over S.
        rewards: ``[P, S]`` float64.
    """

    completions: Completions
    ref_logps: Tensor
    rewards: Tensor

    def reward(self, logps: Tensor) -> float:
        """Expected reward of the policy with log-probs ``[P, S]``, averaged over prompts."""
        return float((logps.exp() * self.rewards).sum(1).mean())

    def kl(self, logps: Tensor) -> float:
        """KL(policy || reference) in nats, averaged over prompts."""
        return divergence(logps, self.ref_logps)

    def optimum(self, beta: float) -> ExactOptimum:
        """The policy of largest reward minus ``beta`` times KL, ``beta > 0``."""
        logps = (self.ref_logps + self.rewards / beta).log_softmax(1)
        return ExactOptimum(beta, logps, self.reward(logps), self.kl(logps))

    def beta_for_kl(self, budget: float) -> float:
        """The ``beta`` at which the optimum's mean KL is ``budget`` nats, by bisection.

        Raises:
            ConfigError: The budget is not between 0 and the KL of always taking the best.
        """
        span = float(self.rewards.max() - self.rewards.min())
        low, high = 1e-4 * span, 1e4 * span  # largest and smallest KL
        if not self.optimum(high).kl < budget < self.optimum(low).kl:
            raise ConfigError(
                f"a KL budget of {budget} is outside this world's range, "
                f"{self.optimum(high).kl:.3g} to {self.optimum(low).kl:.3g} nats."
            )
        for _ in range(200):
            beta = (low * high) ** 0.5
            if self.optimum(beta).kl > budget:
                low = beta
            else:
                high = beta
        return high

    def best_of_n(self, n: int) -> Tensor:
        """Log-probs ``[P, S]`` of the first best one among n draws from the reference.

        Equal rewards form a level. The best lies in a level with probability F^n - F_^n, F and F_
        the reference's probability of this level or below and of below; within it the reference
        decides.
        """
        chances = self.ref_logps.exp()
        up_to = (self.rewards[:, :, None] >= self.rewards[:, None, :]).to(chances) @ chances[
            ..., None
        ]
        below = (self.rewards[:, :, None] > self.rewards[:, None, :]).to(chances) @ chances[
            ..., None
        ]
        level = (up_to**n - below**n) / (up_to - below)
        return self.ref_logps + level.squeeze(-1).log()

    def advantages(self, token_logps: Tensor, kl_coef: float) -> Tensor:
        """Exact advantages ``[P, S, T]`` of each token under the policy itself, 0 behind the end.

        The return is the reward minus ``kl_coef`` times the log-ratio to the reference (k1 in the
        reward). An advantage is its expectation after the token minus that before the token, both
        over what the policy does next.

        Args:
            token_logps: ``[P, S, T]`` of the policy.
            kl_coef: Price of a nat.
        """
        prefix = self.completions.prefix
        logps = token_logps.detach().sum(-1)
        chances = logps.exp()
        returns = self.rewards - kl_coef * (logps - self.ref_logps)
        flat = prefix.flatten()

        def over_prefixes(x: Tensor) -> Tensor:
            """Sums of ``x [P, S]`` over the completions of every prefix, ``[P, S, T + 1]``."""
            sums = x.new_zeros(len(x), int(prefix.max()) + 1)
            spread = x[:, :, None].expand(-1, -1, prefix.shape[1]).flatten(1)
            return sums.index_add(1, flat, spread)[:, prefix]

        values = over_prefixes(chances * returns) / over_prefixes(chances)
        return values.diff(dim=-1).masked_fill(~self.completions.mask, 0)

    def trees(self) -> list[PromptTree]:
        """Every prompt with all its completions, for a model whose vocabulary is the world's.

        A prompt is written in the world's own tokens, so that such a model can say nothing but the
        completions listed here.
        """
        texts = [
            tuple(row[:length])
            for row, length in zip(
                self.completions.tokens.tolist(), self.completions.lengths.tolist(), strict=True
            )
        ]
        return [
            PromptTree(index=p, id=f"prompt {p}", prompt=prompt, completions=tuple(texts))
            for p, prompt in enumerate(
                prompt_tokens(len(self.rewards), self.completions.vocabulary)
            )
        ]


def divergence(logps: Tensor, other_logps: Tensor) -> float:
    """KL(p || q) in nats of log-probs ``[P, S]``, averaged over prompts."""
    return float(kl_full(logps, other_logps).mean())


def prompt_tokens(prompts: int, vocabulary: int) -> list[tuple[int, ...]]:
    """Distinct prompts of equal length: end-of-text as the beginning, then tokens 1 .. V - 1.

    Without the beginning a transformer with rotary positions could not count equal tokens: it
    would see the average of equal values whatever their number.
    """
    width = 1
    while (vocabulary - 1) ** width < prompts:
        width += 1
    return [(EOS, *name) for name in product(range(1, vocabulary), repeat=width)][:prompts]


def random_world(
    seed: int, vocabulary: int, length: int, prompts: int = 1, ties: bool = False
) -> tuple[EnumerableWorld, TabularPolicy]:
    """A world with random reference logits and rewards, and its reference as a policy.

    Args:
        seed: The world is a function of it.
        vocabulary: Tokens, the end-of-text token included.
        length: Longest completion.
        prompts: Number of prompts P.
        ties: Round rewards to whole numbers, so that many are equal; else standard normal.
    """
    completions = all_completions(vocabulary, length)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(
        prompts, completions.open_prefixes, vocabulary, generator=generator, dtype=torch.float64
    )
    rewards = torch.randn(
        prompts, len(completions.tokens), generator=generator, dtype=torch.float64
    )
    reference = TabularPolicy(completions, logits)
    ref_logps = reference.sequence_logps().detach()
    world = EnumerableWorld(completions, ref_logps, rewards.round() if ties else rewards)
    return world, reference
