"""How models are sharded over ranks (FSDP2), and when their weights may be read.

The unit is a ``TreeBackbone``. Each of its transformer's blocks is gathered while that block
computes; embeddings, last norm and head are gathered from the model's own forward until backward.
So weights are whole only inside ``forward``, inside the methods that the class names in
``ENTRIES``, and under ``gathered``. Outside of ``alignlab.models`` nothing reads a model's backbone
or head. In a sharded model each call is a collective: every rank makes the same calls, and a call
runs the transformer exactly once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from alignlab.errors import ConfigError
from alignlab.models.backbone import TreeBackbone


def shard(
    parent: nn.Module,
    mesh: Any,
    *,
    cpu_offload: bool = False,
    compute: torch.dtype | None = None,
) -> None:
    """Shard every model below ``parent``, and whatever else it trains, over all ranks of ``mesh``.

    Args:
        parent: Holds the policy, and perhaps a reference, a value function, a head.
        mesh: Lightning's, of which the dimension ``data_parallel`` has all ranks.
        cpu_offload: Keep what is sharded in the CPU's memory.
        compute: What the weights of blocks are gathered in; ``None`` for their own type. Gradients
            are summed over ranks in float32, and shards keep their type. Embeddings, last norm and
            head stay as they are: log-probs and values are computed in float32.

    Raises:
        ConfigError: A model's architecture does not say what its blocks are, a weight is shared
            with something outside of the models, or the mesh is for tensor parallelism.
    """
    if mesh["tensor_parallel"].size() > 1:
        raise ConfigError(
            "trainer.strategy: tensor parallelism is not supported. Use the class_path "
            "alignlab.distributed.FSDP2, which shards over all ranks."
        )
    settings: dict[str, Any] = {"mesh": mesh["data_parallel"]}
    if cpu_offload:
        settings["offload_policy"] = CPUOffloadPolicy(pin_memory=torch.cuda.is_available())
    inside = dict(settings)
    if compute is not None:  # autocast chooses the type of inputs, as without sharding
        inside["mp_policy"] = MixedPrecisionPolicy(
            param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    models = [each for each in parent.modules() if isinstance(each, TreeBackbone)]
    _refuse_shared(parent, models)
    for model in models:
        for block in _blocks(model):
            fully_shard(block, **inside)
        fully_shard(model, **settings)
        for name in type(model).ENTRIES:
            register_fsdp_forward_method(model, name)
    for child in parent.children():
        if any(not isinstance(weight, DTensor) for weight in child.parameters()):
            fully_shard(child, **settings)


def _refuse_shared(parent: nn.Module, models: list[TreeBackbone]) -> None:
    held = {id(weight) for model in models for weight in model.parameters()}
    inside = {id(module) for model in models for module in model.modules()}
    for module in parent.modules():
        if id(module) not in inside:
            own = module.parameters(recurse=False)
            if any(id(weight) in held for weight in own):
                raise ConfigError(
                    "a head shares its weight with the model's embeddings, which cannot be "
                    "sharded. Set trainer.strategy to ddp, or model.init_args.alpha to 0."
                )


def _blocks(model: TreeBackbone) -> list[nn.Module]:
    names = set(getattr(model.whole_model, "_no_split_modules", None) or ())
    blocks = [each for each in model.modules() if type(each).__name__ in names]
    if not blocks:
        raise ConfigError(
            f"{type(model.whole_model).__name__} does not say which modules are its blocks "
            "(_no_split_modules), so it cannot be sharded. Set trainer.strategy to ddp."
        )
    return blocks


def is_sharded(model: nn.Module) -> bool:
    """Whether the weights of ``model`` are divided over ranks."""
    return isinstance(model, FSDPModule)


@contextmanager
def gathered(*models: nn.Module, exact: bool = False) -> Iterator[None]:
    """Whole weights inside: calls there are not collective, so ranks may make different ones.

    Every rank enters and leaves. It costs the memory of the whole models.

    Args:
        models: Sharded or not.
        exact: In the precision of the shards, even where blocks compute in a coarser one.
    """
    shards: list[tuple[nn.Module, str, Any]] = [
        (module, name, weight)
        for model in models
        for module in model.modules()
        for name, weight in module._parameters.items()
        if isinstance(weight, DTensor)
    ]
    parts = [m for model in models for m in model.modules() if isinstance(m, FSDPModule)]
    for model in models:
        if isinstance(model, FSDPModule):
            model._get_fsdp_state()._lazy_init()  # the first forward of all ranks would do it
    for part in parts:
        part.unshard()
        part.set_reshard_after_forward(False, recurse=False)
    rounded: list[tuple[Tensor, Tensor]] = []
    for module, name, own in shards if exact else ():
        gotten = getattr(module, name)
        if gotten.dtype != own.dtype:
            rounded.append((gotten, gotten.data))
            gotten.data = whole(own)
    try:
        yield
    finally:
        for parameter, data in rounded:
            parameter.data = data
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(part not in models, recurse=False)


def whole(tensor: Tensor) -> Tensor:
    """``tensor``, put together if it is sharded, which every rank takes part in."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part of ``tensor``; all of it if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like_shard(tensor: Tensor, own: Tensor) -> Tensor:
    """This rank's part of a whole ``tensor`` that is sharded as ``own`` is."""
    if not isinstance(own, DTensor):
        return tensor
    on_device = tensor.to(own.device)
    return distribute_tensor(on_device, own.device_mesh, own.placements, src_data_rank=None)


@torch.no_grad()
def mix_weights(model: nn.Module, other: nn.Module, share: float) -> None:
    """Move the weights of ``model`` by ``share`` of the way to those of ``other``, built alike.

    Sharded or not; every rank calls it, outside of their forwards.
    """
    for part in (*model.modules(), *other.modules()):
        if isinstance(part, FSDPModule):  # a forward without a backward leaves weights whole
            part.reshard()
    for own, target in zip(model.parameters(), other.parameters(), strict=True):
        local(own).lerp_(local(target), share)


@torch.no_grad()
def make_whole(model: nn.Module, *, keep: bool) -> None:
    """Gather the weights for good, on the CPU, after training; all ranks call it.

    Args:
        model: Sharded or not; a sharded one can be saved afterwards, but not run.
        keep: Whether this rank needs them.
    """
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if isinstance(weight, DTensor):
                if id(weight) not in made:  # tied weights stay tied
                    full = weight.full_tensor()
                    made[id(weight)] = nn.Parameter(full.cpu(), weight.requires_grad)
                if keep:
                    module._parameters[name] = made[id(weight)]
