"""GRPO's relatives: ranges, means, dropped groups, weights, whitening, where the penalty is."""

from tests.mutation_lists.mutation import Mutation

OPTIMA = "conformance/test_on_policy_optima.py::"
MUTATIONS = (
    Mutation(
        "the range upwards is the one downwards",
        "functional/surrogate.py",
        "high = math.log1p(clip_epsilon if clip_epsilon_high is None else clip_epsilon_high)",
        "high = math.log1p(clip_epsilon)",
        "functional/test_surrogate.py::test_the_two_sides_have_their_own_range",
    ),
    Mutation(
        "the share of clipped tokens knows one range",
        "functional/surrogate.py",
        "(moved > high)",
        "(moved > clip_epsilon)",
        "functional/test_surrogate.py::test_the_share_of_clipped_tokens",
    ),
    Mutation(
        "PPO forgets the range upwards",
        "objectives/ppo.py",
        "clip_epsilon=clip_epsilon, clip_epsilon_high=clip_epsilon_high,",
        "clip_epsilon=clip_epsilon,",
        "objectives/test_on_policy.py::test_the_range_upwards_may_be_wider",
    ),
    Mutation(
        "GRPO forgets the range upwards",
        "objectives/grpo.py",
        "clip_epsilon=clip_epsilon, clip_epsilon_high=clip_epsilon_high,",
        "clip_epsilon=clip_epsilon,",
        "objectives/test_grpo.py::test_a_wider_range_upwards",
    ),
    Mutation(
        "a sum over tokens is divided by completions",
        "objectives/grpo.py",
        "return losses.sum(), mask.sum()",
        "return losses.sum(), mask.any(1).sum()",
        "objectives/test_grpo.py::test_the_mean_over_tokens_is_a_sum_and_a_count_of_tokens",
    ),
    Mutation(
        "a step's sum over tokens is divided by its completions",
        "objectives/grpo.py",
        'self.unit = "tokens" if',
        'self.unit = "completions" if',
        "objectives/test_on_policy.py::test_the_mean_over_tokens_is_over_those_of_the_step",
    ),
    Mutation(
        "groups with equal rewards train",
        "objectives/on_policy.py",
        "counted = batch.trees.loss_mask & kept[:, None]",
        "counted = batch.trees.loss_mask",
        "objectives/test_on_policy.py::test_groups_with_equal_rewards_do_not_train",
    ),
    Mutation(
        "groups with different rewards are dropped",
        "objectives/on_policy.py",
        "kept = unequal(",
        "kept = ~unequal(",
        "objectives/test_on_policy.py::test_groups_with_equal_rewards_do_not_train",
    ),
    Mutation(
        "dropped completions count",
        "data/rollouts.py",
        "int(completions.any(-1).sum()), int(completions.sum()),",
        "rows.numel(), completions.numel(),",
        "data/test_rollouts.py::test_totals_leave_out_groups_that_were_dropped",
    ),
    Mutation(
        "the penalty's weight has no gradient",
        "objectives/grpo.py",
        "kl = (now - old_token_logps",
        "kl = (now.detach() - old_token_logps",
        OPTIMA + "test_a_penalty_in_the_loss_ends_elsewhere_and_weighted_as_k2_does[True-0.0528]",
    ),
    Mutation(
        "a penalty in the reward is in the loss too",
        "objectives/grpo.py",
        'kl_coef=0.0 if self.kl_in == "reward" else self.kl_coef',
        "kl_coef=self.kl_coef",
        "objectives/test_on_policy.py::test_grpo_puts_the_penalty_in_one_place_only",
    ),
    Mutation(
        "a penalty in the reward is left out of it",
        "objectives/on_policy.py",
        "rewards = self.completion_rewards(scored) if penalised else scored.scores",
        "rewards = scored.scores",
        "objectives/test_on_policy.py::test_a_penalty_in_the_reward_is_standardised_with_it",
    ),
    Mutation(
        "GSPO's ratio is a product over tokens",
        "objectives/gspo.py",
        "sum(1, keepdim=True) / lengths",
        "sum(1, keepdim=True)",
        "objectives/test_gspo.py::test_values_and_slopes_worked_by_hand",
    ),
    Mutation(
        "GSPO forgets the range upwards",
        "objectives/gspo.py",
        "clip_epsilon=clip_epsilon, clip_epsilon_high=clip_epsilon_high,",
        "clip_epsilon=clip_epsilon,",
        "objectives/test_gspo.py::test_values_and_slopes_worked_by_hand",
    ),
    Mutation(
        "CISPO's cap is counted from 1",
        "objectives/cispo.py",
        "clamp(max=math.log(weight_cap))",
        "clamp(max=math.log1p(weight_cap))",
        "conformance/test_trl_on_policy.py::test_cispos_cap_is_trls_epsilon_high",
    ),
    Mutation(
        "CISPO's weight has a gradient",
        "objectives/cispo.py",
        "log_ratio = logps.detach() -",
        "log_ratio = logps -",
        "objectives/test_cispo.py::test_no_token_is_dropped_and_no_weight_is_above_the_cap",
    ),
    Mutation(
        "REINFORCE++ whitens before the penalty",
        "objectives/reinforce_pp.py",
        "self.token_rewards(replace(scored, scores=centred))",
        "self.token_rewards(replace(scored, scores=centred), penalised=False)",
        "objectives/test_on_policy.py::"
        "test_reinforce_pp_whitens_penalised_returns_of_the_whole_phase",
    ),
    Mutation(
        "REINFORCE++ scales each group by itself",
        "objectives/reinforce_pp.py",
        "scored.trees.group, scale=False)",
        "scored.trees.group)",
        "objectives/test_on_policy.py::"
        "test_reinforce_pp_whitens_penalised_returns_of_the_whole_phase",
    ),
    Mutation(
        "REINFORCE++ climbs down",
        "objectives/reinforce_pp.py",
        "return losses.sum(), mask.sum()",
        "return -losses.sum(), mask.sum()",
        OPTIMA + "test_reinforce_pp_in_pairs_ends_at_the_optimum_of_twice_the_coefficient",
    ),
)
