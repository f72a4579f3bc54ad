"""Language models over prompt trees: policies, references, reward models and value functions."""

from alignlab.models.adapters import Lora
from alignlab.models.heads import LanguageHead
from alignlab.models.policy import Policy, Scores
from alignlab.models.prompt_tuning import PromptTuning
from alignlab.models.quantised import Quantised
from alignlab.models.reference import (
    AdapterOffReference,
    CachedReference,
    FrozenReference,
    LiveReference,
    Reference,
    ReferenceKind,
    StartReference,
    UncachedReference,
    make_reference,
)
from alignlab.models.score import ScoreModel

__all__ = [
    "AdapterOffReference",
    "CachedReference",
    "FrozenReference",
    "LanguageHead",
    "LiveReference",
    "Lora",
    "Policy",
    "PromptTuning",
    "Quantised",
    "Reference",
    "ReferenceKind",
    "ScoreModel",
    "Scores",
    "StartReference",
    "UncachedReference",
    "make_reference",
]
