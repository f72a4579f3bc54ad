"""What a training run will hold and compute, read from its config: models, rows, precision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from alignlab.capacity.models import ModelSpec, on_meta
from alignlab.capacity.trace import Call
from alignlab.data.loader import TreeLoader
from alignlab.data.modules import TreeData
from alignlab.data.rollout_data import RolloutData
from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.functional.logps import chunks_of
from alignlab.models.adapters import adapter_config, base_of, is_adapter
from alignlab.models.attention import Branches
from alignlab.models.backbone import TreeBackbone, needs_flat
from alignlab.models.layouts import Layout
from alignlab.models.loading import config_from, load_config, load_tokenizer
from alignlab.names import find
from alignlab.training.before_start import construct
from alignlab.training.fit import Command, plain_errors

READABLE = 64e6  # bytes of a file that is read for the lengths of its rows
COMPLETIONS = {"PreferenceData": 2, "RankingData": 4, "CandidateData": 24}  # if data are not read


@dataclass
class Setup:
    """A training run as a plan sees it.

    Args:
        objective: Name of its class.
        models: The trained model first; then value function and reward model, if any.
        reference: Whether a frozen copy of the policy is held.
        refers: Whether a step runs a reference at all, a copy or the policy without adapters.
        value_adapter: Whether the value function is a second adapter of the policy.
        trees: Rows in the order in which longer ones come later; completions of a rollout have
            their full length.
        steps: The optimizer steps of a pass over the data, as places in ``trees``.
        batch_size: Trees of an optimizer step.
        micro_batch_size: Trees of a forward; ``None`` for a step's.
        total_steps: Optimizer steps of the whole run, if known.
        autocast: Precision of mixed precision.
        moments: Bytes that the optimizer keeps of a byte of a trained weight.
        rollout: The settings of sampling and of its phases, for objectives that sample.
        mix: Pretraining texts of an optimizer step, and their longest length.
        notes: What was assumed, a sentence each.
        strategy: The config's own, ``auto`` where it names none.
        devices: The config's own number, over all nodes.
    """

    objective: str
    models: list[ModelSpec]
    reference: bool
    refers: bool
    value_adapter: bool
    trees: list[PromptTree]
    steps: list[list[int]]
    batch_size: int
    micro_batch_size: int | None
    total_steps: int | None
    autocast: torch.dtype | None
    moments: float
    rollout: Mapping[str, Any] | None = None
    mix: tuple[int, int] | None = None
    notes: list[str] = field(default_factory=list)
    strategy: str = "auto"
    devices: int = 1

    @property
    def trained(self) -> ModelSpec:
        """The policy or the scorer that the run is for."""
        return self.models[0]

    @property
    def checkpointed(self) -> bool:
        """Whether activations of all trained models are computed again in the backward pass."""
        return all(model.checkpointed for model in self.models if model.trained)

    def with_checkpoints(self) -> "Setup":
        """The same run with them."""
        models = [replace(m, checkpointed=True) if m.trained else m for m in self.models]
        return replace(self, models=models)

    def role(self, name: str) -> ModelSpec | None:
        """The model of this role."""
        return next((model for model in self.models if model.role == name), None)


def read_setup(words: Sequence[str], lengths: tuple[int, int] | None = None) -> Setup:
    """Read a stage's config with the parser of ``alignlab fit``, and what its models are.

    Args:
        words: As ``fit`` takes them: ``--config FILE`` and settings.
        lengths: Tokens of every prompt and completion, instead of reading the data.

    Raises:
        ConfigError: An unknown key, a value that no training can have, no model at a ``source``.
        DataError: Data that cannot be used.
    """
    with plain_errors():
        command = Command(words)
        plain = yaml.safe_load(
            command.parser.dump(command.config, skip_none=False, skip_validation=True)
        )
        return _Reader(command, plain, lengths).setup()


class _Reader:
    def __init__(
        self, command: Command, plain: Mapping[str, Any], lengths: tuple[int, int] | None
    ) -> None:
        self.command, self.lengths = command, lengths
        self.model = plain["model"]["init_args"]
        self.kind = find(plain["model"]["class_path"])
        self.data, self.trainer = plain["data"], plain["trainer"]
        self.notes: list[str] = []

    def setup(self) -> Setup:
        models = self._models()
        trees, steps, batch, micro = self._rows(models[0])
        reference = self.model.get("reference")
        adapted = models[0].lora is not None
        sampling = self.model.get("sampling")
        return Setup(
            objective=self.kind.__name__,
            models=models,
            reference=reference == "frozen" or (reference == "auto" and not adapted),
            refers=reference not in (None, "cached"),
            value_adapter=self.model.get("value") == "adapter",
            trees=trees,
            steps=steps,
            batch_size=batch,
            micro_batch_size=micro,
            total_steps=self._total_steps(len(steps)),
            autocast=_autocast(self.trainer["precision"]),
            moments=_moments(self.model["optimizer"]),
            rollout=None if sampling is None else self.data["init_args"] | sampling,
            mix=self._mix(),
            notes=self.notes,
            strategy=_strategy(self.trainer["strategy"]),
            devices=_devices(self.trainer),
        )

    def _models(self) -> list[ModelSpec]:
        policy, model, value = (self.model.get(key) for key in ("policy", "model", "value"))
        found = [self._spec("policy", policy)] if policy else [self._spec("model", model)]
        if isinstance(value, dict):
            found.append(self._spec("value", value))
        reward = _args(self.model.get("reward"))
        while reward.get("reward"):  # one that is made of another's scores
            reward = _args(reward["reward"])
        if isinstance(reward.get("path"), str):
            config = _config_at(reward["path"])[0]
            found.append(ModelSpec("reward", config, True, torch.float32, trained=False))
        elif self.model.get("reward"):
            self.notes.append("the reward is a rule: it takes no memory here")
        return found

    def _spec(self, role: str, given: Mapping[str, Any]) -> ModelSpec:
        args = _args(given)
        if args.get("prompt_tuning") is not None:
            raise ConfigError(
                f"{role}: alignlab plan does not support prompt_tuning. Take "
                f"model.init_args.{role}.prompt_tuning out, or plan the run with lora."
            )
        scorer = "outputs" in args
        if args.get("config") is not None:
            values = dict(args["config"])
            if "vocab_size" not in values:
                values["vocab_size"] = len(load_tokenizer(args["tokenizer"]))
            config, lora = config_from(values), None
        else:
            config, lora = _config_at(args["source"])
        if args.get("attn_implementation"):
            config._attn_implementation = args["attn_implementation"]
        quantised = _args(args.get("quantised"))
        if scorer:
            config.num_labels = args["outputs"]
        return ModelSpec(
            role=role,
            config=config,
            scorer=scorer,
            dtype=getattr(torch, args["dtype"]),
            trained=True,
            lora=_args(args.get("lora")) or lora,
            double=bool(quantised.get("double", True)) if quantised else None,
            layout=args["layout"],
            chunk=chunks_of(args.get("chunk", 1), config.get_text_config(decoder=True).vocab_size),
            logits=torch.float64
            if args["dtype"] == "float64"
            else getattr(torch, args.get("head_dtype", "float32")),
            checkpointed=args["activation_checkpointing"] or _is_checkpointed(self.trainer),
        )

    def _rows(
        self, trained: ModelSpec
    ) -> tuple[list[PromptTree], list[list[int]], int, int | None]:
        """Trees and the steps of an epoch; trees per step, and per forward."""
        args = self.data["init_args"]
        batch, micro = args["batch_size"], args["micro_batch_size"]
        kind = find(self.data["class_path"])
        new = (self.model.get("sampling") or {}).get("max_new_tokens", 0)
        samples = args.get("samples_per_prompt", 1)
        module = self._data_read(kind, trained)
        if module is None:
            longest = args["max_length"]
            prompt, rest = self.lengths or (max(1, longest // 2), longest - longest // 2)
            if issubclass(kind, RolloutData):
                prompt, rest = (self.lengths or (longest, new))[0], new
            branches = COMPLETIONS.get(kind.__name__, 1)
            one = PromptTree(0, "", (0,) * prompt, ((0,) * max(1, rest),) * branches)
            trees = [one] * max(batch, args.get("rollout_size", 0))
            steps = [list(range(batch))]
        else:
            trees = list(module.train_trees)
            loader = TreeLoader(
                trees,
                batch_size=min(batch, len(trees)),
                seed=args["seed"],
                length_window=args.get("length_window", 1),
                rank=0,
                world_size=1,
            )
            steps = loader.step_trees(0)
        if issubclass(kind, RolloutData):
            trees = [_completed(tree, samples, new) for tree in trees]
        return trees, steps, batch, micro

    def _data_read(self, kind: Any, trained: ModelSpec) -> TreeData[Any] | None:
        """The data, if they are a small file here and no lengths are given."""
        source = Path(self.data["init_args"]["source"])
        if self.lengths is not None:
            return None
        if not issubclass(kind, TreeData) or not source.is_file():
            self.notes.append(f"{source} is not a file here: planned with max_length tokens a row")
            return None
        if (size := source.stat().st_size) > READABLE:
            said = f"{source} has {size / 1e6:.0f} MB: planned with max_length tokens a row"
            self.notes.append(said)
            return None
        where = self.model.get("policy") or self.model["model"]
        args = _args(where)
        module: TreeData[Any] = construct(self.command, "data").data
        named = args.get("tokenizer")
        missing = "a tokenizer" if named else "a model"
        module.connect(load_tokenizer(named or args["source"], missing=missing))
        module.setup()
        return module

    def _mix(self) -> tuple[int, int] | None:
        texts = _args(self.data["init_args"].get("pretraining"))
        return (texts["batch_size"], texts["max_length"]) if texts else None

    def _total_steps(self, steps: int) -> int | None:
        """Of the whole run: ``max_steps``, or ``max_epochs`` passes over the data."""
        if self.trainer["max_steps"] > 0:
            return int(self.trainer["max_steps"])
        epochs = self.trainer["max_epochs"]
        read = not any("max_length tokens" in note for note in self.notes)
        known = epochs and epochs > 0 and read and self.lengths is None
        return epochs * steps if known else None


def _args(given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The arguments of a class in a config, empty where it names none."""
    return (given or {}).get("init_args") or given or {}


