"""Pure tensor math: no models, no data, no files."""

from alignlab.functional.calibration import calibration_gaps
from alignlab.functional.kl import kl_full, kl_k1, kl_k2, kl_k3
from alignlab.functional.logps import token_logps, token_logps_and_entropies
from alignlab.functional.noise import permutation, uniform
from alignlab.functional.normalise import (
    group_logsumexp,
    group_normalise,
    leave_one_out,
    unequal,
    whiten,
)
from alignlab.functional.numeric import beyond_rounding, log1mexp
from alignlab.functional.ranking import bradley_terry, kwise_ranking, plackett_luce
from alignlab.functional.returns import (
    gae,
    length_adaptive_lambda,
    n_step_advantages,
    rewards_to_go,
)
from alignlab.functional.sampling import SamplingSpec, inverse_cdf
from alignlab.functional.surrogate import clip_fraction, clipped_surrogate, clipped_value_loss

__all__ = [
    "SamplingSpec",
    "beyond_rounding",
    "bradley_terry",
    "calibration_gaps",
    "clip_fraction",
    "clipped_surrogate",
    "clipped_value_loss",
    "gae",
    "group_logsumexp",
    "group_normalise",
    "inverse_cdf",
    "kl_full",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "kwise_ranking",
    "leave_one_out",
    "length_adaptive_lambda",
    "log1mexp",
    "n_step_advantages",
    "permutation",
    "plackett_luce",
    "rewards_to_go",
    "token_logps",
    "token_logps_and_entropies",
    "unequal",
    "uniform",
    "whiten",
]
