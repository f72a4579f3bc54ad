"""Settings that trials find: what a trial is worth, what is chosen, what a kill leaves."""

from tests.mutation_lists.mutation import Mutation

HERE = "pipeline/test_tuning.py"
PLAN = "plan/test_experiment.py"

MUTATIONS = (
    Mutation(
        "a trial has a share at a KL that it does not reach",
        "pipeline/tuning.py",
        "return [largest >= budget for budget in self.budgets]",
        "return [True for _ in self.budgets]",
        f"{HERE}::test_a_trials_shares_are_its_own_hull_over_the_optimum_and_0_where_not_reached",
    ),
    Mutation(
        "a share is of the points and not of their hull",
        "pipeline/tuning.py",
        "found = interpolate(kl[:, hull], reward[:, hull], np.array(self.budgets))[0]",
        "found = interpolate(kl, reward, np.array(self.budgets))[0]",
        f"{HERE}::test_a_trials_shares_are_its_own_hull_over_the_optimum_and_0_where_not_reached",
    ),
    Mutation(
        "a share is of the optimum's reward and not of its gain",
        "pipeline/tuning.py",
        "(value - self.reference) / (optimal - self.reference)",
        "value / optimal",
        f"{HERE}::test_a_trials_shares_are_its_own_hull_over_the_optimum_and_0_where_not_reached",
    ),
    Mutation(
        "trials are measured by an optimum that the pool does not know",
        "pipeline/tuning.py",
        "if found is None or not found.reliable:",
        "if found is None:",
        f"{HERE}::test_a_pool_that_does_not_carry_to_a_budget_is_refused",
    ),
    Mutation(
        "a trial that does not reach a budget is chosen for it",
        "pipeline/tuning.py",
        'able = [n for n, t in enumerate(trials) if bench.reached(t["evaluations"])[place]]',
        "able = range(len(trials))",
        f"{HERE}::test_each_budget_has_the_trial_that_is_highest_there_among_those_that_reach_it",
    ),
    Mutation(
        "the sampler draws at random in trials that should go by the values",
        "pipeline/tuning.py",
        '"n_startup_trials": len(points)}',
        '"n_startup_trials": 1000}',
        f"{HERE}::test_a_third_is_spread_and_the_rest_goes_by_the_values_and_the_seed_alone",
    ),
    Mutation(
        "the search minimises",
        "pipeline/tuning.py",
        'create_study(direction="maximize"',
        'create_study(direction="minimize"',
        f"{HERE}::test_a_third_is_spread_and_the_rest_goes_by_the_values_and_the_seed_alone",
    ),
    Mutation(
        "the order of keys in a file changes the settings",
        "pipeline/tuning.py",
        "dict(sorted(dimensions.items()))",
        "dict(dimensions)",
        f"{HERE}::test_the_order_of_keys_in_a_file_changes_nothing",
    ),
    Mutation(
        "a trial that diverges ends the study",
        "pipeline/tuning.py",
        "    except FloatingPointError:\n        state",
        "    except ZeroDivisionError:\n        state",
        f"{HERE}::test_trials_leave_a_table_a_record_and_no_weights",
    ),
    Mutation(
        "weights of finished trials stay on the disk",
        "pipeline/tuning.py",
        'shutil.rmtree(record.with_suffix(""), ignore_errors=True)',
        "pass",
        f"{HERE}::test_trials_leave_a_table_a_record_and_no_weights",
    ),
    Mutation(
        "a continued study trains finished trials again",
        "pipeline/tuning.py",
        "        if found is None:\n            run",
        "        if True:\n            run",
        f"{HERE}::test_killed_anywhere_it_ends_with_the_same_trials_and_repeats_none",
    ),
    Mutation(
        "recorded trials count for settings that they did not have",
        "pipeline/tuning.py",
        'elif found["settings"] != settings:',
        "elif False:",
        f"{HERE}::test_recorded_trials_of_other_settings_are_refused",
    ),
    Mutation(
        "trials are evaluated on other prompts than the optimum",
        "pipeline/tuning.py",
        "if set(scores.prompt_ids) != bench.prompt_ids:",
        "if False:",
        f"{HERE}::test_evaluations_on_other_prompts_than_the_pools_are_refused",
    ),
    Mutation(
        "trials may have a seed of the report",
        "plan/experiment.py",
        "if seed in asked:",
        "if False:",
        f"{PLAN}::test_tuning_that_cannot_be_is_refused",
    ),
    Mutation(
        "trials are evaluated on the prompts of the report",
        "plan/experiment.py",
        'for dotted, value in (keys.get("set") or {}).items():',
        "for dotted, value in ():",
        f"{PLAN}::test_a_tuned_stage_is_a_search_on_its_own_seed_and_a_run_a_budget_and_seed",
    ),
    Mutation(
        "runs take settings that other trials found",
        "plan/experiment.py",
        'return chosen if record.get("config_sha") == tuning.config_sha else []',
        "return chosen",
        f"{PLAN}::test_a_run_has_the_settings_that_tuning_chose_and_only_of_the_present_search",
    ),
    Mutation(
        "equal settings are trained once for each budget",
        "plan/experiment.py",
        "return chosen[job.budget] is None or first != job.budget",
        "return chosen[job.budget] is None",
        f"{PLAN}::test_equal_settings_are_trained_once_and_budgets_out_of_reach_not_at_all",
    ),
    Mutation(
        "runs of two budgets have one hash",
        "plan/experiment.py",
        'spec = job.spec if job.budget is None else {**job.spec, "budget": job.budget}',
        "spec = job.spec",
        f"{PLAN}::test_a_tuned_stage_is_a_search_on_its_own_seed_and_a_run_a_budget_and_seed",
    ),
    Mutation(
        "what trials alone read is made after them",
        "plan/experiment.py",
        'for need in [*(entry.get("needs") or []), *trials]:',
        'for need in entry.get("needs") or []:',
        f"{PLAN}::test_a_scale_may_add_what_the_trials_read",
    ),
    Mutation(
        "a clone without the trials' folder tunes again",
        "plan/experiment.py",
        'return self.results / TUNING / f"{job.stage}.json"',
        "return self.folder(job) / DONE",
        "plan/test_state.py::test_settings_that_were_found_are_kept_without_the_trials_folder",
    ),
    Mutation(
        "all objectives are tuned before the first is trained",
        "pipeline/scheduler.py",
        "key=lambda job: job.objective is not None or job.tunes)",
        "key=lambda job: job.objective is not None)",
        "pipeline/test_scheduler.py::test_one_objective_is_tuned_and_trained_before_the_next_and"
        "_needless_runs_are_left_out",
    ),
    Mutation(
        "the report draws the optimum of the trials' prompts",
        "report/read.py",
        "return [each for each in found if evaluated & set(each[1].prompt_ids)] or found",
        "return found",
        "report/test_read.py::test_a_pool_of_prompts_that_no_run_was_evaluated_on_is_left_out",
    ),
    Mutation(
        "validation prompts are among those of the evaluation",
        "worlds/toy.py",
        "enumerate(held_out[after:])",
        "enumerate(held_out)",
        "worlds/test_toy.py::test_validation_prompts_are_those_that_neither_training_nor_evaluation"
        "_has",
    ),
)
