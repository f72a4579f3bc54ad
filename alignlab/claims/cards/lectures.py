"""What lectures say of fine-tuning, DPO and PPO."""

import math

from alignlab.claims.card import OURS, STUDY, Card, Claim, Rule
from alignlab.claims.finding import Finding, exact, mean_of, spread_ratio
from alignlab.claims.tables import Folder, less, paired

SCORER_STEPS = 192  # of the reward model that PPO is trained against
REACHED = (1.5, 1.1)  # gold reward that both reach, and the KL within which


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


L1 = Card(
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
                f"width {size}: the model writes more rubbish than its errors on the data's "
                "prefixes predict (share)",
                OURS,
                _more_rubbish_than_expected(size),
            ),
        )
    ),
)

L2 = Card(
    "L2",
    "a model too small for many right answers: 96 % rubbish by fine-tuning, 1 % by rewards",
    (
        Claim(
            "most of what the fine-tuned model writes is rubbish (share)",
            OURS,
            _share_of_rubbish("tiny", low=0.5),
        ),
        Claim(
            "at most a tenth of what PPO writes is rubbish (share)",
            OURS,
            _share_of_rubbish("ppo_review", high=0.1),
        ),
        Claim(
            "at most a tenth of what DPO writes is rubbish (share)",
            OURS,
            _share_of_rubbish("dpo_review", high=0.1),
        ),
        Claim(
            "PPO lowers the held-out likelihood (nats per completion)",
            OURS,
            _costs_likelihood("ppo_review"),
        ),
        Claim(
            "DPO lowers the held-out likelihood (nats per completion)",
            OURS,
            _costs_likelihood("dpo_review"),
        ),
    ),
)

L3 = Card(
    "L3",
    "reinforcement learning needs fine-tuning",
    (
        Claim(
            "PPO from random weights writes rubbish (share)",
            OURS,
            _share_of_rubbish("ppo_none", low=0.9),
        ),
        Claim(
            "PPO after 40 steps of fine-tuning writes rubbish, too (share)",
            OURS,
            _share_of_rubbish("ppo_little", low=0.5),
        ),
        Claim(
            "PPO from the fine-tuned model does not write rubbish (share)",
            OURS,
            _share_of_rubbish("ppo_sft", high=0.5),
        ),
    ),
)

L4 = Card(
    "L4",
    "DPO is cheaper than PPO and easier to tune",
    (
        Claim(
            f"DPO needs fewer CPU seconds to reward {REACHED[0]} within KL {REACHED[1]} "
            "(DPO / PPO)",
            OURS,
            _cheaper("cpu_seconds"),
        ),
        Claim(
            "DPO generates fewer tokens until then (DPO / PPO)", OURS, _cheaper("generated_tokens")
        ),
        Claim("DPO holds fewer models in memory (DPO / PPO)", OURS, _holds_less("models")),
        Claim(
            "DPO's weights, gradients and moments need less memory (DPO / PPO)",
            OURS,
            _holds_less("megabytes"),
        ),
        Claim(
            "the values of DPO's 24 trials over rate, strength, warm-up and clipping scatter less "
            "(standard deviation, DPO / PPO)",
            STUDY,
            _settings_matter_less,
        ),
    ),
)
