"""The check on the sampler: the same completions by Hugging Face ``generate``.

Slower, with the library's own randomness, and free of everything clever in the sampler, so that
agreement between the two means something.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.modes import reading
from alignlab.models.policy import Policy
from alignlab.rollouts.samples import Samples


def generate(
    policy: Policy,
    prompts: Sequence[PromptTree],
    *,
    samples: int,
    max_new_tokens: int,
    spec: SamplingSpec,
    seed: int,
    stop_ids: Sequence[int],
) -> Samples:
    """Complete each prompt ``samples`` times, one prompt after another; arguments as ``sample``'s.

    Greedy completions are the sampler's, token for token; sampled ones have its distribution but
    other noise: torch's generator seeded with ``seed``, and restored afterwards. The library
    rounds logits to float32, so log-probs are float32 even of a float64 model.

    Raises:
        ConfigError: The policy is prompt-tuned.
    """
    if policy.virtual_tokens:
        raise ConfigError(
            "Hugging Face's generate does not take a prompt-tuned policy's virtual tokens. Use the "
            "sampler of alignlab.rollouts.sampler."
        )
    model = policy.model
    causal = model.get_base_model() if hasattr(model, "peft_config") else model
    settings = _settings(max_new_tokens, spec, stop_ids)
    trees: list[PromptTree] = []
    logps: list[list[Tensor]] = []
    with _alone(causal), torch.random.fork_rng():
        torch.manual_seed(seed)
        for tree in prompts:
            prompt = torch.tensor([tree.prompt] * samples, device=policy.device)
            out = causal.generate(
                prompt, attention_mask=torch.ones_like(prompt), generation_config=settings
            )
            rows = out.sequences[:, len(tree.prompt) :].tolist()
            own = tuple(_until_stop(row, stop_ids) for row in rows)
            # Greedy is a choice of token; its log-probs are those of the model's own logits.
            scores = torch.stack(list(out.logits if spec.greedy else out.scores), dim=1)
            trees.append(replace(tree, completions=own, loss_masks=None, labels=None))
            logps.append([_token_logps(*pair) for pair in zip(scores, own, strict=True)])
    finished = [[ids[-1] in stop_ids for ids in tree.completions] for tree in trees]
    return Samples(trees, logps, finished)


def _settings(max_new_tokens: int, spec: SamplingSpec, stop_ids: Sequence[int]) -> GenerationConfig:
    distribution: dict[str, Any] = {"do_sample": False}
    if not spec.greedy:
        # Left out, top_k would be 50.
        distribution = {
            "do_sample": True,
            "temperature": float(spec.temperature),
            "top_k": spec.top_k,
            "top_p": float(spec.top_p),
        }
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=0,  # only ever after a stop token, and cut off again
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        **distribution,
    )


@contextmanager
def _alone(model: Any) -> Iterator[None]:
    """To be read without its own generation settings: they fill in what is left out."""
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        with reading(model):
            yield
    finally:
        model.generation_config = own


def _until_stop(row: Sequence[int], stop_ids: Sequence[int]) -> tuple[int, ...]:
    for t, token in enumerate(row):
        if token in stop_ids:
            return tuple(row[: t + 1])
    return tuple(row)


def _token_logps(scores: Tensor, ids: Sequence[int]) -> Tensor:
    """``[length]`` log-probs of ``ids`` under the next-token scores ``[T, V]``."""
    picked = torch.tensor(ids, device=scores.device)
    return scores[: len(ids)].log_softmax(-1).gather(1, picked[:, None])[:, 0].cpu()