def _completed(tree: PromptTree, samples: int, new: int) -> PromptTree:
    return PromptTree(tree.index, tree.id, tree.prompt, ((0,) * new,) * samples)


def _config_at(source: str) -> tuple[Any, dict[str, Any] | None]:
    """The config of a model, and the settings of adapters that the folder holds."""
    if not is_adapter(source):
        return load_config(source), None
    peft = adapter_config(source)
    base = base_of(source, peft.base_model_name_or_path)
    return load_config(base), {"rank": peft.r, "targets": sorted(peft.target_modules)}


def _autocast(precision: Any) -> torch.dtype | None:
    return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(str(precision))


def _moments(optimizer: Mapping[str, Any]) -> float:
    """Bytes that an optimizer keeps for a byte of weights: it is asked about a small weight."""
    weight = nn.Parameter(torch.zeros(64, 128))  # large enough for 8-bit optimizers to act
    made = find(optimizer["class_path"])([weight], **(optimizer.get("init_args") or {}))
    weight.grad = torch.ones_like(weight)
    made.step()
    kept = sum(
        value.numel() * value.element_size()
        for value in made.state[weight].values()
        if isinstance(value, Tensor) and value.numel() > 1
    )
    return float(kept / (weight.numel() * weight.element_size()))


def _is_checkpointed(trainer: Mapping[str, Any]) -> bool:
    """Whether the strategy does it for all models, which Lightning's FSDPStrategy can."""
    strategy = trainer["strategy"]
    args = _args(strategy) if isinstance(strategy, Mapping) else {}
    named = ("activation_checkpointing", "activation_checkpointing_policy")
    return any(args.get(name) for name in named)


