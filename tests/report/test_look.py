"""The options that choose arms, names and budgets."""

import argparse

import pytest

from alignlab.errors import ConfigError
from alignlab.report.look import Look, add_look, check_budgets, chosen_look
from alignlab.results.tables import BUDGETS, FrontierRow

ROWS = [FrontierRow(objective=name, kl_budget=0.5) for name in ("dpo", "ppo", "oracle")]


def parsed(*words: str) -> Look:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_look(parser)
    return chosen_look(parser.parse_args(words))


def test_options_become_arms_names_and_budgets() -> None:
    look = parsed("--arms", "oracle, dpo", "--name", "dpo=DPO = ours", "--budgets", "2,0.5,2")
    assert look == Look(arms=("oracle", "dpo"), names={"dpo": "DPO = ours"}, budgets=(0.5, 2.0))
    assert [row.objective for row in look.shown(ROWS)] == ["oracle", "dpo"]
    assert [look.label(name) for name in ("dpo", "ppo")] == ["DPO = ours", "ppo"]
    assert look.columns() == (0.5, 2.0)


def test_without_options_everything_is_shown_as_it_is_called() -> None:
    assert parsed().shown(ROWS) == ROWS
    assert parsed().columns() == BUDGETS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--arms", "dpo,,ppo"), "expected names such as dpo,ppo, each once, got 'dpo,,ppo'"),
        (("--arms", "dpo,dpo"), "each once, got 'dpo,dpo'"),
        (("--name", "dpo"), "expected ARM=NAME, such as dpo=DPO, got 'dpo'"),
        (("--budgets", "0"), "expected numbers such as 0.5,1,2, got '0'"),
        (("--budgets", "1,inf"), "got '1,inf'"),
        (("--budgets", "one"), "got 'one'"),
    ],
)
def test_a_wrong_option_is_one_message(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(argparse.ArgumentError, match=said):
        parsed(*words)


def test_what_the_results_do_not_have_is_refused() -> None:
    names = [row.objective for row in ROWS]
    with pytest.raises(ConfigError, match=r"--arms: no objective ipo in .* dpo, ppo, oracle\."):
        Look(arms=("dpo", "ipo")).check(names)
    with pytest.raises(ConfigError, match=r"--name: no objective ipo"):
        Look(names={"ipo": "IPO"}).check(names)
    with pytest.raises(ConfigError, match=r"nothing was computed at KL 1\. There are: 0\.5\."):
        check_budgets(Look(budgets=(0.5, 1.0)), ROWS)
