"""Special tokens and chat templates: what a conversation becomes, and what of it is trained."""

from tests.mutation_lists.mutation import Mutation

MUTATIONS = (
    Mutation(
        "a template that writes the date gets the clock's",
        "data/chat.py",
        "return _CLOCK + source if",
        "return source if",
        "data/test_chat.py::test_a_template_that_writes_the_date_gives_the_same_rows_on_every_day",
    ),
    Mutation(
        "nothing says which date a template writes",
        "data/tokenise.py",
        "    if writes_the_date(tokenizer) and",
        "    if False and",
        "data/test_chat.py::test_a_template_that_writes_the_date_gives_the_same_rows_on_every_day",
    ),
    Mutation(
        "the beginning-of-text token is written twice",
        "data/encode.py",
        "if self.bos is not None and ids[:1] != [self.bos]:",
        "if self.bos is not None:",
        "data/test_tokenise.py::test_bos_stands_once_in_front",
    ),
    Mutation(
        "the beginning-of-text token is missing",
        "data/encode.py",
        "if self.bos is not None and ids[:1] != [self.bos]:",
        "if False:",
        "data/test_tokenise.py::test_bos_stands_once_in_front",
    ),
    Mutation(
        "the tokenizer adds special tokens by itself",
        "data/encode.py",
        "add_special_tokens=False,",
        "add_special_tokens=True,",
        "data/test_tokenise.py::test_an_end_that_the_tokenizer_adds_by_itself_is_left_out",
    ),
    Mutation(
        "a rollout's prompt does not open the reply",
        "data/chat.py",
        "text = template(prompt, opens=True)",
        "text = template(prompt, opens=False)",
        "data/test_chat.py::test_families_by_hand",
    ),
    Mutation(
        "newlines at the border are cut otherwise in rollouts than in training",
        "models/chat_format.py",
        'if ids(CLOSE + "\\n\\na")[: len(alone)] == alone:',
        "if True:",
        "models/test_chat_format.py::"
        "test_rollout_prompt_is_the_training_prompt_though_newlines_stand_at_the_border",
    ),
    Mutation(
        "a header ends in one newline",
        "models/chat_format.py",
        "message['role'] + '\" + CLOSE + \"\\n\\n' }}\"",
        "message['role'] + '\" + CLOSE + \"\\n' }}\"",
        "models/test_chat_format.py::test_golden_string",
    ),
    Mutation(
        "a reply ends with the text's end token and not the turn's",
        "models/chat_format.py",
        "tokenizer.bos_token, tokenizer.eos_token = BEGIN, TURN_END",
        "tokenizer.bos_token, tokenizer.eos_token = BEGIN, END",
        "models/test_chat_format.py::test_golden_ids_and_mask_of_two_turns",
    ),
    Mutation(
        "sampling stops at one token of the stop set alone",
        "models/policy.py",
        "ids = {self.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}",
        "ids = {self.tokenizer.eos_token_id}",
        "models/test_chat_format.py::test_either_token_of_the_stop_set_ends_a_sampled_reply",
    ),
    Mutation(
        "the user's turns are trained",
        "data/chat.py",
        'if turns[k].role == "assistant":',
        "if True:",
        "data/test_chat.py::test_families_by_hand",
    ),
    Mutation(
        "what a template writes after a turn's end is trained",
        "data/chat.py",
        "return found[-1] if found else end",
        "return end",
        "data/test_chat.py::test_families_by_hand",
    ),
    Mutation(
        "a template that marks nothing trains nothing, silently",
        "data/chat.py",
        "if not spans or spans[-1][1] != written[-1][1]:",
        "if False:",
        "data/test_chat.py::test_markers_that_leave_out_the_last_turn_are_refused",
    ),
    Mutation(
        "a template that rewrites earlier turns is let through",
        "data/chat.py",
        "if not whole.startswith(start) or not whole.startswith(end):",
        "if False:",
        "data/test_chat.py::test_thoughts_that_a_template_strips_from_earlier_turns",
    ),
    Mutation(
        "a special token that an author wrote is let through",
        "data/chat.py",
        "if found := self.special.search(turn.content) or",
        "if found := None and self.special.search(turn.content) or",
        "data/test_chat.py::test_special_token_that_an_author_wrote_is_refused",
    ),
)
