"""Bytes on each device, by part, of a training run that a config describes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from alignlab.capacity.models import ModelSpec, make_fake, on_meta
from alignlab.capacity.setup import Setup, calls_of
from alignlab.capacity.trace import Bytes, Call, Pass, traced
from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError
from alignlab.models.adapters import checkpoint_activations

Strategy = Literal["one", "ddp", "fsdp"]
PARTS = (
    "weights", "gradients", "optimizer", "reference", "reward model", "value", "gathered",
    "activations", "logits", "KV cache",
)  # fmt: skip
TRACED = 12  # layers up to which a model is traced as it is; deeper ones are extrapolated
AT = 4  # layers of the first trace of a deeper model; the second has twice as many
FLAT = ("logits", "masks")  # parts that do not depend on depth


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a run is: ``one`` device, copies on ``devices`` (DDP), or shards on them (FSDP2).

    On a ``gpu`` PyTorch updates all weights in one go, and flat rows are read in one call.
    """

    strategy: Strategy = "one"
    devices: int = 1
    gpu: bool = True

    @property
    def share(self) -> float:
        """The part of sharded weights that a device holds."""
        return 1 / self.devices if self.strategy == "fsdp" else 1.0


def own_place(setup: Setup, gpu: bool) -> Placement:
    """Where the config itself says that the run is."""
    if setup.devices == 1:
        return Placement("one", 1, gpu)
    return Placement("fsdp" if setup.strategy == "fsdp" else "ddp", setup.devices, gpu)


def memory_of(setup: Setup, place: Placement) -> Bytes:
    """Bytes of each of ``PARTS`` on a device, at the moment at which their sum is largest.

    Raises:
        ConfigError: The batch size does not divide by the devices.
    """
    steady, gradients = _steady(setup, place), _gradients(setup, place)
    moments = [*_training(setup, place), {"gradients": 1.0, "activations": _update(setup, place)}]
    if setup.rollout is not None:
        moments.append({"gradients": 1.0, **_sampling(setup, place)})
        moments.append({"gradients": 1.0, **_scoring(setup, place)})
    whole = [steady | {**at, "gradients": at.get("gradients", 0.0) * gradients} for at in moments]
    found = max(whole, key=lambda at: sum(at.values()))
    return {part: found.get(part, 0.0) for part in PARTS}


def micro_batch(setup: Setup, devices: int) -> list[PromptTree]:
    """The trees of the largest micro-batch on a device: the longest of its step.

    Raises:
        ConfigError: The batch size does not divide by the devices.
    """
    n = _trees_per_forward(setup, devices)
    tail = [step[-n:] for step in setup.steps]
    places = max(tail, key=lambda step: len(step) * max(setup.trees[k].longest for k in step))
    return [setup.trees[k] for k in places]


