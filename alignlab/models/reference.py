"""The reference: the frozen language model that a policy is regularised to, in four ways.

A frozen copy costs the memory of a second model. New adapters that are switched off cost nothing, a
frozen copy of trained adapters hardly anything. Cached log-probs cost one pass over the data.
"""

import copy
import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alignlab.clock import CLOCK
from alignlab.data.trees import PromptTree, PromptTrees, collate, in_length_order
from alignlab.errors import ConfigError
from alignlab.files import alone, belongs, check_writable, stamp, write_record, written_whole
from alignlab.functional import beyond_rounding
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.adapters import (
    START,
    are_all_that_trains,
    change_nothing,
    keep_start,
    switched_to,
)
from alignlab.models.loading import freeze
from alignlab.models.modes import reading
from alignlab.models.policy import PLAIN, Policy

log = logging.getLogger(__name__)
ReferenceKind = Literal["auto", "frozen", "adapter_off", "cached"]
LiveReference = Literal["auto", "frozen", "adapter_off"]  # new samples have no cached log-probs


class Reference(Protocol):
    """Gives token log-probs ``[M, T]`` of completions, without gradients."""

    def token_logps(self, trees: PromptTrees, spec: SamplingSpec = PLAIN) -> Tensor:
        """Log-probs in nats, 0 outside the loss mask."""
        ...


class FrozenReference(nn.Module):
    """A copy of the policy as it is now (or of the model at ``source``), never trained.

    Args:
        policy: Copied when no ``source`` is given.
        source: Folder or hub id of another reference with the same tokenizer.
    """

    def __init__(self, policy: Policy, source: str | None = None) -> None:
        super().__init__()
        model = copy.deepcopy(policy) if source is None else Policy.load(source)
        self.policy: Policy = model
        freeze(model)

    @CLOCK.part("reference")
    def token_logps(self, trees: PromptTrees, spec: SamplingSpec = PLAIN) -> Tensor:
        """See ``Reference``."""
        with reading(self.policy):
            logps: Tensor = self.policy(trees, spec=spec).token_logps
        return logps


