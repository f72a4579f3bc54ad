"""Score completions for evaluation: exact KL to a reference, and log-probs.

Everything runs in eval mode, without gradients or autocast, and in float32 (or finer) whatever
precision the policy trains in: a KL of 0.05 nat is smaller than bf16's error on a sequence.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.functional import kl_full, kl_k1
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.modes import reading
from alignlab.models.policy import Policy
from alignlab.models.quantised import computing_in_float32

MAX_CELLS = 2**24  # of a [positions, vocabulary] table held at once: 64 MiB in float32


class CompletionKL(NamedTuple):
    """KL(policy || reference) of M completions, nats per completion, float64 on the CPU.

    Attributes:
        exact: ``[M]`` sum over steps of the KL between the two next-token distributions
            (Rao-Blackwell; Amini, Vieira and Cotterell 2025, arXiv:2504.10637).
        k1: ``[M]`` sum over steps of the sampled tokens' log-ratio.
        token_logps: ``[N]`` the policy's log-probs of all sampled tokens, completion by completion.
    """

    exact: Tensor
    k1: Tensor
    token_logps: Tensor


@contextmanager
def evaluating(*policies: Policy) -> Iterator[None]:
    """Enter eval mode, no gradients, float32 weights and head; restore everything afterwards.

    Weights in 4 bits stay, and are computed with in float32.
    """
    heads = [(policy, policy.head_dtype) for policy in policies]
    tensors = [t for p in policies for t in (*p.parameters(), *p.buffers())]
    coarse = {id(t): t for t in tensors if t.dtype in (torch.bfloat16, torch.float16)}
    if any(isinstance(tensor, DTensor) for tensor in coarse.values()):
        raise ConfigError(
            "evaluation needs float32, and sharded weights in low precision cannot be converted. "
            "Evaluate under alignlab.models.sharding.gathered, as FrontierProbe does."
        )
    stored = [(tensor, tensor.data) for tensor in coarse.values()]
    device = policies[0].device.type
    try:
        for policy in policies:
            policy.head_dtype = max(policy.head_dtype, torch.float32, key=lambda d: d.itemsize)
        for tensor, data in stored:
            tensor.data = data.float()
        with ExitStack() as entered:
            for policy in policies:
                entered.enter_context(computing_in_float32(policy.model))
            entered.enter_context(reading(*policies))
            entered.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        for tensor, data in stored:
            tensor.data = data
        for policy, dtype in heads:
            policy.head_dtype = dtype


def completion_kl(
    policy: Policy,
    reference: Policy,
    trees: Sequence[PromptTree],
    *,
    spec: SamplingSpec,
    batch_size: int,
) -> CompletionKL:
    """KL of ``policy`` to ``reference`` along completions that ``policy`` sampled.

    Both are taken under ``spec``: the distributions that were sampled from.

    Args:
        policy: In eval mode (see ``evaluating``).
        reference: In eval mode, with the same vocabulary.
        trees: M completions in all.
        spec: The sampling distribution.
        batch_size: Completions in a forward.

    Raises:
        FloatingPointError: A KL is NaN.
        ConfigError: A greedy ``spec`` (a choice, not a distribution), different vocabularies, or a
            top-k or top-p under which the policy can write what the reference cannot (infinite KL).
    """
    assert not policy.training
    assert not reference.training
    if spec.greedy:
        raise ConfigError("temperature 0 is deterministic, so there is no KL. Evaluate with 1.")
    exact, k1, logps = [], [], []
    for part in _parts(trees, batch_size, check_vocabularies(policy, reference)):
        batch = collate(part).to(policy.device)
        log_p = policy.log_softmax_at(batch, spec)
        log_q = reference.log_softmax_at(batch.to(reference.device), spec).to(log_p.device)
        token = batch.completion_ids[batch.loss_mask][:, None]
        rows = batch.loss_mask.nonzero()[:, 0]
        zeros = torch.zeros(len(batch.group), dtype=torch.float64, device=log_p.device)
        exact.append(zeros.index_add(0, rows, kl_full(log_p, log_q).double()).cpu())
        drawn, ref_drawn = (table.gather(1, token)[:, 0] for table in (log_p, log_q))
        logps.append(drawn.double().cpu())
        k1.append(zeros.index_add(0, rows, kl_k1(drawn, ref_drawn).double()).cpu())
    kl = CompletionKL(torch.cat(exact), torch.cat(k1), torch.cat(logps))
    if bool(torch.isnan(kl.exact).any()):
        raise FloatingPointError(
            "KL to the reference is not a number: the weights of the policy or of the reference "
            "have diverged. Lower the learning rate, or take an earlier checkpoint."
        )
    if not bool(torch.isfinite(kl.exact).all()):
        raise ConfigError(
            "KL to the reference is infinite: with this top_k or top_p the policy samples tokens "
            "that the reference cannot. Evaluate with top_k 0 and top_p 1."
        )
    return kl


def completion_logps(
    policy: Policy, trees: Sequence[PromptTree], *, spec: SamplingSpec, batch_size: int
) -> Tensor:
    """``[M]`` float64 log-probs of all completions of ``trees`` under ``policy`` and ``spec``."""
    assert not policy.training
    vocabulary = int(policy.model.config.vocab_size)
    logps = [
        policy(collate(part).to(policy.device), spec=spec).token_logps.double().sum(1).cpu()
        for part in _parts(trees, batch_size, vocabulary)
    ]
    return torch.cat(logps)


def check_vocabularies(policy: Policy, reference: Policy) -> int:
    """The number of tokens of two policies that share them.

    Raises:
        ConfigError: Their tokens differ, so the KL between them is not defined.
    """
    sizes = [int(p.model.config.vocab_size) for p in (policy, reference)]
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"the policy has {sizes[0]} tokens and the reference {sizes[1]}: their KL is not "
            "defined. Give the reference that the policy was trained from."
        )
    mine, other = (p.tokenizer.get_vocab() for p in (policy, reference))
    if mine != other:
        token = min(set(mine.items()) ^ set(other.items()))[0]
        raise ConfigError(
            f"the policy and the reference have different tokens, e.g. {token!r}: their KL is not "
            "defined. Give the reference that the policy was trained from."
        )
    return sizes[0]


def _parts(
    trees: Sequence[PromptTree], batch_size: int, vocabulary: int
) -> Iterator[list[PromptTree]]:
    """Split ``trees`` (and, if needed, a tree's completions) into parts that fit in one forward."""
    part: list[PromptTree] = []
    rows, positions = 0, 0
    room = max(1, MAX_CELLS // vocabulary)
    for tree in trees:
        for completion in tree.completions:
            n = len(completion)
            if part and (rows == batch_size or positions + n > room):
                yield part
                part, rows, positions = [], 0, 0
            if part and part[-1].index == tree.index:
                part[-1] = replace(part[-1], completions=(*part[-1].completions, completion))
            else:
                part.append(replace(tree, completions=(completion,), loss_masks=None, labels=None))
            rows, positions = rows + 1, positions + n
    if part:
        yield part
