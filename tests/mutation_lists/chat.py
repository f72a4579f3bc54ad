"""Bugs in ``alignlab chat`` and in ``alignlab.strings``."""

from tests.mutation_lists.mutation import Mutation

MUTATIONS = (
    Mutation(
        "the policies hear nothing of the tools",
        "chat/conversation.py",
        'first.with_extra("tools", self._tools) if self._tools else first',
        "first",
        "chat/test_conversation.py::test_tools_stand_in_the_first_message_of_every_conversation",
    ),
    Mutation(
        "tools are given to a template that leaves them out",
        "chat/command.py",
        "            unread_fields(speaker.policy.tokenizer, (hello,))\n",
        "            _ = unread_fields, hello\n",
        "chat/test_command.py::test_tools_that_no_template_renders_are_refused",
    ),
    Mutation(
        "the preference is kept the wrong way round",
        "chat/conversation.py",
        "self._keep(prompt, replies[chosen], replies[1 - chosen])",
        "self._keep(prompt, replies[1 - chosen], replies[chosen])",
        "chat/test_conversation.py::test_a_preference_is_a_row_and_its_reply_is_continued",
    ),
    Mutation(
        "the conversation goes on with the first reply though the second was preferred",
        "chat/conversation.py",
        'Turn("assistant", replies[chosen or 0])',
        'Turn("assistant", replies[0])',
        "chat/test_conversation.py::test_a_preference_is_a_row_and_its_reply_is_continued",
    ),
    Mutation(
        "the stream is drawn with the noise of another phase",
        "chat/streaming.py",
        "uniform(seed, rollout, index",
        "uniform(seed, 0, index",
        "chat/test_streaming.py::test_the_stream_ends_as_the_samplers_completion",
    ),
    Mutation(
        "a reply may run past the model's context",
        "chat/speaker.py",
        "if most < 1:",
        "if False:",
        "chat/test_speaker.py::test_a_full_context_says_what_to_do",
    ),
    Mutation(
        "strings: a completion that was cut off is scored with an end-of-text token",
        "strings.py",
        '"ends": not isinstance(said, CompletionText) or said.ends',
        '"ends": True',
        "test_strings.py::test_kl_and_reward_of_sampled_texts",
    ),
    Mutation(
        "strings: a frontier is read past the largest KL",
        "strings.py",
        "if budget <= kl.max() else None",
        "if True else None",
        "test_strings.py::test_a_frontier_is_the_hull",
    ),
    Mutation(
        "a reply that was cut off is kept as a complete one",
        "chat/conversation.py",
        "if isinstance(reply, CompletionText) and not reply.ends:",
        "if False:",
        "chat/test_conversation.py::test_a_reply_that_was_cut_off_is_kept_as_such",
    ),
    Mutation(
        "strings: an empty completion stands behind the prompt before its own",
        "strings.py",
        "[replace(tree, index=n) for n, tree in enumerate(trees)]",
        "trees",
        "test_strings.py::test_an_empty_completion_is_scored_after_its_own_prompt",
    ),
)
