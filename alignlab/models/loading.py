"""Models and tokenizers from a hub id, a folder or a config; every failure says what to do."""

import logging
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging as logging_of_transformers

from alignlab.errors import ConfigError
from alignlab.hub import ask_hub
from alignlab.models.precise import make_precise

log = logging.getLogger(__name__)
DTypeName = Literal["float32", "bfloat16", "float16", "float64"]


def load_tokenizer(source: str) -> Any:
    """The fast tokenizer in a local folder or of a hub id.

    Raises:
        ConfigError: Nothing usable there.
    """
    check_source(source, "a tokenizer")
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as problem:
        raise ConfigError(_unreachable(source, "a tokenizer", problem)) from problem


def load_model(
    auto_class: Any, source: str, *, dtype: DTypeName, dropout: float | None, **config: Any
) -> Any:
    """The pretrained model at ``source`` (hub id, folder, or folder of a PEFT adapter).

    Args:
        auto_class: ``AutoModelForCausalLM`` or ``AutoModelForSequenceClassification``.
        source: Hub id or local folder.
        dtype: Precision of the weights.
        dropout: Overrides every dropout of the config; ``None`` keeps the config's own (GPT-2's is
            0.1, which makes two forwards of one policy differ).
        config: Further config values, e.g. ``num_labels=1``.

    Raises:
        ConfigError: Nothing usable there.
    """
    check_source(source, "a model")
    adapter = Path(source) / "adapter_config.json"
    try:
        if adapter.exists():
            from peft import PeftConfig, PeftModel  # seconds to import, and few runs need it

            peft = PeftConfig.from_pretrained(source)
            base = str(peft.base_model_name_or_path)
            model = load_model(auto_class, base, dtype=dtype, dropout=dropout, **config)
            # Virtual tokens are trainable anyway, and refuse to be asked.
            return PeftModel.from_pretrained(
                model, source, is_trainable=not peft.is_prompt_learning
            )
        settings = AutoConfig.from_pretrained(source, trust_remote_code=False, **config)
        quiet()
        model = auto_class.from_pretrained(
            source,
            config=without_dropout(settings, dropout),
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
        )
    except (OSError, ValueError) as problem:
        raise ConfigError(_unreachable(source, "a model", problem)) from problem
    make_precise(model)
    return model


def build_model(
    auto_class: Any, config: dict[str, Any], *, seed: int, dtype: DTypeName, dropout: float | None
) -> Any:
    """A freshly initialised model from config values (``model_type`` and its sizes).

    The weights are a function of ``seed`` alone; torch's global generator is left as it was.

    Raises:
        ConfigError: No ``model_type``, or values the architecture refuses.
    """
    values = dict(config)
    if "model_type" not in values:
        raise ConfigError(f"a model config needs model_type (e.g. llama), got keys {list(values)}.")
    try:
        settings = AutoConfig.for_model(values.pop("model_type"), **values)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = auto_class.from_config(without_dropout(settings, dropout))
    except (ValueError, TypeError) as problem:
        raise ConfigError(f"cannot build a model from {config}: {problem}") from problem
    model = model.to(getattr(torch, dtype))
    make_precise(model)
    return model


def quiet() -> None:
    """Keep transformers from printing a bar and a report for every small model it loads."""
    logging_of_transformers.set_verbosity_error()
    logging_of_transformers.disable_progress_bar()


def without_dropout(config: Any, dropout: float | None) -> Any:
    """``config`` with every dropout probability set to ``dropout`` (untouched when ``None``)."""
    if dropout is not None:
        for name, value in vars(config).items():
            if isinstance(value, float) and ("dropout" in name or name.endswith("_pdrop")):
                setattr(config, name, dropout)
    return config


def add_lora(model: Any, lora: "Lora") -> Any:
    """``model`` with trainable low-rank adapters; its own weights are frozen."""
    from peft import LoraConfig, get_peft_model

    task = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha if lora.alpha is not None else 2 * lora.rank,
        lora_dropout=lora.dropout,
        target_modules=lora.targets if isinstance(lora.targets, str) else list(lora.targets),
        bias="none",
    )
    return get_peft_model(model, task)


class Lora:
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685).

    Args:
        rank: Rank of each update; 8-64 is usual.
        alpha: Scale of the update over ``rank``; ``None`` is twice the rank.
        dropout: On the adapters' input; 0 keeps two forwards of one policy equal.
        targets: Names of the linear layers, or ``all-linear`` for all but the head.
    """

    def __init__(
        self,
        rank: int = 16,
        alpha: float | None = None,
        dropout: float = 0.0,
        targets: str | list[str] = "all-linear",
    ) -> None:
        if rank < 1:
            raise ConfigError(f"Lora needs rank >= 1, got {rank}. Set lora.rank.")
        self.rank, self.alpha, self.dropout, self.targets = rank, alpha, dropout, targets


def check_source(source: str, what: str) -> None:
    """Raise ``ConfigError`` where ``source`` is meant as a path that is not there.

    Asking the hub for ``./missing`` would answer that the *name* is malformed.
    """
    path = Path(source)
    looks_like_path = source.startswith((".", "/", "~")) or source.count("/") > 1
    if not path.exists() and looks_like_path:
        raise ConfigError(f"no such folder for {what}: {source}. Make it first, or name a hub id.")
    if path.is_dir() and not any(path.iterdir()):
        raise ConfigError(f"the folder for {what} is empty: {source}.")
    if not path.exists():
        ask_hub()


def freeze(module: nn.Module) -> nn.Module:
    """``module`` in eval mode, without gradients."""
    return module.eval().requires_grad_(False)


def _unreachable(source: str, what: str, problem: Exception) -> str:
    first = str(problem).strip().split("\n")[0] or type(problem).__name__
    if Path(source).exists():
        return f"{source} does not hold {what}: {first}"
    why = ask_hub()
    if why is not None:
        return (
            f"no such folder for {what}: {source} (in {Path.cwd()}), and the hub, where it might "
            f"be, cannot be asked ({why}). Give a folder, or download it elsewhere."
        )
    return f"no such folder for {what}: {source}, and the hub says: {first}"
