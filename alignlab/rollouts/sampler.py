"""The fast sampler: shared prompts, a cache written in place, finished rows dropped.

How a model is read on, with a cache or without, is in ``alignlab.rollouts.decoding``.

Every token is a pure function of the model and of (seed, rollout, prompt, sample, position): batch
size, row order, dropped rows and whatever ran before do not enter. Greedy and sampled completions
agree with Hugging Face ``generate`` (``alignlab.rollouts.hf`` is that check).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError
from alignlab.functional.noise import uniform
from alignlab.functional.sampling import NO_DISTRIBUTION, SamplingSpec, inverse_cdf
from alignlab.models.limits import check_rows, context_of
from alignlab.models.modes import reading
from alignlab.rollouts.decoding import Decoding, LanguageModel, decoding_of, prefill
from alignlab.rollouts.samples import Samples

COMPACT_SHARE = 0.2  # finished rows are dropped once this share of a batch is finished


@dataclass(frozen=True, slots=True)
class Settings:
    """How completions are sampled; the arguments of ``sample`` that every row shares."""

    max_new_tokens: int
    spec: SamplingSpec
    seed: int
    rollout: int
    stop_ids: tuple[int, ...]


def sample(
    policy: LanguageModel,
    prompts: Sequence[PromptTree],
    *,
    samples: int,
    max_new_tokens: int,
    spec: SamplingSpec,
    seed: int,
    stop_ids: Sequence[int],
    rollout: int = 0,
    batch_size: int = 256,
) -> Samples:
    """Complete each prompt ``samples`` times.

    Args:
        policy: The model to sample from; in eval mode while sampling, as before afterwards.
        prompts: Trees whose prompts are completed; completions that they have are left out. Their
            ``index`` names their noise, so each must have its own.
        samples: Completions per prompt.
        max_new_tokens: Tokens of a completion that no stop token ends.
        spec: Temperature, top-k and top-p; temperature 0 is greedy.
        seed: With ``rollout``, ``PromptTree.index``, the completion's number and the token's
            position it determines each token's noise.
        stop_ids: Tokens that end a completion and are its last token, usually the end-of-text
            token. Empty: nothing stops, end-of-text is a token like any other, and every
            completion has ``max_new_tokens`` tokens.
        rollout: Number of the rollout phase: another number is fresh noise.
        batch_size: Completions sampled side by side; a matter of speed and memory only.

    Raises:
        ConfigError: A count below 1, two prompts of one index, or prompt and completion longer
            than the model's context.
    """
    settings = Settings(max_new_tokens, spec, seed, rollout, tuple(stop_ids))
    _check(policy, prompts, samples, batch_size, settings)
    # Prompts of similar length stand together, so that few columns are padding.
    order = sorted(range(len(prompts)), key=lambda p: len(prompts[p].prompt))
    rows = [(p, k) for p in order for k in range(samples)]
    drawn: dict[tuple[int, int], Completion] = {}
    with reading(policy.model):
        decoding = decoding_of(policy)
        for batch in _batches(prompts, rows, batch_size, decoding):
            completions = _complete(policy, prompts, batch, settings, decoding)
            drawn.update(zip(batch, completions, strict=True))
    return _collect(prompts, samples, drawn)


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled completion: token ids, their log-probs, and whether it was stopped."""

    ids: tuple[int, ...]
    logps: Tensor
    finished: bool


def _check(
    policy: LanguageModel,
    prompts: Sequence[PromptTree],
    samples: int,
    batch_size: int,
    settings: Settings,
) -> None:
    new = settings.max_new_tokens
    counts = {"samples": samples, "max_new_tokens": new, "batch_size": batch_size}
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"sampling needs {name} >= 1, got {value}.")
    seen: dict[int, str] = {}
    for tree in prompts:
        if tree.index in seen:
            raise ConfigError(
                f"prompts {seen[tree.index]!r} and {tree.id!r} both have index {tree.index}, so "
                "they would get the same noise. Give them different indices, or raise samples."
            )
        seen[tree.index] = tree.id
    longest = max(prompts, key=lambda tree: len(tree.prompt), default=None)
    context = context_of(policy.model.config.get_text_config(decoder=True))
    if longest and context and policy.virtual_tokens + len(longest.prompt) + new > context:
        raise ConfigError(
            f"prompt {longest.id!r} has {len(longest.prompt)} tokens; with max_new_tokens={new} it "
            f"exceeds the model's context of {context}. Shorten prompts or lower max_new_tokens."
        )
    check_rows(policy.model, policy.tokenizer, prompts, None)


