"""The frontier end to end on worlds whose truth is known, and by hand."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from alignlab.errors import DataError
from alignlab.evaluation.frontier import build_frontier
from alignlab.results.prompt_tables import PromptTable
from alignlab.results.statistics import Floats
from alignlab.results.tables import BUDGETS, FrontierRow
from tests.evaluation.worlds import World


def by_key(rows: list[FrontierRow]) -> dict[tuple[str, float], FrontierRow]:
    return {(row.objective, row.kl_budget): row for row in rows}


def flat_table(world: World, kl: float, gain: float, **names: object) -> PromptTable:
    """A made-up policy: the same KL on every prompt, the reference's reward plus ``gain``."""
    made = world.table(world.ref, objective="dpo", run_id="r", seed=0, step=0)
    scores = replace(made.scores, kl=np.full(len(world.ids), kl), reward=made.scores.reward + gain)
    return replace(made, scores=scores, **names)  # type: ignore[arg-type]


def test_a_hull_read_by_hand() -> None:
    """Points (0.5, 1) (2, 2) (1, 0.5) above the reference: chords 2 per nat, then 2/3 per nat."""
    world = World(8, 10, seed=0)
    ref = float(world.mean_reward(world.ref).mean())
    points = [(0.5, 1.0), (2.0, 2.0), (1.0, 0.5)]
    tables = [flat_table(world, kl, gain, step=i) for i, (kl, gain) in enumerate(points)]
    rows = by_key(build_frontier(tables, world.exact_pool()).rows)
    gains = {
        budget: None if (reward := rows["dpo", budget].reward) is None else reward - ref
        for budget in BUDGETS
    }
    assert gains[0.25] == pytest.approx(0.5)
    assert gains[0.5] == pytest.approx(1.0)
    assert gains[1.0] == pytest.approx(1.0 + 0.5 * 2 / 3)
    assert gains[2.0] == pytest.approx(2.0)
    assert [gains[b] for b in (3.0, 5.0, 10.0)] == [None] * 3  # nothing beyond the largest KL
    assert rows["dpo", 3.0].n_seeds == 0
    assert (rows["dpo", 1.0].n_seeds, rows["dpo", 1.0].n_prompts) == (1, 8)


def test_both_halves_buy_at_one_price() -> None:
    """Two kinds of prompts, one policy: KL 2 and gain 4 on some, KL 0.5 and gain 2 on the rest.

    Whatever the halves hold, at the policy's own mean KL its own mean gain is reported.
    """
    world = World(10, 10, seed=0)
    rich = np.arange(10) < 4
    made = flat_table(world, 0.0, 0.0)
    scores = replace(
        made.scores,
        kl=np.where(rich, 2.0, 0.5),
        reward=made.scores.reward + np.where(rich, 4.0, 2.0),
    )
    ref = float(world.mean_reward(world.ref).mean())
    rows = build_frontier([replace(made, scores=scores)], world.exact_pool(), budgets=[1.1]).rows
    assert rows[0].reward == pytest.approx(ref + 2.8)


def test_the_best_of_many_equal_policies_is_no_better_than_one() -> None:
    """40 policies without any gain, told apart by noise alone: none may profit from its luck.

    Choosing and reporting on the same prompts would find 2.2 standard deviations of a mean.
    """
    rng = np.random.default_rng(0)
    world = World(50, 4, seed=0)
    gains = []
    for _ in range(20):
        tables = []
        for step in range(40):
            made = flat_table(world, 1.0, 0.0, step=step)
            noisy = made.scores.reward + rng.normal(size=50)
            tables.append(replace(made, scores=replace(made.scores, reward=noisy)))
        row = build_frontier(tables, world.exact_pool(), budgets=[1.0], replicates=2).rows[0]
        assert row.reward is not None
        gains.append(row.reward - world.mean_reward(world.ref).mean())
    assert np.mean(gains) == pytest.approx(0, abs=4 / np.sqrt(20 * 50))


def test_over_optimisation_shows_beyond_the_peak() -> None:
    world = World(8, 10, seed=0)
    ref = float(world.mean_reward(world.ref).mean())
    tables = [flat_table(world, 1.0, 2.0, step=1), flat_table(world, 3.0, -2.0, step=2)]
    rows = by_key(build_frontier(tables, world.exact_pool()).rows)
    reward = rows["dpo", 2.0].reward
    assert reward is not None
    assert reward - ref == pytest.approx(0.0)


