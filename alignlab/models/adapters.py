"""Adapters on a language model (peft): which base they belong to, and which set is active.

A policy's own adapters are peft's ``default``. The same base weights may also carry those of the
value function (``VALUE``) and a frozen copy of the policy's adapters at the start (``START``).
"""

import json
import logging
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache

from alignlab.errors import ConfigError
from alignlab.files import atomic_write
from alignlab.models.limits import embedded

log = logging.getLogger(__name__)
# peft imports it, and then it warns on some CPUs of a kernel that is not used here.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
OWN, VALUE, START = "default", "value", "start"
CONFIG = "adapter_config.json"
BASE = "base"  # folder of the base model in an adapter's folder, if it is stored nowhere else
RECORD = "base.json"  # what the base was, beside the adapters


class Lora:
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685).

    Args:
        rank: Rank of each update; 8-64 is usual.
        alpha: Scale of the update over ``rank``; ``None`` is twice the rank.
        dropout: On the adapters' input; 0 keeps two forwards of one policy equal.
        targets: Names of the linear layers, or ``all-linear`` for all but the head.
        dora: Also train the length of each row of the weights (DoRA, Liu et al. 2024,
            arXiv:2402.09353): closer to full training at low ranks, at more time a step.
    """

    def __init__(
        self,
        rank: int = 16,
        alpha: float | None = None,
        dropout: float = 0.0,
        targets: str | list[str] = "all-linear",
        dora: bool = False,
    ) -> None:
        if rank < 1:
            raise ConfigError(f"Lora needs rank >= 1, got {rank}. Set lora.rank.")
        self.rank, self.alpha, self.dropout, self.targets = rank, alpha, dropout, targets
        self.dora = dora


def add_lora(model: Any, lora: Lora, tokens: Collection[int] = (), *, scorer: bool = False) -> Any:
    """``model`` with trainable low-rank adapters; its own weights are frozen.

    Args:
        model: The Hugging Face model.
        lora: Settings.
        tokens: Ids whose rows in the embeddings and the head are trained too.
        scorer: The head, ``score``, is trained and saved with the adapters.

    Raises:
        ConfigError: ``lora.targets`` names no layer of the model.
    """
    from peft import LoraConfig, get_peft_model

    _check_targets(model, lora.targets)
    task = LoraConfig(
        task_type="SEQ_CLS" if scorer else None,
        r=lora.rank,
        lora_alpha=lora.alpha if lora.alpha is not None else 2 * lora.rank,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        bias="none",
        use_dora=lora.dora,
        trainable_token_indices=_token_tables(model, sorted(tokens)) if tokens else None,
    )
    with warnings.catch_warnings(), drawn_by_seed():
        warnings.filterwarnings("ignore", "fan_in_fan_out")  # peft finds the right one by itself
        adapted = get_peft_model(model, task)
    for module in adapted.modules():
        if OWN in getattr(module, "lora_magnitude_vector", {}):
            module.lora_magnitude_vector[OWN].weight.data = _row_lengths(module)
    return adapted


@contextmanager
def drawn_by_seed(offset: int = 0) -> Iterator[None]:
    """Torch's generator as the run's seed (plus ``offset``) sets it, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed((torch.initial_seed() + offset) % 2**63)
        yield


def _check_targets(model: Any, targets: str | list[str]) -> None:
    """Check that each target is a layer's name or its end; a string is a pattern.

    Raises:
        ConfigError: One is not.
    """
    weights = ((name, getattr(layer, "weight", None)) for name, layer in model.named_modules())
    layers = [name for name, weight in weights if getattr(weight, "ndim", 0) == 2]
    if isinstance(targets, str):
        unused = not any(targets == "all-linear" or re.fullmatch(targets, n) for n in layers)
        wrong = [targets] if unused else []
    else:
        wrong = [t for t in targets if not any(f".{n}".endswith(f".{t}") for n in layers)]
    if wrong or not targets:
        known = sorted({name.split(".")[-1] for name in layers})
        raise ConfigError(
            f"lora.targets: no layer of {type(model).__name__} is named "
            f"{' or '.join(map(repr, wrong)) or 'nothing'}. It has {', '.join(known)}."
        )