def _batches(
    prompts: Sequence[PromptTree],
    rows: Sequence[tuple[int, int]],
    size: int,
    decoding: Decoding,
) -> Iterator[Sequence[tuple[int, int]]]:
    """Up to ``size`` (prompt, completion number) rows at a time, in order."""
    start = 0
    while start < len(rows):
        batch = rows[start : start + size]
        if decoding == "by length":
            first = len(prompts[batch[0][0]].prompt)
            batch = [row for row in batch if len(prompts[row[0]].prompt) == first]
        yield batch
        start += len(batch)


def _complete(
    policy: LanguageModel,
    prompts: Sequence[PromptTree],
    batch: Sequence[tuple[int, int]],
    settings: Settings,
    decoding: Decoding,
) -> list[Completion]:
    """Sample the batch's (prompt, completion number) rows together."""
    device = policy.device
    shared = list(dict.fromkeys(p for p, _ in batch))
    place = {p: i for i, p in enumerate(shared)}
    texts = [prompts[p].prompt for p in shared]
    state = prefill(policy, texts, settings.max_new_tokens, decoding)
    state.select(torch.tensor([place[p] for p, _ in batch], device=device))
    index = torch.tensor([prompts[p].index for p, _ in batch], device=device)
    number = torch.tensor([k for _, k in batch], device=device)
    stops = torch.tensor(settings.stop_ids, dtype=torch.long, device=device)

    positions = torch.arange(settings.max_new_tokens, device=device)
    noise = uniform(
        settings.seed, settings.rollout, index[:, None], number[:, None], positions
    )  # every row's at every position
    ids = torch.zeros(noise.shape, dtype=torch.long, device=device)
    logps = torch.zeros(ids.shape, dtype=state.logits.dtype, device=device)
    lengths = torch.full((len(batch),), settings.max_new_tokens, device=device)
    finished = torch.zeros(len(batch), dtype=torch.bool, device=device)
    alive = torch.arange(len(batch), device=device)  # which rows the state still holds
    for t in range(settings.max_new_tokens):
        token, logp = draw(state.logits, settings.spec, noise[alive, t])
        ids[alive, t], logps[alive, t] = token, logp
        if len(stops):
            stopped = torch.isin(token, stops) & ~finished[alive]
            lengths[alive[stopped]] = t + 1
            finished[alive[stopped]] = True
            done = finished[alive]
            share = float(done.double().mean())
            if share == 1:
                break
            if share >= COMPACT_SHARE:
                keep = (~done).nonzero()[:, 0]
                state.select(keep)
                alive, token = alive[keep], token[keep]
        if t + 1 < settings.max_new_tokens:
            state.step(policy, token)
    return _completions(ids.cpu(), logps.cpu(), lengths.tolist(), finished.tolist())


def draw(logits: Tensor, spec: SamplingSpec, noise: Tensor) -> tuple[Tensor, Tensor]:
    """One token per row of ``logits`` ``[R, V]`` and its log-prob under ``spec``, both ``[R]``.

    Inverse-CDF sampling: the token at which the cumulative probability passes ``noise`` ``[R]``,
    uniform in (0, 1). Greedy takes the most likely token (the first of equals).

    Raises:
        FloatingPointError: The logits are NaN or infinite.
    """
    logits = spec.apply(logits)
    token = logits.argmax(-1) if spec.greedy else inverse_cdf(logits, noise)
    logps = -F.cross_entropy(logits, token, reduction="none")
    if bool(logps.isnan().any()):
        raise FloatingPointError(NO_DISTRIBUTION)
    return token, logps


def _completions(
    ids: Tensor, logps: Tensor, lengths: Sequence[int], finished: Sequence[bool]
) -> list[Completion]:
    rows = ids.tolist()
    return [
        Completion(tuple(rows[r][:n]), logps[r, :n].clone(), finished[r])
        for r, n in enumerate(lengths)
    ]


def _collect(
    prompts: Sequence[PromptTree], samples: int, drawn: dict[tuple[int, int], Completion]
) -> Samples:
    each = [[drawn[p, k] for k in range(samples)] for p in range(len(prompts))]
    return Samples(
        trees=[
            replace(tree, completions=tuple(c.ids for c in own), loss_masks=None, labels=None)
            for tree, own in zip(prompts, each, strict=True)
        ],
        token_logps=[[c.logps for c in own] for own in each],
        finished=[[c.finished for c in own] for own in each],
    )
