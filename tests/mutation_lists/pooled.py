"""Objectives with a pool of samples: quantiles, normalisers, values, and who is in the pool."""

from tests.mutation_lists.mutation import Mutation

MUTATIONS = (
    Mutation(
        "QRPO's ties count for nothing",
        "objectives/qrpo.py",
        "rewards <= rewards[:, None]",
        "rewards < rewards[:, None]",
        "objectives/test_qrpo.py::test_quantiles_worked_by_hand",
    ),
    Mutation(
        "QRPO's normaliser is a sum",
        "objectives/qrpo.py",
        "return total - group.bincount()[group].to(total).log()",
        "return total",
        "conformance/test_pooled_optima.py::"
        "test_qrpo_ends_at_the_reference_tilted_by_quantiles[0.5]",
    ),
    Mutation(
        "QRPO's normaliser is without its beta",
        "objectives/qrpo.py",
        "quantiles - beta * log_z - beta",
        "quantiles - log_z - beta",
        "objectives/test_qrpo.py::test_value_and_gradient_worked_by_hand",
    ),
    Mutation(
        "DDO-RM forgets that candidates are samples of the reference",
        "objectives/ddo_rm.py",
        "rewards / beta, policy_logps - ref_logps",
        "rewards / beta, policy_logps",
        "conformance/test_pooled_optima.py::"
        "test_ddo_rm_ends_at_the_optimum_however_few_the_candidates",
    ),
    Mutation(
        "DDO-RM multiplies by beta",
        "objectives/ddo_rm.py",
        "rewards / beta, policy_logps - ref_logps",
        "rewards * beta, policy_logps - ref_logps",
        "objectives/test_ddo_rm.py::test_value_and_gradient_worked_by_hand",
    ),
    Mutation(
        "the gain of candidates is that of worse ones",
        "objectives/candidates.py",
        "weights = (ratios - group_logsumexp(ratios, group)).exp()",
        "weights = (-ratios - group_logsumexp(-ratios, group)).exp()",
        "objectives/test_candidates.py::test_the_loss_gets_what_a_slow_loop_finds[QRPO]",
    ),
    Mutation(
        "A*-PO's value is the mean reward",
        "objectives/astar_po.py",
        "return beta * float(tilted.logsumexp(0) - torch.tensor(float(len(rewards))).log())",
        "return beta * float(tilted.mean())",
        "objectives/test_astar_po.py::test_the_optimal_value_worked_by_hand",
    ),
    Mutation(
        "A*-PO's value takes the loss's beta",
        "objectives/astar_po.py",
        "optimal_value(rewards, beta=self.value_beta)",
        "optimal_value(rewards, beta=self.beta)",
        "objectives/test_astar_po.py::"
        "test_a_phase_has_the_reward_minus_its_prompts_optimal_value[False]",
    ),
    Mutation(
        "A*-PO centres rewards and not their values",
        "objectives/astar_po.py",
        "centred = scored.scores.new_tensor(values) - self.reward_mean.nan_to_num()",
        "centred = scored.scores.new_tensor(values)",
        "objectives/test_astar_po.py::"
        "test_a_phase_has_the_reward_minus_its_prompts_optimal_value[True]",
    ),
    Mutation(
        "best-of-n counts worse samples alone",
        "rewards/pooled.py",
        "bisect_right(pool, score)",
        "sum(other < score for other in pool)",
        "rewards/test_pooled.py::test_best_of_n_worked_by_hand",
    ),
    Mutation(
        "best-of-n takes n for n - 1",
        "rewards/pooled.py",
        "return (self.n - 1) * torch.tensor(",
        "return self.n * torch.tensor(",
        "conformance/test_pooled_optima.py::"
        "test_vbon_is_the_reference_times_a_power_of_its_distribution",
    ),
    Mutation(
        "a pool of any reward is taken",
        "rewards/pooled.py",
        "if not torch.allclose(again, known, rtol=TOLERANCE, atol=TOLERANCE):",
        "if False:",
        "rewards/test_pooled.py::"
        "test_a_prompt_without_samples_and_a_pool_of_another_reward_are_refused",
    ),
    Mutation(
        "ratings go to other completions where some are empty",
        "stages/candidates.py",
        "ratings = tuple(own.rewards[kept].tolist())",
        "ratings = tuple(own.rewards[: len(kept)].tolist())",
        "stages/test_candidates.py::test_empty_completions_are_left_out",
    ),
    Mutation(
        "candidates may contradict themselves",
        "data/rows/candidates.py",
        "if len(set(texts)) < len(set(zip(texts, self.ratings, strict=True))):",
        "if False:",
        "data/test_rows.py::test_unusable_rows_are_refused_with_the_reason",
    ),
    Mutation(
        "a plan forgets the reward model inside of another reward",
        "capacity/setup.py",
        'while reward.get("reward"):',
        "while False:",
        "capacity/test_setup.py::test_the_model_inside_of_a_reward_is_a_reward_model",
    ),
)
