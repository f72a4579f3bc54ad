"""The policy: a causal language model that scores and is trained on prompt trees."""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.functional.logps import Chunks, chunks_of, token_logps_with
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.adapters import (
    Lora,
    add_lora,
    attach_base,
    checkpoint_activations,
    is_adapter,
    record_base,
    save_adapters,
)
from alignlab.models.backbone import TreeBackbone, relative_error
from alignlab.models.chat_format import ChatFormat, copy_token_rows, set_chat_format, set_stops
from alignlab.models.heads import language_logits
from alignlab.models.layouts import Layout
from alignlab.models.limits import embedded, other_id
from alignlab.models.loading import (
    DTypeName,
    attention,
    build_model,
    has_dropout,
    load_model,
    quiet,
)
from alignlab.models.loading import load_tokenizer as load_tokenizer_from
from alignlab.models.prompt_tuning import PromptTuning, add_prompt
from alignlab.models.quantised import Quantised, coarsest

log = logging.getLogger(__name__)
HeadDType = Literal["float32", "bfloat16", "float64"]
PLAIN = SamplingSpec()


@dataclass(slots=True)
class Scores:
    """A policy's log-probs of a batch of M completions, the longest of T tokens.

    Args:
        token_logps: ``[M, T]`` float32 (float64 for a float64 model), nats; 0 where ``mask`` is
            False.
        mask: ``[M, T]`` bool, the tokens that count.
        logps: ``[M]``, sums of ``token_logps``.
        lengths: ``[M]`` long, tokens that count.
        group: ``[M]`` long, the row of each completion's prompt.
        entropies: ``[M, T]`` nats, on request.
        log_squares: ``[M, T]``, the log of the sum over the vocabulary of squared probabilities,
            without gradient, on request.
        hidden: ``[M, T, H]`` states before each counted token, on request.
    """

    token_logps: Tensor
    mask: Tensor
    logps: Tensor
    lengths: Tensor
    group: Tensor
    entropies: Tensor | None = None
    log_squares: Tensor | None = None
    hidden: Tensor | None = None


