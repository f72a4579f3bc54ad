"""What ``alignlab check-data`` counts and shows, and what rows say twice."""

from tests.mutation_lists.mutation import Mutation

OVERLAP = "check_data/test_overlap.py::"
REPEATS = "data/test_repeats.py::"
SHOW = "check_data/test_show.py::"
TOKENS = "check_data/test_tokens.py::"

MUTATIONS = (
    Mutation(
        "a text that was cut off is the same completion as the whole one",
        "data/repeats.py",
        "{texts[0]}{branch.ends:d}{",
        "{texts[0]}{",
        REPEATS + "test_a_text_that_was_cut_is_another_completion",
    ),
    Mutation(
        "opposite rows are found whichever way they prefer",
        "data/repeats.py",
        "np.isin(over * _ODD + under, under * _ODD + over)",
        "np.isin(over * _ODD + under, over * _ODD + under)",
        REPEATS + "test_a_cycle_through_the_levels_of_a_ranking",
    ),
    Mutation(
        "labels make no other row",
        "data/repeats.py",
        "short_hash(repr((texts, labels)))",
        "short_hash(repr(texts))",
        REPEATS + "test_what_differs_is_no_copy",
    ),
    Mutation(
        "a ranking compares its best completions alone",
        "data/repeats.py",
        "in pairwise(levels):",
        "in list(pairwise(levels))[:1]:",
        REPEATS + "test_a_cycle_through_the_levels_of_a_ranking",
    ),
    Mutation(
        "one text with two labels is not found",
        "data/repeats.py",
        "lowest[ids] < highest[ids]",
        "lowest[ids] > highest[ids]",
        REPEATS + "test_one_text_with_two_labels",
    ),
    Mutation(
        "runs of words go from one text to the next",
        "check_data/overlap.py",
        "inside & self._table",
        "self._table",
        OVERLAP + "test_runs_stay_within_a_text",
    ),
    Mutation(
        "a run that a row holds twice counts as two rows",
        "check_data/overlap.py",
        "np.divmod(np.unique(at[right] * rows + row[near[right]]), rows)",
        "np.divmod(np.sort(at[right] * rows + row[near[right]]), rows)",
        OVERLAP + "test_a_row_counts_once_however_often_it_holds_a_run",
    ),
    Mutation(
        "a hash that stands near counts as the same run",
        "check_data/overlap.py",
        "right = self._known[at] == found[near]",
        "right = self._known[at] >= 0",
        OVERLAP + "test_a_hash_beside_that_of_a_run_is_none",
    ),
    Mutation(
        "a set phrase hides the text that one row alone shares",
        "check_data/overlap.py",
        "rarest = min(stretch",
        "rarest = max(stretch",
        OVERLAP + "test_rare_passages_come_before_set_phrases",
    ),
    Mutation(
        "the last row with a run is named as the first",
        "check_data/overlap.py",
        "self.first[run[new][::-1]] = holder[new][::-1]",
        "self.first[run[new]] = holder[new]",
        OVERLAP + "test_a_run_is_shown_whole_with_the_rows_that_hold_it",
    ),
    Mutation(
        "the page takes users' texts for its own",
        "pages.py",
        "autoescape=True",
        "autoescape=False",
        SHOW + "test_users_text_is_escaped",
    ),
    Mutation(
        "users' texts steer the terminal",
        "check_data/show.py",
        'not in ("Cc", "Cs")',
        'not in ("Cs",)',
        SHOW + "test_users_text_is_escaped",
    ),
    Mutation(
        "all tokens of a completion are shown as trained",
        "check_data/tokens.py",
        "trained = [False] * len(tree.prompt) + list(mask)",
        "trained = [False] * len(tree.prompt) + [True] * len(ids)",
        TOKENS + "test_a_conversation_with_two_trained_turns",
    ),
    Mutation(
        "words are decoded without those before them",
        "check_data/tokens.py",
        "tokenizer.decode(whole[:end], clean_up_tokenization_spaces=False)",
        "before + tokenizer.decode(whole[:end][len(tree.prompt):])",
        TOKENS + "test_a_space_before_the_first_trained_word_is_shown",
    ),
    Mutation(
        "the sample holds the first rows",
        "check_data/survey.py",
        "draw.randrange(place + 1)",
        "SAMPLE",
        "check_data/test_survey.py::test_a_sample_of_many",
    ),
    Mutation(
        "strict does not look at contradictions",
        "check_data/checking.py",
        "return not (shared or reasons(check) or",
        "return not (shared or",
        "check_data/test_checking.py::test_clean",
    ),
    Mutation(
        "quarantine holds rows as they were renamed",
        "check_data/quarantine.py",
        "row = last.record and last.record.fields",
        "row = last.record and source.columns",
        "check_data/test_quarantine.py::test_rows_stand_in_quarantine_as_their_author_wrote_them",
    ),
    Mutation(
        "renamed columns count as unread",
        "data/formats.py",
        "    used |= {columns[new] for new in used & set(columns)}\n",
        "",
        "data/test_sources.py::test_renamed_columns_are_read",
    ),
    Mutation(
        "Alpaca's columns cannot be renamed",
        "data/formats.py",
        "_check_columns(columns, used | read.used,",
        "_check_columns(columns, read.used,",
        "data/test_sources.py::test_renamed_columns_are_read",
    ),
    Mutation(
        "a longer report of rows is not cut",
        "data/rows/report.py",
        "if len(said) > room:",
        "if False:",
        "data/rows/test_report.py::test_a_summary_has_few_lines",
    ),
    Mutation(
        "rows that are shown are the first ones",
        "check_data/tokens.py",
        "random.Random(0).sample(range(len(rows)), min(EXAMPLES, len(rows)))",
        "range(min(EXAMPLES, len(rows)))",
        TOKENS + "test_examples_are_drawn_at_random_and_the_same_at_every_call",
    ),
    Mutation(
        "the numbers of the two labels are exchanged",
        "check_data/survey.py",
        '{"desirable": self.desirable, "undesirable": len(self.ids) - self.desirable}',
        '{"undesirable": self.desirable, "desirable": len(self.ids) - self.desirable}',
        SHOW + "test_labels_are_counted_and_shown_beside_the_rows",
    ),
    Mutation(
        "the label of a row with tokens is not shown",
        "check_data/tokens.py",
        "replace(_example(tree, columns, tokenizer), label=label)",
        "_example(tree, columns, tokenizer)",
        TOKENS + "test_rows_are_shown_with_their_judgement_or_rating",
    ),
)
