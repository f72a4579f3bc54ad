"""Checks of the forward: rows alone and together, the sampler, dropout and precision."""

from contextlib import nullcontext

import torch
from torch import Tensor

from alignlab.data.trees import PromptTree, collate
from alignlab.doctor.finding import Verdict, ok, stop, warning
from alignlab.doctor.patient import Patient
from alignlab.evaluation.scoring import evaluating
from alignlab.functional import beyond_rounding
from alignlab.models import Policy, ScoreModel
from alignlab.models.modes import reading
from alignlab.models.sharding import gathered, is_sharded
from alignlab.objectives.on_policy import OnPolicyObjective
from alignlab.rollouts.comparison import check_samples


def layout(patient: Patient) -> Verdict | None:
    """Padding, batch and layout: rows read together, and each alone in a flat row."""
    model = patient.objective.trained
    trees = [tree for tree in patient.few if tree.completions]
    if not trees:
        trees = patient.drawn.trees if patient.policy is not None else []
    if not trees:
        return None
    each = [PromptTree(0, tree.id, tree.prompt, (c,)) for tree in trees for c in tree.completions]
    with patient.objective.own_precision(), reading(model):
        dtype = model.precision if isinstance(model, Policy) else _autocast_or(model)
        together = _read(model, [PromptTree(k, t.id, t.prompt, t.completions)
                                 for k, t in enumerate(trees)])  # fmt: skip
        kept, model.layout = model.layout, "flat"
        try:
            alone = torch.cat([_read(model, [tree]) for tree in each])
        finally:
            model.layout = kept
    gap = beyond_rounding(together, alone, dtype)
    if gap is None:
        rest = float((together - alone).abs().max())
        return ok(f"{model.layout} rows; together and alone they differ by {rest:.1g}")
    return stop(
        f"rows read together and alone differ by {gap:.1e}: padding or another row affects them "
        f"({model.layout_report}). Set layout to flat; if that does not help, the model's class is "
        "wrong."
    )


def _read(model: Policy | ScoreModel, trees: list[PromptTree]) -> Tensor:
    """Log-probs of all completion tokens, or the scores of all completions."""
    batch = collate(trees).to(model.device)
    if isinstance(model, ScoreModel):
        return model.scores(batch).flatten().double()
    scores = model(batch)
    logps: Tensor = scores.token_logps[scores.mask].double()
    return logps


def _autocast_or(model: ScoreModel) -> torch.dtype:
    kind = model.device.type
    dtype: torch.dtype = model.model.dtype
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else dtype


def sampler(patient: Patient) -> Verdict | None:
    """Log-probs of what the sampler drew, in the training forward."""
    policy, objective = patient.policy, patient.objective
    if policy is None:
        return None
    exact = not isinstance(objective, OnPolicyObjective)
    how = evaluating(policy) if exact else objective.own_precision()
    with gathered(policy, exact=exact), how:
        gap = check_samples(policy, patient.drawn, patient.spec)
    return ok(f"sampled log-probs are the forward's up to {gap:.1g} nats a token")


def temperature(patient: Patient) -> Verdict | None:
    """Whether training samples from what the probe evaluates."""
    if not isinstance(patient.objective, OnPolicyObjective) or patient.probe is None:
        return None
    if (given := patient.spec.temperature) == 1:
        return ok("training and the probe sample at temperature 1")
    return warning(
        f"training samples at temperature {given:g}, the probe at 1: its KL and reward are of "
        "another distribution. Set model.init_args.sampling.spec.temperature to 1."
    )


def dropout(patient: Patient) -> Verdict | None:
    """Dropout in a policy whose log-probs are compared with a reference's or a rollout's."""
    policy = patient.policy
    if policy is None or not hasattr(patient.objective, "reference"):
        return None
    if not policy.has_dropout:
        return ok("none, so that two forwards are equal")
    return warning(
        "the policy has dropout: log-ratios are noisy, and at step 0 they are not 0. Set "
        "policy.init_args.dropout to 0, and lora.dropout."
    )


def precision(patient: Patient) -> Verdict | None:
    """Precision of log-probs, and of the weights that are trained."""
    model, objective = patient.objective.trained, patient.objective
    weights = {p.dtype for p in objective.parameters() if p.requires_grad}
    coarse = sorted(str(d).removeprefix("torch.") for d in weights if d.itemsize < 4)
    if coarse:
        return warning(
            f"trained weights are {' and '.join(coarse)}: a change below 1/512 of a weight is "
            "lost. Set dtype to float32, and trainer.precision to bf16-mixed."
        )
    if not isinstance(model, Policy):
        return ok("weights and scores in float32 or finer")
    if model.head_dtype.itemsize < 4:
        return warning(
            f"logits are {str(model.head_dtype).removeprefix('torch.')}: the error of a log-prob "
            "doubles. Set policy.init_args.head_dtype to float32."
        )
    return _log_prob_error(patient, model)


def _log_prob_error(patient: Patient, policy: Policy) -> Verdict:
    trees = [tree for tree in patient.few if tree.completions] or patient.drawn.trees
    batch = collate(trees).to(policy.device)
    with patient.objective.own_precision(), reading(policy):
        scores = policy(batch)
        dtype = policy.precision
    if scores.token_logps.dtype.itemsize < 4:
        return stop(
            f"log-probs are {str(scores.token_logps.dtype).removeprefix('torch.')}, and sums over "
            "a completion lose precision. Compute them in float32 (policy.log_softmax)."
        )
    exact = nullcontext() if is_sharded(policy) else evaluating(policy)
    with exact, reading(policy):
        fine = policy(batch)
    gap = (scores.token_logps - fine.token_logps)[scores.mask].square().mean().sqrt()
    name = str(dtype).removeprefix("torch.")
    if beyond_rounding(scores.token_logps, fine.token_logps, dtype) is None:
        return ok(f"computed in {name}, log-probs are off by {float(gap):.1g} nats a token")
    return warning(
        f"computed in {name}, log-probs are off by {float(gap):.2f} nats a token. Set "
        "trainer.precision to 32-true, or bf16-mixed."
    )
