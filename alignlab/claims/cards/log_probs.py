"""Log-probs of the completions of held-out pairs."""

from alignlab.claims.card import AT, OURS, Card, Claim, Rule, reference
from alignlab.claims.finding import Finding, Values, mean_of
from alignlab.claims.tables import Folder, less


def _from_base(folder: Folder, policy: str, column: str, reward: str) -> Values:
    """Mean over the held-out pairs' completions of one kind, by seed."""
    return folder.by_seed("base_pairs.csv", column, run=f"{policy}-s", name="policy", reward=reward)


def _gap_widens(folder: Folder) -> Finding:
    """Of mean log-probs per token, which the odds of ORPO rise with."""
    gaps = [
        less(
            *(_from_base(folder, policy, column, "mean_logp") for column in ("chosen", "rejected"))
        )
        for policy in ("orpo_little", "little")
    ]
    return mean_of(less(*gaps), low=0.0)


def _likelier(policy: str, column: str) -> Rule:
    """Log-probs less those of the model that training began from."""
    return lambda folder: mean_of(_from_base(folder, policy, column, "log_ratio"), low=0.0)


def _displaced(folder: Folder) -> Finding:
    start = reference(folder, "chosen_logp")
    found = folder.measure_at(AT, start, "chosen_logp", "dpo", beta=1.3)
    return mean_of({seed: value - start for seed, value in found.items()}, high=0.0)


def _margin_rises(folder: Folder) -> Finding:
    pair = ("chosen_logp", "rejected_logp")
    start = [reference(folder, column) for column in pair]
    found = [
        folder.measure_at(AT, before, column, "dpo", beta=1.3)
        for before, column in zip(start, pair, strict=True)
    ]
    before = start[0] - start[1]
    return mean_of({seed: gap - before for seed, gap in less(*found).items()}, low=0.0)


def _less_displaced(objective: str) -> Rule:
    def rule(folder: Folder) -> Finding:
        start = reference(folder, "chosen_logp")
        own = folder.measure_at(AT, start, "chosen_logp", objective)
        return mean_of(
            less(own, folder.measure_at(AT, start, "chosen_logp", "dpo", beta=1.3)), low=0.0
        )

    return rule


C14 = Card(
    "C14",
    "ORPO from the base model",
    (
        Claim(
            "ORPO from a barely trained model widens the gap between preferred and other "
            "completions (nats per token)",
            OURS,
            _gap_widens,
        ),
        Claim(
            "ORPO from this model makes preferred completions likelier (nats per completion)",
            OURS,
            _likelier("orpo_little", "chosen"),
        ),
        *(
            Claim(
                f"fine-tuning this model on preferred completions alone makes {said} likelier "
                "(nats per completion)",
                OURS,
                _likelier("sft_little", column),
            )
            for column, said in (("chosen", "them"), ("rejected", "the others"))
        ),
    ),
)

C26 = Card(
    "C26",
    "log-probs of preferred completions fall",
    (
        Claim(
            f"DPO lowers the log-probs of preferred completions at KL {AT} (nats per completion)",
            OURS,
            _displaced,
        ),
        Claim(f"DPO raises the margin at KL {AT} (nats)", OURS, _margin_rises),
        *(
            Claim(
                f"{name} lowers these log-probs less than DPO at KL {AT} (nats)",
                OURS,
                _less_displaced(o),
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
)
