"""The fast sampler: shared prompts, a cache written in place, finished rows dropped.

How a model continues rows, with a cache or without, is in ``alignlab.models.decoding``.

Every token is a pure function of the model and of (seed, rollout, prompt, sample, position): batch
size, row order, dropped rows and whatever ran before do not enter. Greedy and sampled completions
agree with Hugging Face ``generate`` (the tests compare them).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.functional.noise import uniform
from alignlab.functional.sampling import SamplingSpec, distribution, drawn_from
from alignlab.models.branches import packed
from alignlab.models.decoding import Decoding, decoding_of, next_logits, prefill
from alignlab.models.limits import check_rows
from alignlab.models.modes import reading
from alignlab.models.policy import Policy
from alignlab.rollouts.samples import Samples

# Finished rows are dropped once they are this share of a batch; "cached" copies all others then.
COMPACT_SHARE: dict[Decoding, float] = {
    "shared": 0.02,
    "cached": 0.2,
    "by length": 0.2,
    "uncached": 0.02,
}
Row = tuple[int, int]  # place of a prompt, and the number of its completion


class Completion(NamedTuple):
    """One sampled completion: token ids, their log-probs, and whether a stop token ended it.

    It also has the value before each token, if values were asked for.
    """

    ids: tuple[int, ...]
    logps: Tensor
    finished: bool
    values: Tensor | None = None


def sample(
    policy: Policy,
    prompts: Sequence[PromptTree],
    *,
    samples: int,
    max_new_tokens: int,
    spec: SamplingSpec,
    seed: int,
    stop_ids: Sequence[int],
    rollout: int = 0,
    batch_size: int = 256,
    value: Callable[[Tensor], Tensor] | None = None,
) -> Samples:
    """Complete each prompt ``samples`` times.

    Args:
        policy: The model to sample from; put in eval mode while sampling, restored afterwards.
        prompts: Trees whose prompts are completed; completions that they have are left out. Their
            ``index`` names their noise, so each must have its own.
        samples: Completions per prompt.
        max_new_tokens: Tokens of a completion that no stop token ends.
        spec: Temperature, top-k and top-p; temperature 0 is greedy.
        seed: With ``rollout``, ``PromptTree.index``, the completion's number and the token's
            position it determines each token's noise.
        stop_ids: Tokens that end a completion and are its last token, usually the end-of-text
            token. If empty, end-of-text is a token like any other, and every completion has
            ``max_new_tokens`` tokens.
        rollout: Number of the rollout phase; each has fresh noise.
        batch_size: Completions sampled at a time; it changes only speed and memory.
        value: Maps the model's states ``[R, H]`` before a token to values ``[R]``, which are kept.

    Raises:
        ConfigError: A count below 1, two prompts of one index, or prompt and completion longer
            than the model's context.
    """
    _check(policy, prompts, samples, max_new_tokens, batch_size)
    # Prompts of similar length stand together, so that few columns are padding.
    order = sorted(range(len(prompts)), key=lambda p: len(prompts[p].prompt))
    rows = [(p, k) for p in order for k in range(samples)]
    positions = torch.arange(max_new_tokens, device=policy.device)
    drawn: dict[Row, Completion] = {}
    with reading(policy.model):
        decoding = decoding_of(policy)
        for batch in _batches(prompts, rows, batch_size, decoding):
            names = torch.tensor([(prompts[p].index, k) for p, k in batch], device=policy.device)
            noise = uniform(seed, rollout, names[:, :1], names[:, 1:], positions)
            own = prompts, batch, noise, spec, stop_ids, decoding, value
            completions = _complete(policy, *own)
            drawn.update(zip(batch, completions, strict=True))
    each = [[drawn[p, k] for k in range(samples)] for p in range(len(prompts))]
    trees = [
        replace(tree, completions=tuple(c.ids for c in own), loss_masks=None, labels=None)
        for tree, own in zip(prompts, each, strict=True)
    ]
    if policy.meter is not None and trees:
        read = collate(trees)
        with torch.no_grad():
            policy.meter(read, read.loss_mask)
    return Samples(
        trees=trees,
        token_logps=[[c.logps for c in own] for own in each],
        finished=[[c.finished for c in own] for own in each],
        values=[[c.values for c in own if c.values is not None] for own in each] if value else [],
    )


def _check(
    policy: Policy, prompts: Sequence[PromptTree], samples: int, new: int, batch_size: int
) -> None:
    counts = {"samples": samples, "max_new_tokens": new, "batch_size": batch_size}
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"sampling needs {name} >= 1, got {value}.")
    room, seen = policy.room, dict[int, str]()
    for tree in prompts:
        if tree.index in seen:
            raise ConfigError(
                f"prompts {seen[tree.index]!r} and {tree.id!r} both have index {tree.index}, so "
                "they would get the same noise. Give them different indices, or raise samples."
            )
        seen[tree.index] = tree.id
        if room is not None and len(tree.prompt) + new > room:
            raise ConfigError(
                f"prompt {tree.id!r} has {len(tree.prompt)} tokens; with max_new_tokens={new} it "
                f"exceeds the model's context of {room + policy.virtual_tokens}. Lower "
                "max_new_tokens, or cut prompts: max_length of the probe or of the data."
            )
    check_rows(policy.model, policy.tokenizer, prompts, None)


def _batches(
    prompts: Sequence[PromptTree], rows: Sequence[Row], size: int, decoding: Decoding
) -> Iterator[Sequence[Row]]:
    """Up to ``size`` rows at a time, in order; of one prompt length if the decoding needs that."""
    start = 0
    while start < len(rows):
        batch = rows[start : start + size]
        if decoding == "by length":
            first = len(prompts[batch[0][0]].prompt)
            batch = [row for row in batch if len(prompts[row[0]].prompt) == first]
        yield batch
        start += len(batch)


def _complete(
    policy: Policy,
    prompts: Sequence[PromptTree],
    batch: Sequence[Row],
    noise: Tensor,
    spec: SamplingSpec,
    stop_ids: Sequence[int],
    decoding: Decoding,
    value: Callable[[Tensor], Tensor] | None,
) -> list[Completion]:
    """Sample R rows together, with ``noise`` ``[R, max_new_tokens]``."""
    device, (size, new) = noise.device, noise.shape
    shared = {p: i for i, p in enumerate(dict.fromkeys(p for p, _ in batch))}  # read once each
    rows = torch.tensor([shared[p] for p, _ in batch], device=device)
    state = prefill(policy, [prompts[p].prompt for p in shared], rows, new, decoding)
    stops = torch.tensor(list(stop_ids), dtype=torch.long, device=device)

    ids = torch.zeros(noise.shape, dtype=torch.long, device=device)
    wide = torch.promote_types(policy.head_dtype, torch.float32)
    logps, values = noise.new_zeros(2, *noise.shape, dtype=wide)
    lengths = torch.full((size,), new, device=device)
    finished = torch.zeros(size, dtype=torch.bool, device=device)
    alive = torch.arange(size, device=device)  # which rows the state still holds
    for t in range(new):
        token, logp = draw(next_logits(policy, state), spec, noise[alive, t])
        if value is not None:
            values[alive, t] = value(state.hidden).to(wide)
        ids[alive, t], logps[alive, t] = token, logp
        stopped = alive[torch.isin(token, stops) & ~finished[alive]]
        lengths[stopped], finished[stopped] = t + 1, True
        done = finished[alive]
        if t + 1 == new or bool(done.all()):
            break
        if float(done.double().mean()) >= COMPACT_SHARE[decoding]:
            kept = packed(~done)
            state.select(kept)
            alive, token = alive[kept], token[kept]
        state.step(policy, token)
    drawn = zip(ids.tolist(), logps.cpu(), lengths.tolist(), finished.tolist(), strict=True)
    completions = [Completion(tuple(row[:n]), own[:n].clone(), ends) for row, own, n, ends in drawn]
    if value is None:
        return completions
    each = zip(completions, values.cpu(), strict=True)
    return [one._replace(values=row[: len(one.ids)].clone()) for one, row in each]


def draw(logits: Tensor, spec: SamplingSpec, noise: Tensor) -> tuple[Tensor, Tensor]:
    """One token per row of ``logits`` ``[R, V]`` and its log-prob under ``spec``, both ``[R]``.

    Inverse-CDF sampling: the token at which the cumulative probability passes ``noise`` ``[R]``,
    uniform in (0, 1). Greedy takes the most likely token (the first of equals).

    Raises:
        FloatingPointError: The logits are NaN or infinite.
    """
    logits = spec.apply(logits)
    probs = distribution(logits)
    token = logits.argmax(-1) if spec.greedy else drawn_from(probs, noise)
    return token, probs.gather(-1, token[:, None])[:, 0].log()