def test_rows_for_every_objective_and_budget() -> None:
    world = World(8, 10, seed=0)
    tables = [
        flat_table(world, 1.0, 0.5, objective=name, run_id=name) for name in ("ppo_gt", "dpo")
    ]
    rows = build_frontier(tables, world.pool(512, 0)).rows
    names = ["dpo", "ppo_gt", "best_of_n", "best_of_n_gt", "oracle_proxy"]
    names += ["oracle", "dual_bound", "reference"]
    assert [(row.objective, row.kl_budget) for row in rows] == [
        (name, budget) for name in names for budget in BUDGETS
    ]
    without_proxy = build_frontier([], world.exact_pool()).rows
    assert {row.objective for row in without_proxy} == {"oracle", "dual_bound", "reference"}


def test_the_learned_rewards_own_optimum_against_enumeration() -> None:
    """All prompts are alike, so that both halves move along the same curve of gold reward."""
    world = World(8, 30, seed=2)
    world.ref[:], world.reward[:] = world.ref[0], world.reward[0]
    learned = world.reward + np.random.default_rng(0).normal(size=30)
    pool = world.exact_pool()
    many = replace(  # 100 copies of each completion, so that no weight is large
        pool,
        rewards=np.repeat(world.reward, 100, 1),
        proxy=np.repeat(learned, 100, 1),
        proposal=np.ones(3000, dtype=np.int64),
        log_ref=np.repeat(np.log(world.ref / 100), 100, 1),
        log_mixture=np.full((8, 3000), -np.log(3000)),
    )
    rows = by_key(build_frontier([], many).rows)
    for budget in (0.25, 0.5, 1.0):
        lo, hi = 1e-3, 1e3
        for _ in range(80):
            beta = (lo * hi) ** 0.5
            policy = world.tilted(beta, learned)
            lo, hi = (beta, hi) if world.kl(policy).mean() > budget else (lo, beta)
        exact = world.mean_reward(policy).mean()
        row = rows["oracle_proxy", budget]
        assert row.reward == pytest.approx(exact, abs=2e-3)
        optimum = rows["oracle", budget].reward
        assert optimum is not None
        assert exact < optimum - 0.05  # another reward's optimum is not the optimum
        assert row.n_seeds == 1


def test_the_optimum_itself_has_efficiency_one_and_a_worse_policy_its_share() -> None:
    world = World(40, 30, seed=1)
    ref = float(world.mean_reward(world.ref).mean())
    best, optimal = world.optimum_at(1.0)
    noisy = world.reward + np.random.default_rng(5).normal(size=world.reward.shape)
    lo, hi = 1e-2, 1e2
    for _ in range(60):  # the same KL, spent on a noisy reward
        beta = (lo * hi) ** 0.5
        lo, hi = (beta, hi) if world.kl(world.tilted(beta, noisy)).mean() > 1 else (lo, beta)
    worse = world.tilted(hi, noisy)
    tables = [
        world.table(optimal, objective="ppo_gt", run_id="a", seed=0, step=1),
        world.table(worse, objective="ppo", run_id="b", seed=0, step=1),
    ]
    k = 1 - 1e-6  # the policies' KL is 1 up to rounding
    rows = by_key(build_frontier(tables, world.exact_pool(), budgets=[k]).rows)
    assert rows["ppo_gt", k].oracle_efficiency is None  # the exact pool's ESS is below 50
    pool = world.pool(6_000, 0)
    rows = by_key(build_frontier(tables, pool, budgets=[k]).rows)
    found = rows["ppo_gt", k]
    assert found.oracle_reward == pytest.approx(best, abs=0.02)
    assert found.oracle_efficiency == pytest.approx(1.0, abs=0.02)
    share = (world.mean_reward(worse).mean() - ref) / (best - ref)
    assert rows["ppo", k].oracle_efficiency == pytest.approx(share, abs=0.02)
    assert rows["oracle", k].reward == found.oracle_reward
    assert rows["oracle", k].oracle_efficiency == 1.0
    assert rows["reference", k].reward == pytest.approx(ref, abs=0.02)
    assert rows["reference", k].oracle_efficiency == 0.0


def test_efficiency_is_empty_where_the_effective_sample_size_is_too_small() -> None:
    world = World(20, 200, seed=2)
    _, optimal = world.optimum_at(2.5)
    tables = [world.table(optimal, objective="ppo_gt", run_id="a", seed=0, step=1)]
    rows = by_key(build_frontier(tables, world.pool(512, 0)).rows)
    near, far = rows["ppo_gt", 0.25], rows["ppo_gt", 2.0]
    assert near.oracle_ess is not None
    assert near.oracle_ess >= 50
    assert near.oracle_efficiency is not None
    assert far.reward is not None
    assert far.oracle_ess is not None
    assert far.oracle_ess < 50
    assert (far.oracle_reward, far.oracle_efficiency, far.efficiency_lo) == (None, None, None)
    assert rows["oracle", 2.0].reward is None
    assert rows["oracle", 10.0].oracle_ess is None  # beyond the pool altogether


