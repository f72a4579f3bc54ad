"""Models and tokenizers from a hub id, a folder or a config; every failure says what to do."""

import logging
import os
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import (
    is_flash_attn_2_available,
    is_flash_attn_3_available,
    is_flash_attn_4_available,
)
from transformers.utils import logging as logging_of_transformers

from alignlab.errors import ConfigError, DataError, in_a_line
from alignlab.files import DONE, SEALED, canonical, changed_in, is_lfs_pointer, refuse_run
from alignlab.functional import beyond_rounding
from alignlab.hub import ask_hub
from alignlab.models.adapters import (
    adapter_config,
    base_of,
    is_adapter,
    read_base,
    record_base,
    recorded_outputs,
)
from alignlab.models.chat_format import copy_token_rows, set_chat_format
from alignlab.models.limits import context_of, embedded
from alignlab.models.modes import reading
from alignlab.models.precise import make_precise
from alignlab.models.quantised import Quantised, dequantise, quantise, settle_compute
from alignlab.names import moved_from

if not TYPE_CHECKING:
    __getattr__ = moved_from(__name__)

log = logging.getLogger(__name__)
DTypeName = Literal["float32", "bfloat16", "float16", "float64"]
PACKAGES = {  # that an attention function needs, and a GPU
    "flash_attention_2": is_flash_attn_2_available,
    "flash_attention_3": is_flash_attn_3_available,
    "flash_attention_4": is_flash_attn_4_available,
}


# Names of the files that a tokenizer may be read from.
_TOKENIZER = re.compile(r"tokenizer|tekken|vocab|merges|spiece|sentencepiece|.*\.(model|tiktoken)$")


