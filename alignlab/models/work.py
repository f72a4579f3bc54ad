"""The matrix products that a model needs for a batch of prompt trees, in FLOP.

It counts each prompt's tokens once, each completion's once, attention over the keys that a token
may see, and the output layer at the positions that are asked for. Padding, recomputed activations
and everything that is not a matrix product are not counted.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from alignlab.data.trees import PromptTrees
from alignlab.models.backbone import TreeBackbone
from alignlab.models.heads import output_layer
from alignlab.models.quantised import layers_in_4_bits


class Work:
    """Counts a model's forwards; set its ``add`` as the ``meter`` of the model.

    Args:
        model: Counted by its sizes as they are now.
    """

    def __init__(self, model: TreeBackbone) -> None:
        inner = model.whole_model
        config = inner.config.get_text_config(decoder=True)
        packed = {id(layer.weight): layer for layer in layers_in_4_bits(inner).values()}
        blocks, output = blocks_of(inner), output_layer(inner).weight
        self.linear = active_weights(blocks, config, packed)
        self.learning = active_weights(blocks, config, packed, learning=True)
        self.output = output.numel()
        self.output_learns = output.requires_grad
        self.attention = int(config.num_hidden_layers * config.hidden_size)
        self.counts = [torch.zeros(3, dtype=torch.float64) for _ in range(2)]  # without, with grad

    @torch.no_grad()
    def read(self, trees: PromptTrees, select: Tensor) -> Tensor:
        """``[3]``: tokens, pairs of a token and a key that it sees, positions of ``select``."""
        prompt, completion = trees.prompt_lengths, trees.completion_lengths
        own = completion * (2 * prompt[trees.group] + completion + 1)
        pairs = (prompt * (prompt + 1)).sum() + own.sum()
        counts = torch.stack([prompt.sum() + completion.sum(), pairs, 2 * select.sum()])
        return counts.double() * counts.new_tensor([1, 0.5, 0.5], dtype=torch.float64)

    def add(self, trees: PromptTrees, select: Tensor) -> None:
        """Count a forward, and a backward pass where gradients are recorded and weights learn."""
        learns = torch.is_grad_enabled() and self.learning > 0
        found = self.read(trees, select)
        self.counts[learns] = self.counts[learns].to(found.device) + found

    @property
    def tokens(self) -> float:
        """Tokens of prompts and completions that were read to learn from."""
        return float(self.counts[1][0])

    @property
    def flops(self) -> float:
        """Of all that was counted: per weight and token 2 in a forward, and 2 for each gradient.

        A backward pass makes gradients of all states, and of the weights that learn.
        """
        read, learnt = (counts.tolist() for counts in self.counts)
        backward = 2 * self.learning * learnt[0]
        backward += 2 * self.output * learnt[2] if self.output_learns else 0.0
        return self._forward(read) + 2 * self._forward(learnt) + self._attention(learnt) + backward

    def _forward(self, counts: list[float]) -> float:
        linear = 2 * self.linear * counts[0] + 2 * self.output * counts[2]
        return linear + self._attention(counts)

    def _attention(self, counts: list[float]) -> float:
        return 4 * self.attention * counts[1]


def blocks_of(model: Any) -> list[nn.Module]:
    """The layers of the transformer: the longest list of modules."""
    lists = [list(m) for m in model.modules() if isinstance(m, nn.ModuleList)]
    return max(lists, key=len) if lists else [model]


def active_weights(
    blocks: Iterable[nn.Module],
    config: Any,
    packed: dict[int, Any] | None = None,
    *,
    learning: bool = False,
) -> float:
    """Weights of the layers that a token is multiplied with; of experts, only the active ones.

    Args:
        blocks: The layers.
        config: The model's, or that of its text part.
        packed: Layers in 4 bits by the id of their weight, whose own size counts bytes.
        learning: Only those with gradients.
    """
    text = config.get_text_config(decoder=True)
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    experts = next((n for name in names if (n := getattr(text, name, None))), None)
    chosen = getattr(text, "num_experts_per_tok", None) or 1
    share = chosen / experts if experts else 1.0
    total = 0.0
    for block in blocks:
        for name, weight in block.named_parameters():
            if weight.dim() > 1 and (weight.requires_grad or not learning):
                layer = (packed or {}).get(id(weight))
                size = layer.in_features * layer.out_features if layer else weight.numel()
                total += size * (share if "experts" in name and "shared" not in name else 1.0)
    return total
