"""Frozen weights in 4 bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314), by bitsandbytes.

A model is loaded as usual, then its linear layers are replaced by layers of NormalFloat codes. So
there is one way to load a model, and the codes are a function of the weights that would be used
without this setting. bitsandbytes is an optional package, imported where it is needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn

from alignlab.errors import ConfigError

ComputeDType = Literal["float32", "bfloat16", "float16"]


class Quantised:
    """Keep the frozen linear layers as 4-bit NormalFloat codes (NF4); the head is left as it is.

    A weight takes 0.5 bytes, and 64 weights share a scale.

    Args:
        double: Also quantise the scales: 0.516 bytes a weight instead of 0.5625.
        compute: What the codes are decoded to in a matmul; ``None`` is the model's ``dtype``.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """

    def __init__(self, double: bool = True, compute: ComputeDType | None = None) -> None:
        if find_spec("bitsandbytes") is None:
            raise ConfigError(
                "4-bit weights (the key quantised) need bitsandbytes, which is not installed. "
                "Install it with: pip install 'alignlab[quantised]'."
            )
        self.double, self.compute = double, compute


def quantise(model: Any, how: Quantised) -> None:
    """Replace the linear layers of ``model``, except its head, by layers in 4 bits.

    They are encoded on a GPU where there is one, which takes seconds instead of minutes.

    Raises:
        ConfigError: The model has no such layers.
    """
    from bitsandbytes.nn import Linear4bit, Params4bit

    kept = (model.get_output_embeddings(), getattr(model, "score", None))
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear and all(layer is not head for head in kept)
    }
    if not layers:
        raise ConfigError(
            f"{type(model).__name__} has no linear layers that can be kept in 4 bits. Leave "
            "quantised out."
        )
    for name, layer in layers.items():
        settings: dict[str, Any] = {"compress_statistics": how.double, "quant_type": "nf4"}
        sizes = layer.in_features, layer.out_features
        coded = Linear4bit(*sizes, bias=layer.bias is not None, device="meta", **settings)
        weight = layer.weight.detach()
        weight = weight.float() if weight.dtype == torch.float64 else weight  # float64 cannot be
        place = "cuda" if torch.cuda.is_available() else "cpu"
        codes = Params4bit(weight, requires_grad=False, module=coded, **settings).to(place)
        coded.weight, coded.bias = codes.to(weight.device), layer.bias
        model.set_submodule(name, coded.train(layer.training))
    model.quantised = how
    model.is_loaded_in_4bit = True  # peft asks for it
    settle_compute(model)


def settle_compute(model: Any) -> None:
    """Let the layers in 4 bits of ``model`` compute as its ``dtype`` and ``quantised`` say.

    With AVX512_BF16, bitsandbytes repacks codes at the first forward without gradients, for good;
    later gradients stop at every such layer, with no more than a warning. So it must not repack.
    """
    how: Quantised | None = getattr(model, "quantised", None)
    for layer in layers_in_4_bits(model).values():
        layer.support_avx512bf16_for_cpu = False
        if how is not None:
            dtype = model.dtype if how.compute is None else getattr(torch, how.compute)
            dtype = torch.float32 if dtype == torch.float64 else dtype
            layer.compute_dtype, layer.compute_type_is_set = dtype, True
            layer.weight.quant_state.dtype = dtype  # else the backward decodes to another type


@contextmanager
def computing_in_float32(model: Any) -> Iterator[None]:
    """Inside, the layers in 4 bits of ``model`` compute in float32; the codes do not change."""
    layers = list(layers_in_4_bits(model).values())
    before = [(layer.compute_dtype, layer.weight.quant_state.dtype) for layer in layers]
    try:
        for layer in layers:
            layer.compute_dtype = layer.weight.quant_state.dtype = torch.float32
        yield
    finally:
        for layer, (computes, decodes) in zip(layers, before, strict=True):
            layer.compute_dtype, layer.weight.quant_state.dtype = computes, decodes


def coarsest(model: Any, dtype: torch.dtype) -> torch.dtype:
    """The coarser of ``dtype`` and what the layers in 4 bits of ``model`` compute in."""
    kinds = {layer.compute_dtype for layer in layers_in_4_bits(model).values()}
    return max({dtype, *kinds} - {None}, key=lambda each: torch.finfo(each).eps)


def dequantise(model: Any) -> None:
    """Replace the layers in 4 bits of ``model`` by plain ones with the same, decoded weights."""
    from bitsandbytes.functional import dequantize_4bit

    for name, layer in layers_in_4_bits(model).items():
        plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        plain.weight, plain.bias = nn.Parameter(weight.to(model.dtype)), layer.bias
        model.set_submodule(name, plain.train(layer.training))
    model.quantised, model.is_loaded_in_4bit = None, False


def library_settings(how: Quantised, dtype: str) -> dict[str, Any]:
    """Settings of transformers' ``BitsAndBytesConfig`` that give the same layers."""
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": how.double,
        "bnb_4bit_compute_dtype": how.compute or dtype,
    }


def layers_in_4_bits(model: nn.Module) -> dict[str, Any]:
    """The layers of ``model`` that bitsandbytes keeps in 4 bits, by name."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and type(layer).__name__ == "Linear4bit"
    }