def test_an_efficiency_above_one_is_a_problem_and_not_a_result() -> None:
    world = World(20, 30, seed=3)
    impossible = flat_table(world, 1.0, 50.0)
    frontier = build_frontier([impossible], world.pool(4096, 0), budgets=[0.5])
    row = by_key(frontier.rows)["dpo", 0.5]
    assert row.reward is not None
    assert (row.oracle_efficiency, row.efficiency_lo, row.efficiency_hi) == (None, None, None)
    assert len(frontier.impossible) == 1
    assert frontier.impossible[0].lo > 1
    assert str(frontier.impossible[0]).startswith("dpo at KL 0.5 has ")


def test_seeds_give_a_t_interval() -> None:
    """Constant KL and gains 1, 2, 4: prompts cancel in gains, so the spread is the seeds' alone."""
    world = World(400, 4, seed=4)
    world.reward[:] = [0.0, 1.0, 2.0, 3.0]
    world.ref[:] = 0.25
    tables = [
        flat_table(world, 1.0, gain, seed=seed, run_id=f"s{seed}")
        for seed, gain in enumerate((1.0, 2.0, 4.0))
    ]
    row = by_key(build_frontier(tables, world.exact_pool()).rows)["dpo", 1.0]
    wanted = stats.t.interval(0.95, 2, loc=1.5 + 7 / 3, scale=stats.sem([1.0, 2.0, 4.0]))
    assert (row.reward_lo, row.reward_hi) == pytest.approx(wanted, rel=1e-6)
    assert row.n_seeds == 3


def test_one_seed_gives_the_prompts_interval() -> None:
    world = World(400, 8, seed=5)
    row = by_key(build_frontier([flat_table(world, 1.0, 1.0)], world.exact_pool()).rows)["dpo", 1.0]
    se = stats.sem(world.mean_reward(world.ref))
    assert row.reward is not None
    assert row.reward_hi is not None
    assert row.reward_hi - row.reward == pytest.approx(1.96 * se, rel=0.08)


def test_most_seeds_must_reach_a_budget() -> None:
    world = World(8, 10, seed=0)

    def at(kls: list[float]) -> FrontierRow:
        tables = [flat_table(world, kl, 1.0, seed=i, run_id=f"s{i}") for i, kl in enumerate(kls)]
        return by_key(build_frontier(tables, world.exact_pool()).rows)["dpo", 3.0]

    lone = at([1.0, 1.0, 18.0])
    assert (lone.reward, lone.n_seeds) == (None, 1)
    two = at([1.0, 3.5, 18.0])
    assert two.reward is not None
    assert two.n_seeds == 2


def test_the_order_of_prompts_and_tables_does_not_matter() -> None:
    world = World(16, 20, seed=6)
    rng = np.random.default_rng(0)
    tables = [
        world.table(
            world.tilted(beta),
            objective="dpo",
            run_id=f"b{beta}-{s}",
            seed=s,
            step=1,
            samples=8,
            rng=rng,
        )
        for beta in (2.0, 0.7)
        for s in (0, 1)
    ]
    pool = world.pool(256, 0)
    wanted = build_frontier(tables, pool)
    shuffled = [_permuted(table, rng) for table in reversed(tables)]
    found = build_frontier(shuffled, pool.take(tuple(rng.permutation(world.ids).tolist())))
    for a, b in zip(wanted.rows, found.rows, strict=True):
        assert (a.objective, a.n_seeds) == (b.objective, b.n_seeds)
        assert (a.reward is None) == (b.reward is None)
        if a.reward is not None:
            assert b.reward == pytest.approx(a.reward, rel=1e-12)
            assert b.reward_lo == pytest.approx(a.reward_lo, rel=1e-9)


def _permuted(table: PromptTable, rng: np.random.Generator) -> PromptTable:
    order = rng.permutation(len(table.scores.prompt_ids))
    scores = table.scores
    return replace(
        table,
        scores=replace(
            scores,
            prompt_ids=tuple(scores.prompt_ids[i] for i in order),
            kl=scores.kl[order],
            reward=scores.reward[order],
        ),
    )


def drop_a_prompt(table: PromptTable) -> PromptTable:
    scores = replace(
        table.scores,
        prompt_ids=table.scores.prompt_ids[1:],
        kl=table.scores.kl[1:],
        reward=table.scores.reward[1:],
    )
    return replace(table, run_id="short", scores=scores)


