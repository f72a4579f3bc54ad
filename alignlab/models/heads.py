"""The output layer of a language model: hidden states to logits, as in the model's own forward."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from alignlab.errors import ConfigError
from alignlab.models.loading import is_scorer, load_model
from alignlab.models.score import ScoreModel


def output_layer(model: Any) -> Any:
    """The linear layer of a Hugging Face model that makes logits, or scores."""
    return model.score if hasattr(model, "score") else model.get_output_embeddings()


def language_logits(output: Any, config: Any, hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """Logits ``[N, V]`` of hidden states ``[N, H]``, float32 or finer.

    Autocast is off here: log-probs from bf16 logits lose differences of whole nats.

    Args:
        output: The model's output layer.
        config: The model's config: some architectures scale or cap logits (Cohere, Granite,
            Gemma 2).
        hidden: The transformer's last states.
        dtype: Precision of the matmul.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        linear = getattr(output, "original_module", output)  # adapters may learn some of its rows
        if isinstance(linear, nn.Linear) and output.weight.is_floating_point():
            bias = getattr(output, "bias", linear.bias)  # that of a copy that adapters train
            bias = None if bias is None else bias.to(dtype)
            logits = F.linear(hidden.to(dtype), output.weight.to(dtype), bias)
        else:
            logits = output(hidden)
        if logits.dtype != torch.float64:
            logits = logits.float()
        if (scale := getattr(config, "logit_scale", None)) is not None:
            logits = logits * scale
        if (divisor := getattr(config, "logits_scaling", None)) is not None:
            logits = logits / divisor
        if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits


class LanguageHead(nn.Module):
    """The output layer of the causal LM that a scorer was started from, on the scorer's states.

    If the LM ties it to its token embeddings, it is tied to the scorer's (GPT-1's Eq. 2). Otherwise
    it is a separate layer that is trained with the scorer and not saved with it.

    Args:
        scorer: Its transformer is that of the LM at ``scorer.source``.

    Raises:
        ConfigError: ``scorer.source`` holds no output layer.
    """

    def __init__(self, scorer: ScoreModel) -> None:
        super().__init__()
        dtype = scorer.head.weight.dtype
        name: Any = str(dtype).removeprefix("torch.")
        if is_scorer(scorer.source) and not scorer.model.config.tie_word_embeddings:
            raise ConfigError(
                f"{scorer.source} holds a scorer and no language model's output layer. Start "
                "model.init_args.model.source from a language model, or set alpha to 0."
            )
        lm = load_model(AutoModelForCausalLM, scorer.source, dtype=name, dropout=None, merge=True)
        self.output = lm.get_output_embeddings()
        self._tied: list[Any] = []  # in a list, so that it is not registered as a submodule
        if self.output.weight is lm.get_input_embeddings().weight:
            self._tied.append(scorer.backbone.get_input_embeddings())
            del self.output.weight
            self._tie()
        self.config = lm.config
        self.dtype = torch.promote_types(dtype, torch.float32)

    def _tie(self) -> None:
        """Take the embeddings' weight as it is now: shards are whole between forward and backward.

        It is not a parameter of this module: it is sharded and counted with the scorer only.
        """
        for embeddings in self._tied:
            object.__setattr__(self.output, "weight", embeddings.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits ``[N, V]`` of states ``[N, H]``, after the scorer's forward that made them."""
        self._tie()
        return language_logits(self.output, self.config, hidden, self.dtype)
