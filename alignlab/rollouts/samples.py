"""The result of a rollout: completions with the log-probs that they were sampled with."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor

from alignlab.data.chat import reply_frame
from alignlab.data.texts import CompletionText, PromptText, words
from alignlab.data.trees import PromptTree


@dataclass(frozen=True, slots=True)
class Samples:
    """Completions of P prompts, in the order in which the prompts were given.

    Args:
        trees: One tree per prompt with its K completions; a sampled stop token is their last one.
        token_logps: For each prompt and completion ``[length]`` nats under the sampling spec, on
            the CPU; float32, or float64 from a float64 model.
        finished: For each prompt and completion whether a stop token ended it, rather than
            ``max_new_tokens``.
        values: As ``token_logps``, the value before each token; empty where none were asked for.
    """

    trees: list[PromptTree]
    token_logps: list[list[Tensor]]
    finished: list[list[bool]]
    values: list[list[Tensor]] = field(default_factory=list)

    @classmethod
    def joined(cls, parts: Sequence["Samples"]) -> "Samples":
        """The samples of several sets of prompts, one set after another."""
        names = [each.name for each in fields(cls)]
        return cls(*([row for part in parts for row in getattr(part, name)] for name in names))

    def texts(self, tokenizer: Any) -> tuple[list[str], list[str]]:
        """Prompt and completion texts, one pair per completion, in words (see ``data.texts``).

        A completion keeps its leading space: it is what the text of prompt and completion together
        adds to the prompt's. A reply to a conversation is without what the template adds to it.
        """
        decoded = decode(tokenizer, [tree.prompt for tree in self.trees])
        joint = iter(decode(tokenizer, [t.prompt + c for t in self.trees for c in t.completions]))
        prompts: list[str] = []
        completions: list[str] = []
        for p, (prompt, tree) in enumerate(zip(decoded, self.trees, strict=True)):
            said = [_added(prompt, next(joint), own) for own in decode(tokenizer, tree.completions)]
            if tree.source is not None and not isinstance(tree.source, str):
                before, after = reply_frame(tokenizer, tree.source)
                said = [text.removeprefix(before).removesuffix(after) for text in said]
                prompt = words(tree.source)
            source = prompt if tree.source is None else tree.source
            prompts += [PromptText(prompt, source)] * len(said)
            ends = self.finished[p] if self.finished else [True] * len(said)
            completions += map(CompletionText, said, said, ends)
        return prompts, completions


def _added(prompt: str, joint: str, alone: str) -> str:
    """What ``joint`` adds to ``prompt``; a prompt cut inside a character is no beginning of it."""
    return joint[len(prompt) :] if joint.startswith(prompt) else alone


def decode(tokenizer: Any, rows: Sequence[Sequence[int]]) -> list[str]:
    """Texts of token ids, special tokens skipped and spaces left as they are."""
    return [
        tokenizer.decode(list(row), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for row in rows
    ]
