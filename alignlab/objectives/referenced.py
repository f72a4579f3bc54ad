"""The step shared by pair objectives that compare the policy with a fixed reference."""

from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError
from alignlab.models import (
    AdapterOffReference,
    CachedReference,
    FrozenReference,
    Policy,
    Reference,
    Scores,
    StartReference,
)
from alignlab.models.adapters import are_all_that_trains, change_nothing
from alignlab.objectives.base import flip_rate, positive
from alignlab.objectives.pairs import PairObjective, both
from alignlab.objectives.schedule import Schedule

FourLogps = tuple[Tensor, Tensor, Tensor, Tensor]
ReferenceKind = Literal["auto", "frozen", "adapter_off", "cached"]
LiveReference = Literal["auto", "frozen", "adapter_off"]  # cached log-probs know no new samples


def make_reference(policy: Policy, kind: ReferenceKind) -> Reference:
    """The policy as it is now, in the cheapest way that ``kind`` allows.

    Raises:
        ConfigError: ``adapter_off`` would be another model.
    """
    model = policy.model
    adapted = hasattr(model, "disable_adapter")
    if kind in ("frozen", "cached") or (kind == "auto" and not adapted):
        return FrozenReference(policy)
    if not adapted or change_nothing(model):
        return AdapterOffReference(policy)
    if kind == "adapter_off":
        raise ConfigError(
            "reference adapter_off would be the model without the adapters that the policy starts "
            "with, and not the policy at its start. Set model.init_args.reference to auto, which "
            "keeps a copy of them."
        )
    return StartReference(policy) if are_all_that_trains(model) else FrozenReference(policy)


class ReferencedPairObjective(PairObjective):
    """Pairs, a policy, and the reference that the policy started from.

    Args:
        policy: The language model to train; as it is now, it is also the reference.
        optimizer: Builds the optimizer.
        beta: Strength of the KL constraint, > 0: an implicit reward is ``beta`` times a log-ratio
            of policy to reference.
        reference: ``frozen`` copy, ``adapter_off`` (needs new LoRA), ``cached`` log-probs on disk,
            or ``auto``: no second model where only adapters are trained, else a frozen copy.
        reference_cache: Folder of cached log-probs, for ``cached``.
        schedule: Factor on the learning rate.

    Raises:
        ConfigError: ``beta`` not above 0, or ``cached`` without a folder.
    """

    reference: Reference

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        self.beta = positive(self, "beta", beta)
        if reference == "cached" and reference_cache is None:
            raise ConfigError("reference cached needs a folder: model.init_args.reference_cache.")
        self.reference_cache = reference_cache
        self.reference = make_reference(policy, reference)
        self.cached = reference == "cached"

    def setup(self, stage: str) -> None:
        """Replace the frozen copy by its log-probs of the whole data set, if asked to.

        They are computed as a training step would: on its device, in its precision and, where that
        is coarser than float32, in the batches of the first epoch.
        """
        if self.cached and isinstance(self.reference, FrozenReference):
            assert self.reference_cache is not None
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            policy = self.reference.policy.to(self.trainer.strategy.root_device)
            with self.own_precision():
                coarse = torch.finfo(policy.precision).eps > torch.finfo(torch.float32).eps
                self.reference = CachedReference(
                    policy,
                    chain(data.train_trees, data.validation_trees),
                    Path(self.reference_cache),
                    first=list(data.train_dataloader()) if coarse else (),
                )

    def four_logps(self, trees: PromptTrees, scores: Scores) -> FourLogps:
        """Summed log-probs ``[B]``: chosen, rejected of the policy, then of the reference."""
        return *both(scores.logps), *both(self.reference.token_logps(trees).sum(1))


class NoisyPairObjective(ReferencedPairObjective):
    """Pairs of which a share may be labelled the wrong way round.

    Args:
        policy: See ``ReferencedPairObjective``.
        optimizer: See there.
        beta: See there.
        label_smoothing: Assumed share of flipped labels, in [0, 0.5).
        reference: See there.
        reference_cache: See there.
        schedule: See there.

    Raises:
        ConfigError: ``label_smoothing`` out of range.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        reference: ReferenceKind = "auto",
        reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(policy, optimizer, beta, reference, reference_cache, schedule)
        self.label_smoothing = flip_rate(self, "label_smoothing", label_smoothing)
