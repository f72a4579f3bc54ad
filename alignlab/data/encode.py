"""Tokenises texts without adding, cutting or padding, and refuses special tokens inside them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignlab.data.rows import Refused
from alignlab.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AT_ONCE = 512  # rows tokenised in one call: enough to be fast, few enough to keep memory flat


@dataclass(frozen=True, slots=True)
class Code:
    """Token ids of one text, and the first and one-past-last character of each."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class Encoder:
    """A fast tokenizer that is called without its own special tokens, truncation and padding."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        if not tokenizer.is_fast:
            raise ConfigError(
                f"the tokenizer {tokenizer.name_or_path!r} ({type(tokenizer).__name__}) has no "
                "character offsets, which the border of prompt and completion is read from. "
                "Use a fast tokenizer (one with a tokenizer.json)."
            )
        self.tokenizer = tokenizer
        self.bos: int | None = tokenizer.bos_token_id
        self.bare_eos: int | None = tokenizer.eos_token_id
        # One int object per id: a corpus of tuples then costs 8 bytes a token instead of 40.
        self._shared = list(range(len(tokenizer)))

    @property
    def eos(self) -> int:
        """The end-of-text token."""
        if self.bare_eos is None:
            raise ConfigError(
                f"the tokenizer {self.tokenizer.name_or_path!r} has no end-of-text token, so a "
                "policy could never learn to stop. Set its eos_token."
            )
        return self.bare_eos

    @property
    def start(self) -> int:
        """The token ids of an empty prompt."""
        return self.eos if self.bos is None else self.bos

    def __call__(self, texts: list[str]) -> list[Code]:
        if not texts:
            return []
        # Pairs drawn from a few completions of one prompt hold each text several times.
        unique = list(dict.fromkeys(texts))
        coded = self.tokenizer(
            unique,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        codes = {}
        for text, ids, offsets in zip(
            unique, coded["input_ids"], coded["offset_mapping"], strict=True
        ):
            if self.bos is not None and ids[:1] != [self.bos]:
                ids, offsets = [self.bos, *ids], [(0, 0), *offsets]
            codes[text] = Code([self._shared[i] for i in ids], offsets)
        return [codes[text] for text in texts]


def without_specials(encode: Encoder, ids: list[int], prompt: int, ends: bool) -> list[int]:
    """The ids of a plain text, without an end-of-text token that its author wrote at the end.

    Raises:
        Refused: A special token inside the text would teach a wrong beginning or end.
    """
    if ends and len(ids) > prompt and ids[-1] == encode.eos:
        ids = ids[:-1]
    if encode.bos is not None and encode.bos in ids[1:]:
        raise Refused("beginning-of-text token inside the text")
    if encode.bare_eos in ids[prompt:]:
        raise Refused("end-of-text token inside the completion")
    return ids
