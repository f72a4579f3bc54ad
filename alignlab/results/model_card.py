"""Write the model card (``README.md``) of an exported model from the record of its run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import try_to_load_from_cache

from alignlab import __version__
from alignlab.errors import ConfigError, in_a_line
from alignlab.names import present_in
from alignlab.results.prompt_tables import read_scores
from alignlab.results.run_folder import MODEL, RunFolder, evaluations_in

CARD = "README.md"
LIBRARIES = ("torch", "transformers", "peft", "lightning")
# The settings in a card, by part of the config; of the objective, all plain values.
TRAINED = ("seed", "dtype", "dropout", "lora", "prompt_tuning", "quantised", "chat_format")
OPTIMIZER = ("lr", "betas", "momentum", "weight_decay")
SCHEDULE = ("warmup_steps", "warmup", "decay", "floor", "total_steps")
DATA = (
    *("split", "limit", "batch_size", "max_length", "rollout_size", "samples_per_prompt"),
    *("inner_epochs", "train_on_prompt"),
)
TRAINER = ("max_steps", "max_epochs", "precision", "gradient_clip_val")


@dataclass(frozen=True, slots=True)
class Run:
    """A training run, as its folder records it.

    Args:
        path: The folder.
        logs: Where its checkpoints and evaluations are.
        model: Folder of the trained model.
        finished: Whether that model is whole.
        config: All settings.
        done: The pipeline's record of a finished job; empty for a run of ``alignlab fit``.
    """

    path: Path
    logs: Path
    model: Path
    finished: bool
    config: dict[str, Any]
    done: dict[str, Any]

    @property
    def trained(self) -> dict[str, Any]:
        """Class and arguments of the model that was trained."""
        arguments = self.config["model"]["init_args"]
        return dict(arguments.get("policy") or arguments["model"])

    @property
    def dtype(self) -> Any:
        """Name of its weights' precision."""
        return _inner(self.trained).get("dtype", "float32")


