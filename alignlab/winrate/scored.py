"""A reward as a judge: the completion with the higher score wins."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.data.texts import CompletionText, PromptText
from alignlab.files import sha_of
from alignlab.plan.content import by_content
from alignlab.rewards.base import checked_rewards
from alignlab.rewards.build import build_reward, parse_reward
from alignlab.winrate.matches import Match, Verdict
from alignlab.winrate.memo import Memo

AT_ONCE = 512  # texts that are scored between two writes


class RewardJudge:
    """Compares scores. A text's score does not depend on the order, so there is one.

    Args:
        spec: As ``build_reward`` takes it.

    Raises:
        ConfigError: No such reward.
    """

    both_orders = False

    def __init__(self, spec: Mapping[str, Any] | str) -> None:
        _, values, path = parse_reward(spec)  # raises before anything is sampled
        given = spec if isinstance(spec, str) else path
        short = re.sub(r"[^\s*+]*/", "", given.rstrip("/"))  # without folders
        self.name = path.rpartition(".")[2] if given == path else short
        self._spec = spec
        self._content = by_content([path, values.as_dict()])

    def judge(self, matches: Sequence[Match], memo: Memo) -> list[Verdict | None]:
        """A verdict for every match.

        Raises:
            DataError: A score that is not a finite number.
        """
        texts = [(m.prompt, text) for m in matches for text in (m.own, m.theirs)]
        scores = iter(self.scores(texts, memo))
        pairs = list(zip(scores, scores, strict=True))  # own, theirs, own, ...
        return [Verdict(0.5 if a == b else float(a > b), None) for a, b in pairs]

    def scores(self, asked: Sequence[tuple[str, str]], memo: Memo) -> list[float]:
        """The score of every prompt and completion; each text is scored once.

        Raises:
            DataError: A score that is not a finite number.
        """
        keys = [self._key(*each) for each in asked]
        texts = dict(zip(keys, asked, strict=True))
        absent = [key for key in texts if key not in memo]
        reward = build_reward(self._spec) if absent else None
        for start in range(0, len(absent), AT_ONCE):
            some = absent[start : start + AT_ONCE]
            prompts, completions = zip(*(texts[key] for key in some), strict=True)
            assert reward is not None
            scores = checked_rewards(reward, prompts, completions)
            memo.keep(dict(zip(some, scores.tolist(), strict=True)))
        return [memo[key] for key in keys]

    def _key(self, prompt: str, completion: str) -> str:
        turns = prompt.messages if isinstance(prompt, PromptText) else None
        ends = completion.ends if isinstance(completion, CompletionText) else True
        return sha_of({"score by": self._content, "prompt": turns or prompt,
                       "completion": str(completion), "ends": ends})  # fmt: skip
