"""Rewards at equal KL: objectives beside each other and beside the optimum."""

import math
from collections.abc import Mapping
from functools import partial

from alignlab.claims.card import AT, OURS, STUDY, TUNED, Card, Claim, Rule, reference
from alignlab.claims.finding import (
    FAILED,
    UNRESOLVED,
    Finding,
    Measured,
    all_of,
    apart,
    exact,
    in_interval,
    mean_of,
)
from alignlab.claims.tables import Folder, Missing, NotReached, less

BUDGETS = (0.5, 1.0, 2.0)  # nats per completion, on reviews
AT_ONE = 1.0  # at which the study's objectives are compared
BOUNDS = {"oracle", "oracle_proxy", "dual_bound", "reference"}  # rows that are no method
SMALLEST = 1e-6  # share of the optimum's gain that counts as a gain
PAIRS = 65_536  # "enough" of them for the enumerable world


def _compared(objective: str, other: str, kl: float) -> Rule:
    """Whether an objective's reward is at least the other's at a KL."""

    def rule(folder: Folder) -> Finding:
        try:
            found = folder.difference("comparisons.csv", objective, other, kl_budget=kl)
        except Missing:
            for name in (objective, other):
                folder.rows("frontier.csv", objective=name)
            raise NotReached from None  # both have runs
        return in_interval(found, low=0.0)

    return rule


def _kept(row: Mapping[str, str], low: float = -math.inf, high: float = math.inf) -> Finding:
    """Of a row's share of the optimum's gain; it is left empty where it is impossible."""
    if row["oracle_efficiency"]:
        ends = float(row["efficiency_lo"]), float(row["efficiency_hi"])
        found = Measured(float(row["oracle_efficiency"]), *ends, int(row["n_seeds"]))
        return in_interval(found, low=low, high=high)
    if row["reward"] and row["oracle_reward"]:
        return Finding(verdict=FAILED if math.isfinite(high) else UNRESOLVED)
    raise NotReached


def _keeps(objective: str, kl: float, low: float = -math.inf, high: float = math.inf) -> Rule:
    def rule(folder: Folder) -> Finding:
        (row,) = folder.rows("frontier.csv", objective=objective, kl_budget=kl)
        return _kept(row, low, high)

    return rule


def _least_is_preferred_ft(kl: float) -> Rule:
    """Every other method's reward within a KL less that of fine-tuning on preferred texts."""

    def rule(folder: Folder) -> Finding:
        (row,) = folder.rows("frontier.csv", objective="reference", kl_budget=kl)
        reward = partial(folder.reward_within, kl, float(row["reward"]))
        least = reward("preferred_ft")
        others = sorted(folder.objectives() - {"preferred_ft"})
        return all_of([mean_of(less(reward(name), least), low=0.0) for name in others])

    return rule


def _nothing_above_the_optimum(kl: float) -> Rule:
    """Every method's share of the optimum's gain at a KL; the largest is shown."""

    def rule(folder: Folder) -> Finding:
        rows = [row for row in _methods(folder, kl) if row["oracle_reward"] and row["reward"]]
        if not rows:
            raise NotReached
        return all_of([_kept(row, high=1.0) for row in rows], worst="largest")

    return rule


def _nothing_above_the_bound(kl: float) -> Rule:
    """Every method's reward at a KL less the dual bound's; the nearest is shown."""

    def rule(folder: Folder) -> Finding:
        names = [row["objective"] for row in _methods(folder, kl) if row["reward"]]
        top = _reward(folder, "dual_bound", kl)
        gaps = [apart(_reward(folder, name, kl), top) for name in names]
        if not gaps:
            raise NotReached
        return all_of([in_interval(gap, high=0.0) for gap in gaps], worst="largest")

    return rule


def _methods(folder: Folder, kl: float) -> list[dict[str, str]]:
    rows = folder.rows("frontier.csv", kl_budget=kl)
    return [row for row in rows if row["objective"] not in BOUNDS]


def _reward(folder: Folder, objective: str, kl: float) -> Measured:
    return folder.measured(
        "frontier.csv", "reward", ends="reward_", objective=objective, kl_budget=kl
    )


def _longer_without_mean(folder: Folder) -> Finding:
    """DPO's completions less those of DPO on mean log-ratios per token, at the study's KL."""
    (row,) = folder.rows("frontier.csv", objective="reference", kl_budget=AT_ONE)
    at = partial(folder.hull_at, AT_ONE, float(row["reward"]), "length", math.nan)
    return mean_of(less(at("dpo"), at("lndpo")), low=0.0)


