"""Records of runs: which run made a number, what differs, how many seeds tell runs apart."""

from tests.mutation_lists.mutation import Mutation

POWER = "evaluation/test_power.py::"

MUTATIONS = (
    Mutation(
        "the chance of seeing a difference forgets that seeds' spread is estimated",
        "evaluation/power.py",
        "chdtri(df, (np.arange(QUANTILES) + 0.5) / QUANTILES) / df",
        "np.ones(QUANTILES)",
        f"{POWER}test_without_noise_over_prompts_it_is_the_power_of_the_t_test",
    ),
    Mutation(
        "half-widths of seeds and prompts are added, not their squares",
        "evaluation/power.py",
        "half = np.sqrt(square + t_quantile(df) ** 2 * observed / spread.seeds)",
        "half = np.sqrt(square) + t_quantile(df) * np.sqrt(observed / spread.seeds)",
        f"{POWER}test_power_is_the_share_of_simulated_intervals_that_exclude_zero",
    ),
    Mutation(
        "one prompt fewer than what suffices",
        "evaluation/power.py",
        "    return low\n",
        "    return low - 1\n",
        f"{POWER}test_prompts_by_hand",
    ),
    Mutation(
        "the spread over prompts is that of the mean",
        "evaluation/comparison.py",
        "prompt_sd=float(means[1:].std(ddof=1)) * math.sqrt(n_prompts),",
        "prompt_sd=float(means[1:].std(ddof=1)),",
        "evaluation/test_comparison.py::test_a_spread_is_what_the_interval_is_made_of",
    ),
    Mutation(
        "a resolved difference is given prompts to resolve it",
        "report/sections.py",
        'if row.lo <= 0 <= row.hi else "-"',
        "",
        "report/test_sections.py::"
        "test_a_difference_that_is_not_resolved_has_the_prompts_that_would",
    ),
)
