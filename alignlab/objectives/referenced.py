"""The step shared by pair objectives that compare the policy with a fixed reference."""

from itertools import chain
from pathlib import Path
from typing import Literal

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
)
from alignlab.objectives.pairs import PairObjective
from alignlab.objectives.schedule import Schedule

ReferenceKind = Literal["auto", "frozen", "adapter_off", "cached"]


def make_reference(policy: Policy, kind: ReferenceKind) -> AdapterOffReference | FrozenReference:
    """The reference that can be had at once: the policy's own start."""
    has_adapter = hasattr(policy.model, "disable_adapter")
    if kind == "adapter_off" or (kind == "auto" and has_adapter):
        return AdapterOffReference(policy)
    return FrozenReference(policy)


class ReferencedPairObjective(PairObjective):
    """Pairs, a policy, and the reference that the policy started from.

    Args:
        policy: The language model to train; as it is now, it is also the reference.
        optimizer: Builds the optimizer.
        reference: See ``DPO``.
        reference_cache: Folder of cached log-probs, for ``cached``.
        schedule: Factor on the learning rate.

    Raises:
        ConfigError: ``cached`` without a folder.
    """

    reference: Reference

    def __init__(
        self,
        policy: Policy,
        optimizer: OptimizerCallable,
        reference: ReferenceKind,
        reference_cache: str | None,
        schedule: Schedule | None,
    ) -> None:
        super().__init__(policy, optimizer, schedule)
        if reference == "cached" and reference_cache is None:
            raise ConfigError("reference cached needs a folder: model.init_args.reference_cache.")
        self.reference_cache = reference_cache
        self.reference = make_reference(policy, reference)
        self.cached = reference == "cached"

    def setup(self, stage: str) -> None:
        """Replace the frozen copy by its log-probs of the whole data set, if asked to."""
        if self.cached and isinstance(self.reference, FrozenReference):
            assert self.reference_cache is not None
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            self.reference = CachedReference(
                self.reference.policy,
                chain(data.train_trees, data.validation_trees),
                Path(self.reference_cache),
            )

    def reference_logps(self, trees: PromptTrees) -> Tensor:
        """``[M]`` summed log-probs of the completions under the reference."""
        return self.reference.token_logps(trees).sum(1)
