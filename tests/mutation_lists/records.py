"""Records of runs: which run made a number, what differs, how many seeds tell runs apart."""

from tests.mutation_lists.mutation import Mutation

CELLS, DIFF, FIND, FORK, SHOW = (
    f"records/test_{name}.py::" for name in ("cells", "diff", "find", "fork", "show")
)
BY_HAND = "sweep/test_add.py::test_points_by_hand_run_beside_all_others_and_each_once"
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
        '    if not row.lo <= 0 <= row.hi:\n        return "-"\n',
        "",
        "report/test_sections.py::"
        "test_a_difference_that_is_not_resolved_has_the_prompts_that_would",
    ),
    Mutation(
        "a number is looked for by its first digits",
        "records/cells.py",
        "return float(format(value, f\".{places}{'e' if exponent else 'f'}\")) == wanted",
        "return str(value).startswith(number)",
        f"{CELLS}test_a_cell_prints_as_a_number",
    ),
    Mutation(
        "a half-width is that of another column",
        "records/cells.py",
        'row[end.get(column, f"{column}_hi")]',
        'row["reward_hi"]',
        f"{CELLS}test_numbers_are_found_where_they_stand",
    ),
    Mutation(
        "lines are counted by rows, not as an editor counts them",
        "results/csv_tables.py",
        "            number = reader.line_num + 1\n    return rows",
        "            number += 1\n    return rows",
        f"{CELLS}test_a_row_after_a_text_of_several_lines_has_its_own_line",
    ),
    Mutation(
        "a row of one beta leads to the runs of all",
        "records/cells.py",
        'return str(point.hparams.get(row["hparam"])) == row["value"]',
        "return True",
        f"{CELLS}test_a_row_leads_to_its_runs",
    ),
    Mutation(
        "a name in several results folders is that in the first",
        "records/find.py",
        "if len(holding) > 1:",
        "if len(holding) > 9:",
        f"{FIND}test_names_that_are_wrong_or_not_enough_are_refused",
    ),
    Mutation(
        "a note of another config is shown as one of this",
        "records/show.py",
        'return "" if note.config_sha == run.config_sha else',
        'return "" if note.config_sha else',
        f"{SHOW}test_a_cell_leads_to_all_that_made_it",
    ),
    Mutation(
        "the last checkpoint's texts are shown for every step",
        "records/show.py",
        "(at is None or e.step == at.step)",
        "e.step",
        f"{SHOW}test_texts_are_of_the_step_that_was_asked_for",
    ),
    Mutation(
        "a note replaces the one before",
        "results/notes.py",
        "new = Remarks([*old.notes, *([note] if note else [])]",
        "new = Remarks([*([note] if note else [])]",
        "results/test_notes.py::test_remarks_come_back_as_they_were_added",
    ),
    Mutation(
        "a run of fit forgets the command that began it",
        "callbacks/journal.py",
        "commands = list(dict.fromkeys([*before, self.command]))",
        "commands = [self.command]",
        "callbacks/test_journal.py::test_a_run_keeps_every_command_that_made_it",
    ),
    Mutation(
        "uncommitted changes do not mark a commit",
        "results/commits.py",
        'return f"{head.strip()}{CHANGED}" if changed else head.strip()',
        "return head.strip()",
        "results/test_commits.py::test_a_commit_is_marked_where_files_differ_from_it",
    ),
    Mutation(
        "a difference has the sign of A minus B",
        "records/diff.py",
        "values = [[second[seed] - first[seed] for seed in common]]",
        "values = [[first[seed] - second[seed] for seed in common]]",
        f"{DIFF}test_two_arms",
    ),
    Mutation(
        "arms without a seed in common are not compared prompt by prompt",
        "records/diff.py",
        "parts = [np.stack(own) @ weights.T for own in values]",
        "parts = [np.stack(own) @ np.roll(weights, i, 1).T for i, own in enumerate(values)]",
        f"{DIFF}test_without_a_seed_in_common_the_arms_are_compared_by_their_means",
    ),
    Mutation(
        "prompts are paired by their places",
        "records/diff.py",
        "[name for name in named[0] if all(name in other for other in map(set, named[1:]))]",
        "[*named[0]]",
        f"{DIFF}test_other_prompts_resolve_nothing",
    ),
    Mutation(
        "another results folder counts as another setting",
        "records/diff.py",
        "yield key, _of_job(value) if isinstance(value, str) else canonical(value)",
        "yield key, canonical(value)",
        f"{DIFF}test_settings_are_compared_without_places",
    ),
    Mutation(
        "inputs that were not kept count as equal",
        "records/diff.py",
        'elif "" in shas:',
        "elif None in shas:",
        f"{DIFF}test_data_are_compared_by_what_they_were_made_of",
    ),
    Mutation(
        "a fork writes into its parent's folder",
        "records/fork.py",
        "if key not in OWN or folder is None or not _leads_into(folder, value)",
        "if key",
        f"{FORK}test_places_of_the_parents_files_are_not_inherited",
    ),
    Mutation(
        "a fork does not name its parent",
        "records/fork.py",
        'changed[PARENT] = {"run": parent.label, "config_sha": parent.config_sha}',
        "pass",
        f"{FORK}test_a_fork_has_the_parents_settings_and_the_changes",
    ),
    Mutation(
        "a fork's settings are not checked against its classes",
        "records/fork.py",
        "    _check(changed)\n",
        "",
        f"{FORK}test_a_fork_that_cannot_be_is_refused_and_leaves_no_file",
    ),
    Mutation(
        "the parent of a fork counts as a setting",
        "plan/experiment.py",
        'if key not in ("probe", "parent")}',
        'if key != "probe"}',
        "plan/test_experiment.py::test_the_run_that_a_config_was_forked_from_is_no_setting",
    ),
    Mutation(
        "a point by hand takes one of the sampler's trials",
        "sweep/study.py",
        "sampled = (trial for trial in self._all() if not is_by_hand(trial))",
        "sampled = (trial for trial in self._all())",
        BY_HAND,
    ),
    Mutation(
        "a point is run as often as it was added",
        "sweep/add.py",
        'if params in (trial.params, trial.system_attrs.get("fixed_params")):',
        "if False:",
        BY_HAND,
    ),
    Mutation(
        "rows of points by hand are called foreign",
        "sweep/run.py",
        "if not designed or is_by_hand(trial)]",
        "if not designed]",
        BY_HAND,
    ),
    Mutation(
        "a point by hand that failed is looked for in the design",
        "sweep/study.py",
        "if self._points is not None and slot < BY_HAND:",
        "if self._points is not None:",
        "sweep/test_add.py::test_a_point_by_hand_that_failed_is_tried_again",
    ),
)
