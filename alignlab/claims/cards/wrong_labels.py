"""What flipped labels cost."""

from alignlab.claims.card import AT, OURS, Card, Claim, Rule, reference
from alignlab.claims.finding import Finding, mean_of
from alignlab.claims.tables import Folder, less


def _noise_costs_less(method: str, percent: int) -> Rule:
    """``method`` loses less reward at ``AT`` than DPO when ``percent`` of the labels flip."""

    def rule(folder: Folder) -> Finding:
        start = reference(folder, "reward")
        noisy = [folder.reward_at(AT, start, f"{o}_flip{percent}") for o in (method, "dpo")]
        change = less(*noisy)
        if method == "ipo":  # the others are DPO where no label is wrong
            clean = folder.reward_at(AT, start, "ipo")
            change = less(change, less(clean, folder.reward_at(AT, start, "dpo", beta=0.6)))
        return mean_of(change, low=0.0)

    return rule


def _dpo_is_best_without_noise(folder: Folder) -> Finding:
    start = reference(folder, "reward")
    dpo = folder.reward_at(AT, start, "dpo", beta=0.6)
    return mean_of(less(dpo, folder.reward_at(AT, start, "ipo")), low=0.0)


C16 = Card(
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
)
