"""What is seen of a run while it trains: speed, shares of time, alarms, logs, bad numbers."""

from tests.mutation_lists.mutation import Mutation

METER, LOST = "callbacks/test_meter.py::", "callbacks/test_non_finite.py::"
RINGS = "callbacks/test_alarms.py::test_each_kind_once"
MUTATIONS = (
    Mutation(
        "a part inside of another counts twice",
        "clock.py",
        "        self._since = now\n",
        "        pass\n",
        "test_clock.py::test_a_part_inside_of_another_counts_for_itself_alone",
    ),
    Mutation(
        "a part that fails stays open",
        "clock.py",
        "        finally:\n            self.end()",
        "        finally:\n            pass",
        "test_clock.py::test_a_part_that_fails_is_closed",
    ),
    Mutation(
        "a backward pass is one product",
        "models/work.py",
        "self._forward(read) + 2 * self._forward(learnt)",
        "self._forward(read) + self._forward(learnt)",
        "models/test_work.py::test_a_forward_by_hand_and_a_step_three_times_as_much",
    ),
    Mutation(
        "a completion's tokens do not see its prompt",
        "models/work.py",
        "completion * (2 * prompt[trees.group] + completion + 1)",
        "completion * (completion + 1)",
        "models/test_work.py::test_a_forward_by_hand_and_a_step_three_times_as_much",
    ),
    Mutation(
        "frozen weights have gradients",
        "models/work.py",
        "(weight.requires_grad or not learning)",
        "True",
        "models/test_work.py::test_frozen_weights_get_no_gradients",
    ),
    Mutation(
        "a window counts everything since the start",
        "callbacks/meter.py",
        "        self._before = counts\n",
        "",
        METER + "test_tokens_flops_and_seconds_of_a_window",
    ),
    Mutation(
        "probes slow a run down",
        "callbacks/meter.py",
        "training = max(took - sum(seconds.get(name, 0.0) for name in BESIDE), 1e-9)",
        "training = took",
        METER + "test_probes_and_validation_are_left_out_of_the_speed",
    ),
    Mutation(
        "a probe's forwards count as training",
        "callbacks/meter.py",
        "            if not CLOCK.is_in(*BESIDE):\n                work.add(*forward)",
        "            work.add(*forward)",
        METER + "test_probes_and_validation_are_left_out_of_the_speed",
    ),
    Mutation(
        "time left is that since the first step of all",
        "callbacks/meter.py",
        "return trainer.global_step - self._first_step",
        "return trainer.global_step",
        METER + "test_time_left_is_that_of_the_run",
    ),
    Mutation(
        "a skipped step is taken with gradients that are not finite",
        "callbacks/non_finite.py",
        "        module.zero_grad(set_to_none=True)  # makes room",
        "        pass  # makes room",
        LOST + "test_a_skipped_step_changes_no_weight_and_training_goes_on[gradient]",
    ),
    Mutation(
        "a loss that is not finite is judged by its gradients alone",
        "callbacks/non_finite.py",
        "        self._loss = self._loss + loss.detach()\n",
        "        pass\n",
        LOST + "test_a_loss_of_finite_gradients_stops_too",
    ),
    Mutation(
        "lost weights are skipped to the end",
        "callbacks/non_finite.py",
        'any(part.bad.startswith("weight ") for part in parts)',
        "False",
        LOST + "test_weights_that_are_lost_end_the_run_in_any_case",
    ),
    Mutation(
        "gradients are looked at before outputs",
        "callbacks/non_finite.py",
        "if backward and not watch.found:",
        "if False:",
        LOST + "test_the_first_tensor_is_named_in_order_of_the_computation",
    ),
    Mutation(
        "a batch is saved without what rollouts know of it",
        "callbacks/non_finite.py",
        'first=facts["first"], pretraining=mix, **group("per_token."))',
        'pretraining=mix, **group("per_token."))',
        LOST + "test_a_batch_is_the_same_after_it_was_saved",
    ),
    Mutation(
        "a step is replayed with the weights that a run starts with",
        "training/replay.py",
        "    module.load_state_dict(state, strict=False)\n",
        "",
        "training/test_replay.py::test_a_step_is_run_again",
    ),
    Mutation(
        "an alarm is repeated at every look",
        "callbacks/alarms.py",
        """ or any(each["kind"] == kind for each in self.fired)""",
        "",
        RINGS,
    ),
    Mutation(
        "a KL that is no number is silent",
        "callbacks/alarms.py",
        "not kl <= self.kl",
        "kl > self.kl",
        RINGS,
    ),
    Mutation(
        "lengths are compared with the last ones",
        "callbacks/alarms.py",
        "first = self._first.setdefault(source, dict(now))",
        "first = self._first.get(source, now)\n        self._first[source] = dict(now)",
        RINGS,
    ),
    Mutation(
        "a length that is meant to be the longest rings",
        "callbacks/alarms.py",
        'length >= AT_LIMIT * longest > first["length"]',
        "length >= AT_LIMIT * longest",
        "callbacks/test_alarms.py::test_lengths_that_are_at_the_limit_from_the_start_are_meant",
    ),
    Mutation(
        "the entropy of rollouts is per completion",
        "objectives/on_policy.py",
        "scored.token_logps.sum() / scored.trees.loss_mask.sum()",
        "scored.token_logps.sum(1).mean()",
        "objectives/test_on_policy.py::"
        "test_rollouts_of_a_uniform_policy_have_the_entropy_of_its_vocabulary",
    ),
)
