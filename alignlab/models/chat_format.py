"""Chat formats for tokenizers that have none: a template's file, or Llama 3's as Meta published it.

    <|begin_of_text|><|start_header_id|>user<|end_header_id|>

    hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    hello<|eot_id|>

Every turn is a header, two newlines, the trimmed text and ``<|eot_id|>``; the begin token stands
once in front (arXiv:2407.21783, section 4.1.1; the model card's prompt format). A reply ends at
``<|eot_id|>``, a plain text at ``<|end_of_text|>``: both stop a completion.
"""

from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateSyntaxError

from alignlab.errors import ConfigError

ChatFormat = str  # llama3, or the path of a template's file, which ends in .jinja
BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
OPEN, CLOSE, TURN_END = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '" + OPEN + "' + message['role'] + '" + CLOSE + "\n\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] | trim }}{{ '" + TURN_END + "' }}{% endgeneration %}"
    "{% else %}{{ message['content'] | trim }}{{ '" + TURN_END + "' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + OPEN + "assistant" + CLOSE + "\n\n' }}{% endif %}"
)


def set_chat_format(tokenizer: Any, name: ChatFormat) -> dict[int, int | None]:
    """Give ``tokenizer`` the format's special tokens and template; nothing if it has them already.

    With ``llama3``, ``<|begin_of_text|>`` becomes its beginning-of-text token, ``<|eot_id|>`` its
    end-of-text token. A template's file adds no tokens.

    Returns:
        The ids of added tokens, each with the id of the token whose role it takes over, if any.

    Raises:
        ConfigError: No such format or file, or the tokenizer has another chat template.
    """
    template = LLAMA3 if name == "llama3" else _template_in(name)
    if tokenizer.chat_template not in (None, template):
        raise ConfigError(
            f"the tokenizer {tokenizer.name_or_path!r} has a chat template of its own, which "
            f"chat_format {name} would replace. Leave chat_format out."
        )
    if name != "llama3":
        tokenizer.chat_template = template
        return {}
    parts = {
        BEGIN: tokenizer.bos_token_id,
        END: tokenizer.eos_token_id,
        OPEN: None,
        CLOSE: None,
        TURN_END: tokenizer.eos_token_id,
    }
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([token for token in parts if token not in known], special_tokens=True)
    tokenizer.bos_token, tokenizer.eos_token = BEGIN, TURN_END
    tokenizer.chat_template = LLAMA3
    _keep_newlines_together(tokenizer)
    return {
        tokenizer.convert_tokens_to_ids(token): part
        for token, part in parts.items()
        if token not in known
    }


def _template_in(name: str) -> str:
    """The template in a file.

    Raises:
        ConfigError: It is not a readable file with a template in Jinja's language.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    if not name.endswith(".jinja"):
        raise ConfigError(
            f"chat_format must be llama3 or a template's file, *.jinja, got {name!r}."
        )
    try:
        template = Path(name).read_text(encoding="utf-8")
        render_jinja_template([], chat_template=template)  # renders nothing, reads the template
    except (OSError, UnicodeDecodeError, TemplateSyntaxError) as problem:
        raise ConfigError(f"chat_format {name}: no chat template: {problem}.") from problem
    return template


def set_stops(model: Any, tokenizer: Any) -> None:
    """Write the format's stop set, end of turn and end of text, into the model's configs."""
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = tokenizer.convert_tokens_to_ids([TURN_END, END])


@torch.no_grad()
def copy_token_rows(model: Any, tokens: dict[int, int | None]) -> None:
    """Make room for added tokens in a pretrained model's embeddings and head.

    A token starts as a copy of the one whose role it takes over (the turn's end as the old
    end-of-text token), or else as the mean of all old tokens. No random number is drawn.

    Args:
        model: The Hugging Face model, without adapters.
        tokens: As ``set_chat_format`` returns them.
    """
    if not tokens:
        return
    old = min(tokens)  # tokenizers give new tokens the ids that follow
    if model.get_input_embeddings().weight.shape[0] <= max(tokens):
        with torch.random.fork_rng(devices=[]):  # rows are drawn, then overwritten
            model.resize_token_embeddings(max(tokens) + 1, mean_resizing=False)
    head = model.get_output_embeddings()
    tables = [model.get_input_embeddings().weight]
    tables += [] if head is None else [head.weight, getattr(head, "bias", None)]
    for table in tables:
        if table is not None:
            for token, part in tokens.items():
                table[token] = table[:old].mean(0) if part is None else table[part]


def _keep_newlines_together(tokenizer: Any) -> None:
    r"""Tokenise the two newlines after a header in the same way, with or without text after them.

    The published tokenizer keeps them apart from the text. GPT-2's pattern splits ``"\n\nhi"`` into
    newline, newline, hi, but ``"\n\n"`` alone is one token: a policy would be sampled from a prompt
    that it never saw in training.
    """
    from tokenizers import Regex, pre_tokenizers

    def ids(text: str) -> list[int]:
        coded: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return coded

    alone = ids(CLOSE + "\n\n")
    if ids(CLOSE + "\n\na")[: len(alone)] == alone:
        return
    backend = tokenizer.backend_tokenizer
    own = [] if backend.pre_tokenizer is None else [backend.pre_tokenizer]
    first = pre_tokenizers.Split(Regex(r"\A\n\n"), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([first, *own])
