"""The stage that averages the weights of reward models (WARM)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alignlab.errors import ConfigError
from alignlab.models import ScoreModel
from alignlab.models.adapters import is_adapter
from alignlab.models.limits import other_id
from alignlab.rewards.model import check_trained_scorer

# Keys that do not change what a model computes. The shift and the scale have their own message.
BESIDE = ("_name_or_path", "transformers_version", "dtype", "score_shift", "score_scale")


def average_reward_models(*, out: str | Path, models: Sequence[str]) -> None:
    """Stage: a reward model whose every weight is the mean of those of several reward models.

    It scores with one forward, an ensemble needs one per member (WARM: Ramé et al. 2024,
    arXiv:2401.12187). The models must have been trained from one base, with different seeds, data
    or learning rates: the mean of unrelated weights scores at random, and the folders do not show
    whether weights are related. The result has weights in float32.

    Args:
        out: Folder to write.
        models: Folders or hub ids of two or more trained reward models.

    Raises:
        ConfigError: Fewer than two, one that is not a reward model or has adapters, or two that
            differ in architecture, tokenizer or scale of their scores.
    """
    if isinstance(models, str) or len(models) < 2:
        raise ConfigError(f"an average needs the folders of two or more models, got {models!r}.")
    for path in models:
        if is_adapter(path):
            raise ConfigError(
                f"{path} has adapters: the mean of two products is not the product of their means. "
                "Merge them into the weights first: alignlab export RUN --merge."
            )
        check_trained_scorer(path)
    members = [ScoreModel.load_for_eval(path, "cpu", layout="flat") for path in models]
    for path, member in zip(models[1:], members[1:], strict=True):
        if odd := _difference(members[0], member):
            raise ConfigError(
                f"{models[0]} and {path} cannot be averaged: {odd}. Average models that were "
                "trained from one base, on one scale."
            )
    weights = [member.model.state_dict() for member in members]
    mean = {  # float64, so that equal weights stay what they are
        name: torch.stack([own[name].double() for own in weights]).mean(0).to(value.dtype)
        for name, value in weights[0].items()
    }
    members[0].model.load_state_dict(mean)
    members[0].save(out)


def _difference(one: ScoreModel, other: ScoreModel) -> str | None:
    """The first difference because of which two scorers cannot be averaged, as a phrase.

    A config describes the whole architecture, numbers that change no shape included.
    """
    known, theirs = (_config(each) for each in (one, other))
    for key in sorted(known.keys() | theirs.keys()):
        if known.get(key) != theirs.get(key):
            return f"their configs have {key} {known.get(key)} and {theirs.get(key)}"
    if odd := other_id(one.tokenizer, other.tokenizer) or other_id(other.tokenizer, one.tokenizer):
        return f"their tokenizers differ: {odd}"
    if one.tokenizer.chat_template != other.tokenizer.chat_template:
        return "their tokenizers have different chat templates"
    for name in ("shift", "scale"):
        if getattr(one, name) != getattr(other, name):
            return f"score_{name} is {getattr(one, name):g} and {getattr(other, name):g}"
    return None


def _config(scorer: ScoreModel) -> dict[str, Any]:
    return {key: v for key, v in scorer.model.config.to_dict().items() if key not in BESIDE}