def _token_tables(model: Any, tokens: list[int]) -> dict[str, list[int]]:
    """The ids by the name of every table that has rows for them."""
    head = model.get_output_embeddings()
    tables = [model.get_input_embeddings()]
    if head is not None and head.weight is not tables[0].weight:  # peft sees to a tied head
        tables.append(head)
    return {name: tokens for name, m in model.named_modules() if any(m is t for t in tables)}


@torch.no_grad()
def _row_lengths(module: Any) -> torch.Tensor:
    """Lengths of the rows of a DoRA layer's weight, in the precision of its forward.

    peft computes the initial ones before it casts the adapters to float32. In bfloat16 they are
    inexact, and new adapters would change the model.
    """
    trial = deepcopy(module.lora_magnitude_vector[OWN])
    a, b = module.lora_A[OWN].weight, torch.zeros_like(module.lora_B[OWN].weight)
    trial.update_layer(base_layer=module.get_base_layer(), lora_A=a, lora_B=b, scaling=1.0)
    lengths: torch.Tensor = trial.weight.data
    return lengths


def is_adapter(source: str) -> bool:
    """Whether the folder ``source`` holds adapters and not a whole model."""
    return (Path(source) / CONFIG).exists()


def adapter_config(source: str) -> Any:
    """peft's config of the adapters in the folder ``source``.

    Raises:
        ConfigError: It cannot be read.
    """
    from peft import PeftConfig  # seconds to import, and few runs need it

    try:
        return PeftConfig.from_pretrained(source)
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise ConfigError(f"{Path(source) / CONFIG} cannot be read: {problem}") from problem


def base_of(folder: str, named: str | None) -> str:
    """The folder or hub id of the model that the adapters in ``folder`` were trained on.

    ``named`` may be relative to the working directory of the training, which is not recorded, and
    the files may have moved together since. So a relative path is tried from ``folder``, its
    parents and the working directory. Of a path that does not exist, the last parts (two or more)
    are tried from the parents of ``folder``.

    Raises:
        ConfigError: No base is named, it does not exist, or the name fits several models.
    """
    where = f"{Path(folder) / CONFIG} (base_model_name_or_path)"
    if not named:
        raise ConfigError(
            f"{folder} holds adapters and does not name their model. Write its path into {where}."
        )
    path, own = Path(named), Path(folder).resolve()
    around = [own, *own.parents]
    if path.is_absolute():
        tails = [Path(*path.parts[i:]) for i in range(1, len(path.parts) - 1)]
        groups = [[path], *([place / tail for place in around] for tail in tails)]
        groups.append([own / path.name])
    else:
        groups = [[place / path for place in (*around, Path.cwd())]]
    for group in groups:
        found = {there for p in group if (there := p.resolve()) != own and _holds_model(there)}
        if len(found) > 1:
            raise ConfigError(
                f"the adapters in {folder} need {named!r}, which may be any of "
                f"{', '.join(sorted(map(str, found)))}. Write the whole path of one into {where}."
            )
        if found:
            return str(found.pop())
    if path.is_absolute() or named.startswith(".") or named.count("/") > 1:
        raise ConfigError(
            f"the adapters in {folder} need the model {named!r}, which does not exist. Put it "
            f"back, or write its path into {where}."
        )
    return named


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").exists() or (folder / CONFIG).exists()


def record_base(model: Any, source: str | None) -> dict[str, Any]:
    """The description of ``model`` without adapters, for ``base.json``.

    Args:
        model: The Hugging Face model.
        source: Folder or hub id of its weights; ``None`` if they are in no folder.

    Returns:
        ``dtype`` and ``quantised`` as it was loaded, the number of rows in its embeddings
        (``vocabulary``), ``tokens`` whose rows were added to those, each with the token that it is
        a copy of, and ``weights``, the :func:`weights_hash` of its files.
    """
    how = getattr(model, "quantised", None)
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantised": None if how is None else vars(how),
        "vocabulary": embedded(model),
        "tokens": {},
        "weights": None if source is None else weights_hash(source),
    }


