"""Check that sampling and training use the same model.

The sampler reads token by token with a cache; training and evaluation read whole rows. If an
architecture computes different distributions in the two, every later log-ratio, KL and reward is
wrong, and none looks wrong. Both give a log-prob for every sampled token; these are compared here.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from alignlab.data.trees import collate
from alignlab.errors import ConfigError
from alignlab.functional import beyond_rounding
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.modes import reading
from alignlab.models.policy import Policy
from alignlab.rollouts.samples import Samples

COMPARED = 32  # completions that are scored again for the check alone


def check_drawn(
    drawn: Samples, token_logps: Tensor, model: str, dtype: torch.dtype = torch.float32
) -> float:
    """Compare the sampler's log-probs of the drawn tokens with those of the training forward.

    Args:
        drawn: Completions as they were sampled.
        token_logps: ``[N]`` nats of all their tokens in the forward, completion by completion,
            under the spec that was sampled.
        model: The architecture's name, for the message.
        dtype: What the coarser of sampler and forward computes in.

    Returns:
        The largest difference of a token, in nats.

    Raises:
        FloatingPointError: A log-prob is NaN.
        ConfigError: They differ by more than rounding in ``dtype`` explains (``beyond_rounding``):
            in float32, a token by more than 1e-3 nat.
    """
    own = [logps for row in drawn.token_logps for logps in row]
    if not own:
        return 0.0
    sampled, scored = torch.cat(own).double(), token_logps.detach().double().cpu()
    gaps = (sampled - scored).abs()
    if bool(torch.isnan(gaps).any()):
        raise FloatingPointError("sampled tokens have log-probs that are NaN: the weights diverged")
    if (gap := beyond_rounding(sampled, scored, dtype)) is None:
        return float(gaps.max())
    raise ConfigError(f"{model} {_another_distribution(drawn, sampled, scored, gap)}")


def _another_distribution(drawn: Samples, sampled: Tensor, scored: Tensor, gap: float) -> str:
    gaps = (sampled - scored).abs()
    at = int(gaps.argmax())
    places = [
        (tree.id, t)
        for tree, rows in zip(drawn.trees, drawn.token_logps, strict=True)
        for row in rows
        for t in range(1, len(row) + 1)
    ]
    prompt, token = places[at]
    return (
        "is sampled from another distribution than is trained and evaluated: log-probs differ by "
        f"{gap:.1e} nats a token. Token {token} of a completion of prompt {prompt!r} was drawn "
        f"with {float(sampled[at]):.4f} and has {float(scored[at]):.4f} in the training forward; "
        f"{float((gaps > 1e-3).double().mean()):.1%} of {len(gaps)} tokens are off by more than "
        "0.001. Choose another model, and report this one."
    )


@torch.no_grad()
def check_samples(
    policy: Policy, drawn: Samples, spec: SamplingSpec, *, most: int = COMPARED
) -> float:
    """Run a forward on up to ``most`` completions, and compare with ``check_drawn``.

    They are spread evenly over the lengths, shortest and longest included: errors of padding show
    in the shortest, errors of an attention window in the longest.

    Args:
        policy: The model that was sampled.
        drawn: Its samples.
        spec: The distribution that was sampled.
        most: Completions to compare.

    Raises:
        FloatingPointError: As ``check_drawn``.
        ConfigError: As ``check_drawn``.
    """
    every = [(p, k) for p, row in enumerate(drawn.token_logps) for k in range(len(row))]
    every.sort(key=lambda at: len(drawn.trees[at[0]].prompt) + len(drawn.token_logps[at[0]][at[1]]))
    chosen = every[:: -max(1, math.ceil(len(every) / most))]
    part = Samples(
        [replace(drawn.trees[p], completions=(drawn.trees[p].completions[k],)) for p, k in chosen],
        [[drawn.token_logps[p][k]] for p, k in chosen],
        [[drawn.finished[p][k]] for p, k in chosen],
    )
    found = [torch.empty(0)]
    with reading(policy):
        for start in range(0, len(chosen), COMPARED):
            trees = collate(part.trees[start : start + COMPARED]).to(policy.device)
            scores = policy(trees, spec=spec)
            found.append(scores.token_logps[scores.mask].double().cpu())
    return check_drawn(part, torch.cat(found), type(policy.model).__name__, policy.precision)
