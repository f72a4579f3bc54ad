"""Precision, totals and small numbers: what is compared, and what a step was divided by."""

from tests.mutation_lists.mutation import Mutation

OF_THE_STEP = "objectives/test_precision.py::test_a_rollout_is_scored_in_the_precision_of_the_step"

MUTATIONS = (
    Mutation(
        "a coarse head is taken for another architecture",
        "models/policy.py",
        "torch.promote_types(self.head_dtype, states.dtype)",
        "self.head_dtype",
        "models/test_policy.py::test_a_coarse_head_is_not_taken_for_another_architecture",
    ),
    Mutation(
        "log-probs of samples in bfloat16 are not rescored",
        "objectives/on_policy.py",
        "        with self._sampling_precision():\n            exact",
        "        with self.own_precision():\n            exact",
        "objectives/test_precision.py::test_sampling_in_bfloat16_leaves_the_log_probs_to_the_step",
    ),
    Mutation(
        "rollouts are scored outside the trainer's autocast",
        "objectives/base.py",
        "return self.trainer.precision_plugin.train_step_context()",
        "return nullcontext()",
        f"{OF_THE_STEP}[rloo]",
    ),
    Mutation(
        "values are read outside the trainer's autocast",
        "objectives/ppo.py",
        "values = self.in_chunks(trees, self.value) if",
        "values = self.value(trees) if",
        f"{OF_THE_STEP}[ppo]",
    ),
    Mutation(
        "completions are drawn outside the trainer's autocast",
        "objectives/on_policy.py",
        "with self._sampling_precision(), whole:\n            drawn",
        "if True:\n            drawn",
        "objectives/test_precision.py::test_drawn_log_probs_are_of_the_precision_of_the_step_too",
    ),
    Mutation(
        "the precision of a forward is that of the weights, autocast or not",
        "models/policy.py",
        "autocast = torch.is_autocast_enabled(kind)",
        "autocast = False",
        "models/test_policy.py::test_the_precision_of_a_forward_is_that_of_its_coarsest_part",
    ),
    Mutation(
        "in bfloat16 a tenth of a nat is as good as any gap",
        "functional/numeric.py",
        "return None if size <= (1e-3 if exact else 0.1) else size",
        "return None if size <= (1e-3 if exact else 1.0) else size",
        "objectives/test_precision.py::"
        "test_a_temperature_of_the_step_alone_is_noticed_in_bfloat16[float32]",
    ),
    Mutation(
        "single tokens in bfloat16 are held to the mean's bound",
        "functional/numeric.py",
        "gap.max() if exact else",
        "gap.max() if True else",
        "functional/test_numeric.py::"
        "test_the_largest_gap_counts_in_float32_and_the_mean_square_in_bfloat16",
    ),
    Mutation(
        "on-policy objectives take samples by top-p",
        "objectives/on_policy.py",
        "if sampling.spec.top_k or sampling.spec.top_p < 1:",
        "if sampling.spec.top_k:",
        "objectives/test_on_policy.py::test_samples_of_some_tokens_only_are_refused_at_the_start",
    ),
    Mutation(
        "counting the steps of max_epochs keeps a loader that the checkpoint does not reach",
        "objectives/schedule.py",
        "if not built:",
        "if False:",
        "objectives/test_training.py::test_epochs_that_were_cut_off_continue_bit_for_bit[sft]",
    ),
    Mutation(
        "a stop cuts an optimizer step in two",
        "objectives/base.py",
        "self.trainer.should_stop = self._to_stop and whole",
        "self.trainer.should_stop = self._to_stop",
        "objectives/test_training.py::test_a_stop_waits_for_the_step_to_be_whole",
    ),
    Mutation(
        "a stopped training is saved as one whose epoch is over",
        "callbacks/resume.py",
        "if not trainer.should_stop or",
        "if True or",
        "objectives/test_training.py::test_a_stop_waits_for_the_step_to_be_whole",
    ),
    Mutation(
        "a step that the trainer cuts is divided by rows that it did not see",
        "data/loader.py",
        "seen = min(pieces, self._end - (position - 1 - piece))",
        "seen = pieces",
        "data/test_loader.py::test_totals_are_the_whole_steps_on_every_micro_batch_and_rank[1-5]",
    ),
    Mutation(
        "a loader does not know the share of an epoch that the trainer takes",
        "data/loader.py",
        "return int(batches * limit) if isinstance(limit, float) else",
        "return batches if isinstance(limit, float) else",
        "data/test_loader.py::test_a_share_of_an_epoch_is_taken_and_its_length_is_the_whole",
    ),
    Mutation(
        "a phase may end inside an optimizer step",
        "data/rollout_data.py",
        "% loader.micro_batches:",
        "% 1:",
        "objectives/test_training.py::test_a_phase_that_the_trainer_cuts_inside_a_step_is_refused",
    ),
    Mutation(
        "a constant rate asks for the number of steps",
        "objectives/schedule.py",
        'or self.decay == "constant":',
        "or False:",
        "objectives/test_training.py::"
        "test_time_alone_ends_a_training_unless_its_schedule_needs_an_end",
    ),
    Mutation(
        "a decay over endless steps is an OverflowError",
        "objectives/schedule.py",
        "if 0 <= steps < math.inf else None",
        "if 0 <= steps else None",
        "objectives/test_training.py::"
        "test_time_alone_ends_a_training_unless_its_schedule_needs_an_end",
    ),
    Mutation(
        "a cached reference is computed outside the trainer's autocast",
        "objectives/base.py",
        "with self.own_precision():",
        "if True:",
        "objectives/test_precision.py::test_a_cached_reference_is_of_the_precision_of_the_step",
    ),
    Mutation(
        "a cached reference is computed in other batches than it is compared in",
        "models/reference.py",
        "first = list(first_epoch()) if coarse else ()",
        "first = ()",
        "objectives/test_precision.py::"
        "test_a_policy_that_has_not_moved_equals_its_cached_reference_exactly",
    ),
    Mutation(
        "a cache of one order of the rows serves another",
        "models/reference.py",
        "digest.update(repr(batch.index.tolist()).encode())",
        "pass",
        "objectives/test_precision.py::"
        "test_a_policy_that_has_not_moved_equals_its_cached_reference_exactly",
    ),
    Mutation(
        "a cache of one precision serves another",
        "models/reference.py",
        'f"{reference.precision} {reference.head_dtype}".encode()',
        "",
        "models/test_reference.py::test_a_cache_belongs_to_one_precision",
    ),
    Mutation(
        "a cache of bfloat16 is held to float32's rounding",
        "models/reference.py",
        "cached[mask], reference.precision)",
        "cached[mask], torch.float32)",
        "models/test_reference.py::test_a_cache_of_bfloat16_is_allowed_its_rounding_and_no_more",
    ),
    Mutation(
        "best-of-n of a pool is that of its plain distribution",
        "evaluation/best_of_n.py",
        "    if sampled:\n        chosen",
        "    if False:\n        chosen",
        "evaluation/test_best_of_n.py::"
        "test_the_gain_of_16_n_samples_is_that_of_the_whole_distribution[2-0.5641896]",
    ),
    Mutation(
        "subsets are counted with replacement of one sample",
        "evaluation/best_of_n.py",
        "gammaln(held + 1) - gammaln(held - n + 1)",
        "gammaln(held + 1) - gammaln(held - n + 2)",
        "evaluation/test_best_of_n.py::test_a_pool_is_the_mean_over_all_its_subsets[0-3]",
    ),
    Mutation(
        "a ratio is clipped after its exponential",
        "functional/surrogate.py",
        "return -(held.exp() * advantages)",
        "return -(log_ratio.exp().clamp(math.exp(low), math.exp(high)) * advantages)",
        "functional/test_surrogate.py::test_ratios_that_float32_does_not_hold",
    ),
    Mutation(
        "a model that has diverged is sampled all the same",
        "functional/sampling.py",
        "if bool(probs[:, 0].isnan().any()):",
        "if False:",
        "rollouts/test_sampler.py::test_a_model_that_has_diverged_is_not_sampled",
    ),
    Mutation(
        "a KL that is no number is called infinite",
        "evaluation/scoring.py",
        "if bool(torch.isnan(kl.exact).any()):",
        "if False:",
        "evaluation/test_points.py::test_an_evaluation_of_weights_that_are_no_numbers_says_so[1]",
    ),
    Mutation(
        "a training whose last update left NaN is finished",
        "objectives/base.py",
        "if weight.requires_grad and not bool(torch.isfinite(",
        "if False and not bool(torch.isfinite(",
        "objectives/test_training.py::test_a_training_that_diverges_ends_as_one",
    ),
    Mutation(
        "old log-probs are the sampler's in bfloat16 too",
        "objectives/on_policy.py",
        'return how == "rescored" or (how == "auto" and not exact)',
        'return how == "rescored"',
        "objectives/test_on_policy.py::test_old_log_probs_are_the_samplers_where_they_are_exact",
    ),
    Mutation(
        "values of the sampler are one token late",
        "rollouts/sampler.py",
        "values[alive, t] = value(state.hidden)",
        "values[alive, t - 1] = value(state.hidden)",
        "rollouts/test_sampler.py::test_values_are_those_of_the_training_forwards_states[llama]",
    ),
    Mutation(
        "values of rows that were dropped are given to other rows",
        "rollouts/sampler.py",
        "values[alive, t] = value(state.hidden)",
        "values[: len(alive), t] = value(state.hidden)",
        "rollouts/test_sampler.py::test_values_are_those_of_the_training_forwards_states[llama]",
    ),
    Mutation(
        "a value head on the policy gets the sampler's log-probs for its values",
        "objectives/on_policy.py",
        "spread(drawn.values, trees)",
        "spread(drawn.token_logps, trees)",
        "objectives/test_ppo.py::test_values_of_a_shared_head_come_with_the_samples",
    ),
)
