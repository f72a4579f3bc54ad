"""What sets the KL, and how much seeds matter."""

import math
from itertools import pairwise

from alignlab.claims.card import OURS, Card, Claim
from alignlab.claims.finding import Finding, all_of, exact, mean_of, spread_ratio
from alignlab.claims.tables import Folder, less

STRENGTHS = (0.6, 1.3, 2.6, 5.2)


def _beta_orders_kl(folder: Folder) -> Finding:
    kl = [folder.ends("kl", "dpo", beta=beta) for beta in STRENGTHS]
    return all_of([mean_of(less(a, b), low=0.0) for a, b in pairwise(kl)])


def _dpo_scatters_less(folder: Folder) -> Finding:
    dpo = [folder.ends("kl", "dpo", beta=beta) for beta in STRENGTHS]
    ppo = [folder.ends("kl", "ppo_fixed", kl_coef=beta) for beta in STRENGTHS]
    logs = ([[math.log(kl) for kl in own.values()] for own in groups] for groups in (dpo, ppo))
    return spread_ratio(*logs, high=1.0)


def _targets_are_met(folder: Folder) -> Finding:
    found = []
    for target in (0.5, 1.0, 2.0):
        kl = folder.ends("kl", "ppo", kl_target=target)
        found.append(mean_of({s: v / target for s, v in kl.items()}, low=0.85, high=1.15))
    return all_of(found)


def _controlled(folder: Folder) -> Finding:
    rows = folder.rows("controller.csv")
    return exact([float(r["kl"]) / float(r["target"]) for r in rows], low=0.95, high=1.05)


def _seeds_matter_little(folder: Folder) -> Finding:
    trained = folder.ends("reward", "dpo", beta=1.3)
    sampled = folder.numbers("evaluations.csv", "reward", policy="dpo")
    return spread_ratio([list(trained.values())], [sampled], high=1.5)


C2 = Card(
    "C2",
    "beta controls the KL",
    (
        Claim("DPO ends at less KL at each step of beta 0.6, 1.3, 2.6, 5.2", OURS, _beta_orders_kl),
        Claim(
            "DPO's final KL scatters less over seeds than that of PPO with a fixed coefficient "
            "(standard deviations of log KL, ratio at most 1)",
            OURS,
            _dpo_scatters_less,
        ),
        Claim(
            "PPO's controller ends within 15 % of KL 0.5, 1 and 2 (KL / target)",
            OURS,
            _targets_are_met,
        ),
    ),
)

C6 = Card(
    "C6",
    "training seeds matter as little as sampling seeds",
    (
        Claim(
            "the standard deviation of DPO's reward over training seeds is at most 1.5 times that "
            "over sampling seeds",
            OURS,
            _seeds_matter_little,
        ),
    ),
)

C25 = Card(
    "C25",
    "the adaptive coefficient",
    (
        Claim(
            "with an exact optimum the controller ends within 5 % of its target (KL / target)",
            OURS,
            _controlled,
        ),
        Claim(
            "in PPO the controller ends within 15 % of KL 0.5, 1 and 2 (KL / target)",
            OURS,
            _targets_are_met,
        ),
    ),
)