def _margin_helps(folder: Folder) -> Finding:
    reward = partial(folder.reward_at, AT, reference(folder, "reward"))
    return mean_of(less(reward("simpo"), reward("simpo_no_margin")), low=0.0)


def _fast_repeats(folder: Folder) -> Finding:
    last = max(folder.numbers("texts.csv", "step"))
    found = (
        folder.by_seed("texts.csv", "repeated", run=f"{stage}-s", step=last)
        for stage in ("simpo_fast", "simpo")
    )
    return mean_of(less(*found), low=0.0)


def _sampled_labels_suffice(folder: Folder) -> Finding:
    found = folder.by_seed("gap.csv", "share", objective="dpo", pairs=PAIRS)
    return mean_of(found, low=0.98)


def _nothing_above_exactly(folder: Folder) -> Finding:
    return exact(folder.numbers("gap.csv", "share"), high=1.0)


C1 = Card(
    "C1",
    "IMDB's reward-KL frontier: DPO above PPO, all below the optimum",
    (
        *(
            Claim(
                f"DPO has at least the reward of {name} at KL {kl:g} (logit)",
                TUNED,
                _compared("dpo", other, kl),
            )
            for other, name in (
                ("ppo", "PPO"),
                ("ppo_gt", "PPO on the gold reward"),
                ("unlikelihood", "unlikelihood"),
            )
            for kl in BUDGETS
        ),
        *(
            Claim(
                f"every other method reaches more reward within KL {kl:g} than fine-tuning on "
                "preferred completions (logit, the smallest lead)",
                TUNED,
                _least_is_preferred_ft(kl),
            )
            for kl in BUDGETS
        ),
        Claim(
            f"no method is above the optimum at KL {BUDGETS[0]} (share of its gain, the largest)",
            TUNED,
            _nothing_above_the_optimum(BUDGETS[0]),
        ),
        *(
            Claim(
                f"no method is above the dual bound of the optimum at KL {kl:g} (logit, the "
                "nearest)",
                TUNED,
                _nothing_above_the_bound(kl),
            )
            for kl in BUDGETS
        ),
    ),
)

C11 = Card(
    "C11",
    "online against offline",
    (
        Claim(
            "online DPO has at least DPO's reward at KL 1",
            STUDY,
            _compared("online_dpo", "dpo", AT_ONE),
        ),
    ),
)

C12 = Card(
    "C12",
    "RLOO against PPO",
    (Claim("RLOO has at least PPO's reward at KL 1", STUDY, _compared("rloo", "ppo", AT_ONE)),),
)

C13 = Card(
    "C13",
    "SimPO's table",
    (
        *(
            Claim(
                f"{name} is above the reference at KL 1 (share of the optimum's gain)",
                STUDY,
                _keeps(objective, AT_ONE, low=SMALLEST),
            )
            for objective, name in (
                ("dpo", "DPO"),
                ("ipo", "IPO"),
                ("cpo", "CPO"),
                ("kto", "KTO"),
                ("orpo", "ORPO"),
                ("rdpo", "R-DPO"),
                ("slic", "SLiC"),
                ("simpo", "SimPO"),
            )
        ),
        Claim(
            "DPO's completions are longer at KL 1 than those of length-normalised DPO (tokens)",
            STUDY,
            _longer_without_mean,
        ),
        Claim(
            f"SimPO has at least the reward of SimPO without margin at KL {AT}", OURS, _margin_helps
        ),
        Claim(
            "with ten times the learning rate SimPO repeats more of a text's word pairs (share)",
            OURS,
            _fast_repeats,
        ),
    ),
)

C21 = Card(
    "C21",
    "gap to the optimum",
    (
        Claim(
            f"where all completions are listed, DPO on {PAIRS:,} drawn and labelled pairs keeps "
            "98 % of the optimum's gain at its KL (share)",
            OURS,
            _sampled_labels_suffice,
        ),
        Claim(
            "neither DPO nor IPO is above the optimum there (share)", OURS, _nothing_above_exactly
        ),
        Claim(
            "in the study DPO keeps at most the optimum's gain at KL 1 (share)",
            STUDY,
            _keeps("dpo", AT_ONE, high=1.0),
        ),
    ),
)
