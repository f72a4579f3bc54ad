"""The claims, a card each, and the rule by which a committed table decides it.

To add one: a ``Claim`` with a sentence, the results folder that it reads, and a function of this
folder that returns a ``Finding``. A claim whose folder or table is not there is not run.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from alignlab.claims.finding import Finding, all_of, exact, in_interval, mean_of, spread_ratio
from alignlab.claims.tables import Folder, NotReached, less, paired

Rule = Callable[[Folder], Finding]


class Claim(NamedTuple):
    """A sentence, the results folder that it reads, and the rule that decides it."""

    says: str
    folder: str
    rule: Rule


class Card(NamedTuple):
    """What is to be reproduced, and the claims that it consists of; none: not measured yet."""

    name: str
    title: str
    claims: tuple[Claim, ...] = ()


STRENGTHS = (0.6, 1.3, 2.6, 5.2)
AT = 0.5  # nats at which objectives are compared on the toy world
SCORER_STEPS = 192  # of the reward model that PPO is trained against
REACHED = (1.5, 1.1)  # gold reward that both reach, and the KL within which


# ------------------------------------------------------------------------ what sets the KL, seeds


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


def _seeds_matter_little(folder: Folder) -> Finding:
    trained = folder.ends("reward", "dpo", beta=1.3)
    sampled = folder.numbers("evaluations.csv", "reward", policy="dpo")
    return spread_ratio([list(trained.values())], [sampled], high=1.5)


# --------------------------------------------------------------------------------- reward models


def _together_predicts_better(folder: Folder) -> Finding:
    return mean_of(less(*(_loss(folder, name, 1) for name in ("kwise", "shuffled"))), high=0.0)


def _together_overfits_less(folder: Folder) -> Finding:
    rise = [less(_loss(folder, name, 4), _loss(folder, name, 1)) for name in ("kwise", "shuffled")]
    return mean_of(less(*rise), high=0.0)


def _loss(folder: Folder, model: str, epochs: int) -> dict[int, float]:
    run = f"{model}-max_epochs{epochs}-"
    return dict(folder.by_seed("log_loss.csv", "log_loss", run=run, model=model))


# ------------------------------------------------------------------- wrong labels, and log-probs


def _noise_costs_less(method: str, percent: int) -> Rule:
    """``method`` loses less reward at ``AT`` than DPO when ``percent`` of the labels flip."""

    def rule(folder: Folder) -> Finding:
        start = _reference(folder, "reward")
        noisy = [folder.reward_at(AT, start, f"{o}_flip{percent}") for o in (method, "dpo")]
        change = less(*noisy)
        if method == "ipo":  # the others are DPO where no label is wrong
            clean = folder.reward_at(AT, start, "ipo")
            change = less(change, less(clean, folder.reward_at(AT, start, "dpo", beta=0.6)))
        return mean_of(change, low=0.0)

    return rule


def _dpo_is_best_without_noise(folder: Folder) -> Finding:
    start = _reference(folder, "reward")
    dpo = folder.reward_at(AT, start, "dpo", beta=0.6)
    return mean_of(less(dpo, folder.reward_at(AT, start, "ipo")), low=0.0)


def _reference(folder: Folder, column: str) -> float:
    found = folder.numbers("evaluations.csv", column, policy="reference")
    return sum(found) / len(found)


def _displaced(folder: Folder) -> Finding:
    start = _reference(folder, "chosen_logp")
    found = folder.measure_at(AT, start, "chosen_logp", "dpo", beta=1.3)
    return mean_of({seed: value - start for seed, value in found.items()}, high=0.0)


def _margin_rises(folder: Folder) -> Finding:
    pair = ("chosen_logp", "rejected_logp")
    start = [_reference(folder, column) for column in pair]
    found = [
        folder.measure_at(AT, before, column, "dpo", beta=1.3)
        for before, column in zip(start, pair, strict=True)
    ]
    before = start[0] - start[1]
    return mean_of({seed: gap - before for seed, gap in less(*found).items()}, low=0.0)


def _less_displaced(objective: str) -> Rule:
    def rule(folder: Folder) -> Finding:
        start = _reference(folder, "chosen_logp")
        own = folder.measure_at(AT, start, "chosen_logp", objective)
        return mean_of(
            less(own, folder.measure_at(AT, start, "chosen_logp", "dpo", beta=1.3)), low=0.0
        )

    return rule


# ---------------------------------------------------------------------------------- exact tables


def _arms(objective: str, low: float, high: float) -> Rule:
    """How far the probability of the winner is from its fixed point."""

    def rule(folder: Folder) -> Finding:
        rows = folder.rows("two_arms.csv", objective=objective)
        gaps = [float(row["preferred"]) - float(row["fixed_point"]) for row in rows]
        return exact(gaps, low=low, high=high)

    return rule


def _unbiased(folder: Folder) -> Finding:
    rows = [r for r in folder.rows("estimators.csv") if r["estimator"] != "k2"]
    return exact([float(r["mean"]) - float(r["kl"]) for r in rows], low=-1e-6, high=1e-6)


def _k2_is_biased(folder: Folder) -> Finding:
    rows = folder.rows("estimators.csv", estimator="k2")
    farthest = max(rows, key=lambda row: float(row["kl"]))
    return exact([float(farthest["mean"]) / float(farthest["kl"]) - 1], low=0.01)


def _rao_blackwell_varies_less(folder: Folder) -> Finding:
    sds = [folder.numbers("estimators.csv", "sd", estimator=e) for e in ("rao_blackwell", "k1")]
    return exact([a / b for a, b in zip(*sds, strict=True)], high=1.0)


def _k1_is_negative(folder: Folder) -> Finding:
    shares = folder.numbers("estimators.csv", "negative_batches", estimator="k1")
    return exact([max(shares)], low=0.01)


def _rao_blackwell_is_not(folder: Folder) -> Finding:
    shares = folder.numbers("estimators.csv", "negative_batches", estimator="rao_blackwell")
    return exact(shares, low=0.0, high=0.0)


def _best_of_n(column: str, bound: str, ties: bool, low: float, high: float) -> Rule:
    """Where a column of ``best_of_n.csv`` lies as a share of its bound."""

    def rule(folder: Folder) -> Finding:
        rows = folder.rows("best_of_n.csv", ties=ties)
        return exact([float(r[column]) / float(r[bound]) for r in rows], low=low, high=high)

    return rule


def _controlled(folder: Folder) -> Finding:
    rows = folder.rows("controller.csv")
    return exact([float(r["kl"]) / float(r["target"]) for r in rows], low=0.95, high=1.05)


def _cards_of_memory(folder: Folder) -> Finding:
    numbers = [float(row["cards"]) for row in folder.rows("memory.csv")]
    return exact([a - b for a, b in zip(numbers, (79, 88), strict=True)], low=0.0, high=0.0)


def _compared(objective: str, other: str, kl: float = 1.0) -> Rule:
    """Whether an objective's reward is at least the other's at a KL (``comparisons.csv``)."""

    def rule(folder: Folder) -> Finding:
        names, sign = (objective, other), 1
        if objective > other:  # the table has each pair once, in this order
            names, sign = (other, objective), -1
        rows = folder.rows("comparisons.csv", objective=names[0], other=names[1])
        row = next((r for r in rows if float(r["kl_budget"]) == kl), None)
        if row is None:
            raise NotReached
        lo, hi = sorted(sign * float(row[end]) for end in ("lo", "hi"))
        return in_interval(sign * float(row["difference"]), lo, hi, int(row["n_seeds"]), low=0.0)

    return rule


# ------------------------------------------------------------------------- fine-tuning's failures


def _after_own_text(size: int, measure: str, prefix: str) -> Rule:
    """How much worse a small model's next word is after ``prefix`` than after the data's."""

    def rule(folder: Folder) -> Finding:
        found = (
            folder.by_seed(
                "exposure.csv",
                measure,
                run=f"small-hidden_size{size}-",
                prefix=kind,
                position="all",
            )
            for kind in (prefix, "data")
        )
        return mean_of(less(*found), low=0.0)

    return rule


def _more_rubbish_than_expected(size: int) -> Rule:
    def rule(folder: Folder) -> Finding:
        run = f"small-hidden_size{size}-"
        found = (folder.by_seed("rubbish.csv", c, run=run) for c in ("rubbish", "expected"))
        return mean_of(less(*found), low=0.0)

    return rule


def _share_of_rubbish(policy: str, low: float = -math.inf, high: float = math.inf) -> Rule:
    return lambda folder: mean_of(
        folder.by_seed("rubbish.csv", "rubbish", policy=policy), low=low, high=high
    )


def _costs_likelihood(policy: str) -> Rule:
    return lambda folder: mean_of(
        less(*(folder.by_seed("rubbish.csv", "nll", policy=p) for p in (policy, "tiny"))), low=0.0
    )


# -------------------------------------------------------------------------------- DPO against PPO


def _cheaper(column: str) -> Rule:
    """DPO's part of PPO's cost up to the first checkpoint with ``REACHED``.

    PPO's includes its reward model's training. The pairs are the same for both and not counted.
    """

    def rule(folder: Folder) -> Finding:
        dpo, ppo, scorer = (
            _per_step(folder, stage, column)
            for stage in ("dpo_cost", "ppo_cost", "reward_model_cost")
        )
        steps, other = _first(folder, "dpo", beta=1.3), _first(folder, "ppo", kl_target=1.0)
        parts = paired(steps, other, lambda a, b: a * dpo / (b * ppo + SCORER_STEPS * scorer))
        return mean_of(parts, high=1.0)

    return rule


def _per_step(folder: Folder, stage: str, column: str) -> float:
    (row,) = folder.rows("cost.csv", stage=stage)
    return float(row[column]) / float(row["steps"])


def _first(folder: Folder, objective: str, **hparams: object) -> dict[int, float]:
    """By seed, the first step whose policy has the reward of ``REACHED`` within its KL."""
    reward, kl = REACHED
    found: dict[int, float] = {}
    for point in sorted(folder.points(objective, **hparams), key=lambda p: p.step):
        if point.reward >= reward and point.kl <= kl:
            found.setdefault(point.seed, point.step)
    return found


def _holds_less(column: str) -> Rule:
    def rule(folder: Folder) -> Finding:
        dpo, ppo = (
            folder.numbers("cost.csv", column, stage=s)[0] for s in ("dpo_cost", "ppo_cost")
        )
        return exact([dpo / ppo], high=0.999)

    return rule


def _settings_matter_less(folder: Folder) -> Finding:
    values = [folder.numbers(f"tuning/{name}.csv", "value") for name in ("dpo", "ppo")]
    return spread_ratio([values[0]], [values[1]], high=1.0)


# --------------------------------------------------------------------------------------- the cards

OURS, STUDY = "claims", "study"
CARDS = (
    Card("C1", "IMDB's reward-KL frontier: DPO above PPO, all below the optimum"),
    Card(
        "C2",
        "beta controls the KL",
        (
            Claim(
                "DPO ends at less KL at each step of beta 0.6, 1.3, 2.6, 5.2", OURS, _beta_orders_kl
            ),
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
    ),
    Card("C3", "TL;DR's win rate over temperature"),
    Card("C4", "prompts of another domain"),
    Card("C5", "best-of-n saturates"),
    Card(
        "C6",
        "training seeds matter as little as sampling seeds",
        (
            Claim(
                "DPO's reward: deviation over training seeds at most 1.5 times that over sampling "
                "seeds",
                OURS,
                _seeds_matter_little,
            ),
        ),
    ),
    Card(
        "C7",
        "all pairs of a ranking in one element",
        (
            Claim(
                "held-out log loss after one epoch is not larger (nats)",
                OURS,
                _together_predicts_better,
            ),
            Claim("it rises no more from one epoch to four (nats)", OURS, _together_overfits_less),
        ),
    ),
    Card("C8", "accuracy of reward models over data and size"),
    Card("C9", "reward model against DPO's implicit reward"),
    Card("C10", "details of PPO"),
    Card(
        "C11",
        "online against offline",
        (
            Claim(
                "online DPO has at least DPO's reward at KL 1",
                STUDY,
                _compared("online_dpo", "dpo"),
            ),
        ),
    ),
    Card(
        "C12",
        "RLOO against PPO",
        (Claim("RLOO has at least PPO's reward at KL 1", STUDY, _compared("rloo", "ppo")),),
    ),
    Card("C13", "SimPO's table"),
    Card("C14", "ORPO from the base model"),
    Card(
        "C15",
        "certain preferences: DPO goes to 1, IPO to its fixed point",
        (
            Claim(
                "DPO's probability of the winner is 1 at each beta (less 1)",
                OURS,
                _arms("dpo", -0.01, 0.0),
            ),
            Claim("IPO's is sigma(1 / (2 tau)) (less this)", OURS, _arms("ipo", -1e-4, 1e-4)),
        ),
    ),
    Card(
        "C16",
        "flipped labels",
        (
            *(
                Claim(
                    f"with {percent} % flipped, {name} loses less reward at KL {AT} than DPO",
                    OURS,
                    _noise_costs_less(method, percent),
                )
                for percent in (20, 30)
                for method, name in (("cdpo", "cDPO"), ("robust_dpo", "robust DPO"), ("ipo", "IPO"))
            ),
            Claim(
                f"without flips DPO has at least IPO's reward at KL {AT}",
                OURS,
                _dpo_is_best_without_noise,
            ),
        ),
    ),
    Card("C17", "over-optimisation after Gao et al."),
    Card("C18", "over-optimisation of direct objectives"),
    Card(
        "C19",
        "estimators of the KL",
        (
            Claim(
                "k1, k3 and Rao-Blackwell have the mean of the exact KL (difference)",
                OURS,
                _unbiased,
            ),
            Claim("k2 is biased upwards at the largest KL (relative)", OURS, _k2_is_biased),
            Claim(
                "Rao-Blackwell deviates at most as much as k1 (ratio)",
                OURS,
                _rao_blackwell_varies_less,
            ),
            Claim("batches of 64 with a negative k1 occur (share)", OURS, _k1_is_negative),
            Claim("with Rao-Blackwell none does (share)", OURS, _rao_blackwell_is_not),
        ),
    ),
    Card(
        "C20",
        "best-of-n's KL",
        (
            Claim(
                "with ties it is below log n - (n - 1) / n (share of it)",
                OURS,
                _best_of_n("kl", "bound", True, 0.0, 0.999),
            ),
            Claim(
                "without ties it is that (share of it)",
                OURS,
                _best_of_n("kl", "bound", False, 0.999, 1.0),
            ),
            Claim(
                "the win rate is at most n / (n + 1) (share of it)",
                OURS,
                _best_of_n("win_rate", "win_bound", True, 0.0, 1.0),
            ),
        ),
    ),
    Card("C21", "gap to the optimum of an enumerable task"),
    Card("C22", "prefix sharing and packing"),
    Card(
        "C23",
        "memory of 175 billion parameters",
        (
            Claim(
                "79 and 88 cards with gradients of 2 and 4 bytes (difference)",
                OURS,
                _cards_of_memory,
            ),
        ),
    ),
    Card("C24", "share of sampling in PPO's time"),
    Card(
        "C25",
        "the adaptive coefficient",
        (
            Claim(
                "with an exact optimum it ends within 5 % of its target (KL / target)",
                OURS,
                _controlled,
            ),
            Claim(
                "in PPO it ends within 15 % of KL 0.5, 1 and 2 (KL / target)",
                OURS,
                _targets_are_met,
            ),
        ),
    ),
    Card(
        "C26",
        "log-probs of preferred completions fall",
        (
            Claim(f"DPO lowers them by KL {AT} (nats per completion)", OURS, _displaced),
            Claim("while the margin rises (nats)", OURS, _margin_rises),
            *(
                Claim(
                    f"{name} lowers them less than DPO at KL {AT} (nats)", OURS, _less_displaced(o)
                )
                for o, name in (
                    ("simpo", "SimPO"),
                    ("orpo", "ORPO"),
                    ("cpo", "CPO"),
                    ("dpo_nll", "DPO + NLL"),
                    ("dpop", "DPOP"),
                )
            ),
        ),
    ),
    Card(
        "L1",
        "exposure bias of fine-tuning",
        tuple(
            claim
            for size in (8, 16, 32)
            for claim in (
                Claim(
                    f"width {size}: after its own text the next word is farther from the grammar's "
                    "than after the data's (nats)",
                    OURS,
                    _after_own_text(size, "excess", "own"),
                ),
                Claim(
                    f"width {size}: after its own mistake more probability lies on words that do "
                    "not fit the word before",
                    OURS,
                    _after_own_text(size, "misfit", "broken"),
                ),
                Claim(
                    f"width {size}: it writes more rubbish than its errors on the data's prefixes "
                    "predict (share)",
                    OURS,
                    _more_rubbish_than_expected(size),
                ),
            )
        ),
    ),
    Card(
        "L2",
        "many right answers, too small a model: 96 % rubbish by fine-tuning, 1 % by rewards",
        (
            Claim(
                "most of what fine-tuning writes is rubbish (share)",
                OURS,
                _share_of_rubbish("tiny", low=0.5),
            ),
            Claim(
                "with PPO at most a tenth is (share)",
                OURS,
                _share_of_rubbish("ppo_review", high=0.1),
            ),
            Claim(
                "with DPO at most a tenth is (share)",
                OURS,
                _share_of_rubbish("dpo_review", high=0.1),
            ),
            Claim(
                "PPO's held-out likelihood is lower (nats per completion)",
                OURS,
                _costs_likelihood("ppo_review"),
            ),
            Claim("DPO's is lower (nats per completion)", OURS, _costs_likelihood("dpo_review")),
        ),
    ),
    Card(
        "L3",
        "reinforcement learning needs fine-tuning",
        (
            Claim(
                "PPO from random weights writes rubbish (share)",
                OURS,
                _share_of_rubbish("ppo_none", low=0.9),
            ),
            Claim(
                "after 40 steps of fine-tuning too (share)",
                OURS,
                _share_of_rubbish("ppo_little", low=0.5),
            ),
            Claim(
                "from the fine-tuned model it does not (share)",
                OURS,
                _share_of_rubbish("ppo_sft", high=0.5),
            ),
        ),
    ),
    Card(
        "L4",
        "DPO is cheaper than PPO and easier to tune",
        (
            Claim(
                f"CPU seconds to reward {REACHED[0]} within KL {REACHED[1]} (DPO / PPO)",
                OURS,
                _cheaper("cpu_seconds"),
            ),
            Claim("generated tokens (DPO / PPO)", OURS, _cheaper("generated_tokens")),
            Claim("models in memory (DPO / PPO)", OURS, _holds_less("models")),
            Claim(
                "memory of weights, gradients and moments (DPO / PPO)",
                OURS,
                _holds_less("megabytes"),
            ),
            Claim(
                "values of 24 trials over rate, strength, warm-up and clipping scatter less "
                "(deviation, DPO / PPO)",
                STUDY,
                _settings_matter_less,
            ),
        ),
    ),
)
