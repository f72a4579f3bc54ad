from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from alignlab.chat.speaker import Speaker
from alignlab.data.rows import Turn
from alignlab.errors import DataError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy

GREEDY = SamplingSpec(0.0)
TEMPLATE = (
    "{% for m in messages %}{{ ' w5 ' if m.role == 'user' else ' w6 ' }}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %} w6{% endif %}"
)


def test_a_reply_grows_by_words(build: Callable[..., Policy]) -> None:
    speaker = Speaker("policy", build(), most=6, spec=GREEDY, seed=0)
    assert not speaker.chats
    with torch.no_grad():
        parts = list(speaker.reply(" w4 w9", 1))
    assert 1 <= len(parts) <= 6
    assert all(longer.startswith(part) for part, longer in pairwise(parts))


def test_a_conversation_is_rendered_by_the_template(build: Callable[..., Policy]) -> None:
    policy = build()
    policy.tokenizer.chat_template = TEMPLATE
    speaker = Speaker("policy", policy, most=6, spec=GREEDY, seed=0)
    with torch.no_grad():
        chat = list(speaker.reply((Turn("user", "w4"),), 1))
        plain = list(Speaker("policy", policy, most=6, spec=GREEDY, seed=0).reply(" w5 w4 w6", 1))
    assert speaker.chats
    assert [words.strip() for words in chat] == [words.strip() for words in plain]


def test_a_full_context_says_what_to_do(build: Callable[..., Policy]) -> None:
    speaker = Speaker("policy", build(), most=6, spec=GREEDY, seed=0)
    with pytest.raises(DataError, match=r"66 tokens.*context of 64. Start a new one with /new"):
        list(speaker.reply(" w4" * 65, 1))
