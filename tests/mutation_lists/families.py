"""Which model is in the row: layouts, readings of the sampler, and what compares them."""

from tests.mutation_lists.mutation import Mutation

MUTATIONS = (
    Mutation(
        "samples are never compared with the training forward",
        "objectives/on_policy.py",
        "check_drawn(drawn, scored[trees.loss_mask]",
        "check_drawn(drawn, torch.cat([x for row in drawn.token_logps for x in row])",
        "objectives/test_on_policy.py::test_a_temperature_in_one_place_only_is_refused",
    ),
    Mutation(
        "an evaluation trusts what the sampler says",
        "evaluation/points.py",
        "check_drawn(drawn, kl.token_logps, type(policy.model).__name__)",
        "",
        "rollouts/test_comparison.py::"
        "test_evaluations_and_pools_refuse_a_sampler_of_another_distribution",
    ),
    Mutation(
        "a pool trusts what the sampler says",
        "evaluation/pool_sampling.py",
        "check_samples(policy, block, spec)",
        "pass",
        "rollouts/test_comparison.py::"
        "test_evaluations_and_pools_refuse_a_sampler_of_another_distribution",
    ),
    Mutation(
        "drawn log-probs are compared on average",
        "rollouts/comparison.py",
        "worst = float(gaps[at])",
        "worst = float(gaps.mean())",
        "rollouts/test_comparison.py::test_the_token_that_is_off_is_named",
    ),
    Mutation(
        "the longest completions are never read again",
        "rollouts/comparison.py",
        "chosen = every[:: -max(",
        "chosen = every[:: max(",
        "rollouts/test_comparison.py::test_some_completions_are_read_again_the_longest_among_them",
    ),
)
