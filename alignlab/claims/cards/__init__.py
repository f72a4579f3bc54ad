"""The cards, and the rule of every claim: a file for each subject.

To add a claim: a ``Claim`` of its card with a sentence, the results folder that it reads, and a
function of this folder that returns a ``Finding``. A claim whose table is not there is not run.
"""

from alignlab.claims.cards.control import C2, C6, C25
from alignlab.claims.cards.exact_tables import C15, C19, C20, C22, C23
from alignlab.claims.cards.frontier import C1, C11, C12, C13, C21
from alignlab.claims.cards.lectures import L1, L2, L3, L4
from alignlab.claims.cards.log_probs import C14, C26
from alignlab.claims.cards.overoptimisation import C5, C17, C18
from alignlab.claims.cards.ppo import C10, C24
from alignlab.claims.cards.reward_models import C7, C8, C9
from alignlab.claims.cards.win_rates import C3, C4
from alignlab.claims.cards.wrong_labels import C16

CARDS = (
    *(C1, C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12, C13),
    *(C14, C15, C16, C17, C18, C19, C20, C21, C22, C23, C24, C25, C26),
    *(L1, L2, L3, L4),
)
