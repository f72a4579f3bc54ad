"""The value function of an actor-critic: what reward is still to come, before each token."""

from typing import Literal

import torch
from torch import Tensor, nn

from alignlab.data.trees import PromptTrees
from alignlab.models.policy import Policy
from alignlab.models.score import ScoreModel


class ValueFunction(nn.Module):
    """Values of the states along a completion, from a network of its own or from the policy's.

    A head on the policy's states costs nothing, but its gradient moves the policy's trunk unless it
    is detached; a network of its own doubles memory and keeps the two apart.

    Args:
        policy: Whose states a shared head reads; not owned.
        network: A network of its own; ``None`` for a head on the policy, which starts at 0.
        detach: Keep a shared head's gradient out of the policy.
    """

    def __init__(self, policy: Policy, network: ScoreModel | None, detach: bool) -> None:
        super().__init__()
        self._policy = [policy]  # in a list, so that it is not registered as a submodule
        self.network, self.detach = network, detach
        self.head = nn.Linear(policy.model.config.hidden_size, 1) if network is None else None
        if self.head is not None:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    @property
    def want(self) -> tuple[Literal["hidden"], ...]:
        """What it needs of the policy's forward."""
        return ("hidden",) if self.network is None else ()

    def forward(self, trees: PromptTrees, hidden: Tensor | None = None) -> Tensor:
        """``[M, T]`` values before each completion token, 0 beyond a completion's end.

        Args:
            trees: Completions.
            hidden: ``[M, T, H]`` the policy's states before each token, where a shared head has
                them at hand; else they are computed.
        """
        if self.network is not None:
            return self.network.values(trees)
        assert self.head is not None
        if hidden is None:
            hidden = self._policy[0](trees, ("hidden",)).hidden
            assert hidden is not None
        if self.detach:
            hidden = hidden.detach()
        values: Tensor = self.head(hidden.to(self.head.weight.dtype)).squeeze(-1)
        return torch.where(trees.token_mask, values, 0)
