"""Eval mode for forwards outside training: one context manager for all of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def reading(*models: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; afterwards each module's mode is restored.

    In train mode dropout is active, and gradient checkpointing silently drops a sampler's cache.
    """
    training = [module for model in models for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
