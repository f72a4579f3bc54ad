"""The rewards behind the short forms: a function, a scorer of any kind, a weighted sum."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignlab.errors import ConfigError, in_a_line
from alignlab.results.run_folder import MODEL
from alignlab.rewards.base import Reward, checked_rewards


class FunctionReward(Reward):
    """A function of your own, or a class whose objects can be called, in a Python file.

    The function gets two lists of N texts, prompts and completions, and returns N finite numbers:
    a list, an array or a tensor. The same texts must have the same score in every call.

    Args:
        file: Path of the file. What it imports is looked for in the folder that ``alignlab`` is
            called in, and among the installed packages.
        name: Of the function, or of a class that needs no arguments.

    Raises:
        ConfigError: No such file, an error in it, or no such function.
    """

    def __init__(self, file: str, name: str) -> None:
        self.place = f"{file}:{name}"
        if not Path(file).is_file():
            raise ConfigError(f"reward {self.place}: there is no file {file}. Check the path.")
        spec = importlib.util.spec_from_file_location(f"reward_{Path(file).stem}", file)
        assert spec is not None
        assert spec.loader is not None  # its name ends in .py
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            found = getattr(module, name, None)
            self.function: Any = found() if isinstance(found, type) else found
        except Exception as problem:  # whatever the user's code raises
            raise ConfigError(f"reward {self.place} cannot be read: {_told(problem)}") from problem
        if not callable(self.function):
            raise ConfigError(
                f"reward {self.place}: {file} has no function {name!r}. Define it: "
                f"def {name}(prompts, completions), which returns a number for each completion."
            )

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float64 scores.

        Raises:
            ConfigError: The function failed, or returned something else than N numbers.
        """
        try:
            scores = self.function(prompts, completions)
        except Exception as problem:
            raise ConfigError(
                f"reward {self.place} failed on {len(completions)} completions: {_told(problem)}"
            ) from problem
        try:
            numbers = torch.as_tensor(scores, dtype=torch.float64).detach().cpu()
        except (TypeError, ValueError, RuntimeError):
            numbers = None
        if numbers is None or numbers.shape != (len(completions),):
            raise ConfigError(
                f"reward {self.place} returned {_shown(scores)} for {len(completions)} "
                "completions. Return one number for each, in their order."
            )
        return numbers


class WeightedSum(Reward):
    """The sum of several rewards, each times its weight.

    Args:
        rewards: What is summed.
        weights: One for each; a negative one makes a penalty.

    Raises:
        ConfigError: The numbers of weights and rewards differ.
    """

    def __init__(self, rewards: list[Reward], weights: list[float]) -> None:
        if len(rewards) != len(weights) or not rewards:
            raise ConfigError(
                f"WeightedSum needs a weight for each reward; got {len(weights)} weights for "
                f"{len(rewards)} rewards."
            )
        self.rewards, self.weights = rewards, weights

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float64 sums.

        Raises:
            DataError: The scores of one of them are not N finite numbers.
        """
        total = torch.zeros(len(completions), dtype=torch.float64)
        for weight, reward in zip(self.weights, self.rewards, strict=True):
            total += weight * checked_rewards(reward, prompts, completions)
        return total


class Scorer(Reward):
    """A trained scorer of any kind, recognised from its folder.

    Args:
        path: A reward model (one output), a classifier with the classes POSITIVE and NEGATIVE, a
            linear scorer of n-grams, or the folder of a run of ``alignlab fit`` that trained one;
            or a hub id.

    Attributes:
        kind: The reward that the model is.

    Raises:
        ConfigError: Nothing at ``path``, or the model is not a scorer.
    """

    def __init__(self, path: str) -> None:
        from alignlab.models.adapters import is_adapter
        from alignlab.models.loading import outputs_of
        from alignlab.rewards.classifier import ClassifierReward
        from alignlab.rewards.model import ModelReward
        from alignlab.rewards.sentiment import SentimentReward

        own = Path(path) / MODEL
        path = str(own) if (own / "config.json").is_file() or is_adapter(str(own)) else path
        config = Path(path) / "config.json"
        known = json.loads(config.read_text("utf-8")) if config.is_file() else {}
        if known.get("class") == "NgramScorer":
            self.kind: Reward = SentimentReward(path)
        elif outputs_of(path) == 1:
            self.kind = ModelReward(path)
        else:
            self.kind = ClassifierReward(path)

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` scores."""
        return self.kind(prompts, completions)


def _told(problem: Exception) -> str:
    """The error with the line of the file that raised it."""
    last = problem.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    file = Path(last.tb_frame.f_code.co_filename).name if last else ""
    line = f"line {last.tb_lineno} of {file}: " if last else ""
    return f"{line}{type(problem).__name__}: {in_a_line(problem)}."


def _shown(scores: Any) -> str:
    size = f"{len(scores)} values" if hasattr(scores, "__len__") else repr(scores)[:40]
    return f"a {type(scores).__name__} ({size})"
