"""``alignlab export``: the model of a run as a Hugging Face folder that works without alignlab.

The folder holds weights (safetensors), tokenizer with its chat template, generation config and a
model card. It is loaded again by transformers and peft alone, and is kept only if its log-probs, or
scores, are the run's. No pickle is loaded, and code that comes with a model is not run.
"""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jsonargparse import ArgumentParser
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
)

from alignlab.callbacks import checkpoints
from alignlab.callbacks.resume import state_in
from alignlab.errors import ConfigError, in_a_line
from alignlab.files import atomic_write, check_writable, seal
from alignlab.functional import beyond_rounding
from alignlab.models import Policy, ScoreModel
from alignlab.models.adapters import BASE, CONFIG, RECORD, START, VALUE, is_adapter
from alignlab.models.backbone import probe_trees
from alignlab.models.loading import is_scorer, load_model
from alignlab.models.modes import reading
from alignlab.models.precise import make_precise
from alignlab.models.quantised import library_settings, settle_compute
from alignlab.results.model_card import CARD, Exported, Run, card, read_run
from alignlab.training.identity import check_same, identity_of

Model = Policy | ScoreModel
TOLERANCE = 1e-6  # nats a token, or units of a score, in float64
EXACT = 2_000_000_000  # the most weights that are compared in float64, which takes 8 bytes each


def export(folder: Path, *, merge: bool, ckpt: Path | None, out: Path | None) -> int:
    """Write a Hugging Face folder and print what was checked; returns the exit status.

    Args:
        folder: Of a run of ``alignlab fit``, or of a job of a stage that ``alignlab run`` trains.
        merge: Add adapters into the weights that they stand on.
        ckpt: Checkpoint whose weights to export; those of the finished run when left out.
        out: Folder to write; ``export`` in the run's folder when left out.

    Raises:
        ConfigError: No run or no such checkpoint there, a folder that is not empty, or a model that
            cannot be loaded or does not give the run's log-probs.
        DataError: A file is not what the run wrote.
    """
    run = read_run(folder)
    out = out or run.path / "export"
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ConfigError(f"{out} is not empty. Delete it, or name another folder with --out.")
    check_writable(out, "--out ")
    try:
        said = _write(run, out, merge=merge, ckpt=ckpt)
    except BaseException:
        shutil.rmtree(out)
        raise
    print("\n".join(said))
    return 0


def _write(run: Run, out: Path, *, merge: bool, ckpt: Path | None) -> list[str]:
    """Write, check and seal all files; returns what to print."""
    model, step = (_finished(run), None) if ckpt is None else _at(run, ckpt)
    if merge and not hasattr(model.model, "peft_config"):
        raise ConfigError(f"{run.path} has whole weights and no adapters. Leave out --merge.")
    if merge and model.virtual_tokens:
        raise ConfigError(f"{run.path}: virtual tokens cannot be merged. Leave out --merge.")
    with TemporaryDirectory(dir=out.parent, prefix=".export") as temporary:
        source = run.model if ckpt is None else Path(temporary)
        if not merge:
            model.save(out)
            _bring_base(source, out)
        elif ckpt is not None:
            model.save(source)
        check = Check(model, run.dtype)
        del model
        said = _merge(check, source, out) if merge else []
    check.tokenizer.save_pretrained(out)
    said.append(check.read_again(out))
    page = card(run, check.found(out, step, " ".join(said)))
    atomic_write(out / CARD, page.encode())
    seal(out)
    at = "" if step is None else f", step {step:,}"
    return [f"Exported {run.path}{at}. Model: {out}", *said]


def _finished(run: Run) -> Model:
    """The model that the finished run saved.

    Raises:
        ConfigError: The run has not finished, or its model cannot be loaded.
    """
    if not run.finished:
        raise ConfigError(
            f"{run.path} has no finished model. Continue the run, or export a checkpoint of it, "
            f"such as --ckpt {run.logs / checkpoints.LAST}."
        )
    if not any(run.model.glob("*.safetensors")):
        raise ConfigError(
            f"{run.model} has no weights in safetensors. Pickled ones could run code, so no others "
            "are loaded."
        )
    settings: dict[str, Any] = {"dtype": run.dtype, "dropout": None, "layout": "flat"}
    if is_scorer(str(run.model)):
        outputs = dict(run.trained.get("init_args", run.trained)).get("outputs", 1)
        return ScoreModel.load(run.model, outputs=outputs, **settings)
    return Policy.load(run.model, **settings)