def load_tokenizer(
    source: str, chat_format: str | None = None, *, missing: str = "a tokenizer"
) -> Any:
    """The fast tokenizer in a local folder or of a hub id.

    Args:
        source: The folder or hub id. Adapters without a tokenizer have that of their base.
        chat_format: As in ``Policy``.
        missing: What the message says is missing if there is no such folder: ``"a model"`` where
            the caller was given a model, and its tokenizer is only the first that is read of it.

    Raises:
        ConfigError: Nothing usable there, or it has a chat template beside ``chat_format``.
    """
    check_source(source, missing)
    if not _has_tokenizer(source):
        if not is_adapter(source):
            raise ConfigError(
                f"{source} does not hold a tokenizer: none of its files is tokenizer.json, "
                "tokenizer.model or the like. Save the model's own tokenizer there, or name it as "
                "the policy's tokenizer."
            )
        source = base_of(source, adapter_config(source).base_model_name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as problem:  # a damaged file: the library raises many kinds
        what = "a tokenizer" if Path(source).exists() else missing
        raise ConfigError(_unreachable(source, what, problem)) from problem
    if chat_format is not None:
        set_chat_format(tokenizer, chat_format)
    return tokenizer


def _has_tokenizer(source: str) -> bool:
    """Whether a folder has a file of a tokenizer; what a hub id has, the library finds out."""
    path = Path(source)
    return not path.is_dir() or any(_TOKENIZER.match(file.name) for file in path.iterdir())


def attention(name: str | None) -> dict[str, Any]:
    """The config value that asks for the attention function ``name``; none for the library's own.

    Raises:
        ConfigError: transformers does not know the name, or its package is not installed.
    """
    if name is None:
        return {}
    known = ["eager", *(n for n in ALL_ATTENTION_FUNCTIONS.valid_keys() if "|" not in n)]
    own = [n for n in known if n.startswith("alignlab")]  # set while sampling
    usable = sorted(n for n in known if n not in own and (n not in PACKAGES or PACKAGES[n]()))
    if name not in usable:
        raise ConfigError(
            f"attn_implementation: {name} is not an attention function that is installed here. "
            f"Set one of {', '.join(usable)}, or leave it out."
        )
    return {"attn_implementation": name}


def _refuse_attention(problem: Exception, attn_implementation: str | None = None, **_: Any) -> None:
    if attn_implementation is not None and "attention implementation" in str(problem):
        raise ConfigError(
            f"attn_implementation: {str(problem).split()[0]} of transformers has no "
            f"{attn_implementation}. Set eager, or leave it out."
        ) from problem


def load_model(
    auto_class: Any,
    source: str,
    *,
    dtype: DTypeName,
    dropout: float | None,
    merge: bool = False,
    quantised: Quantised | None = None,
    **config: Any,
) -> Any:
    """The pretrained model at ``source`` (hub id, folder, or folder of a PEFT adapter).

    Adapters are put on the base that they were trained on, in its precision (4 bits included),
    whatever ``dtype`` is. The model then computes in ``dtype``.

    Args:
        auto_class: ``AutoModelForCausalLM`` or ``AutoModelForSequenceClassification``.
        source: Hub id or local folder.
        dtype: Precision of the weights.
        dropout: Overrides every dropout of the config and of adapters; ``None`` keeps their own
            (GPT-2's is 0.1, which makes two forwards of one policy differ).
        merge: Merge adapters into the weights of their base.
        quantised: Keep linear layers in 4 bits.
        config: Further config values, e.g. ``num_labels=1`` or those of ``attention``.

    Raises:
        ConfigError: Nothing usable there, weights that are missing, or adapters that cannot be
            merged.
    """
    check_source(source, "a model")
    quiet()
    if is_adapter(source):
        if merge and quantised is not None:
            raise ConfigError(
                f"quantised: {source} holds adapters, and what they would be merged into is not "
                "stored in a folder. Export them merged and start from that folder, or leave lora "
                "out to train these adapters further."
            )
        return _load_adapted(auto_class, source, dtype, dropout, merge, quantised, **config)
    settings = without_dropout(load_config(source, **config), dropout)
    _check_stored(source, settings)
    try:
        model, found = auto_class.from_pretrained(
            source,
            config=settings,
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with the shapes
        )
    except pickle.UnpicklingError as problem:
        raise ConfigError(
            f"{source}: its .bin files hold other Python objects than tensors, which could run any "
            "code and are not read. Save the weights as safetensors."
        ) from problem
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as problem:
        _refuse_attention(problem, **config)
        raise ConfigError(_unreachable(source, "a model", problem)) from problem
    # A scorer that starts from a language model gets a new head.
    fresh = auto_class is AutoModelForSequenceClassification and not is_scorer(source)
    body = f"{model.base_model_prefix}."
    for name, own, wanted in sorted(found["mismatched_keys"]):
        raise ConfigError(
            f"{source}: {name} has the shape {[*own]} in its files, and {[*wanted]} is asked for. "
            "Correct the config; of a scorer's head, ask for as many outputs as it has."
        )
    absent = sorted(k for k in found["missing_keys"] if not fresh or k.startswith(body))
    if absent:
        raise ConfigError(
            f"{source} lacks {len(absent)} weights of a {type(model).__name__}, e.g. {absent[0]}: "
            f"it holds a {', '.join(settings.architectures or ['model of another kind'])}."
        )
    # The head of a language model is expected to be left out of a scorer, another head is not.
    heads = settings.architectures or []
    plain = fresh and any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in heads)
    unused = sorted(k for k in found["unexpected_keys"] if not plain or k.startswith(body))
    if unused:
        log.warning(
            "%s: %s weights are not used by a %s, e.g. %s",
            *(source, f"{len(unused):,}", type(model).__name__, unused[0]),
        )
    if quantised is not None:
        quantise(model, quantised)
    settle_compute(model)  # also of a model that was saved in 4 bits
    make_precise(model)
    return model


def _check_stored(source: str, config: Any) -> None:
    """Refuse weights that are stored as codes which are not decoded here.

    Raises:
        ConfigError: They are in 8 bits, or in a format other than 4 bits of bitsandbytes, FP8 or
            MXFP4; transformers decodes the last two.
    """
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return
    known = stored if isinstance(stored, dict) else stored.to_dict()
    method = str(known.get("quant_method", "")).rpartition(".")[2].lower()
    if method in ("fp8", "mxfp4") or known.get("load_in_4bit"):
        return
    raise ConfigError(
        f"{source}: its weights are stored as codes ({method or 'of an unknown kind'}), which are "
        "not read. Start from the same model in 16 or 32 bits; lora with quantised keeps it in 4."
    )