def micro_batches(setup: Setup, devices: int) -> int:
    """Forwards of an optimizer step on each device."""
    return -(-setup.batch_size // (_trees_per_forward(setup, devices) * devices))


def _trees_per_forward(setup: Setup, devices: int) -> int:
    size = setup.micro_batch_size or -(-setup.batch_size // devices)
    if setup.batch_size % (size * devices):
        raise ConfigError(
            f"batch_size {setup.batch_size} is not a multiple of micro_batch_size {size} x "
            f"{devices} devices"
        )
    return size


def _learners(setup: Setup) -> list[ModelSpec]:
    return [model for model in setup.models if model.trained]


def _adapters(setup: Setup) -> float:
    """Bytes of a value function's own adapters: those of the policy once more."""
    return setup.trained.size.gradients if setup.value_adapter else 0.0


def _steady(setup: Setup, place: Placement) -> Bytes:
    """Memory that is in use all the time."""
    size, share = setup.trained.size, place.share
    value, reward = setup.role("value"), setup.role("reward")
    trained = sum(model.size.gradients for model in _learners(setup)) + _adapters(setup)
    return {
        "weights": (size.weights + _adapters(setup)) * share,
        "optimizer": setup.moments * trained * share,
        "reference": (size.weights - _new_adapters(setup)) * share if setup.reference else 0.0,
        "reward model": reward.size.weights if reward else 0.0,
        "value": value.size.weights * share if value else 0.0,
        "gathered": _gathered(setup) if place.strategy == "fsdp" else 0.0,
    }


def _new_adapters(setup: Setup) -> float:
    return setup.trained.size.gradients if setup.trained.lora is not None else 0.0


def _gathered(setup: Setup) -> float:
    """Whole weights on a device that holds shards: two layers in use, and what is in no layer.

    In mixed precision layers are gathered in bfloat16, and what is in no layer as it is. The
    layer's gradients are whole, too, until they are reduced. What is in no layer stays whole
    from a model's forward on, in a reference and a value function as well.
    """
    sizes = [model.size for model in _learners(setup)]
    widest = max(sizes, key=lambda size: size.block)
    rest = sum(size.rest for size in sizes) + (sizes[0].rest if setup.reference else 0.0)
    return 2 * widest.block * _rounded(setup) + widest.block_gradients + rest


def _rounded(setup: Setup) -> float:
    """Bytes of a gathered layer's weight, as a share of those of its shards."""
    own, mixed = setup.trained, setup.autocast is torch.bfloat16
    return 2 / own.dtype.itemsize if mixed and own.double is None else 1.0


def _gradients(setup: Setup, place: Placement) -> float:
    """Bytes of all gradients; DDP holds them a second time, in the buckets that it reduces."""
    whole = sum(model.size.gradients for model in _learners(setup)) + _adapters(setup)
    return whole * place.share * (2 if place.strategy == "ddp" else 1)


def _update(setup: Setup, place: Placement) -> float:
    """Temporary memory of the optimizer: of one weight at a time, or of all of them on a GPU."""
    if place.gpu:
        return sum(model.size.gradients for model in _learners(setup)) * place.share
    return 2 * max(model.size.largest for model in _learners(setup))


def _training(setup: Setup, place: Placement) -> list[Bytes]:
    """The two peaks of a micro-batch; ``gradients`` as a share of all of them."""
    specs = _learners(setup)
    trees = micro_batch(setup, place.devices)
    calls = [_calls(spec, trees, place) for spec in specs]
    several = micro_batches(setup, place.devices)

    passes = [
        Pass(i, *cut, chunk=spec.chunk, logits=None if spec.scorer else spec.logits)
        for i, (spec, cut) in enumerate(zip(specs, calls, strict=True))
    ]
    own = passes[0]
    if setup.mix is not None:
        texts, length = -(-setup.mix[0] // (several * place.devices)), setup.mix[1]
        passes.append(replace(own, calls=(Call(texts, length),), selected=texts * length))
    passes += [own] if setup.value_adapter else []
    passes += [replace(own, trained=False)] if setup.refers and not setup.rollout else []
    peaks = _in_depth(
        tuple(replace(spec, double=None) for spec in specs),
        tuple(passes),
        accumulates=several > 1,
        autocast=setup.autocast,
    )
    unpacked = max(spec.size.unpacked for spec in specs)
    return [
        _as_share(at, specs) | {"activations": at.get("activations", 0.0) + unpacked}
        for at in peaks
    ]


def _as_share(at: Bytes, specs: Iterable[ModelSpec]) -> Bytes:
    gradients = sum(spec.size.gradients for spec in specs)
    return at | {"gradients": at.get("gradients", 0.0) / gradients if gradients else 0.0}


def _calls(
    spec: ModelSpec, trees: Sequence[PromptTree], place: Placement
) -> tuple[tuple[Call, ...], int]:
    calls, tokens = calls_of(spec, trees, gpu=place.gpu)
    ends = sum(len(tree.completions) for tree in trees)
    return calls, ends if spec.scorer and spec.role != "value" else tokens


def _sampling(setup: Setup, place: Placement) -> Bytes:
    """The sampler's cache of keys and values, and its logits of the next tokens.

    A sharded policy is whole on every device while it samples.
    """
    assert setup.rollout is not None
    config = setup.trained.config.get_text_config(decoder=True)
    own = _prompts(setup.rollout, place) * setup.rollout["samples_per_prompt"]
    rows = min(setup.rollout["batch_size"], own)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kind = setup.autocast or setup.trained.dtype
    columns = max(len(tree.prompt) for tree in setup.trees) + setup.rollout["max_new_tokens"]
    cells = 2 * setup.trained.depth * heads * width * columns
    size = setup.trained.size
    gathered = (size.weights - size.rest) * _rounded(setup) + size.rest
    whole = {"gathered": gathered} if place.strategy == "fsdp" else {}
    return whole | {
        "KV cache": float(rows * cells * kind.itemsize),
        # Logits, probabilities, and their sums up to each token, in float32.
        "logits": float(3 * rows * config.vocab_size * 4),
    }


def _prompts(rollout: Mapping[str, int], place: Placement) -> int:
    """A device's share of a phase's prompts."""
    return -(-rollout["rollout_size"] // place.devices)


def _scoring(setup: Setup, place: Placement) -> Bytes:
    """A forward without gradients on a phase's longest samples, as many as are read at once."""
    assert setup.rollout is not None
    n = min(setup.rollout["score_batch_size"], _prompts(setup.rollout, place))
    trees = sorted(setup.trees, key=lambda tree: tree.longest)[-n:]
    spec = setup.trained
    calls, tokens = calls_of(spec, trees, gpu=place.gpu)

    read = Pass(0, calls, tokens, chunk=spec.chunk, logits=spec.logits, trained=False)
    whole, _ = _in_depth((replace(spec, double=None),), (read,), autocast=setup.autocast)
    return {part: n for part, n in whole.items() if part != "gradients"}


@cache
def _in_depth(
    specs: tuple[ModelSpec, ...],
    passes: tuple[Pass, ...],
    *,
    accumulates: bool = False,
    autocast: torch.dtype | None = None,
) -> tuple[Bytes, Bytes]:
    """The peaks of ``traced``. Layers of a deep model are alike: a few show what each adds."""

    def at(depths: Sequence[int]) -> tuple[Bytes, Bytes]:
        models = [on_meta(spec.shallow(n)) for spec, n in zip(specs, depths, strict=True)]
        with FakeTensorMode(allow_non_fake_inputs=True):
            for model, spec in zip(map(make_fake, models), specs, strict=True):
                if spec.checkpointed:
                    checkpoint_activations(model)
            return traced(models, passes, accumulates=accumulates, autocast=autocast)

    depths, few = [spec.depth for spec in specs], AT
    while max(depths) > max(TRACED, few):
        if (found := _continued(at, depths, few)) is not None:
            return found
        few *= 2
    return at(depths)


def _continued(
    at: Callable[[Sequence[int]], tuple[Bytes, Bytes]], depths: Sequence[int], n: int
) -> tuple[Bytes, Bytes] | None:
    """The peaks at ``depths`` from those at ``n`` and ``2 n`` layers.

    ``None`` if these two are peaks of different moments, so that the peak is not linear in depth.
    """
    few = [min(depth, n) for depth in depths]
    first = at(few)
    found = tuple(dict(peak) for peak in first)
    for i, depth in enumerate(depths):
        if depth > few[i]:
            more = [*few[:i], min(depth, 2 * n), *few[i + 1 :]]
            layers = (depth - few[i]) / (more[i] - few[i])
            for peak, low, high in zip(found, first, at(more), strict=True):
                if any(low.get(part, 0.0) != high.get(part, 0.0) for part in FLAT):
                    return None
                for part in {*low, *high}:
                    gain = high.get(part, 0.0) - low.get(part, 0.0)
                    peak[part] = peak.get(part, 0.0) + layers * gain
    return found[0], found[1]
