"""What is enumerated, counted or timed, without a training run."""

import ast

from alignlab.claims.card import OURS, Card, Claim, Rule
from alignlab.claims.finding import Finding, exact, mean_of
from alignlab.claims.tables import Folder


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


def _cards_of_memory(folder: Folder) -> Finding:
    numbers = [float(row["cards"]) for row in folder.rows("memory.csv")]
    return exact([a - b for a, b in zip(numbers, (79, 88), strict=True)], low=0.0, high=0.0)


def _same(column: str) -> Rule:
    return lambda folder: exact(folder.numbers("layouts.csv", column), high=1e-5)


def _as_fast_as_counted(folder: Folder) -> Finding:
    """Processor time of a forward and backward with a row for each completion over that of ours.

    A shape is named ``(P, R, k, prompts) layout``.
    """
    seconds = {r["what"]: float(r["value"]) for r in folder.rows("own.csv", part="layouts")}
    parts = []
    for shape in {what.rpartition(" ")[0] for what in seconds}:
        prompt, completion, k, _ = ast.literal_eval(shape)
        counted = k * (prompt + completion) / (prompt + k * completion)
        parts.append(seconds[f"{shape} flat"] / seconds[f"{shape} auto"] / counted)
    return mean_of(dict(enumerate(sorted(parts))), low=1.0)


C15 = Card(
    "C15",
    "certain preferences: DPO goes to 1, IPO to its fixed point",
    (
        Claim(
            "DPO's probability of the winner is 1 at each beta (less 1)",
            OURS,
            _arms("dpo", -0.01, 0.0),
        ),
        Claim(
            "IPO's probability of the winner is sigma(1 / (2 tau)) (less this)",
            OURS,
            _arms("ipo", -1e-4, 1e-4),
        ),
    ),
)

C19 = Card(
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
            "Rao-Blackwell's standard deviation is at most k1's (ratio)",
            OURS,
            _rao_blackwell_varies_less,
        ),
        Claim("batches of 64 with a negative k1 occur (share)", OURS, _k1_is_negative),
        Claim(
            "no batch has a negative Rao-Blackwell estimate (share)", OURS, _rao_blackwell_is_not
        ),
    ),
)

C20 = Card(
    "C20",
    "best-of-n's KL",
    (
        Claim(
            "with ties best-of-n's KL is below log n - (n - 1) / n (share of it)",
            OURS,
            _best_of_n("kl", "bound", True, 0.0, 0.999),
        ),
        Claim(
            "without ties best-of-n's KL is log n - (n - 1) / n (share of it)",
            OURS,
            _best_of_n("kl", "bound", False, 0.999, 1.0),
        ),
        Claim(
            "best-of-n's win rate is at most n / (n + 1) (share of it)",
            OURS,
            _best_of_n("win_rate", "win_bound", True, 0.0, 1.0),
        ),
    ),
)

C22 = Card(
    "C22",
    "prefix sharing and packing",
    (
        Claim(
            "log-probs with and without sharing are equal in float32 (largest difference, nats)",
            OURS,
            _same("logp_difference"),
        ),
        Claim(
            "gradients with and without sharing are equal in float32 (norm of the difference, "
            "relative)",
            OURS,
            _same("gradient_difference"),
        ),
        Claim(
            "sharing a prompt of P tokens makes k completions of R tokens at least k (P + R) / "
            "(P + k R) times as fast (measured / counted; a run is one of five shapes)",
            "benchmarks",
            _as_fast_as_counted,
        ),
    ),
)

C23 = Card(
    "C23",
    "memory of 175 billion parameters",
    (
        Claim(
            "PPO's four models need 79 and 88 cards of 80 GB with gradients of 2 and 4 bytes "
            "(difference)",
            OURS,
            _cards_of_memory,
        ),
    ),
)