def attach_base(model: Any, record: dict[str, Any], source: str | None) -> None:
    """Record the base in new adapters: its ``record_base``, and an absolute path.

    Args:
        model: As peft wraps it.
        record: See ``record_base``.
        source: Folder or hub id of the base, if it has one.
    """
    model.base_record = record
    if source is not None:
        whole = str(Path(source).resolve()) if Path(source).exists() else source
        model.peft_config[OWN].base_model_name_or_path = whole


def read_base(source: str, base: str) -> dict[str, Any]:
    """The record of the base of the adapters in the folder ``source``; empty without one.

    Raises:
        ConfigError: The record cannot be read, or ``base`` is another model.
    """
    path = Path(source) / RECORD
    if not path.exists():
        log.warning("%s does not say what its base was; it is taken as unquantised", source)
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        wanted = record["weights"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ConfigError(f"{path} cannot be read: {problem}.") from problem
    found = weights_hash(base)
    if None not in (wanted, found) and wanted != found:
        raise ConfigError(
            f"the adapters in {source} do not fit their model {base}: its weights are not those "
            f"that the adapters were trained on. Put those back, or write null as weights into "
            f"{path} if they are the same in other files."
        )
    return record


def recorded_outputs(source: str) -> int:
    """How many numbers the scorer gives whose adapters are in the folder ``source``.

    1 where the folder does not say: adapters that alignlab did not train.
    """
    path = Path(source) / RECORD
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return int(record.get("config", {}).get("num_labels", 1))


def weights_hash(source: str) -> str | None:
    """A hash of the weights' files in a folder, or of a hub id's in the local cache.

    Of each file its size, its beginning and 256 pieces are read: training changes all weights, and
    reading all of them would take as long as loading them.
    """
    folder = Path(source)
    if not folder.exists():
        cached = try_to_load_from_cache(source, "config.json")
        folder = Path(cached).parent if isinstance(cached, str) else folder
    digest, files = sha256(), sorted(p for p in folder.glob("*") if p.suffix in _WEIGHTS)
    for file in files:
        size = file.stat().st_size
        digest.update(str(size).encode())
        with file.open("rb") as stream:
            for place in range(0, size, max(_PIECE, size // 256)):
                stream.seek(place)
                digest.update(stream.read(_PIECE))
    return digest.hexdigest() if files else None


_WEIGHTS, _PIECE = (".safetensors", ".bin"), 4096  # endings of files; bytes


def save_adapters(model: Any, path: Path, *, with_base: bool, **more: Any) -> None:
    """Write a model's own adapters, ``with_base`` also the model that they belong to.

    Args:
        model: As peft wraps it, with the record of its base as ``base_record``.
        path: Folder to write.
        with_base: The base model is in no folder yet, because it was merged or made from a config.
        more: Further values of the record.
    """
    if with_base:
        base, folder = model.get_base_model(), (path / BASE).resolve()
        base.save_pretrained(folder, state_dict=_base_state(base))
        model.peft_config[OWN].base_model_name_or_path = str(folder)
        model.base_record = record_base(base, str(folder))
    # Other adapter sets may exist. Of the embeddings, only the trained rows are saved.
    model.save_pretrained(path, selected_adapters=[OWN], save_embedding_layers=False)
    text = json.dumps(model.base_record | more, indent=1, sort_keys=True)
    atomic_write(path / RECORD, (text + "\n").encode())
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(path)


def _base_state(base: Any) -> dict[str, torch.Tensor]:
    """The weights of a model under adapters, by the names that they have without adapters."""
    state = {}
    for name, tensor in base.state_dict().items():
        if not any(part in name for part in (".lora_", ".modules_to_save.", ".trainable_tokens_")):
            for part in (".token_adapter.base_layer.", ".base_layer.", ".original_module."):
                name = name.replace(part, ".")
            state[name] = tensor
    return state


def change_nothing(model: Any) -> bool:
    """Whether the model's own adapters are as initialised, so that they change nothing.

    Then the product of low-rank ones is zero, and DoRA's lengths and token rows are the weights'.
    """
    for module in model.modules():
        if OWN in getattr(module, "lora_magnitude_vector", {}):
            if not torch.equal(module.lora_magnitude_vector[OWN].weight, _row_lengths(module)):
                return False
        elif OWN in getattr(module, "trainable_tokens_delta", {}):
            rows = module.base_layer.weight[module.token_indices[OWN]]
            if not torch.equal(module.trainable_tokens_delta[OWN], rows):
                return False
    rest = ("lora_A", "lora_magnitude_vector", "trainable_tokens_delta")
    others = [p for name, p in _own(model) if not any(part in name for part in rest)]
    return not any(bool(p.any()) for p in others)


def are_all_that_trains(model: Any) -> bool:
    """Whether nothing but the model's own adapters is trained (peft can train biases as well)."""
    own = {id(p) for _, p in _own(model)}
    return all(id(p) in own for p in model.parameters() if p.requires_grad)


def _own(model: Any) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if OWN in name.split(".")]


@torch.no_grad()
def keep_start(model: Any) -> None:
    """Keep the model's own adapters as they are now, frozen, as the set ``START``."""
    trained = [(p, p.requires_grad) for p in model.parameters()]
    if START not in model.peft_config:
        start = deepcopy(model.peft_config[OWN])
        if hasattr(start, "bias"):
            start.bias = "none"  # a second set must not train biases, though there are none
        with torch.random.fork_rng(devices=[]):  # peft draws what is overwritten below
            model.add_adapter(START, start)
    for parameter, flag in trained:
        parameter.requires_grad_(flag)
    state = model.state_dict()
    for name, tensor in state.items():
        parts = name.split(".")
        if OWN in parts:
            state[".".join(START if part == OWN else part for part in parts)].copy_(tensor)
    for name, parameter in model.named_parameters():
        if START in name.split("."):
            parameter.requires_grad_(False)


@contextmanager
def switched_to(model: Any, name: str | None) -> Iterator[None]:
    """Activate the adapter set ``name`` (or none) instead of the model's own, without gradients.

    Afterwards the same adapters train as before. peft itself also freezes those that it switches
    off, and a checkpoint would then leave them out.
    """
    trained = [(p, p.requires_grad) for p in model.parameters()]
    try:
        if name is None:
            with model.disable_adapter():
                yield
        else:
            model.set_adapter(name)
            yield
    finally:
        if name is not None:
            model.set_adapter(OWN)
        for parameter, flag in trained:
            parameter.requires_grad_(flag)


def checkpoint_activations(model: Any) -> None:
    """Let each layer of a Hugging Face ``model`` keep only its input for the backward pass.

    The backward pass computes the rest again, with the same dropout and the same set of adapters,
    so the gradients are the same. It has an effect in train mode alone.

    Raises:
        ConfigError: transformers cannot do it for this architecture.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _again_with(model, getattr(model, "active_adapter", None))

    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    try:
        inner.activation_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
    except ValueError as problem:
        raise ConfigError(
            f"activation_checkpointing: transformers cannot compute the activations of a "
            f"{type(inner).__name__} again. Leave it out."
        ) from problem
    inner.disable_input_require_grads()  # only reentrant checkpoints need them


@contextmanager
def _again_with(model: Any, name: str | None) -> Iterator[None]:
    """Activate the adapter set ``name`` of a forward again, if another one is active by now."""
    if name == getattr(model, "active_adapter", None):
        yield
    else:
        with switched_to(model, name):
            yield
