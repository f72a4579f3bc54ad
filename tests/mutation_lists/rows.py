"""From users' rows to what is trained and scored: names, texts of rewards, columns, file types."""

from tests.mutation_lists.mutation import Mutation

MUTATIONS = (
    Mutation(
        "a scorer of conversations reads the words alone",
        "data/texts.py",
        "    if tokenizer.chat_template is None:",
        "    if True:",
        "rewards/test_model.py::test_conversations_are_scored_as_in_training",
    ),
    Mutation(
        "a reply that was cut off is scored as if it ended",
        "data/texts.py",
        "    return render_reply(tokenizer, source, _reply(completion), ends)",
        "    return render_reply(tokenizer, source, _reply(completion), True)",
        "rewards/test_model.py::test_conversations_are_scored_as_in_training",
    ),
    Mutation(
        "what the template puts before a reply is taken for a part of it",
        "rollouts/samples.py",
        "text.removeprefix(before).removesuffix(after)",
        "text.removesuffix(after)",
        "data/test_texts.py::test_a_reply_is_scored_as_the_tokens_that_training_reads",
    ),
    Mutation(
        "rules read the names of roles",
        "rollouts/samples.py",
        "                prompt = words(tree.source)\n",
        "",
        "data/test_texts.py::test_plain_rewards_read_words_and_may_ask_for_messages",
    ),
    Mutation(
        "special tokens of a plain prompt do not reach the scorer",
        "data/texts.py",
        "    source = prompt.source if isinstance(prompt, PromptText) else str(prompt)\n    if",
        "    source = str(prompt) if isinstance(getattr(prompt, 'source', ''), str) else "
        "prompt.source\n    if",
        "data/test_texts.py::test_special_tokens_that_a_plain_prompt_holds_reach_a_scorer_and_no_rule",
    ),
    Mutation(
        "a token across the border is read twice",
        "data/tokenise.py",
        "(cut or draft.merged))",
        "cut)",
        "data/test_texts.py::test_a_token_across_the_border_is_read_once",
    ),
    Mutation(
        "a cut prompt is scored whole",
        "data/tokenise.py",
        "(cut or draft.merged))",
        "draft.merged)",
        "data/test_texts.py::test_a_prompt_that_was_cut_is_scored_as_cut",
    ),
    Mutation(
        "completions are joined with the first prompt of their id",
        "rollouts/completed.py",
        "self.rows = [rows[tree.row] for tree in self.trees]",
        "self.rows = [rows[tree.index] for tree in self.trees]",
        "rollouts/test_pairs.py::test_a_refused_prompt_with_the_same_id_lends_its_text_to_nobody",
    ),
    Mutation(
        "pairs are joined with the first row of their id",
        "evaluation/reward_check.py",
        "    return [rows[tree.row] for tree in trees]",
        "    left = iter(rows)\n"
        "    return [next(row for row in left if row.id == tree.id) for tree in trees]",
        "evaluation/test_reward_check.py::test_rows_and_trees_are_joined_by_place",
    ),
    Mutation(
        "a demonstration is looked up by its place among the usable rows",
        "evaluation/sample_table.py",
        "own = [rows[tree.row] for tree in trees]",
        "own = [rows[-1] for tree in trees]",
        "evaluation/test_sample_table.py::test_rows_with_one_id_keep_their_own_demonstrations",
    ),
    Mutation(
        "two rows of one id have one name",
        "data/formats.py",
        "        while name in self._taken:",
        "        while False:",
        "data/test_formats.py::test_ids_that_repeat_are_told_apart",
    ),
    Mutation(
        "gold gets conversations as words only",
        "evaluation/reward_check.py",
        "            prompts = [prompt_text(row.prompt) for row in new]",
        "            prompts = [str(prompt_text(row.prompt)) for row in new]",
        "evaluation/test_reward_check.py::test_gold_may_judge_conversations",
    ),
)
