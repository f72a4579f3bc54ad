"""Precision, totals and small numbers: what is compared, and what a step was divided by."""

from tests.mutation_lists.mutation import Mutation

OF_THE_STEP = "objectives/test_precision.py::test_a_rollout_is_scored_in_the_precision_of_the_step"

MUTATIONS = (
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
        "values = self.in_chunks(trees, self.value)",
        "values = self.value(trees)",
        f"{OF_THE_STEP}[ppo]",
    ),
    Mutation(
        "completions are drawn outside the trainer's autocast",
        "objectives/on_policy.py",
        "with self.own_precision():\n            drawn",
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
        "return None if found <= (1e-3 if exact else 0.1) else found",
        "return None if found <= (1e-3 if exact else 1.0) else found",
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
        "seen = min(pieces, self._end - position)",
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
)