def _at(run: Run, ckpt: Path) -> tuple[Model, int]:
    """The trained model with the weights of a checkpoint, and the checkpoint's step.

    The model is made as the run made it, because a checkpoint holds only weights that are trained.

    Raises:
        ConfigError: It is no checkpoint, is damaged, or is of another run.
    """
    checkpoints.refuse_shards(ckpt)
    if not checkpoints.is_whole(ckpt):
        raise ConfigError(f"--ckpt {ckpt}: no checkpoint there, or a damaged one. Check the path.")
    content = checkpoints.read(ckpt)
    if run.path.resolve() not in ckpt.resolve().parents:
        check_same(state_in(content).get("identity", {}), identity_of(run.config), ckpt)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments((Policy, ScoreModel), "trained")
    model: Model = parser.instantiate_classes(parser.parse_object({"trained": run.trained})).trained
    own = "model." if isinstance(model, ScoreModel) else "policy."  # its name in an objective
    saved = content["state_dict"].items()
    state = {name.removeprefix(own): weight for name, weight in saved if name.startswith(own)}
    # Adapters for values, and a copy of those that training began with, are not the policy's own.
    state = {name: w for name, w in state.items() if not {VALUE, START} & {*name.split(".")}}
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    try:
        unknown = model.load_state_dict(state, strict=False).unexpected_keys
    except RuntimeError:  # weights of another shape
        unknown = [""]
    if unknown or trained - state.keys():
        raise ConfigError(f"--ckpt {ckpt}: holds weights of another model than {run.path} trains.")
    return model, content["global_step"]


def _bring_base(source: Path, out: Path) -> None:
    """Copy the base model of adapters if it is in no folder but the run's, and name the copy."""
    path, base = out / CONFIG, out / BASE
    if path.exists() and _base(out) == str((source / BASE).resolve()):
        shutil.copytree(source / BASE, base)
        settings = json.loads(path.read_text("utf-8"))
        settings["base_model_name_or_path"] = str(base.resolve())
        atomic_write(path, (json.dumps(settings, indent=2) + "\n").encode())


def _base(folder: Path) -> str:
    """Folder or hub id of the model that the adapters in ``folder`` stand on."""
    return str(json.loads((folder / CONFIG).read_text("utf-8"))["base_model_name_or_path"])


def _adds_tokens(folder: Path) -> bool:
    """Whether the adapters in ``folder`` have rows of tokens that their base lacks."""
    path = folder / RECORD
    return path.exists() and bool(json.loads(path.read_text("utf-8"))["tokens"])


def _merge(check: "Check", source: Path, out: Path) -> list[str]:
    """Write the model with the adapters in ``source`` added to its weights; returns what to print.

    Raises:
        ConfigError: The adapters cannot be merged, or merging changes what the model computes.
    """
    merged = load_model(
        check.auto_class, str(source), dtype=check.wide, dropout=None, merge=True, **check.config
    )
    found = check.read(merged)
    gap = check.gap(found, "merging the adapters changes the model:")
    if (source / "generation_config.json").exists():  # tokens that end a completion may be added
        merged.generation_config = GenerationConfig.from_pretrained(source)
    for weight in merged.parameters():  # nothing else is rounded: not the rotary frequencies
        weight.data = weight.data.to(check.dtype)
    merged.save_pretrained(out)
    check.wanted = check.read(merged)
    moved = float((check.wanted - found).abs().max())
    return [
        f"Merging the adapters changes {check.unit} by at most {gap:.0e}, and rounding the merged "
        f"weights to {_name(check.dtype)} by {moved:.0e}."
    ]