class AdapterOffReference(nn.Module):
    """The policy's own frozen weights, with its low-rank adapters switched off.

    Args:
        policy: A policy with LoRA; not owned, so that its weights are saved once.

    Raises:
        ConfigError: The policy has no adapters: reference and policy would be the same model.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        if not hasattr(policy.model, "disable_adapter"):
            raise ConfigError("reference adapter_off needs a policy with lora; use frozen instead.")
        self._policy = [policy]  # in a list, so that it is not registered as a submodule

    @CLOCK.part("reference")
    def token_logps(self, trees: PromptTrees, spec: SamplingSpec = PLAIN) -> Tensor:
        """See ``Reference``."""
        policy = self._policy[0]
        with reading(policy), switched_to(policy.model, None):
            return policy(trees, spec=spec).token_logps


class StartReference:
    """The policy's own frozen weights, under a frozen copy of its adapters as they are now.

    Args:
        policy: A policy of which only adapters are trained; the copy is put beside them, in the
            policy's model, and is not saved with it.
    """

    def __init__(self, policy: Policy) -> None:
        keep_start(policy.model)
        self.policy = policy

    @CLOCK.part("reference")
    def token_logps(self, trees: PromptTrees, spec: SamplingSpec = PLAIN) -> Tensor:
        """See ``Reference``."""
        with reading(self.policy), switched_to(self.policy.model, START):
            return self.policy(trees, spec=spec).token_logps


class CachedReference(nn.Module):
    """Log-probs of a whole data set, computed once and kept on disk.

    They are computed on the reference's device in the current precision, which should be that of
    the training step: the caller sets autocast. The file's name is a hash of the reference's
    weights, the precision and the tokenised data, so a changed model, tokenizer or data set gets a
    new file. Eight trees are recomputed at load, as a check.

    Args:
        reference: Computes the log-probs; may be dropped from memory afterwards.
        trees: The data set, training and validation together.
        folder: Where the file is kept; shared by all runs of the same data.
        batch_size: Completions per forward while filling the cache.
        first: The batches of these trees in the first epoch. They are computed unchanged, because
            in bfloat16 a log-prob depends on the rest of its batch; so a policy that has not moved
            has log-ratios of exactly 0 in them. They are part of the hash.
    """

    table: Tensor
    offset: Tensor

    def __init__(
        self,
        reference: Policy,
        trees: Sequence[PromptTree],
        folder: Path,
        batch_size: int = 128,
        first: Sequence[PromptTrees] = (),
    ) -> None:
        super().__init__()
        rows = in_order(trees)
        check_writable(folder, "model.init_args.reference_cache ")
        path = folder / f"{fingerprint(reference, rows, first)}.safetensors"
        with alone(path.with_suffix(".lock")):
            known = path.with_suffix(".json")
            if path.exists() and not belongs(known, path.name):
                log.warning("%s is damaged; its log-probs are computed again", path)
                path.unlink()
            if not path.exists():
                log.info("computing reference log-probs of %d trees", len(rows))
                with reading(reference):
                    _write_cache(reference, rows, path, _batches(rows, first, batch_size))
                write_record(known, {"files": {path.name: stamp(path)}})
        saved = load_file(path)
        self.register_buffer("table", saved["logps"], persistent=False)
        self.register_buffer("offset", saved["offset"], persistent=False)
        self._verify(reference, rows[:: max(1, len(rows) // 8)][:8])

    def token_logps(self, trees: PromptTrees, spec: SamplingSpec = PLAIN) -> Tensor:
        """See ``Reference``; looks the trees up by their index.

        Raises:
            ConfigError: A ``spec`` other than the model's own distribution.
        """
        if not spec.plain:
            raise ConfigError(
                "cached reference log-probs are those of the model's own distribution"
            )
        out = torch.zeros(trees.loss_mask.shape, dtype=self.table.dtype, device=self.table.device)
        begin = self.offset[trees.index[trees.group]]
        first = torch.ones_like(trees.group, dtype=torch.bool)
        first[1:] = trees.group[1:] != trees.group[:-1]
        counts = trees.loss_mask.sum(1)
        before = counts.cumsum(0) - counts  # tokens of the batch before completion m
        start_of_tree = before[first][trees.group]
        where = begin + before - start_of_tree
        within = trees.loss_mask.cumsum(1) - 1
        cells = (where[:, None] + within)[trees.loss_mask]
        return out.masked_scatter(trees.loss_mask, self.table[cells])

    def _verify(self, reference: Policy, rows: Sequence[PromptTree]) -> None:
        batch = collate(rows).to(reference.device)
        with reading(reference):
            fresh = reference(batch).token_logps
        cached = self.token_logps(batch.to(self.table.device)).to(fresh)
        mask = batch.loss_mask
        error = beyond_rounding(fresh[mask], cached[mask], reference.precision)
        if error is not None:
            raise ConfigError(
                f"cached reference log-probs are off by {error:.1e} nats a token; delete the cache."
            )


class UncachedReference(FrozenReference):
    """A frozen copy; a cache of its log-probs replaces it once the data set is known.

    Args:
        policy: Copied.
        folder: Where the log-probs are kept.
    """

    def __init__(self, policy: Policy, folder: Path) -> None:
        super().__init__(policy)
        self.folder = folder

    def cached(
        self,
        trees: Sequence[PromptTree],
        first_epoch: Callable[[], Iterable[PromptTrees]],
        device: torch.device,
    ) -> CachedReference:
        """The log-probs of ``trees``, computed on ``device`` in the current precision.

        If it is coarser than float32, trees of the first epoch are computed in its batches.
        """
        policy = self.policy.to(device)
        coarse = torch.finfo(policy.precision).eps > torch.finfo(torch.float32).eps
        first = list(first_epoch()) if coarse else ()
        return CachedReference(policy, trees, self.folder, first=first)


def make_reference(policy: Policy, kind: ReferenceKind, cache: str | None = None) -> Reference:
    """A reference equal to the policy as it is now, kept in the cheapest way that ``kind`` allows.

    Args:
        policy: A policy that has not been trained yet.
        kind: ``frozen`` copy, ``adapter_off`` (needs new LoRA), ``cached`` log-probs on disk, or
            ``auto``: no second model where only adapters are trained, else a frozen copy.
        cache: Folder of cached log-probs, for ``cached``.

    Raises:
        ConfigError: ``adapter_off`` would be another model, or ``cached`` without a folder.
    """
    model = policy.model
    adapted = hasattr(model, "disable_adapter")
    if kind == "cached":
        if not cache:
            raise ConfigError("reference cached needs a folder: model.init_args.reference_cache.")
        return UncachedReference(policy, Path(cache))
    if kind == "frozen" or (kind == "auto" and not adapted):
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


def in_order(trees: Sequence[PromptTree]) -> Sequence[PromptTree]:
    """Trees by their index; those that are in order are not copied, as they may exceed memory."""
    ordered = all(one.index < other.index for one, other in pairwise(trees))
    return trees if ordered else sorted(trees, key=lambda tree: tree.index)


def _batches(
    rows: Sequence[PromptTree], first: Sequence[PromptTrees], batch_size: int
) -> Iterator[PromptTrees]:
    """``first``, and then the rows that are in none of them, those of similar length together."""
    seen: set[int] = set()
    for batch in first:
        seen.update(batch.index.tolist())
        yield batch
    rest = [tree for tree in rows if tree.index not in seen] if seen else rows
    for _, batch in in_length_order(rest, batch_size):
        yield batch


def _write_cache(
    reference: Policy, rows: Sequence[PromptTree], path: Path, batches: Iterable[PromptTrees]
) -> None:
    """Score the batches, and write the log-probs of counted tokens in the order of ``rows``.

    ``offset`` says for a tree's index where its log-probs begin.
    """
    logps_of: dict[int, Tensor] = {}  # by the tree's index
    for batch in batches:
        logps = reference(batch.to(reference.device)).token_logps.cpu()
        for p, index in enumerate(batch.index.tolist()):
            mine = batch.group.cpu() == p
            logps_of[index] = logps[mine][batch.loss_mask.cpu()[mine]]
    offset = torch.zeros(max(logps_of, default=-1) + 1, dtype=torch.long)
    position = 0
    for tree in rows:
        offset[tree.index] = position
        position += len(logps_of[tree.index])
    saved = {"logps": torch.cat([logps_of[tree.index] for tree in rows]), "offset": offset}
    with written_whole(path) as beside:
        save_file(saved, beside)


def fingerprint(
    reference: Policy, rows: Sequence[PromptTree], first: Sequence[PromptTrees] = ()
) -> str:
    """A hash of the reference's weights, its forward's precision, the rows and their batches."""
    digest = hashlib.sha256(f"{reference.precision} {reference.head_dtype}".encode())
    for name, weight in sorted(reference.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(str(weight.dtype).encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    for tree in rows:
        digest.update(repr((tree.index, tree.prompt, tree.completions, tree.loss_masks)).encode())
    for batch in first:
        digest.update(repr(batch.index.tolist()).encode())
    return digest.hexdigest()[:32]