def load_config(source: str, **config: Any) -> Any:
    """The config of the model at ``source`` (hub id or folder).

    Raises:
        ConfigError: Nothing usable there.
    """
    path = Path(source)
    if not path.exists():
        ask_hub()
    elif path.is_dir() and not (path / "config.json").exists():
        raise ConfigError(f"{source} does not hold a model: it has no config.json.")
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False, **config)
    except (OSError, ValueError) as problem:
        raise ConfigError(_unreachable(source, "a model", problem)) from problem


def is_scorer(source: str) -> bool:
    """Whether the config in ``source`` (folder or hub id) is a scorer's, or its adapters are.

    Raises:
        ConfigError: Nothing usable there.
    """
    if is_adapter(source):
        return bool(adapter_config(source).task_type == "SEQ_CLS")
    names = load_config(source).architectures or []
    return any(name.endswith("ForSequenceClassification") for name in names)


def room_of(source: str) -> int | None:
    """The most tokens of a row for the policy in ``source`` (folder or hub id), as ``Policy.room``.

    The context of adapters is that of the model that they stand on; virtual tokens take a part.

    Raises:
        ConfigError: Nothing usable there.
    """
    taken = 0
    while is_adapter(source):
        peft = adapter_config(source)
        taken += peft.num_virtual_tokens if peft.is_prompt_learning else 0
        source = base_of(source, peft.base_model_name_or_path)
    bound = context_of(load_config(source).get_text_config(decoder=True))
    return None if bound is None else bound - taken


def outputs_of(source: str) -> int:
    """How many numbers the scorer in ``source`` (folder or hub id) gives.

    Raises:
        ConfigError: Nothing usable there.
    """
    if is_adapter(source):
        return recorded_outputs(source)
    return int(load_config(source).num_labels)


def _load_adapted(
    auto_class: Any,
    source: str,
    dtype: DTypeName,
    dropout: float | None,
    merge: bool,
    quantised: Quantised | None,
    **config: Any,
) -> Any:
    """The model whose adapters are in the folder ``source``, merged with those below them."""
    peft = adapter_config(source)
    base = base_of(source, peft.base_model_name_or_path)
    if merge and peft.is_prompt_learning:
        raise ConfigError(
            f"{source} holds virtual tokens, which cannot be merged into a model's weights. Only a "
            "policy without policy.init_args.lora and prompt_tuning of its own can start from it."
        )
    scorer = auto_class is AutoModelForSequenceClassification
    if scorer != is_scorer(source):
        if not scorer:
            raise ConfigError(f"{source} holds the adapters of a scorer, not of a language model.")
        return _scorer_on(source, base, dtype, dropout, **config)
    record = read_base(source, base)
    if scorer and "num_labels" not in config and "num_labels" in record.get("config", {}):
        config["num_labels"] = record["config"]["num_labels"]
    how = _as_recorded(source, record, quantised)
    model = load_model(
        auto_class,
        base,
        dtype=record.get("dtype", dtype),
        dropout=dropout,
        merge=True,
        quantised=how,
        **config,
    )
    if record and embedded(model) != record["vocabulary"]:
        raise ConfigError(
            f"the adapters in {source} do not fit their model {base}: it has embeddings of "
            f"{embedded(model)} tokens, and they were trained on {record['vocabulary']}."
        )
    record = record or record_base(model, base)
    copy_token_rows(model, {int(token): part for token, part in record["tokens"].items()})
    if merge and how is not None:
        dequantise(model)
    _compute_in(model, dtype)
    model.config.update(record.get("config", {}))
    adapted = _with_adapters(model, source, peft, base, dropout)
    adapted.base_record = record
    return _merged(adapted, source) if merge else adapted


def _as_recorded(source: str, record: dict[str, Any], given: Quantised | None) -> Quantised | None:
    """How the base of the adapters in ``source`` was quantised, where that is recorded.

    Raises:
        ConfigError: ``given`` differs from it.
    """
    if not record:
        return given
    known = record["quantised"]
    if given is not None and vars(given) != known:
        was = f"in 4 bits ({canonical(known)})" if known else "in full precision"
        raise ConfigError(
            f"quantised: the adapters in {source} were trained on a base {was}, and would be wrong "
            f"on one with {canonical(vars(given))}. Leave quantised out."
        )
    return Quantised(**known) if known else None