class Check:
    """The run's log-probs or scores on random rows, which the exported folder must reproduce.

    Both are computed in float64 from the weights as they are stored. Those of a model of more than
    ``EXACT`` weights, or with weights in 4 bits, are computed in their own precision, and may
    differ by its rounding.

    Args:
        model: The run's model. Its precision is changed, so it has to be saved before.
        dtype: Name of its weights' precision.

    Attributes:
        wanted: ``[N]`` log-probs of the rows' completion tokens in nats, or scores.
    """

    def __init__(self, model: Model, dtype: str) -> None:
        whole = getattr(model.model, "get_base_model", lambda: model.model)()
        self.architecture, self.tokenizer = type(whole).__name__, model.tokenizer
        self.dtype: torch.dtype = getattr(torch, dtype)
        how = getattr(whole, "quantised", None)
        self.quantised = None if how is None else library_settings(how, dtype)
        few = sum(weight.numel() for weight in model.parameters()) <= EXACT
        self.exact = few and how is None  # 4 bits are not computed with in float64
        self.wide: Any = "float64" if self.exact else dtype
        self.trees = probe_trees(whole.config, model.virtual_tokens)
        self.auto_class: Any = AutoModelForCausalLM
        self.config: dict[str, Any] = {}  # what a loader has to be given
        self.unit, self.shift, self.scale = "log-probs", 0.0, 1.0
        self._widen(model)
        with reading(model):
            if isinstance(model, ScoreModel):
                self.auto_class = AutoModelForSequenceClassification
                self.config = {"num_labels": model.outputs}
                self.unit, self.shift, self.scale = "scores", model.shift, model.scale
                ids, pad = self.trees.completion_ids, whole.config.pad_token_id
                if pad is not None:  # transformers reads the last token that is not padding
                    ids.masked_fill_(ids == pad, 1 if pad == 0 else 0)
                self.wanted = model.scores(self.trees).flatten()
            else:
                model.head_dtype = torch.float64 if self.exact else model.head_dtype
                self.wanted = model(self.trees).token_logps[self.trees.loss_mask]

    def _widen(self, model: Any) -> None:
        if self.exact:
            make_precise(model.double())

    def read(self, model: Any) -> Tensor:
        """``[N]`` what transformers computes with ``model``, one row at a time."""
        self._widen(model)
        found, trees = [], self.trees
        with reading(model):
            for m, p in enumerate(trees.group.tolist()):
                ids = trees.completion_ids[m, : int(trees.completion_lengths[m])]
                prompt = trees.prompt_ids[p, : int(trees.prompt_lengths[p])]
                logits = model(torch.cat([prompt, ids])[None]).logits[0].to(self.wanted.dtype)
                if self.unit == "scores":
                    found.append((logits - self.shift) / self.scale)
                else:
                    logps = logits[-len(ids) - 1 : -1].log_softmax(-1)
                    found.append(logps.gather(-1, ids[:, None])[:, 0])
        return torch.cat(found)

    def gap(self, found: Tensor, what: str) -> float:
        """The largest difference between ``found`` and what is wanted.

        Raises:
            ConfigError: It is more than the precision explains; the message begins with ``what``.
        """
        gap = float((found - self.wanted).abs().max())
        rounded = not self.exact and beyond_rounding(found, self.wanted, self.dtype) is None
        if not (gap <= TOLERANCE or rounded):
            raise ConfigError(f"{what} {self.unit} differ by {gap:.1e}. Nothing was exported.")
        return gap

    def read_again(self, out: Path) -> str:
        """Load ``out`` as somebody without alignlab would, and compare; returns what to print.

        Raises:
            ConfigError: It cannot be loaded, gives other numbers, or has another tokenizer.
        """
        given = {"dtype": self.dtype, "trust_remote_code": False, **self.config}
        adapted = is_adapter(str(out))
        if adapted and self.quantised is not None:
            given["quantization_config"] = BitsAndBytesConfig(**self.quantised)
        try:
            model = self.auto_class.from_pretrained(_base(out) if adapted else out, **given)
            settle_compute(model)
            if adapted:
                from peft import PeftModel  # seconds to import

                if _adds_tokens(out):  # the adapters have their rows
                    model.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
                model = PeftModel.from_pretrained(model, out)
            tokenizer = AutoTokenizer.from_pretrained(out, trust_remote_code=False)
        except (OSError, ValueError, RuntimeError, SafetensorError) as problem:
            raise ConfigError(f"{out} cannot be loaded again: {in_a_line(problem)}.") from problem
        gap = self.gap(self.read(model), "what was exported is not what the run trained:")
        for name in ("chat_template", "eos_token", "pad_token"):
            if getattr(tokenizer, name) != getattr(self.tokenizer, name):
                raise ConfigError(f"{out} has another {name} than the run. Nothing was exported.")
        by = "transformers and peft" if adapted else "transformers"
        return f"Loaded again by {by} alone, {self.unit} are the run's to {gap:.0e}."

    def found(self, out: Path, step: int | None, said: str) -> Exported:
        """The facts about the folder for its model card."""
        return Exported(
            folder=out.name,
            step=step,
            architecture=self.architecture,
            auto_class=self.auto_class.__name__,
            base=_base(out) if is_adapter(str(out)) else None,
            quantised=self.quantised if is_adapter(str(out)) else None,
            adds_tokens=_adds_tokens(out),
            dtype=_name(self.dtype),
            outputs=self.config.get("num_labels", 1),
            is_chat=self.tokenizer.chat_template is not None,
            begins=_begins(self.tokenizer),
            shift=self.shift,
            scale=self.scale,
            said=said,
        )


def _begins(tokenizer: Any) -> str:
    """The beginning-of-text token, if rows begin with it and the tokenizer does not add it."""
    own = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    return "" if own else tokenizer.bos_token or ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
