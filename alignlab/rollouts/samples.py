"""What a rollout gives back: completions with the log-probs that they were sampled with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

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
    """

    trees: list[PromptTree]
    token_logps: list[list[Tensor]]
    finished: list[list[bool]]

    def texts(self, tokenizer: Any) -> tuple[list[str], list[str]]:
        """Prompt and completion texts, one pair per completion, without special tokens.

        A completion keeps its leading space: it is what the text of prompt and completion together
        adds to the prompt's.
        """
        prompts = decode(tokenizer, [tree.prompt for tree in self.trees])
        joint = decode(tokenizer, [t.prompt + c for t in self.trees for c in t.completions])
        repeated = [p for p, t in zip(prompts, self.trees, strict=True) for _ in t.completions]
        alone = decode(tokenizer, [c for tree in self.trees for c in tree.completions])
        # A prompt cut inside a character decodes differently once the character is complete.
        completions = [
            whole[len(prompt) :] if whole.startswith(prompt) else own
            for prompt, whole, own in zip(repeated, joint, alone, strict=True)
        ]
        return repeated, completions


def decode(tokenizer: Any, rows: Sequence[Sequence[int]]) -> list[str]:
    """Texts of token ids, special tokens skipped and spaces left as they are."""
    return [
        tokenizer.decode(list(row), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for row in rows
    ]
