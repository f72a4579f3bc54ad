"""Checks that tokenizer, chat template and model fit together."""

import math
import re
from typing import Any

import torch

from alignlab.doctor.finding import Verdict, ok, warning
from alignlab.doctor.patient import Patient
from alignlab.models.limits import embedded
from alignlab.models.modes import reading

MARKER = re.compile(r"<\|[^|<>\s]+\|>|<(?:start|end)_of_turn>")
WORSE = 0.5  # nats a token beyond a uniform guess


def fits(patient: Patient) -> Verdict | None:
    """Rows against the model's context and embeddings, as training checks them."""
    model, data = patient.objective.trained, patient.data
    if data is not None:
        model.check_rows(data.train_trees, patient.objective.added_tokens)
    tokens, rows = len(model.tokenizer), embedded(model.model)
    if rows is None or tokens <= rows:
        return ok(f"{tokens:,} tokens, embeddings of {rows:,}" if rows else f"{tokens:,} tokens")
    return warning(
        f"the tokenizer has {tokens:,} tokens and the model embeddings of {rows:,}. Use the "
        "model's own tokenizer."
    )


def special_ids(patient: Patient) -> Verdict | None:
    """The ids of special tokens in the tokenizer, and in the model's config."""
    model = patient.objective.trained
    tokenizer, config = model.tokenizer, model.model.config
    ends = {*_ids(config.eos_token_id)} | {
        *_ids(getattr(getattr(model.model, "generation_config", None), "eos_token_id", None))
    }
    said = []
    for name, own, theirs in (
        ("bos_token", tokenizer.bos_token_id, {*_ids(config.bos_token_id)}),
        ("eos_token", tokenizer.eos_token_id, ends),
    ):
        if own is not None and theirs and own not in theirs:
            said.append(f"{name} is {own} of the tokenizer and {min(theirs)} of the model")
    if not said:
        return ok("special tokens have the model's ids")
    return warning(f"{'; '.join(said)}. Use the model's own tokenizer.")


def _ids(given: Any) -> list[int]:
    return [] if given is None else given if isinstance(given, list) else [given]


def markers(patient: Patient) -> Verdict | None:
    """Marks of a chat template in the rows: each should be one token."""
    tokenizer = patient.objective.tokenizer
    rows = [tree.prompt + c for tree in patient.few for c in tree.completions or ((),)]
    found = dict.fromkeys(m for ids in rows for m in MARKER.findall(tokenizer.decode(ids)))
    if not found:
        return None
    split = [m for m in found if len(tokenizer(m, add_special_tokens=False)["input_ids"]) > 1]
    if not split:
        return ok(f"{', '.join(found)}: a token each")
    return warning(
        f"{', '.join(split)} in the rows: not single tokens of this tokenizer. The chat template "
        "is another model's. Use the model's own, or model.init_args.policy.chat_format."
    )


def likelihood(patient: Patient) -> Verdict | None:
    """Whether a pretrained model predicts the rows better than a uniform guess."""
    policy = patient.policy
    if policy is None or not policy.model.config.name_or_path or not patient.few[0].completions:
        return None
    with reading(policy), torch.no_grad():
        scores = policy(patient.batch)
    nats = -float(scores.logps.sum() / scores.lengths.sum())
    uniform = math.log(embedded(policy.model) or len(policy.tokenizer))
    said = f"{nats:.2f} nats a token of the rows, a uniform guess has {uniform:.2f}"
    if nats <= uniform + WORSE:
        return ok(said)
    return warning(
        f"{said}: these tokens are not the ones that the model learned. Is the tokenizer another "
        "model's, or are the weights not trained?"
    )
