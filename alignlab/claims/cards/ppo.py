"""Details of PPO, and where its time goes."""

from functools import partial

from alignlab.claims.card import AT, OURS, Card, Claim, Rule, reference
from alignlab.claims.finding import Finding, Values, exact, mean_of
from alignlab.claims.tables import Folder, less, paired

PHASE = 8  # steps on the samples of a rollout: two passes over four minibatches
LONG, SHORT = 40, 5  # tokens of every completion in ``ppo_lengths``


def _first_pass(figure: str, high: float) -> Rule:
    """The largest value of a figure in the steps before which nothing was updated."""

    def rule(folder: Folder) -> Finding:
        rows = folder.rows("first_pass.csv")
        first = [row for row in rows if int(row["step"]) % PHASE == 0]
        return exact([float(row[f"train/{figure}"]) for row in first], high=high)

    return rule


def _no_better(ablation: str) -> Rule:
    def rule(folder: Folder) -> Finding:
        reward = partial(folder.reward_at, AT, reference(folder, "reward"))
        return mean_of(less(reward(ablation), reward("ppo", kl_target=1.0)), high=0.0)

    return rule


def _rollouts(folder: Folder, tokens: int) -> Values:
    """Share of the wall time that rollouts take, by seed."""
    run = f"ppo_lengths-max_new_tokens{tokens}-"
    part, whole = (
        folder.by_seed("cost.csv", column, run=run, name="stage")
        for column in ("rollout_seconds", "seconds")
    )
    return paired(part, whole, lambda a, b: a / b)


def _most_is_sampling(folder: Folder) -> Finding:
    return mean_of(_rollouts(folder, LONG), low=0.5)


def _longer_takes_more(folder: Folder) -> Finding:
    return mean_of(less(_rollouts(folder, LONG), _rollouts(folder, SHORT)), low=0.0)


C10 = Card(
    "C10",
    "details of PPO",
    (
        Claim(
            "before the first update of a phase every token's ratio is 1 (largest log-ratio, nats)",
            OURS,
            _first_pass("first_log_ratio", 1e-5),
        ),
        Claim(
            "before the first update of a phase the KL to the sampling policy is 0 (nats a token)",
            OURS,
            _first_pass("approx_kl", 1e-6),
        ),
        *(
            Claim(
                f"PPO {said} has at most the reward of PPO at KL {AT} (difference)",
                OURS,
                _no_better(ablation),
            )
            for ablation, said in (
                ("ppo_no_whitening", "without whitened advantages"),
                ("ppo_value_sft", "with values initialised from the policy, not the reward model,"),
                ("ppo_kl_in_loss", "with the penalty (k3) in the loss"),
            )
        ),
    ),
)

C24 = Card(
    "C24",
    "share of sampling in PPO's time",
    (
        Claim(
            f"rollouts of {LONG} tokens take at least half of PPO's time (share)",
            OURS,
            _most_is_sampling,
        ),
        Claim(
            f"rollouts of {LONG} tokens take a larger share than those of {SHORT} (difference)",
            OURS,
            _longer_takes_more,
        ),
    ),
)
