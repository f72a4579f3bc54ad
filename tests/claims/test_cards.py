"""The list of cards."""

from alignlab.claims.cards import CARDS


def test_the_cards_are_those_of_the_list() -> None:
    names = [card.name for card in CARDS]
    assert names == [*(f"C{k}" for k in range(1, 27)), "L1", "L2", "L3", "L4"]


def test_every_card_has_claims_with_sentences_of_their_own() -> None:
    for card in CARDS:
        said = [claim.says for claim in card.claims]
        assert said, card.name
        assert len({*said}) == len(said), card.name
