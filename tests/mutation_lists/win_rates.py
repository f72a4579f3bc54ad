"""Win rates: verdicts, intervals, judges, and what is not asked twice."""

from tests.mutation_lists.mutation import Mutation

MUTATIONS = (
    Mutation(
        "a match that was judged in one order counts",
        "winrate/matches.py",
        "both_orders and len(known) < 2",
        "False",
        "winrate/test_matches.py::test_a_match_counts_as_the_mean_of_both_orders",
    ),
    Mutation(
        "the choice in the second order is not turned to the policy's side",
        "winrate/endpoint.py",
        "found.append(Verdict(first, _turned(second)))",
        "found.append(Verdict(first, second))",
        "winrate/test_endpoint.py::test_a_judge_that_always_says_a_scores_exactly_one_half",
    ),
    Mutation(
        "a match is asked twice in the same order",
        "winrate/endpoint.py",
        "[(own, theirs), (theirs, own)]",
        "[(own, theirs), (own, theirs)]",
        "winrate/test_endpoint.py::test_each_match_is_asked_in_both_orders_with_the_key",
    ),
    Mutation(
        "replies are kept when all are there",
        "winrate/endpoint.py",
        "                memo.keep({key: self._endpoint.post(body, stop)})",
        "                late = self.__dict__.setdefault('late', {})\n"
        "                late[key] = self._endpoint.post(body, stop)\n"
        "                if len(late) == len(absent):\n"
        "                    memo.keep(late)",
        "winrate/test_endpoint.py::test_a_server_that_stays_away_ends_the_call_and_keeps_the_replies",
    ),
    Mutation(
        "a server's message may show the key",
        "winrate/endpoint.py",
        'problem = problem.replace(self.key, "***")',
        "pass",
        "winrate/test_endpoint.py::test_a_refusal_is_reported_at_once_without_the_key",
    ),
    Mutation(
        "the key follows a redirect",
        "winrate/endpoint.py",
        "build_opener(NoRedirect)",
        "build_opener()",
        "winrate/test_endpoint.py::test_a_refusal_is_reported_at_once_without_the_key",
    ),
    Mutation(
        "a refused request is tried again",
        "winrate/endpoint.py",
        "if error.code not in TRANSIENT:",
        "if False:",
        "winrate/test_endpoint.py::test_a_refusal_is_reported_at_once_without_the_key",
    ),
    Mutation(
        "the server's wish to wait is not heard",
        "winrate/endpoint.py",
        "wait = min(max(wait, wanted), LONGEST_PAUSE)",
        "wait = min(wait, LONGEST_PAUSE)",
        "winrate/test_endpoint.py::test_busy_servers_are_asked_again_with_growing_pauses",
    ),
    Mutation(
        "prices of tokens in and out are exchanged",
        "winrate/endpoint.py",
        "price_in, price_out = self._endpoint.prices",
        "price_out, price_in = self._endpoint.prices",
        "winrate/test_endpoint.py::test_cost_is_printed_first_and_nothing_is_asked_without_a_yes",
    ),
    Mutation(
        "calls are made without a yes",
        "winrate/endpoint.py",
        "if not self._confirm():",
        "if False:",
        "winrate/test_endpoint.py::test_cost_is_printed_first_and_nothing_is_asked_without_a_yes",
    ),
    Mutation(
        "a reply to another model counts for this one",
        "winrate/endpoint.py",
        '"model": self.model,',
        '"model": "judge",',
        "winrate/test_endpoint.py::test_what_is_known_is_not_asked_again",
    ),
    Mutation(
        "a field's name inside of a text is replaced",
        "winrate/questions.py",
        "return _FIELD.sub(lambda field: texts[field[1]], question)",
        "return question.replace('{prompt}', texts['prompt']).replace('{a}', texts['a'])"
        ".replace('{b}', texts['b'])",
        "winrate/test_questions.py::test_texts_may_hold_the_names_of_fields",
    ),
    Mutation(
        "the first choice that a reply names counts, wherever it is",
        "winrate/questions.py",
        "found = _CHOICE.fullmatch(lines[-1].strip()) if lines else None",
        'found = re.search(r"\\b(A|B|tie)\\b", reply, re.IGNORECASE) if lines else None',
        "winrate/test_questions.py::test_the_last_line_is_the_choice",
    ),
    Mutation(
        "a model that meets itself shares its noise",
        "winrate/contest.py",
        "second = int(ids[0] == ids[1])",
        "second = 0",
        "winrate/test_contest.py::test_a_policy_against_a_column_another_policy_and_itself",
    ),
    Mutation(
        "the opponent is sampled at the policy's temperature whatever was asked",
        "winrate/contest.py",
        "return temperature if self.against_temperature is None else self.against_temperature",
        "return temperature",
        "winrate/test_contest.py::test_seeds_meet_and_a_fixed_temperature_of_the_opponent",
    ),
    Mutation(
        "a prompt's noise is that of its place among the prompts that are left",
        "winrate/sampling.py",
        "replace(tree, index=held[tree.row].place)",
        "replace(tree, index=tree.row)",
        "winrate/test_sampling.py::test_a_completion_depends_on_its_prompt_and_its_model_alone",
    ),
    Mutation(
        "samples of another seed are used again",
        "winrate/sampling.py",
        "[settings.seed, stream.number, one.place, settings.samples]",
        "[stream.number, one.place, settings.samples]",
        "winrate/test_sampling.py::test_what_was_sampled_is_not_sampled_again",
    ),
    Mutation(
        "the model's records count as the model",
        "winrate/policies.py",
        " if path.name not in RECORDS",
        "",
        "winrate/test_policies.py::test_a_model_is_what_its_files_hold",
    ),
    Mutation(
        "scores of a reward with other settings are used again",
        "winrate/scored.py",
        "self._content = by_content([path, values.as_dict()])",
        "self._content = by_content([path])",
        "winrate/test_scored.py::test_other_settings_are_another_judge",
    ),
    Mutation(
        "the person's answer is turned to the wrong side",
        "winrate/person.py",
        "return Verdict(None, 1 - memo[key])",
        "return Verdict(None, memo[key])",
        "winrate/test_person.py::test_the_order_is_blind_and_the_answer_is_the_policys",
    ),
    Mutation(
        "the policy's completion is always A",
        "winrate/person.py",
        "return sorted([match.own.strip(), match.theirs.strip()], reverse=int(key, 16) % 2 == 1)",
        "return [match.own.strip(), match.theirs.strip()]",
        "winrate/test_person.py::test_the_order_is_blind_and_the_answer_is_the_policys",
    ),
    Mutation(
        "the rate at equal length is read off at the mean difference",
        "winrate/length.py",
        "rates: Floats = 1 / (1 + np.exp(-at[:, 0]))",
        "rates: Floats = 1 / (1 + np.exp(-at[:, 0] - at[:, 1] * x.mean()))",
        "winrate/test_length.py::"
        "test_a_judge_that_looks_at_length_alone_finds_no_difference_at_equal_length",
    ),
    Mutation(
        "the regression on length ignores the bootstrap's weights",
        "winrate/length.py",
        "miss = weights * (values - chance)",
        "miss = values - chance",
        "winrate/test_length.py::test_it_is_the_maximum_of_the_regressions_likelihood",
    ),
    Mutation(
        "the bootstrap draws matches and not prompts",
        "winrate/rates.py",
        "weights = counts[:, np.searchsorted(prompts, [one.match.place for one in some])]",
        "weights = np.concatenate([np.ones((1, len(some))),"
        " bootstrap_counts(len(some), replicates, 0)])",
        "winrate/test_rates.py::test_matches_of_one_prompt_are_no_independent_evidence",
    ),
    Mutation(
        "Wilson's interval counts each match as independent",
        "winrate/rates.py",
        "share_interval(values, [one.match.place for one in own])",
        "share_interval(values, range(len(own)))",
        "winrate/test_rates.py::test_matches_of_one_prompt_are_no_independent_evidence",
    ),
    Mutation(
        "seeds are pooled, so that their spread does not count",
        "winrate/rates.py",
        "rate, lo, hi = interval([np.stack(rates)], len(prompts))",
        "rate, lo, hi = interval([np.stack(rates).mean(0, keepdims=True)], len(prompts))",
        "winrate/test_rates.py::test_seeds_widen_the_interval_by_students_t",
    ),
    Mutation(
        "equal texts count as consistent verdicts",
        "winrate/rates.py",
        " and match.own.strip() != match.theirs.strip()",
        "",
        "winrate/test_rates.py::test_equal_texts_say_nothing_about_the_judge",
    ),
    Mutation(
        "a few prompts that all agree resolve a difference",
        "report/win_rates.py",
        "min(row.lo, row.wilson_lo) > 0.5",
        "row.lo > 0.5",
        "report/test_win_rates.py::"
        "test_a_difference_is_resolved_if_both_intervals_exclude_one_half",
    ),
    Mutation(
        "a line that a kill cut off stays in the memo",
        "winrate/memo.py",
        "self._file.truncate(self._file.tell() - len(rest))",
        "pass",
        "winrate/test_memo.py::"
        "test_a_line_that_a_kill_cut_off_is_dropped_and_the_next_one_is_whole",
    ),
    Mutation(
        "a repeated prompt counts again",
        "winrate/prompts.py",
        "if prompt not in found:",
        "if True:",
        "winrate/test_prompts.py::test_each_prompt_is_there_once_with_its_columns",
    ),
)