def rename_a_prompt(table: PromptTable) -> PromptTable:
    ids = ("elsewhere", *table.scores.prompt_ids[1:])
    return replace(table, run_id="other", scores=replace(table.scores, prompt_ids=ids))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_a_prompt, "run 'short', step 0: evaluated on 7 prompts of which 7 are among the 8"),
        (rename_a_prompt, "run 'other', step 0: evaluated on 8 prompts of which 7 are among the 8"),
    ],
)
def test_other_prompts_are_refused(
    change: Callable[[PromptTable], PromptTable], message: str
) -> None:
    world = World(8, 10, seed=0)
    table = flat_table(world, 1.0, 1.0)
    with pytest.raises(DataError, match=message):
        build_frontier([table, change(table)], world.exact_pool())
    with pytest.raises(DataError, match="1 of 8 evaluated prompts are not in"):
        build_frontier([rename_a_prompt(table)], world.exact_pool())


def test_too_few_prompts_are_refused() -> None:
    world = World(3, 5, seed=0)
    with pytest.raises(DataError, match="at least 4 prompts"):
        build_frontier([], world.exact_pool())


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    """150 experiments: 3 seeds whose policies differ, 64 prompts, 8 samples, 4 candidate points.

    Truth: mean over a population of prompts and seeds of the exact reward at KL 0.5. The interval
    errs on the wide side, so 95 % is the least it should cover; and it must not be twice too wide.
    """
    population = World(5_000, 16, seed=7)
    rng = np.random.default_rng(8)
    truth = float(np.mean([_truth(population, _seed_policies(population, rng)) for _ in range(80)]))
    found, hits, halves = [], [], []
    for trial in range(150):
        world = World(64, 16, seed=0)
        rows = rng.choice(len(population.ids), size=64, replace=False)
        world.ref, world.reward = population.ref[rows], population.reward[rows]
        tables = [
            world.table(p, objective="dpo", run_id=f"{s}-{i}", seed=s, step=i, samples=8, rng=rng)
            for s in range(3)
            for i, p in enumerate(_seed_policies(world, rng))
        ]
        frontier = build_frontier(tables, world.pool(100, trial), budgets=[0.5], replicates=200)
        row = by_key(frontier.rows)["dpo", 0.5]
        assert row.reward is not None
        assert row.reward_lo is not None
        assert row.reward_hi is not None
        found.append(row.reward)
        hits.append(row.reward_lo <= truth <= row.reward_hi)
        halves.append((row.reward_hi - row.reward_lo) / 2)
    assert np.mean(hits) >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / 150)
    assert np.mean(halves) < 2 * 1.96 * np.std(found)
    assert abs(np.mean(found) - truth) < 3 * np.std(found) / np.sqrt(150)


def _seed_policies(world: World, rng: np.random.Generator) -> list[Floats]:
    """A seed's checkpoints: optimal for the reward plus an error that all its prompts share."""
    wrong = world.reward + 0.3 * rng.normal(size=world.reward.shape[1])
    tilts = (np.log(world.ref) + wrong / beta for beta in (3.0, 1.5, 0.8, 0.4))
    return [np.exp(t) / np.exp(t).sum(1, keepdims=True) for t in tilts]


def _truth(world: World, policies: list[Floats]) -> float:
    kl = [0.0, *(float((p * np.log(p / world.ref)).sum(1).mean()) for p in policies)]
    reward = [float((p * world.reward).sum(1).mean()) for p in [world.ref, *policies]]
    return float(np.interp(0.5, kl, reward))


def test_a_base_is_compared_in_shares_of_the_resampled_gain() -> None:
    """Two policies with 0.8 and 0.4 of the optimum's gain on every prompt differ by 0.4, surely.

    Gains differ much between prompts, so that a gain which is not resampled would blur it.
    """
    world = World(40, 60, seed=1)
    _, optimal = world.optimum_at(1.0)
    gain = world.mean_reward(optimal) - world.mean_reward(world.ref)
    tables = []
    for name, share in (("dpo", 0.4), ("ppo", 0.8)):
        made = flat_table(world, 1.0, 0.0, objective=name, run_id=name)
        scores = replace(made.scores, reward=made.scores.reward + share * gain)
        tables.append(replace(made, scores=scores))
    pool = world.exact_pool()
    pool = replace(  # forty times over, which changes nothing but the effective sample size
        pool,
        proposal=np.repeat(pool.proposal, 40),
        rewards=np.repeat(pool.rewards, 40, axis=1),
        log_ref=np.repeat(pool.log_ref, 40, axis=1),
        log_mixture=np.repeat(pool.log_mixture, 40, axis=1),
    )
    found = build_frontier(tables, pool, base="dpo")
    (row,) = [row for row in found.against if row.kl_budget == 1.0]
    assert (row.objective, row.base, row.n_seeds) == ("ppo", "dpo", 1)
    assert row.difference == pytest.approx(0.4, abs=1e-3)
    assert row.hi is not None
    blurred = 0.4 * 2.02 * gain.std() / gain.mean() / np.sqrt(40)
    assert row.hi - 0.4 < 0.6 * blurred
    assert not build_frontier(tables, pool).against
