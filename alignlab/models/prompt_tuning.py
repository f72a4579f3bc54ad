"""Prompt tuning (Lester et al. 2021, arXiv:2104.08691): train a few vectors in front of the prompt.

The vectors are peft's, but peft's wrapper does not insert them, because a policy reads the states
of the transformer below it. They are put before every row that the transformer reads here, and
their states are removed from its output. Callers, with a cache or without, do not notice them.
"""

from typing import Any

import torch
from torch import Tensor

from alignlab.errors import ConfigError


class PromptTuning:
    """Virtual tokens in front of every prompt; all else is frozen.

    Args:
        tokens: How many; 1-100 is usual.
        seed: They start as the embeddings of tokens drawn by it.
    """

    def __init__(self, tokens: int = 16, seed: int = 0) -> None:
        if tokens < 1:
            raise ConfigError(f"PromptTuning needs tokens >= 1, got {tokens}.")
        self.tokens, self.seed = tokens, seed


def add_prompt(model: Any, prompt: PromptTuning) -> Any:
    """``model`` with trainable virtual tokens; its own weights are frozen."""
    from peft import PromptTuningConfig, PromptTuningInit, TaskType, get_peft_model

    config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=prompt.tokens,
        prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(prompt.seed)
        return get_peft_model(model, config)


def virtual_tokens(model: Any) -> int:
    """Number of virtual tokens before every row that ``model`` reads."""
    config = model.active_peft_config if hasattr(model, "peft_config") else None
    return config.num_virtual_tokens if config is not None and config.is_prompt_learning else 0


class PromptedTransformer:
    """The transformer of a prompt-tuned model, called as if it had no virtual tokens.

    Args:
        model: As peft wraps it.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.transformer = model.get_base_model().base_model
        self.tokens = virtual_tokens(model)

    def __call__(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
    ) -> tuple[Tensor]:
        """States ``[R, L, H]`` of the ids ``[R, L]``.

        Args:
            input_ids: What follows the virtual tokens, or what the cache holds.
            position_ids: ``[R, L]``, counted as if there were no virtual tokens.
            attention_mask: ``[R, columns]``, 0 on padding, likewise.
            past_key_values: Cache; while it is empty, the virtual tokens go in first.
            use_cache: Write to it.
        """
        embeddings = self.transformer.get_input_embeddings()(input_ids)
        rows, begun = len(input_ids), past_key_values and past_key_values.get_seq_length() > 0
        new = 0 if begun else self.tokens
        if position_ids is not None:
            position_ids = position_ids + self.tokens
        if new:
            prompt = self.model.get_prompt(batch_size=rows).to(embeddings.dtype)
            embeddings = torch.cat([prompt, embeddings], 1)
            if position_ids is not None:
                first = torch.arange(new, device=input_ids.device).expand(rows, -1)
                position_ids = torch.cat([first, position_ids], 1)
        if attention_mask is not None:
            seen = attention_mask.new_ones(rows, self.tokens)
            attention_mask = torch.cat([seen, attention_mask], 1)
        states = self.transformer(
            inputs_embeds=embeddings,
            position_ids=position_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
        )[0]
        return (states[:, new:],)
