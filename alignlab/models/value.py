"""The value function of an actor-critic: the expected reward to come, before each token."""

from typing import Literal

import torch
from torch import Tensor, nn

from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.models.adapters import OWN, VALUE, drawn_by_seed, switched_to
from alignlab.models.limits import other_id
from alignlab.models.policy import Policy
from alignlab.models.score import ScoreModel


class ValueFunction(nn.Module):
    """Values of the states along a completion.

    A separate network doubles memory, but keeps policy and values apart. A head on the policy's
    states costs nothing, but its gradient moves the policy's trunk unless it is detached. Separate
    adapters on the policy's frozen weights cost one more forward and hardly any memory.

    Args:
        policy: Whose states a head reads; not owned.
        network: A network of its own; ``adapter``; or ``None`` for a head on the policy. Heads
            start at 0.
        detach: Keep a shared head's gradient out of the policy.

    Raises:
        ConfigError: ``adapter`` for a policy without LoRA, or a network with another tokenizer or
            several outputs.
    """

    def __init__(
        self, policy: Policy, network: ScoreModel | Literal["adapter"] | None, detach: bool
    ) -> None:
        super().__init__()
        self._policy = [policy]  # in a list, so that it is not registered as a submodule
        self.network = network if isinstance(network, ScoreModel) else None
        own = getattr(self.network, "tokenizer", None)
        if own is not None and (odd := other_id(policy.tokenizer, own)):
            raise ConfigError(
                "model.init_args.value reads the policy's tokens and has another tokenizer: "
                f"{odd}. Start it from a model of the policy's family."
            )
        if self.network is not None and self.network.outputs != 1:
            raise ConfigError(
                f"model.init_args.value: a value is one number, this network gives "
                f"{self.network.outputs}. Set its outputs to 1."
            )
        self.adapted, self.detach = network == "adapter", detach and network is None
        if self.adapted:
            self._add_adapter()
        if self.network is None:
            wide = torch.promote_types(policy.model.dtype, torch.float32)
            self.head = nn.Linear(policy.width, 1, dtype=wide)
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    @property
    def want(self) -> tuple[Literal["hidden"], ...]:
        """The outputs of the policy's forward that it needs."""
        return ("hidden",) if self.network is None and not self.adapted else ()

    def own_parameters(self) -> list[nn.Parameter]:
        """What is trained for the values alone; adapters are the policy's modules."""
        named = self._policy[0].named_parameters()
        adapters = [p for name, p in named if self.adapted and VALUE in name.split(".")]
        return [*self.parameters(), *adapters]

    def forward(self, trees: PromptTrees, hidden: Tensor | None = None) -> Tensor:
        """``[M, T]`` values before each completion token, 0 beyond a completion's end.

        Args:
            trees: Completions.
            hidden: ``[M, T, H]`` the policy's states before each token, where a shared head has
                them already; else they are computed.
        """
        if self.network is not None:
            return self.network.values(trees)
        if self.adapted:
            with switched_to(self._policy[0].model, VALUE):
                hidden = self._policy[0].states(trees)
        elif hidden is None:
            hidden = self._policy[0].states(trees)
        if self.detach:
            hidden = hidden.detach()
        return torch.where(trees.token_mask, self.of(hidden), 0)

    def of(self, hidden: Tensor) -> Tensor:
        """The head's value of each of the states ``[..., H]``."""
        values: Tensor = self.head(hidden.to(self.head.weight.dtype)).squeeze(-1)
        return values

    def _add_adapter(self) -> None:
        model = self._policy[0].model
        own = getattr(model, "peft_config", {}).get(OWN)
        if own is None or own.is_prompt_learning:
            raise ConfigError(
                "a value function on adapters needs a policy with LoRA: set policy.init_args.lora, "
                "or give model.init_args.value a network."
            )
        with drawn_by_seed(1):
            model.add_adapter(VALUE, own)
        for parameter in self.own_parameters():
            parameter.requires_grad_(True)
