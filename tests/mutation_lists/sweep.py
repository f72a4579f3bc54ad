"""Sweeps: who runs which trial, what ends one early, what its runs were worth, what is reported."""

from tests.mutation_lists.mutation import Mutation

MUTATIONS = (
    Mutation(
        "a trial whose process died between its name and its first sign of life is never run",
        "sweep/study.py",
        "        self.keep_alive()  # before",
        "        trial.set_user_attr(OWNER, self._owner)\n        self.keep_alive()  # before",
        "sweep/test_study.py::test_a_trial_whose_process_died_while_claiming_it_becomes_anothers"
        "[record_heartbeat]",
    ),
    Mutation(
        "Optuna warns of a seed that a design has anyway",
        "sweep/space.py",
        '"scramble": True, "seed": 0}',
        '"scramble": True}',
        "sweep/test_space.py::test_a_design_without_a_seed_is_read_without_a_warning",
    ),
    Mutation(
        "two processes claim one trial of a SQLite file",
        "sweep/storage.py",
        '"BEGIN IMMEDIATE"',
        '"BEGIN"',
        "sweep/test_storage.py::test_of_two_processes_that_claim_a_trial_at_once_one_gets_it",
    ),
    Mutation(
        "a design with a seed draws the same points for every arm",
        "sweep/space.py",
        '"seed": seed + place',
        '"seed": seed',
        "sweep/test_space.py::test_arms_of_a_design_with_a_seed_have_points_of_their_own",
    ),
    Mutation(
        "two trials of one point are both run",
        "sweep/study.py",
        "return any(other.user_attrs.get(SLOT) == slot for other in before)",
        "return False",
        "sweep/test_study.py::test_both_filling_the_queue_still_runs_each_point_once",
    ),
    Mutation(
        "a sampled study has a trial less than asked for",
        "sweep/study.py",
        "return self._trials is not None and len(slots) >= self._trials",
        "return self._trials is not None and len(slots) >= self._trials - 1",
        "sweep/test_study.py::test_a_sampled_study_has_so_many_slots_whoever_asks",
    ),
    Mutation(
        "a diverged point is tried again",
        "sweep/study.py",
        "if any(trial.state in TAKEN or DIVERGED in trial.user_attrs for trial in own):",
        "if any(trial.state in TAKEN for trial in own):",
        "sweep/test_study.py::"
        "test_failed_points_are_tried_by_the_next_call_and_diverged_ones_never",
    ),
    Mutation(
        "a failed point is tried again at once",
        "sweep/study.py",
        "if failed_too or not own or ERROR not in own[-1].user_attrs:",
        "if True:",
        "sweep/test_study.py::"
        "test_failed_points_are_tried_by_the_next_call_and_diverged_ones_never",
    ),
    Mutation(
        "a pruned point is tried again",
        "sweep/study.py",
        "TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)",
        "TrialState.RUNNING, TrialState.COMPLETE)",
        "sweep/test_study.py::test_a_pruned_point_is_done_with",
    ),
    Mutation(
        "what a folder left running is nobody's",
        "sweep/study.py",
        "return self._owner is None or trial.user_attrs.get(OWNER) == self._owner",
        "return self._owner is None",
        "sweep/test_study.py::test_a_folder_takes_up_what_it_left_running",
    ),
    Mutation(
        "a second trial of a point is listed beside the first",
        "sweep/study.py",
        "            trial.set_user_attr(SLOT, None)",
        "            pass",
        "sweep/test_study.py::test_both_filling_the_queue_still_runs_each_point_once",
    ),
    Mutation(
        "a run cut short by a rule that is gone is found finished by its worker",
        "sweep/trial_queue.py",
        "(self._plan.folder(job) / DONE).unlink(missing_ok=True)",
        "pass",
        "sweep/test_trial_queue.py::"
        "test_domination_needs_less_kl_and_surely_more_reward_several_times_in_a_row",
    ),
    Mutation(
        "a finished run counts without its per-prompt table",
        "plan/state.py",
        "or (done and has_table(plan, job))",
        "or done",
        "sweep/test_trial_queue.py::"
        "test_a_run_whose_per_prompt_table_is_gone_is_given_to_a_worker_which_makes_the_table",
    ),
    Mutation(
        "what waits for a failed job is started",
        "pipeline/scheduler.py",
        '"""Do nothing: jobs that wait for ``job`` never become ready."""',
        "self._undone.remove(job.name)",
        "pipeline/test_scheduler.py::"
        "test_a_failure_takes_what_waits_for_it_however_far_and_in_whatever_order",
    ),
    Mutation(
        "a trial is worth its best seed",
        "sweep/trial_queue.py",
        "return sum(found) / len(found)",
        "return max(found)",
        "sweep/test_trial_queue.py::test_a_pruner_judges_by_the_first_seed_and_the_second_waits_for_it",
    ),
    Mutation(
        "a run is worth its first evaluation",
        "sweep/trial_queue.py",
        "last = max(rows, key=lambda row: row.step)",
        "last = min(rows, key=lambda row: row.step)",
        "sweep/test_trial_queue.py::test_a_pruner_judges_by_the_first_seed_and_the_second_waits_for_it",
    ),
    Mutation(
        "the second seed of a trial that may be pruned starts beside the first",
        "sweep/trial_queue.py",
        "one_by_one = self._sweep.keys.pruner is not None and running.at_work",
        "one_by_one = False",
        "sweep/test_trial_queue.py::test_a_pruner_judges_by_the_first_seed_and_the_second_waits_for_it",
    ),
    Mutation(
        "the pruner judges by every seed",
        "sweep/trial_queue.py",
        "if self._sweep.keys.pruner is not None and not running.measures:",
        "if self._sweep.keys.pruner is not None:",
        "sweep/test_trial_queue.py::test_a_pruner_judges_by_the_first_seed_and_the_second_waits_for_it",
    ),
    Mutation(
        "a pruned run counts as whole for the next call",
        "sweep/trial_queue.py",
        "running.pruned |= stopped.startswith(PRUNED)",
        "running.pruned |= False",
        "sweep/test_trial_queue.py::test_what_was_pruned_stays_so_for_the_next_call",
    ),
    Mutation(
        "a run that nobody tells to stop any more stays cut short",
        "sweep/trial_queue.py",
        "self._sweep.keys.pruner is None)",
        "False)",
        "sweep/test_trial_queue.py::test_what_was_pruned_stays_so_for_the_next_call",
    ),
    Mutation(
        "a run with more KL dominates",
        "sweep/trial_queue.py",
        'row.kl < metrics["kl"] and ',
        "",
        "sweep/test_trial_queue.py::"
        "test_domination_needs_less_kl_and_surely_more_reward_several_times_in_a_row",
    ),
    Mutation(
        "a run that may be better by luck dominates",
        "sweep/trial_queue.py",
        "row.reward - 2 * row.reward_se > ",
        "row.reward > ",
        "sweep/test_trial_queue.py::"
        "test_domination_needs_less_kl_and_surely_more_reward_several_times_in_a_row",
    ),
    Mutation(
        "domination counts with breaks between",
        "sweep/trial_queue.py",
        "+ 1 if better else 0",
        "+ int(better)",
        "sweep/test_trial_queue.py::"
        "test_domination_needs_less_kl_and_surely_more_reward_several_times_in_a_row",
    ),
    Mutation(
        "the rule of domination is not asked",
        "sweep/trial_queue.py",
        "if self._is_dominated(job, metrics):",
        "if False:",
        "sweep/test_stopping.py::test_a_run_that_others_beat_twice_in_a_row_is_stopped",
    ),
    Mutation(
        "a run beyond its KL counts as complete",
        "sweep/trial_queue.py",
        "            running.note(DIVERGED, job, stopped or why)",
        "            running.note(STOPPED, job, stopped or why)",
        "sweep/test_stopping.py::"
        "test_a_run_beyond_its_kl_has_diverged_and_what_it_logged_outlives_it",
    ),
    Mutation(
        "rows stand for a run whose metric is lost",
        "sweep/trial_queue.py",
        "return done or {*self._sweep.keys.metrics} <= self._outcome(job)[0].keys()",
        "return True",
        "sweep/test_trial_queue.py::test_a_logged_metric_outlives_the_weights",
    ),
    Mutation(
        "what another configuration logged counts",
        "sweep/trial_queue.py",
        'if each["config_sha"] == job.config_sha',
        "if True",
        "sweep/test_trial_queue.py::test_what_another_configuration_logged_does_not_count",
    ),
    Mutation(
        "a misspelt metric is found after the first run",
        "sweep/spec.py",
        'if "/" not in metric and metric not in PROBED:',
        "if False:",
        "sweep/test_run.py::test_a_metric_that_no_run_has_stops_before_anything[seed-kl, kl_k1, "
        "reward]",
    ),
    Mutation(
        "rows of values taken out of the sweep count without a word",
        "sweep/run.py",
        "warn_about_foreign_rows(plan.results, _runs(sweep, study))",
        "pass",
        "sweep/test_run.py::test_one_more_value_runs_one_more_trial_and_those_taken_out_are_named",
    ),
    Mutation(
        "an evaluation that is no number gets rows",
        "results/prompt_tables.py",
        "        _check_finite(scores, evaluation.step)\n",
        "",
        "pipeline/test_jobs.py::test_a_run_with_an_evaluation_that_is_no_number_leaves_no_rows",
    ),
    Mutation(
        "null cannot be sorted among numbers",
        "evaluation/effects.py",
        "return value is not None, isinstance(value, str), value",
        "return isinstance(value, str), value",
        "evaluation/test_effects.py::test_null_is_a_value_before_the_numbers_and_words_come_last",
    ),
    Mutation(
        "the report lists the complete trials, too",
        "report/gather.py",
        ' if row["state"] != COMPLETE}',
        "}",
        "report/test_gather.py::test_trials_of_jobs_that_share_a_study_are_listed_once",
    ),
)