def _strategy(given: Any) -> str:
    """``ddp``, ``fsdp`` for any kind of sharding, or ``auto``."""
    name = str(given.get("class_path") if isinstance(given, Mapping) else given).lower()
    if any(word in name for word in ("fsdp", "modelparallel", "deepspeed")):
        return "fsdp"
    return "ddp" if "ddp" in name else "auto"


def _devices(trainer: Mapping[str, Any]) -> int:
    devices = trainer["devices"]
    each = devices if isinstance(devices, int) and devices > 0 else 1
    if isinstance(devices, list):
        each = len(devices)
    return int(each * trainer["num_nodes"])


class _Recorder(TreeBackbone):
    """Cuts trees into rows as a model does, and notes the calls instead of making them."""

    def __init__(self, spec: ModelSpec, gpu: bool) -> None:
        super().__init__()
        self.model, self.tokenizer, self.calls = on_meta(spec.shallow(1)), None, list[Call]()
        self.layout: Layout = "flat" if needs_flat(self.model) else spec.layout
        self._where = torch.device("cuda" if gpu else "cpu")

    @property
    def device(self) -> torch.device:
        """Where the run will be."""
        return self._where

    @property
    def backbone(self) -> Any:
        """Notes a call; its states take no memory."""
        return self._note

    def _own_error(self, trees: Any, states: Tensor) -> float:
        raise NotImplementedError

    def _note(
        self,
        *,
        input_ids: Tensor,
        position_ids: Any,
        use_cache: bool,
        attention_mask: Any = None,
        branches: Branches | None = None,
    ) -> tuple[Tensor]:
        rows, columns = input_ids.shape
        self.calls.append(Call(rows, columns, branches))
        return (torch.zeros(1).expand(*input_ids.shape, 1),)


def calls_of(
    spec: ModelSpec, trees: Sequence[PromptTree], *, gpu: bool
) -> tuple[tuple[Call, ...], int]:
    """The calls that a forward on ``trees`` makes, and the number of tokens that it scores."""
    recorder, batch = _Recorder(spec, gpu), collate(trees)
    recorder.hidden_states(batch, batch.loss_mask, after=False)
    return tuple(recorder.calls), int(batch.loss_mask.sum())
