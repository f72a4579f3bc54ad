"""Models by their configs alone: how many bytes their weights take, and shallow ones to trace."""

import copy
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from alignlab.errors import ConfigError
from alignlab.functional.logps import Chunks
from alignlab.models.heads import output_layer
from alignlab.models.loading import quiet, without_dropout
from alignlab.models.work import active_weights, blocks_of

FOUR_BITS = {False: 0.5625, True: 0.516}  # bytes of a weight, by whether its scales are quantised
ADAPTED = 16  # rank of the adapters that a plan proposes


@dataclass(frozen=True, eq=False)
class ModelSpec:
    """A model as a config describes it.

    Args:
        role: What it does in the training run: ``policy``, ``value``, ``reward``, ``model``.
        config: Of Hugging Face.
        scorer: Whether it has a head of scores instead of one of tokens.
        dtype: Precision of its weights.
        trained: Whether it has gradients.
        lora: The settings of its adapters (``rank``, ``targets``), ``None`` without any.
        double: For linear layers in 4 bits, whether the scales are quantised too; ``None`` for
            layers in ``dtype``.
        layout: How its trees become rows.
        chunk: Positions whose logits are made at once, and kept.
        logits: Precision of the matmul that makes them.
        checkpointed: Whether activations are computed again in the backward pass.
    """

    role: str
    config: Any
    scorer: bool
    dtype: torch.dtype
    trained: bool
    lora: Mapping[str, Any] | None = None
    double: bool | None = None
    layout: Any = "auto"
    chunk: int | Chunks = 4096
    logits: torch.dtype = torch.float32
    checkpointed: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelSpec) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        """Settings by value: configs and adapters have no hash of their own."""
        others = [getattr(self, each.name) for each in fields(self)]
        attention = self.config._attn_implementation  # which no saved config names
        return self.config.to_json_string(), attention, *map(str, others[2:]), self.role

    @property
    def depth(self) -> int:
        """Layers."""
        return int(self.config.get_text_config(decoder=True).num_hidden_layers)

    def shallow(self, depth: int) -> "ModelSpec":
        """The same model with its first ``depth`` layers."""
        config = copy.deepcopy(self.config)
        text = config.get_text_config(decoder=True)
        for name, value in list(vars(text).items()):
            if isinstance(value, list | tuple) and len(value) == self.depth:
                setattr(text, name, list(value)[:depth])
        text.num_hidden_layers = depth
        return replace(self, config=config)

    def with_lora(self) -> "ModelSpec":
        """The same model with adapters on all linear layers, everything else frozen."""
        return replace(self, lora={"rank": ADAPTED, "targets": "all-linear"})

    @property
    def size(self) -> "Size":
        """What its weights take."""
        return _size(self)


@dataclass(frozen=True, slots=True)
class Size:
    """Numbers of a model's parameters, and the bytes that they take.

    Args:
        parameters: All of them.
        trained: Those with gradients.
        weights: Bytes of all.
        gradients: Bytes of the trained ones, as their gradients take.
        largest: Bytes of the largest trained parameter.
        unpacked: Bytes of the largest linear layer that is kept in 4 bits, when it is unpacked.
        block: Bytes of the largest layer of the transformer.
        block_gradients: Bytes of that layer's gradients.
        rest: Bytes outside of its layers: embeddings, last norm, head.
        matmul: Parameters that a token is multiplied with; of experts, only the active ones.
        output: Parameters of the layer that makes logits or scores.
    """

    parameters: int
    trained: int
    weights: float
    gradients: float
    largest: float
    unpacked: float
    block: float
    block_gradients: float
    rest: float
    matmul: float
    output: int


def on_meta(spec: ModelSpec) -> Any:
    """The model, without memory behind its weights.

    Raises:
        ConfigError: Its config cannot be built, or adapters cannot be put on it.
    """
    quiet()
    kind = AutoModelForSequenceClassification if spec.scorer else AutoModelForCausalLM
    try:
        with torch.device("meta"):
            model = kind.from_config(without_dropout(spec.config, 0.0), dtype=spec.dtype)
            model = model.train() if spec.lora is None else _adapted(model, spec.lora)
    except (ValueError, TypeError, RuntimeError, KeyError, AttributeError) as problem:
        raise ConfigError(
            f"{spec.role}: no model can be made of its config: {problem}. Correct the config."
        ) from problem
    return model if spec.trained else model.requires_grad_(False)


def _adapted(model: Any, lora: Mapping[str, Any]) -> Any:
    from peft import LoraConfig, get_peft_model  # seconds to import

    targets = lora.get("targets", "all-linear")
    settings = LoraConfig(
        r=lora["rank"],
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_dora=bool(lora.get("dora", False)),
        task_type="SEQ_CLS" if hasattr(model, "score") else None,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fan_in_fan_out")
        return get_peft_model(model, settings)


def make_fake(model: nn.Module) -> Any:
    """Give a model that is on meta fake weights of the active fake mode, tied as they were."""
    known: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                if id(weight) not in known:
                    empty = torch.empty(weight.shape, dtype=weight.dtype)
                    known[id(weight)] = nn.Parameter(empty, weight.requires_grad)
                module._parameters[name] = known[id(weight)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
    return model


@cache
def _size(spec: ModelSpec) -> Size:
    model = on_meta(spec)
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    blocks = blocks_of(inner)
    in_four = {} if spec.double is None else _linear_weights(inner)
    per_weight = FOUR_BITS.get(bool(spec.double), 0.0)

    def size_of(weights: Iterable[Tensor]) -> float:
        return sum(
            w.numel() * (per_weight if id(w) in in_four else w.element_size()) for w in weights
        )

    weights = list(model.parameters())
    trained = [w for w in weights if w.requires_grad]
    largest = max(blocks, key=lambda block: float(size_of(block.parameters())))
    inside = sum(size_of(block.parameters()) for block in blocks)
    return Size(
        parameters=sum(w.numel() for w in weights),
        trained=sum(w.numel() for w in trained),
        weights=size_of(weights),
        gradients=size_of(trained),
        largest=max((size_of([w]) for w in trained), default=0),
        unpacked=max((w.numel() * spec.dtype.itemsize for w in in_four.values()), default=0),
        block=size_of(largest.parameters()),
        block_gradients=size_of(w for w in largest.parameters() if w.requires_grad),
        rest=size_of(weights) - inside,
        matmul=active_weights(blocks, spec.config),
        output=output_layer(inner).weight.numel(),
    )


def _linear_weights(model: Any) -> dict[int, Tensor]:
    """Weights of the linear layers but for the head's, by id: what 4 bits are used for."""
    kept = output_layer(model)
    return {
        id(m.weight): m.weight
        for name, m in model.named_modules()
        if type(m).__name__ in ("Linear", "Conv1D") and m is not kept and "lora_" not in name
    }