def read_run(folder: Path) -> Run:
    """The record of the training run in ``folder``.

    Raises:
        ConfigError: There is no run.
    """
    own = RunFolder(folder)
    stage = own.started_file.exists()
    logs = own.logs if stage else folder
    found = next((p for p in (logs / own.config.name, own.config) if p.is_file()), None)
    try:
        config = {} if found is None else present_in(yaml.safe_load(found.read_text("utf-8")))
        arguments = config["model"]["init_args"]
        known = isinstance(arguments.get("policy") or arguments["model"], dict)
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{found} cannot be read: {in_a_line(problem)}.") from None
    except (TypeError, KeyError, AttributeError):
        known = False
    if not known:
        raise ConfigError(
            f"{folder}: no training run there. Name a folder that alignlab fit wrote, such as "
            "lightning_logs/version_0, or one of a stage that trains, such as "
            "results/quickstart/stages/sft/all."
        )
    model = folder if stage else folder / MODEL
    finished = own.done is not None if stage else model.is_dir()
    return Run(folder, logs, model, finished, config, own.done or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Facts about an exported folder for its card.

    Args:
        folder: Its name.
        step: Optimizer step of the weights; ``None`` for the finished run's.
        architecture: The model's class.
        auto_class: The class of transformers that loads it, or its base.
        base: Folder or hub id that adapters stand on; ``None`` for whole weights.
        quantised: What transformers has to be told where that base is kept in 4 bits.
        adds_tokens: Whether the adapters have rows of tokens that it lacks.
        dtype: Precision of the weights, by name.
        outputs: Numbers that a scorer gives.
        is_chat: Whether the tokenizer has a chat template.
        begins: The token that training put before a text and the tokenizer alone does not.
        shift: Subtracted from a scorer's logits.
        scale: Divides them then.
        said: What was checked.
    """

    folder: str
    step: int | None
    architecture: str
    auto_class: str
    base: str | None
    quantised: dict[str, Any] | None
    adds_tokens: bool
    dtype: str
    outputs: int
    is_chat: bool
    begins: str
    shift: float
    scale: float
    said: str

    @property
    def is_scorer(self) -> bool:
        """Whether it is a scorer and not a language model."""
        return self.auto_class.endswith("ForSequenceClassification")


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that shape what is learned, by dotted name; without unset ones."""
    objective = _inner(config["model"])
    optimizer = objective.pop("optimizer", None) or {}
    trained = objective.pop("policy", None) or objective.pop("model", None)
    schedule, reward = objective.pop("schedule", None), objective.pop("reward", None)
    plain = [name for name, value in objective.items() if not isinstance(value, (dict, list))]
    name = str(optimizer.get("class_path", "")).rpartition(".")[2]
    found = {"seed_everything": config.get("seed_everything"), "optimizer": name or None}
    for part, value, names in (
        ("", objective, plain),
        ("policy.", trained, TRAINED),
        ("reward.", reward, _inner(reward)),
        ("optimizer.", optimizer, OPTIMIZER),
        ("schedule.", schedule, SCHEDULE),
        ("data.", config.get("data"), DATA),
        ("trainer.", config.get("trainer"), TRAINER),
    ):
        arguments = _inner(value)
        for name in names:
            found |= _leaves(f"{part}{name}", arguments.get(name))
    return {key: value for key, value in found.items() if value is not None}


def _inner(value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of an object in a config, whether its class is named beside them or not."""
    return dict((value or {}).get("init_args", value) or {})


def _class_of(value: Any) -> str | None:
    """Path of the class of an object in a config."""
    return value.get("class_path") if isinstance(value, Mapping) else value


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in _inner(value).items():
            yield from _leaves(f"{key}.{name}", item)
    else:
        yield key, value


def last_evaluation(run: Run, step: int | None) -> dict[str, Any]:
    """Means of the run's last evaluation, or of the last until ``step``; empty without one.

    Reward and KL (nats a completion) have standard errors clustered by prompt.
    """
    found = [e for e in evaluations_in(run.path) if e.is_whole and (step is None or e.step <= step)]
    if not found:
        return {}
    scores = read_scores(found[-1].scores)
    values = scores.means() | scores.errors()
    measure = _class_of(_inner(run.config.get("probe")).get("reward"))
    return {
        "step": found[-1].step,
        **{name: values[name] for name in ("reward", "reward_se", "kl", "kl_se")},
        **({"reward_class": measure} if measure else {}),
        "prompts": len(scores.prompt_ids),
        "samples": int(scores.n_samples.sum()),
    }


def card(run: Run, made: Exported) -> str:
    """A model card: YAML for machines, then a page."""
    objective = str(run.config["model"]["class_path"]).rpartition(".")[2]
    base = _inner(run.trained).get("source")
    reward = _class_of(_inner(run.config["model"]).get("reward"))
    seen = last_evaluation(run, made.step)
    record: dict[str, Any] = {
        "objective": objective,
        "run": run.path.resolve().name,
        "step": made.step,
        "base_model": base or "none (trained from scratch)",
        "data": _inner(run.config.get("data")).get("source"),
        "reward": reward,
        "settings": settings_of(run.config),
        "evaluation": seen,
        "config_sha": run.done.get("config_sha"),
        "versions": {"alignlab": __version__, **{name: version(name) for name in LIBRARIES}},
    }
    front: dict[str, Any] = {
        "library_name": "transformers" if made.base is None else "peft",
        "pipeline_tag": "text-classification" if made.is_scorer else "text-generation",
        "base_model": base if base and _is_on_the_hub(base) else None,
        "tags": ["alignlab", objective.lower()],
        "alignlab": {name: value for name, value in record.items() if value},
    }
    front = {name: value for name, value in front.items() if value}
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    rows = {
        "base model": record["base_model"],
        "data": record["data"],
        **({"reward": reward} if reward else {}),
        **{f"`{name}`": value for name, value in record["settings"].items()},
    }
    table = "".join(f"| {name} | {_cell(value)} |\n" for name, value in rows.items())
    at = "" if made.step is None else f" These are the weights after step {made.step:,}."
    return (
        f"---\n{text}---\n\n# {objective}: {record['run']}\n\n"
        f"{made.architecture}, trained with {objective} by alignlab {__version__}.{at}\n\n"
        f"{_evaluated(seen)}## Use\n\n```python\n{_usage(made)}```\n\n{made.said}\n\n"
        f"## Training\n\n| setting | value |\n|---|---|\n{table}"
    )


def _usage(made: Exported) -> str:
    """Python that loads and uses the folder."""
    stops = made.base is not None and not made.is_scorer  # adapters may have others than their base
    names = f"{made.auto_class}, AutoTokenizer" + (", GenerationConfig" if stops else "")
    names += ", BitsAndBytesConfig" if made.quantised else ""
    lines = [f"from transformers import {names}", ""]
    if made.base is None:
        lines.append(f'model = {made.auto_class}.from_pretrained("{made.folder}")')
    else:
        labels = f", num_labels={made.outputs}" if made.is_scorer else ""
        given = f'"{made.base}", dtype="{made.dtype}"{labels}'
        if made.quantised:
            how = ", ".join(f"{name}={value!r}" for name, value in made.quantised.items())
            lines.append(f"bits = BitsAndBytesConfig({how})")
            given += ", quantization_config=bits"
        lines.insert(0, "from peft import PeftModel")
        lines.append(f"base = {made.auto_class}.from_pretrained({given})")
        if made.adds_tokens:
            size = f'len(AutoTokenizer.from_pretrained("{made.folder}"))'
            lines.append(f"base.resize_token_embeddings({size}, mean_resizing=False)")
        lines.append(f'model = PeftModel.from_pretrained(base, "{made.folder}")')
    if stops:
        stop = f'GenerationConfig.from_pretrained("{made.folder}")'
        lines.append(f"model.generation_config = {stop}")
    lines.append(f'tokenizer = AutoTokenizer.from_pretrained("{made.folder}")')
    text = f"tokenizer({made.begins + '...'!r}, return_tensors='pt')"
    if made.is_scorer:
        lines.append(f"logits = model(**{text}).logits")
        lines.append(f"score = (logits - {made.shift!r}) / {made.scale!r}")
    else:
        if made.is_chat:
            text = (
                "tokenizer.apply_chat_template([{'role': 'user', 'content': '...'}], "
                "add_generation_prompt=True, return_tensors='pt')"
            )
        lines.append(f"inputs = {text}")
        lines.append("tokens = model.generate(**inputs, max_new_tokens=64)")
        lines.append("print(tokenizer.decode(tokens[0]))")
    return "".join(f"{line}\n" for line in lines)


def _is_on_the_hub(source: str) -> bool:
    """Whether ``source`` is a hub id: its config was downloaded from there."""
    is_name = source.count("/") == 1 and not Path(source).exists()
    return is_name and isinstance(try_to_load_from_cache(source, "config.json"), str)


def _evaluated(seen: Mapping[str, Any]) -> str:
    if not seen:
        return ""
    reward = f"{seen['reward']:.4g} ± {seen['reward_se']:.2g}"
    kl = f"{seen['kl']:.4g} ± {seen['kl_se']:.2g}"
    named = f" by `{seen['reward_class']}`" if "reward_class" in seen else ""
    return (
        f"After step {seen['step']:,}, the reward{named} was {reward} and the KL divergence from "
        f"the reference {kl} nats per completion ({seen['samples']:,} completions of "
        f"{seen['prompts']:,} prompts; ± is one standard error, clustered by prompt).\n\n"
    )


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
