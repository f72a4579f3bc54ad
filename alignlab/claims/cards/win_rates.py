"""Win rates on summaries over temperature, on posts like those of training and on others."""

from alignlab.claims.card import SUMMARIES, Card, Claim, Rule
from alignlab.claims.finding import Finding, Measured, apart, in_interval
from alignlab.claims.tables import Folder, OfStage

PEOPLE = "completion"  # whose summaries are the opponents
BEST = "best of n"  # of 16 samples of the reference
COLD, WARM, HOT = 0.0, 0.5, 1.0
DPO, PPO = OfStage("dpo"), OfStage("ppo")
ELSEWHERE = "elsewhere/winrate_differences.csv"  # posts of subreddits that nothing has seen


def _dpo_less_ppo(table: str, temperature: float, minus: float | str = "") -> Rule:
    """DPO's rate less PPO's; with ``minus``, of their changes from this temperature on."""

    def rule(folder: Folder) -> Finding:
        found = folder.difference(
            table,
            DPO,
            PPO,
            name="policy",
            against=PEOPLE,
            temperature=temperature,
            minus_temperature=minus,
        )
        return in_interval(found, low=0.0)

    return rule


def rates_apart(one: tuple[str, float], other: tuple[str, float]) -> Rule:
    """The rate of one policy at a temperature less that of another, or at another temperature."""

    def rate(folder: Folder, policy: str, temperature: float) -> Measured:
        return folder.measured(
            "winrates.csv", "rate", policy=policy, against=PEOPLE, temperature=temperature
        )

    return lambda folder: in_interval(apart(rate(folder, *one), rate(folder, *other)), low=0.0)


C3 = Card(
    "C3",
    "TL;DR's win rate over temperature",
    (
        Claim(
            "from temperature 0 to 1 DPO's win rate against people's summaries falls no more than "
            "PPO's (difference of changes)",
            SUMMARIES,
            _dpo_less_ppo("winrate_differences.csv", HOT, COLD),
        ),
        *(
            Claim(
                f"best of 16 wins more often at temperature {WARM} than at {end:g} (difference)",
                SUMMARIES,
                rates_apart((BEST, WARM), (BEST, end)),
            )
            for end in (COLD, HOT)
        ),
    ),
)

C4 = Card(
    "C4",
    "prompts of another domain",
    tuple(
        Claim(
            "on posts of other subreddits DPO wins at least as often as PPO against people's "
            f"summaries at temperature {temperature:g} (difference)",
            SUMMARIES,
            _dpo_less_ppo(ELSEWHERE, temperature),
        )
        for temperature in (0.0, 0.25)
    ),
)
