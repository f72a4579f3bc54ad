"""``alignlab replay``: run a saved step again and find the first tensor that is not finite."""

import math
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from alignlab.callbacks import checkpoints
from alignlab.callbacks.non_finite import WEIGHTS, Part, examined, gradients_of, read
from alignlab.errors import ConfigError
from alignlab.models.backbone import TreeBackbone
from alignlab.results.run_folder import CONFIG
from alignlab.training.continuing import check_weights

ALONE = (  # of several processes, one runs all parts; nothing is written
    "--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto",
    "--trainer.accumulate_grad_batches=1", "--trainer.logger=false", "--trainer.callbacks=null",
    "--trainer.profiler=null", "--trainer.enable_progress_bar=false", "--probe=null",
)  # fmt: skip


def replay(path: Path, weights: Path | None = None) -> int:
    """Print loss, gradient norm and first bad tensor of each part of a saved step.

    Args:
        path: The ``.json`` file in ``non_finite/`` of a run's folder.
        weights: A checkpoint or safetensors file to use; those before the step when left out.

    Raises:
        ConfigError: The run's config or the weights are missing, or do not belong together.
        DataError: ``path`` is no saved step.
    """
    from alignlab.training import fit

    record, parts = read(path)
    config = path.parent.parent / CONFIG
    if not config.is_file():
        raise ConfigError(f"{config} is missing; it says what was trained. Put it back.")
    source = weights or path.with_suffix(WEIGHTS)
    state = _state(source, yaml.safe_load(config.read_text("utf-8"))["model"]["class_path"])
    command = fit.build(["--config", str(config), *ALONE])
    module, trainer = command.model, command.trainer
    module.trainer = trainer
    _load(module, state, source)
    device = trainer.strategy.root_device
    module.to(device)
    print(f"step {record['step']} of {record['objective']}, weights: {source}")
    total = dict[str, Tensor]()
    losses = 0.0
    for part, batch in parts:
        moved = batch.to(device)
        again = examined(module, moved, part.rank, part.number)
        gradients = _gradients(module, moved)
        for name, gradient in gradients.items():
            total[name] = total[name] + gradient if name in total else gradient
        losses += again.loss
        print("\n".join(_lines(part, again, _norm(gradients))))
    print(f"whole step: loss {losses:.6g}, gradient norm {_norm(total):.6g}")
    for name, gradient in total.items():
        if not math.isfinite(size := _norm({name: gradient})):
            print(f"  gradient of {name}: norm {size:.6g}")
    return 0


def _lines(before: Part, again: Part, norm: float) -> list[str]:
    lines = [
        f"micro-batch {again.number} of process {again.rank}, {len(again.ids)} rows: loss "
        f"{again.loss:.6g} ({before.loss:.6g} in the run), gradient norm {norm:.6g}"
    ]
    lines += [f"  {again.rows}"] if again.rows else []
    return [*lines, f"  first bad tensor: {again.bad}" if again.bad else "  all finite"]


def _gradients(module: Any, batch: Any) -> dict[str, Tensor]:
    with module.own_precision(), torch.random.fork_rng():
        loss = module.training_step(batch, 0)
    return gradients_of(loss, {n: p for n, p in module.named_parameters() if p.requires_grad})


def _norm(gradients: dict[str, Tensor]) -> float:
    return float(torch.nn.utils.get_total_norm(list(gradients.values())))


def _state(source: Path, objective: str) -> dict[str, Tensor]:
    """The weights in a checkpoint of ``objective``, or in a file that was saved with a step."""
    if not source.is_file():
        raise ConfigError(f"{source} is missing. Name other weights: --weights last.ckpt")
    if source.suffix == ".ckpt":
        content = checkpoints.read(source)
        check_weights(content, objective, source)
        state: dict[str, Tensor] = content["state_dict"]
        return state
    try:
        return load_file(source)
    except Exception as error:  # safetensors has no error of its own that it promises
        raise ConfigError(f"{source} cannot be read as safetensors: {error}.") from error


def _load(module: Any, state: dict[str, Tensor], source: Path) -> None:
    wanted = module.kept_names()
    if missing := wanted - set(state):
        raise ConfigError(
            f"{source} lacks {len(missing)} trained weights, e.g. {min(missing)}. It belongs to "
            "another model; name the right one with --weights."
        )
    module.load_state_dict(state, strict=False)
    module.checks_losses = False
    for model in module.modules():
        if isinstance(model, TreeBackbone) and any(p.requires_grad for p in model.parameters()):
            model.train()
