import pytest

from alignlab.evaluation.effects import effects, importances, omega_squared
from alignlab.results.tables import Point


def point(run: str, step: int, kl: float, reward: float, **hparams: float | str | None) -> Point:
    return Point(
        experiment="e", objective="dpo", run_id=run, seed=0, step=step, hparams=hparams, kl=kl,
        kl_se=0.1, kl_k1=kl, kl_k1_se=0.1, reward=reward, reward_se=0.1, proxy_reward=None,
        length=5.0, n_prompts=8, n_samples=32, config_sha="c", git_sha="g", seconds=1.0,
    )  # fmt: skip


def runs() -> list[Point]:
    """KL follows beta alone, reward lr alone; the first checkpoints would say otherwise."""
    last = [
        point(f"{beta}-{lr}", 20, kl=2 / beta, reward=3 * lr, beta=beta, lr=lr)
        for beta in (0.5, 1.0, 2.0)
        for lr in (1.0, 2.0)
    ]
    return [point(p.run_id, 10, kl=9.0, reward=-9.0, **p.hparams) for p in last] + last


def test_effects_are_means_of_last_checkpoints_by_value() -> None:
    rows = {(row.hparam, row.value): row for row in effects(runs())}
    assert list(rows) == [
        ("beta", "0.5"),
        ("beta", "1.0"),
        ("beta", "2.0"),
        ("lr", "1.0"),
        ("lr", "2.0"),
    ]
    beta = rows["beta", "0.5"]
    # Rewards 3 and 6: mean 4.5, standard deviation 3 / sqrt(2).
    assert (beta.n_runs, beta.kl, beta.kl_sd, beta.reward) == (2, 4.0, 0.0, 4.5)
    assert beta.reward_sd == pytest.approx(2.1213203)


def test_what_a_metric_follows_is_all_important_and_the_rest_is_nothing() -> None:
    found = {(row.metric, row.hparam): row.importance for row in importances(runs())}
    follows = {
        ("kl", "beta"): 1.0,
        ("kl", "lr"): 0.0,
        ("reward", "beta"): 0.0,
        ("reward", "lr"): 1.0,
    }
    assert found == pytest.approx(follows)


def test_settings_that_change_together_share_a_row() -> None:
    """Three settings with three runs each: nothing tells beta from lr, but clip is like neither."""
    settings = [(1.0, 0.1, "a"), (2.0, 0.3, "a"), (3.0, 0.2, "b")]
    tuned = [
        point(f"{beta}-{k}", 10, kl=beta, reward=0.0, beta=beta, lr=lr, clip=clip)
        for beta, lr, clip in settings
        for k in range(3)
    ]
    found = {row.hparam: row.importance for row in importances(tuned) if row.metric == "kl"}
    # clip: means 1.5 and 3, SST 6, SSB 4.5, MSW 1.5 / 7.
    assert found == pytest.approx({"beta, lr": 1.0, "clip": (4.5 - 1.5 / 7) / (6 + 1.5 / 7)})


def test_a_setting_that_some_runs_lack_is_told_from_one_that_all_have() -> None:
    some = [
        point(f"{k}", 10, kl=float(k), reward=0.0, beta=k % 2, **({"lr": k % 2} if k < 8 else {}))
        for k in range(12)
    ]
    assert {(row.hparam, row.n_runs) for row in importances(some)} == {("beta", 12), ("lr", 8)}


def test_omega_squared_by_hand() -> None:
    """Groups (1, 3) and (5, 7): SST 20, SSB 16, MSW 2, so (16 - 2) / (20 + 2)."""
    assert omega_squared([1.0, 3.0, 5.0, 7.0], "aabb") == pytest.approx(14 / 22)


def test_values_that_never_repeat_are_cut_into_quarters() -> None:
    spread = [point(str(i), 10, kl=float(i // 3), reward=0.0, beta=0.1 * i) for i in range(12)]
    found = {(row.metric, row.hparam): row.importance for row in importances(spread)}
    assert found == pytest.approx({("kl", "beta"): 1.0, ("reward", "beta"): 0.0})


def test_null_is_a_value_before_the_numbers_and_words_come_last() -> None:
    values = ("no", 0.2, None, 0.1)
    mixed = [point(str(v), 10, kl=1.0, reward=0.0, clip=v) for v in values]
    assert [row.value for row in effects(mixed)] == ["None", "0.1", "0.2", "no"]


def test_null_among_many_values_keeps_them_apart() -> None:
    values = [None, *(0.1 * i for i in range(7))]
    spread = [
        point(f"{i}-{v}", 10, kl=0.0 if v is None else 1.0, reward=0.0, clip=v)
        for v in values
        for i in range(2)
    ]
    found = {(row.metric, row.hparam): row.importance for row in importances(spread)}
    assert found == pytest.approx({("kl", "clip"): 1.0, ("reward", "clip"): 0.0})


def test_a_handful_of_runs_says_nothing() -> None:
    assert importances(runs()[-5:]) == []
