"""A transformer with a scalar head: the reward model, the value function, the classifier."""

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.models.adapters import (
    OWN,
    Lora,
    add_lora,
    attach_base,
    checkpoint_activations,
    is_adapter,
    record_base,
    save_adapters,
)
from alignlab.models.backbone import UNSUPPORTED, TreeBackbone, probe_cells, relative_error
from alignlab.models.layouts import Layout
from alignlab.models.loading import DTypeName, attention, is_scorer, load_model, quiet
from alignlab.models.loading import load_tokenizer as load_tokenizer_from
from alignlab.models.quantised import Quantised, coarsest


class ScoreModel(TreeBackbone):
    """Numbers read off a transformer's states along a prompt tree.

    Read at the last real token of each completion it is a reward model or a classifier, read
    before each token a value function. On disk it is a Hugging Face sequence-classification
    folder, so any library can load it.

    Args:
        source: Hub id or folder of a causal LM (a fresh head is put on it) or of a trained scorer.
            A scorer's adapters are trained further; a language model's are merged.
        outputs: Numbers per state: 1 for a reward or a value, the classes for a classifier.
        seed: A fresh head is a function of it.
        fresh_head: Start the head anew even if the folder has one. ``None`` does so only when
            the folder is a language model's.
        head_init: ``normal`` draws a fresh head from N(0, 1 / (H + 1)) (Stiennon et al. 2020,
            arXiv:2009.01325, App. B.1); ``zero`` starts every score at 0.
        dtype: Precision of the weights. Scores are float32 or finer.
        dropout: Overrides every dropout; ``None`` keeps the model's own.
        lora: Train low-rank adapters and the head instead of all weights; as in ``Policy``.
        quantised: Keep the weights under the adapters in 4 bits, as in ``Policy``.
        layout: As in ``Policy``.
        attn_implementation: As in ``Policy``.
        activation_checkpointing: As in ``Policy``.

    Raises:
        ConfigError: Nothing usable at ``source``, ``quantised`` weights that would be trained,
            an ``attn_implementation`` that is not installed, or an architecture whose scores would
            not be those of its own forward.
    """

    ENTRIES = ("scores_and_states",)

    def __init__(
        self,
        source: str,
        outputs: int = 1,
        seed: int = 0,
        fresh_head: bool | None = None,
        head_init: Literal["normal", "zero"] = "normal",
        dtype: DTypeName = "float32",
        dropout: float | None = 0.0,
        lora: Lora | None = None,
        quantised: Quantised | None = None,
        layout: Layout = "auto",
        attn_implementation: str | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_scorer(source, outputs, lora, quantised)
        adapted = is_adapter(source)
        self.source = source
        self.tokenizer = load_tokenizer_from(source, missing="a model")
        with torch.random.fork_rng(devices=[]):  # the loader draws a head of its own
            self.model = load_model(
                AutoModelForSequenceClassification,
                source,
                dtype=dtype,
                dropout=dropout,
                merge=lora is not None,
                quantised=quantised,
                num_labels=outputs,
                **attention(attn_implementation),
            )
        if getattr(self.model.config, "pad_token_id", None) is None:
            self.model.config.pad_token_id = self.tokenizer.pad_token_id
        if not isinstance(self.head, nn.Linear):
            raise ConfigError(
                f"{type(self.model).__name__} has no linear layer 'score' on the last token's "
                f"state. {UNSUPPORTED}"
            )
        if fresh_head is None:
            fresh_head = not is_scorer(source)
        if fresh_head:
            self._reset_head(head_init, seed)
        self._saves_base = lora is not None and adapted
        if lora is not None:
            base = record_base(self.model, source)
            self.model = add_lora(self.model, lora, scorer=True)
            attach_base(self.model, base, source)
        if activation_checkpointing:
            checkpoint_activations(self.model)
        self.layout = layout
        self.layout_report = self.settle_layout()
        self.train()  # a pretrained model comes in eval mode

    @property
    def head(self) -> Any:
        """The linear layer behind the last hidden state (adapters have one of their own)."""
        head: Any = getattr(self.model, "score", None)
        return head.modules_to_save[OWN] if hasattr(head, "modules_to_save") else head

    @property
    def outputs(self) -> int:
        """Scores of a completion: 1, or the number of classes."""
        return int(self.head.out_features)

    @property
    def shift(self) -> float:
        """Subtracted from what the head gives; set after training so that a chosen mean is 0."""
        return float(getattr(self.model.config, "score_shift", 0.0))

    @shift.setter
    def shift(self, value: float) -> None:
        self.model.config.score_shift = float(value)

    @property
    def scale(self) -> float:
        """Divides the shifted score; set after training so that a chosen deviation is 1."""
        return float(getattr(self.model.config, "score_scale", 1.0))

    @scale.setter
    def scale(self, value: float) -> None:
        self.model.config.score_scale = float(value)

    @property
    def reads_rows(self) -> bool:
        """Whether it was trained on texts with begin-of-text and end-of-text as alignlab's rows.

        Other classifiers read what their tokenizer makes of a text by itself.
        """
        return bool(getattr(self.model.config, "reads_rows", False))

    @reads_rows.setter
    def reads_rows(self, value: bool) -> None:
        self.model.config.reads_rows = value

    def forward(self, trees: PromptTrees, read: Literal["end", "before"] = "end") -> Tensor:
        """Scores after the last real token of each completion, or before each real token.

        Returns:
            ``read="end"``: ``[M]`` (``[M, outputs]`` with more than one).
            ``read="before"``: ``[M, T]``, 0 beyond a completion's end.
        """
        real = trees.token_mask
        if read == "end":
            last = torch.zeros_like(real)
            last[torch.arange(len(last), device=last.device), trees.completion_lengths - 1] = True
            scores = self._read(self.hidden_states(trees, last, after=True))
            return scores.squeeze(-1) if scores.shape[-1] == 1 else scores
        values = self._read(self.hidden_states(trees, real, after=False)).squeeze(-1)
        spread = torch.zeros(real.shape, dtype=values.dtype, device=values.device)
        return spread.masked_scatter(real, values)

    def scores(self, trees: PromptTrees) -> Tensor:
        """``[M]`` scores after each completion's last real token."""
        return self(trees, "end")

    def scores_and_states(self, trees: PromptTrees) -> tuple[Tensor, Tensor]:
        """One forward for two heads.

        Returns:
            ``[M]`` (``[M, outputs]``) scores after each completion's last real token, and
            ``[N, H]`` states before each of the N tokens under the loss mask, row by row.
        """
        counted = F.pad(trees.loss_mask, (0, 1))  # the column after the last token
        last = torch.zeros_like(counted)
        last[torch.arange(len(last), device=last.device), trees.completion_lengths] = True
        select = counted | last
        states = self.hidden_states(trees, select, after=False)
        scores = self._read(states[last[select]])
        return scores.squeeze(-1) if scores.shape[-1] == 1 else scores, states[~last[select]]

    def values(self, trees: PromptTrees) -> Tensor:
        """``[M, T]`` values of the state before each completion token."""
        return self(trees, "before")

    def _own_error(self, trees: PromptTrees, states: Tensor) -> float:
        """See ``TreeBackbone``: the scores after each completion's last token."""
        cells = probe_cells(trees)
        at_end = trees.completion_lengths.cumsum(0) + torch.arange(len(cells), device=cells.device)
        ours = self._read(states[at_end]) * self.scale + self.shift
        wanted = torch.cat(list(self._own_logits(trees)))
        # The library reads at the last token that is not padding; a text may end in one that is.
        last = trees.completion_ids.gather(1, trees.completion_lengths[:, None] - 1)[:, 0]
        pad = self.model.config.pad_token_id
        kept = last != (-1 if pad is None else pad)
        return relative_error(ours[kept], wanted[kept], coarsest(self.model, states.dtype))

    def _read(self, hidden: Tensor) -> Tensor:
        weight = self.head.weight
        with torch.autocast(hidden.device.type, enabled=False):
            wide = torch.promote_types(weight.dtype, torch.float32)
            return (hidden.to(wide) @ weight.to(wide).T - self.shift) / self.scale

    def _reset_head(self, how: Literal["normal", "zero"], seed: int) -> None:
        weight = self.head.weight
        with torch.no_grad():
            if how == "zero":
                weight.zero_()
                return
            generator = torch.Generator().manual_seed(seed)
            drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float32)
            weight.copy_(drawn / (weight.shape[1] + 1) ** 0.5)

    def save(self, path: str | Path) -> None:
        """Write a Hugging Face folder: safetensors, config (with shift and scale), tokenizer.

        For a scorer with adapters, only these and the head are written, as ``Policy.save`` does.
        """
        quiet()
        if hasattr(self.model, "peft_config"):
            own = {
                "score_shift": self.shift,
                "score_scale": self.scale,
                "num_labels": self.outputs,
            } | ({"reads_rows": True} if self.reads_rows else {})
            save_adapters(self.model, Path(path), with_base=self._saves_base, config=own)
        else:
            self.model.save_pretrained(path)
        self.tokenizer.save_pretrained(path)


def check_scorer(source: str, outputs: int, lora: Lora | None, quantised: Quantised | None) -> None:
    """Check that the arguments of a ``ScoreModel`` fit together.

    Raises:
        ConfigError: They do not.
    """
    if outputs < 1:
        raise ConfigError(f"ScoreModel needs outputs >= 1, got {outputs}.")
    adapted = is_adapter(source) and is_scorer(source)
    if quantised is not None and lora is None and not adapted:
        raise ConfigError(
            "weights in 4 bits cannot be trained, so a scorer's quantised needs lora. Set lora "
            "beside it, or leave quantised out."
        )
