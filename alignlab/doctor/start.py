"""Checks of the first step: what trains, the reference, the loss, the ratio, KL and rewards."""

import math

import torch
from torch import Tensor, nn

from alignlab.doctor.finding import Verdict, ok, stop, warning
from alignlab.doctor.patient import Patient
from alignlab.functional import beyond_rounding
from alignlab.models.modes import reading
from alignlab.models.sharding import local
from alignlab.objectives.base import TreeObjective
from alignlab.objectives.dpo import DPO
from alignlab.objectives.f_dpo import FDPO
from alignlab.objectives.lndpo import LNDPO
from alignlab.objectives.on_policy import OnPolicyObjective, check_ratio
from alignlab.objectives.robust_dpo import RobustDPO
from alignlab.rewards.base import Reward, checked_rewards

LOGISTIC = (DPO, FDPO, LNDPO, RobustDPO)  # whose loss is log 2 where policy and reference are equal


def trained(patient: Patient) -> Verdict:
    """Weights of the trained model: finite, and some of them updated by the optimizer."""
    model = patient.objective.trained
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(torch.isfinite(local(weight.detach())).all()):
            return stop(f"{name} is not finite: the model has diverged. Take an earlier one.")
    counts = [p.numel() for p in model.parameters() if p.requires_grad]
    total = sum(p.numel() for p in model.parameters())
    if not counts:
        return stop(
            f"all {total:,} weights are frozen, so nothing is learned. Set requires_grad where the "
            "model or the objective is made, or add lora."
        )
    coded = sum(not p.is_floating_point() for p in model.parameters())
    if coded and not hasattr(getattr(model, "model", model), "peft_config"):
        return stop(
            f"{coded} of the model's weights are stored as codes of 4 bits, which cannot be "
            "trained; only the others would be. Set lora, or start from the model in 16 bits."
        )
    if patient.trainer.max_steps == 0:
        return warning("trainer.max_steps is 0")
    return ok(f"{sum(counts):,} of {total:,} weights")


def reference(patient: Patient) -> Verdict | None:
    """The reference shares no trained storage with the policy."""
    own = getattr(patient.objective, "reference", None)
    if own is None:
        return None
    parts = [m for m in (own, getattr(own, "policy", None)) if isinstance(m, nn.Module)]
    if patient.probe is not None and patient.probe.reference is not None:
        parts.append(patient.probe.reference)
    learns = {_storage(p) for p in patient.objective.trained.parameters() if p.requires_grad}
    kept = [p for m in parts if m is not patient.objective.trained for p in m.parameters()]
    if shared := sum(_storage(p) in learns for p in kept):
        return stop(
            f"{shared} tensors of the reference are the policy's own: they will move with it, and "
            "the KL stays 0. Make the reference with make_reference, or a deep copy."
        )
    if any(p.requires_grad for p in kept):
        return stop("the reference has weights that train. Make it with make_reference.")
    return ok(f"{type(own).__name__} shares no trained weight")


def _storage(weight: Tensor) -> int:
    return local(weight.detach()).untyped_storage().data_ptr()


def equals_reference(patient: Patient) -> Verdict | None:
    """The policy's log-probs before any update are the reference's."""
    objective, policy = patient.objective, patient.policy
    known = getattr(objective, "reference", None)
    if known is None or policy is None or not patient.few:
        return None
    batch, spec = patient.batch, patient.spec
    with objective.own_precision(), reading(policy):
        now = policy(batch, spec=spec)
        before = known.token_logps(batch, spec).to(now.token_logps)
        gap = beyond_rounding(now.token_logps, before, policy.precision)
    if gap is None:
        rest = float((now.token_logps - before).abs().max())
        return ok(f"log-ratios at step 0 are 0 up to {rest:.1g}, and so are implicit rewards")
    return stop(
        f"at step 0 log-probs of policy and reference differ by {gap:.1e} nats a token: the "
        "reference is not the policy's initial model. Make it with make_reference, and delete "
        "cached log-probs."
    )


def first_loss(patient: Patient) -> Verdict | None:
    """The loss of a few rows: finite, and log 2 for DPO and its relatives."""
    objective = patient.objective
    if not isinstance(objective, TreeObjective) or not patient.few:
        return None
    batch = patient.batch
    with objective.own_precision(), reading(objective):
        losses, means = objective.losses(batch)
    if not bool(torch.isfinite(losses).all()):
        return warning(
            f"not finite for {(~torch.isfinite(losses)).sum()} of {losses.numel()} losses at step "
            f"0, of rows {', '.join(batch.ids)}. Look at these rows, and at the objective."
        )
    loss = float(means.get("loss", losses.mean()))
    plain = isinstance(objective, LOGISTIC) and not getattr(objective, "nll_coef", 0)
    if not plain:
        return ok(f"{loss:.4f} at step 0")
    if math.isclose(loss, math.log(2), rel_tol=1e-2):
        return ok(f"{loss:.4f} = log 2 at step 0")
    return warning(
        f"{loss:.4f} at step 0, where log 2 = 0.6931 is expected of {type(objective).__name__}: "
        "policy and reference differ, or the loss has another term."
    )


def ratio(patient: Patient) -> Verdict | None:
    """The first probability ratio of a rollout is 1."""
    objective, policy = patient.objective, patient.policy
    if not isinstance(objective, OnPolicyObjective) or policy is None:
        return None
    batch = patient.batch
    with torch.no_grad(), reading(policy):
        old = objective.old_logps(patient.drawn, batch, compare=False)
        with objective.own_precision():
            now = policy(batch, spec=patient.spec)
            gap = check_ratio(now.token_logps[now.mask], old[now.mask], policy.precision)
    return ok(f"1 up to {gap:.1g} before the first update")


def kl(patient: Patient) -> Verdict | None:
    """The KL to the probe's reference before any update, from its trial evaluation."""
    tried = None if patient.probe is None else patient.probe.tried
    if tried is None:
        return None
    found = float(tried.scores.kl.mean())
    if found < 1e-3:
        return ok("0 at step 0, to the probe's reference")
    return warning(
        f"{found:.2g} nats at step 0 to the probe's reference, so that the frontier does not start "
        "at 0. Is probe.reference the model that the policy starts from?"
    )


def rewards(patient: Patient) -> Verdict | None:
    """Rewards of samples: finite, the same in another batch, and not all equal."""
    reward: Reward | None = getattr(patient.objective, "reward", None)
    if reward is None and patient.probe is not None:
        reward = patient.probe.reward
    if reward is None or patient.policy is None:
        return None
    prompts, completions = patient.drawn.texts(patient.objective.tokenizer)
    together = checked_rewards(reward, prompts, completions)
    again = checked_rewards(reward, prompts[::-1], completions[::-1]).flip(0)
    name = type(reward).__name__
    if not torch.allclose(together, again, rtol=1e-4, atol=1e-4):
        gap = float((together - again).abs().max())
        return warning(
            f"{name}: the same texts in another order get scores that differ by {gap:.1e}. A "
            "reward must not depend on its batch: check its padding, and turn dropout off."
        )
    return ok(f"{name}: {float(together.min()):.3g} to {float(together.max()):.3g} on samples")