class Policy(TreeBackbone):
    """A causal language model over prompt trees.

    Args:
        source: Hub id or local folder of a pretrained model, or local folder of adapters, which are
            trained further. Leave out to train from scratch.
        config: For a model from scratch: ``model_type`` and the architecture's sizes. The
            vocabulary size is the tokenizer's.
        tokenizer: Hub id or folder of the tokenizer; the model's own when left out.
        seed: Initial weights of a model from scratch are a function of it.
        dtype: Precision of the weights.
        dropout: Overrides every dropout in the model; ``None`` keeps the model's own.
        lora: Train low-rank adapters instead of the weights. Adapters that ``source`` holds are
            merged into the weights before.
        prompt_tuning: Train virtual tokens in front of every prompt instead of the weights; else
            as ``lora``.
        quantised: Keep the weights under the adapters in 4 bits (QLoRA). Adapters in ``source`` get
            a base like the one that they were trained on, without this key.
        layout: How trees become rows: ``flat``, a row per completion, or ``packed``, all trees of
            a batch in one row. ``auto`` is ``packed``. Without transformers' ``sdpa``, with
            attention windows, or if a check at load finds a difference, rows are ``flat``.
        head_dtype: Precision of the logits' matmul. Log-probs are float32 or finer.
        chunk: The most positions whose logits are made at once; fewer if the vocabulary is large.
        chat_format: For a tokenizer without a chat template: ``llama3`` adds the special tokens
            that are missing, the template and the stop set; the path of a file, ``*.jinja``, sets
            the template that it holds. They are saved with the model. With ``lora``, the rows of
            added tokens are trained beside the adapters.
        attn_implementation: The attention function of transformers, such as ``sdpa``, ``eager`` or
            ``flash_attention_2``; ``None`` for the model's default.
        activation_checkpointing: Compute the activations of each layer again in the backward pass,
            which saves memory and costs a forward.

    Raises:
        ConfigError: Neither or both of ``source`` and ``config``; nothing usable there;
            ``quantised`` weights that would be trained; a ``chat_format`` where there is a
            template, or tokens that nothing would learn; an ``attn_implementation`` that is not
            installed; an architecture whose log-probs would not be those of its own forward.
    """

    ENTRIES = ("log_softmax_at", "states")

    def __init__(
        self,
        source: str | None = None,
        config: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        seed: int = 0,
        dtype: DTypeName = "float32",
        dropout: float | None = 0.0,
        lora: Lora | None = None,
        prompt_tuning: PromptTuning | None = None,
        quantised: Quantised | None = None,
        layout: Layout = "auto",
        head_dtype: HeadDType = "float32",
        chunk: int = 4096,
        chat_format: ChatFormat | None = None,
        attn_implementation: str | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_policy(source, config, tokenizer, lora, prompt_tuning, quantised)
        fresh = lora is not None or prompt_tuning is not None
        missing = "a model" if tokenizer is None else "a tokenizer"
        self.tokenizer = load_tokenizer_from(str(tokenizer or source), missing=missing)
        _check_vocabulary(self.tokenizer, source, named=tokenizer is not None)
        added = {} if chat_format is None else set_chat_format(self.tokenizer, chat_format)
        how: dict[str, Any] = {"dtype": dtype, "dropout": dropout}
        attended = attention(attn_implementation)
        if source is not None:
            self.model = load_model(
                AutoModelForCausalLM, source, merge=fresh, quantised=quantised, **how, **attended
            )
        else:
            values = _ids(self.tokenizer) | (config or {}) | attended
            self.model = build_model(AutoModelForCausalLM, values, seed=seed, **how)
        base = record_base(self.model, source) if fresh else {}
        if source is not None and added:
            self._add_tokens(added, learnt=prompt_tuning is None)
            base["tokens"] = added
        if chat_format == "llama3":
            set_stops(self.model, self.tokenizer)
        if lora is not None:
            self.model = add_lora(self.model, lora, base["tokens"])
        if prompt_tuning is not None:
            self.model = add_prompt(self.model, prompt_tuning)
        self._saves_base = fresh and (source is None or is_adapter(source))
        if fresh:
            attach_base(self.model, base, source)
        if activation_checkpointing:
            checkpoint_activations(self.model)
        self.head_dtype = torch.float64 if dtype == "float64" else getattr(torch, head_dtype)
        self.chunk: int | Chunks = chunks_of(chunk, embedded(self.model) or 1)
        self.layout = layout
        self.layout_report = self.settle_layout()
        self.train()  # a pretrained model comes in eval mode
        log.debug("policy layout: %s", self.layout_report)

    def _add_tokens(self, added: dict[int, int | None], *, learnt: bool) -> None:
        """Give added tokens rows in the model.

        Raises:
            ConfigError: Nothing that is trained would learn them.
        """
        if not learnt or hasattr(self.model, "peft_config"):
            raise ConfigError(
                f"chat_format adds {len(added)} tokens that virtual tokens, and adapters that were "
                "trained without them, cannot learn. Set policy.init_args.lora, train the weights, "
                "or start from a tokenizer that has these tokens."
            )
        copy_token_rows(self.model, added)

    @property
    def has_dropout(self) -> bool:
        """Whether two forwards in train mode differ by dropout that was asked for."""
        return has_dropout(self.model)

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end a completion: the end-of-text token and what the model's own config adds.

        A chat model has several, one for the end of a turn and one for the end of a text.
        """
        own = self.model.generation_config.eos_token_id
        ids = {self.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
        return sorted(ids - {None})

    @property
    def width(self) -> int:
        """Size of the states that the head reads; some models project wider ones to it (OPT)."""
        return int(self.model.get_output_embeddings().weight.shape[1])

    @property
    def precision(self) -> torch.dtype:
        """The coarsest type that a forward computes in now: inside autocast it is autocast's."""
        kind = self.device.type
        autocast = torch.is_autocast_enabled(kind)
        trunk = torch.get_autocast_dtype(kind) if autocast else self.model.dtype
        coarser = max(trunk, self.head_dtype, key=lambda dtype: torch.finfo(dtype).eps)
        return coarsest(self.model, coarser)

    def forward(
        self, trees: PromptTrees, want: Collection[str] = (), spec: SamplingSpec = PLAIN
    ) -> Scores:
        """Log-probs of the completion tokens that count, under ``spec``.

        Args:
            trees: M completions of P prompts.
            want: Any of ``entropies``, ``log_squares`` and ``hidden``.
            spec: The distribution that was sampled from, so that rollout and scoring agree.
        """
        mask = trees.loss_mask
        hidden = self.hidden_states(trees, mask, after=False)
        targets = trees.completion_ids[mask]
        also = [name for name in ("entropies", "log_squares") if name in want]
        logps, *found = token_logps_with(
            also, hidden, self.head, targets, chunk=self.chunk, spec=spec
        )
        spread = torch.zeros(mask.shape, dtype=logps.dtype, device=logps.device)
        extras = {name: spread.masked_scatter(mask, x) for name, x in zip(also, found, strict=True)}
        out = spread.masked_scatter(mask, logps)
        return Scores(
            token_logps=out,
            mask=mask,
            logps=out.sum(1),
            lengths=mask.sum(1),
            group=trees.group,
            hidden=self._spread(hidden, mask) if "hidden" in want else None,
            **extras,
        )

    def log_softmax_at(self, trees: PromptTrees, spec: SamplingSpec = PLAIN) -> Tensor:
        """``[N, V]`` log-probs of every next token at the N tokens that count, row by row."""
        hidden = self.hidden_states(trees, trees.loss_mask, after=False)
        return spec.apply(self.head(hidden)).log_softmax(-1)

    def states(self, trees: PromptTrees) -> Tensor:
        """``[M, T, H]`` states before each token that counts, 0 elsewhere; makes no logits."""
        hidden = self.hidden_states(trees, trees.loss_mask, after=False)
        return self._spread(hidden, trees.loss_mask)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits ``[N, V]`` of hidden states ``[N, H]``, float32 or finer."""
        output = self.model.get_output_embeddings()
        return language_logits(output, self.model.config, hidden, self.head_dtype)

    def _own_error(self, trees: PromptTrees, states: Tensor) -> float:
        """See ``TreeBackbone``: the logits before every completion token and after the last."""
        before = (trees.prompt_lengths[trees.group] + self.virtual_tokens - 1).tolist()
        own = [x[0, n:] for x, n in zip(self._own_logits(trees), before, strict=True)]
        config, fine = self.model.config, torch.promote_types(self.head_dtype, states.dtype)
        logits = language_logits(self.model.get_output_embeddings(), config, states, fine)
        return relative_error(logits, torch.cat(own), coarsest(self.model, states.dtype))

    @staticmethod
    def _spread(hidden: Tensor, mask: Tensor) -> Tensor:
        out = hidden.new_zeros(*mask.shape, hidden.shape[-1])
        return out.masked_scatter(mask[..., None], hidden)

    def save(self, path: str | Path) -> None:
        """Write a Hugging Face folder: safetensors, config, tokenizer, chat template.

        For a policy with adapters, only the adapters are written. Their model is written too if it
        is in no folder yet: it was made from a config, or other adapters were merged into it.
        """
        quiet()
        if hasattr(self.model, "peft_config"):
            save_adapters(self.model, Path(path), with_base=self._saves_base)
        else:
            self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)


def check_policy(
    source: str | None,
    config: dict[str, Any] | None,
    tokenizer: str | None,
    lora: Lora | None,
    prompt_tuning: PromptTuning | None,
    quantised: Quantised | None,
) -> None:
    """Check that the arguments of a ``Policy`` fit together.

    Raises:
        ConfigError: They do not.
    """
    if (source is None) == (config is None):
        raise ConfigError(
            "a policy comes from a source or from a config: set exactly one of "
            f"policy.init_args.source (got {source!r}) and policy.init_args.config."
        )
    if source is None and tokenizer is None:
        raise ConfigError("a policy from a config needs policy.init_args.tokenizer.")
    if lora is not None and prompt_tuning is not None:
        raise ConfigError("lora and prompt_tuning are both given; use one of them.")
    fresh = lora is not None or prompt_tuning is not None
    if quantised is not None and (source is None or not (fresh or is_adapter(source))):
        raise ConfigError(
            "weights in 4 bits cannot be trained, so policy.init_args.quantised needs a source "
            "and lora. Set policy.init_args.lora, or leave quantised out."
        )


def _ids(tokenizer: Any) -> dict[str, int | None]:
    """What the config of a model from scratch takes from its tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _check_vocabulary(tokenizer: Any, source: str | None, *, named: bool) -> None:
    """A tokenizer that was named must give each token the id that it has in the model.

    Raises:
        ConfigError: It does not. (It may lack tokens, and a model may have no tokenizer.)
    """
    if source is None or not named:
        return
    try:
        own = load_tokenizer_from(source)
    except ConfigError:
        return
    if odd := other_id(own, tokenizer):
        raise ConfigError(
            f"policy.init_args.tokenizer is not that of {source}, whose weights would read other "
            f"tokens: {odd}. Leave it out."
        )
