"""How often reward models agree with held-out choices."""

from alignlab.claims.card import DIALOGUES, OURS, REVIEWS, SUMMARIES, TOY, Card, Claim, Rule
from alignlab.claims.finding import Finding, Values, mean_of
from alignlab.claims.tables import Folder, less

CHECKED, IMPLICIT = "reward_model_accuracy.csv", "implicit_accuracy.csv"


def _together_predicts_better(folder: Folder) -> Finding:
    return mean_of(less(*(_loss(folder, name, 1) for name in ("kwise", "shuffled"))), high=0.0)


def _together_overfits_less(folder: Folder) -> Finding:
    rise = [less(_loss(folder, name, 4), _loss(folder, name, 1)) for name in ("kwise", "shuffled")]
    return mean_of(less(*rise), high=0.0)


def _loss(folder: Folder, model: str, epochs: int) -> dict[int, float]:
    run = f"{model}-max_epochs{epochs}-"
    return dict(folder.by_seed("log_loss.csv", "log_loss", run=run, model=model))


def _accuracy(folder: Folder, table: str, model: str) -> Values:
    """Of a reward model on the labels of held-out pairs, by seed."""
    return folder.by_seed(table, "accuracy", run=f"{model}-s", name="model", against="labels")


def _rises(table: str, larger: str, smaller: str, doublings: int) -> Rule:
    def rule(folder: Folder) -> Finding:
        rise = less(*(_accuracy(folder, table, model) for model in (larger, smaller)))
        return mean_of({seed: own / doublings for seed, own in rise.items()}, low=0.0)

    return rule


def _explicit_is_better(tables: tuple[str, str], model: str, policy: str) -> Rule:
    def rule(folder: Folder) -> Finding:
        implicit = folder.by_seed(
            tables[1], "accuracy", run=f"{policy}-s", name="policy", reward="log_ratio"
        )
        return mean_of(less(_accuracy(folder, tables[0], model), implicit), low=0.0)

    return rule


C7 = Card(
    "C7",
    "all pairs of a ranking in one element",
    (
        Claim(
            "held-out log loss after one epoch is not larger than with shuffled pairs (nats)",
            OURS,
            _together_predicts_better,
        ),
        Claim(
            "held-out log loss rises no more from one epoch to four than with shuffled pairs "
            "(nats)",
            OURS,
            _together_overfits_less,
        ),
    ),
)

C8 = Card(
    "C8",
    "accuracy of reward models over data and size",
    (
        Claim(
            "dialogues: accuracy rises from 1,000 to 4,000 pairs (per doubling)",
            "hh-small",
            _rises("accuracy.csv", "reward_model-limit4000", "reward_model-limit1000", 2),
        ),
        *(
            Claim(
                f"{world}: accuracy rises from {few} to {many} (per doubling)",
                folder,
                _rises(CHECKED, f"reward_model{larger}", f"reward_model{smaller}", doublings),
            )
            for world, folder, few, many, larger, smaller, doublings in (
                ("toy world", TOY, "256", "8,192 pairs", "_8192", "_256", 5),
                ("reviews", REVIEWS, "512", "8,192 pairs", "_8192", "_512", 4),
                ("toy world", TOY, "8", "64 units", "", "_8", 3),
                ("reviews", REVIEWS, "64", "256 units", "", "_h64", 2),
            )
        ),
    ),
)

C9 = Card(
    "C9",
    "reward model against DPO's implicit reward",
    tuple(
        Claim(
            f"{world}: the reward model agrees with held-out choices at least as often as the "
            f"log-ratio of DPO{said} (difference)",
            folder,
            _explicit_is_better(tables, model, policy),
        )
        for world, said, folder, tables, model, policy in (
            ("toy world", "", TOY, (CHECKED, IMPLICIT), "reward_model", "dpo-beta0.1"),
            ("reviews", "", REVIEWS, (CHECKED, IMPLICIT), "reward_model", "dpo-beta0.1"),
            ("TL;DR", "", SUMMARIES, (CHECKED, IMPLICIT), "reward_model", "dpo-beta0.5"),
            *(
                (
                    "dialogues",
                    f" with beta {beta}",
                    DIALOGUES,
                    ("accuracy.csv", "policy_accuracy.csv"),
                    "reward_model-limit2048",
                    f"dpo-beta{beta}",
                )
                for beta in (0.05, 0.2)
            ),
        )
    ),
)