def _compute_in(model: Any, dtype: DTypeName) -> None:
    """Make ``model`` compute in ``dtype``; weights in 4 bits are unchanged."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(getattr(torch, dtype))
    model.config.dtype = getattr(torch, dtype)
    settle_compute(model)
    make_precise(model)


def _with_adapters(model: Any, source: str, peft: Any, base: str, dropout: float | None) -> Any:
    """``model`` under the adapters in the folder ``source``."""
    from peft import PeftModel  # seconds to import, and few runs need it

    if dropout is not None and hasattr(peft, "lora_dropout"):
        peft.lora_dropout = dropout
    peft.base_model_name_or_path = base
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "fan_in_fan_out")
            warnings.filterwarnings("error", "Found missing adapter keys")
            adapted = PeftModel.from_pretrained(
                model,
                source,
                config=peft,
                # Virtual tokens are trainable anyway, and refuse to be asked.
                is_trainable=not peft.is_prompt_learning,
            )
    except (OSError, ValueError, RuntimeError, UserWarning, SafetensorError) as problem:
        raise ConfigError(
            f"the adapters in {source} do not fit their model {base}: {_first_line(problem)}"
        ) from problem
    if (Path(source) / "generation_config.json").exists():
        adapted.generation_config = GenerationConfig.from_pretrained(source)
    return adapted


def _merged(adapted: Any, source: str) -> Any:
    """The model with its adapters added into its weights; log-probs or scores must not change.

    Raises:
        ConfigError: They do not.
    """
    ids = torch.arange(1, PROBED + 1)[None] * 7919 % (embedded(adapted) or 1)
    with reading(adapted):
        before = adapted(ids).logits.double()
        merged = adapted.merge_and_unload()
        after = merged(ids).logits.double()
    if not hasattr(merged, "score"):  # a language model
        before, after = before.log_softmax(-1), after.log_softmax(-1)
    error = beyond_rounding(before, after, merged.dtype)
    if error is not None:
        raise ConfigError(
            f"{source}: merged into the weights, the adapters give log-probs or scores that "
            f"differ by {error:.1e}. Load the model in a finer dtype."
        )
    return merged


PROBED = 16  # tokens of the row that a merged model is compared on


def _scorer_on(
    source: str, base: str, dtype: DTypeName, dropout: float | None, **config: Any
) -> Any:
    """A scorer with a fresh head on the language model that ``source`` adapts."""
    lm = load_model(AutoModelForCausalLM, source, dtype=dtype, dropout=dropout, merge=True)
    scorer = load_model(
        AutoModelForSequenceClassification, base, dtype=dtype, dropout=dropout, merge=True, **config
    )
    if embedded(scorer) != embedded(lm):  # the adapters have learned further tokens
        with torch.random.fork_rng(devices=[]):  # rows are drawn, then overwritten
            scorer.resize_token_embeddings(embedded(lm), mean_resizing=False)
    scorer.base_model.load_state_dict(lm.base_model.state_dict())
    return scorer


def config_from(values: Mapping[str, Any]) -> Any:
    """The config of a model with these values, ``model_type`` among them.

    Raises:
        ConfigError: No ``model_type``, or values the architecture refuses.
    """
    if "model_type" not in values:
        raise ConfigError(f"a model config needs model_type (e.g. llama), got keys {list(values)}.")
    try:
        return AutoConfig.for_model(**values)
    except (ValueError, TypeError) as problem:
        raise ConfigError(f"cannot build a model from {dict(values)}: {problem}") from problem


def build_model(
    auto_class: Any, config: dict[str, Any], *, seed: int, dtype: DTypeName, dropout: float | None
) -> Any:
    """A freshly initialised model from config values (``model_type`` and its sizes).

    The weights are a function of ``seed`` alone; torch's global generator is left as it was.

    Raises:
        ConfigError: No ``model_type``, or values the architecture refuses.
    """
    settings = without_dropout(config_from(config), dropout)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = auto_class.from_config(settings)
            if torch.finfo(getattr(torch, dtype)).bits < 32:
                # As loading makes it: numbers that are no weights, such as the frequencies of
                # rotary positions, keep the precision that the architecture gives them.
                fine, model = model, auto_class.from_config(settings, dtype=getattr(torch, dtype))
                model.load_state_dict(fine.state_dict())
    except (ValueError, TypeError) as problem:
        _refuse_attention(problem, **config)
        raise ConfigError(f"cannot build a model from {config}: {problem}") from problem
    if torch.finfo(getattr(torch, dtype)).bits >= 32:
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
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), got {dropout}. Set policy.dropout.")
        for part, name in _dropouts(config):
            kind = type(getattr(part, name))  # some configs take whole numbers only, as MPT's
            try:
                setattr(part, name, kind(dropout) if dropout == 0 else dropout)
            except StrictDataclassFieldValidationError as error:
                raise ConfigError(
                    f"{type(part).__name__} takes no {name} of {dropout}: {error.__cause__}. "
                    "Leave policy.dropout out, or set it to 0."
                ) from error
    return config


def has_dropout(model: Any) -> bool:
    """Whether something in ``model`` is dropped at random while it trains."""
    layers = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    return any(rate > 0 for rate in (*layers, *(getattr(*at) for at in _dropouts(model.config))))


def _dropouts(config: Any) -> Iterator[tuple[Any, str]]:
    """The keys of a config, nested ones included, that hold a dropout rate."""
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            yield from _dropouts(value)
        elif (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and re.search("dropout|_pdrop|layerdrop|drop_path|jitter_noise", name)
        ):
            yield config, name


def may_be_made(source: str | None) -> bool:
    """Whether ``source`` is a folder that does not exist (yet), and not a hub id."""
    if source is None or Path(source).exists():
        return False
    return source.startswith((".", "/", "~")) or source.count("/") > 1


def check_source(source: str, what: str) -> None:
    """Refuse a path that does not exist, and a folder whose files have changed.

    Asking the hub for ``./missing`` would answer that the *name* is malformed.

    Raises:
        ConfigError: There is no such folder, nothing in it, or it is that of a run.
        DataError: Its files are not those that its record names.
    """
    path = Path(source)
    if may_be_made(source):
        raise ConfigError(f"no such folder for {what}: {source}. Make it first, or name a hub id.")
    if path.is_dir():
        _check_folder(path, what)
    elif path.is_file():
        raise ConfigError(f"{source} is a file. Name the folder that holds {what}.")
    refuse_run(source)
    if path.is_dir() and (changed := changed_in(path)):
        raise DataError(
            f"{source}: {', '.join(changed)} is not what was written. Make the folder again; "
            f"if the change is meant, delete {DONE} and {SEALED} there."
        )
    if not path.exists():
        ask_hub()


def _check_folder(path: Path, what: str) -> None:
    """Refuse a folder that is empty, of the hub's cache, or of files that were not downloaded.

    Raises:
        ConfigError: It is one of these.
    """
    files = list(path.iterdir())
    if not files:
        raise ConfigError(f"the folder for {what} is empty: {path}.")
    snapshots = sorted(map(str, path.glob("snapshots/*")))
    if snapshots and not any(file.is_file() for file in files):
        raise ConfigError(f"{path} is a folder of the hub's cache. Name {' or '.join(snapshots)}.")
    for file in files:
        if file.is_file() and is_lfs_pointer(file):
            raise ConfigError(f"{file}: a pointer of Git LFS, not the file. Call git lfs pull.")


def default_device() -> str:
    """A GPU if there is one; each process of a machine gets its own."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"


def freeze(module: nn.Module) -> nn.Module:
    """``module`` in eval mode, without gradients."""
    return module.eval().requires_grad_(False)


def _unreachable(source: str, what: str, problem: Exception) -> str:
    first = _first_line(problem)
    if "trust_remote_code" in str(problem) or "custom code" in first:
        return (
            f"{source} needs code of its own (auto_map in its files), and code that comes with a "
            "model is not run. Use a model and a tokenizer that transformers has."
        )
    if Path(source).exists():
        return f"{source} does not hold {what}: {first}"
    why = ask_hub()
    if why is not None:
        return (
            f"no such folder for {what}: {source} (in {Path.cwd()}), and the hub, where it might "
            f"be, cannot be asked ({why}). Give a folder, or download it elsewhere."
        )
    return f"no such folder for {what}: {source}, and the hub says: {first}"


def _first_line(problem: BaseException) -> str:
    first = str(problem).strip().split("\n")[0] or type(problem).__name__
    first = f"KeyError: {first}" if isinstance(problem, KeyError) else first
    return first if not first.endswith(":") else in_a_line(str(problem))[:300]
