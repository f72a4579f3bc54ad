"""Tiny tokenizers with the traits that real ones fail on."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS = 0, 1, 2
A, B, C, D, SPACE, SPACE_B, A_SPACE_B = 3, 4, 5, 6, 7, 8, 9

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content | trim }}</s>{% endif %}{% endfor %}"
)
MISTRAL = (
    "<s>{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}{{ m.content }}</s>"
    "{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
GEMMA = (
    "<bos>{% for m in messages %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
BARE = "{% for m in messages %}{{ m.content }}{% endfor %}"
# Qwen 3's way with thoughts: those of earlier turns are cut out.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content if loop.last else m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Rewrites history: only the last assistant turn shows its thoughts.
FORGETFUL = (
    "{% for m in messages %}{{ m.role }}: "
    "{% if m.role == 'assistant' and loop.last %}(thinks) {% endif %}{{ m.content }}</s>"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def merging(
    bos: str | None = "<s>",
    eos: str | None = "</s>",
    pad: str | None = "<pad>",
    adds_bos: bool = False,
    adds_eos: bool = False,
) -> PreTrainedTokenizerFast:
    """Characters a, b, c, d and space; " b" is one token and so is "a b", over any border."""
    vocab = {"<pad>": PAD, "<s>": BOS, "</s>": EOS, "a": A, "b": B, "c": C, "d": D, " ": SPACE}
    vocab |= {" b": SPACE_B, "a b": A_SPACE_B}
    inner = Tokenizer(models.BPE(vocab, [(" ", "b"), ("a", " b")]))
    inner.add_special_tokens(["<pad>", "<s>", "</s>"])
    inner.decoder = decoders.Fuse()
    if adds_bos or adds_eos:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> " * adds_bos + "$A" + " </s>" * adds_eos,
            special_tokens=[("<s>", BOS), ("</s>", EOS)],
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=bos, eos_token=eos, pad_token=pad
    )


def bytewise(
    template: str | None = None,
    bos: str | None = "<s>",
    eos: str = "</s>",
    trim_offsets: bool = True,
    double_newline: bool = False,
) -> PreTrainedTokenizerFast:
    """Bytes as GPT-2 cuts them, with " b" and "ab" as merges; offsets may leave out the space."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "b"), ("a", "b")] + [("Ċ", "Ċ")] * double_newline
    vocab = {letter: k for k, letter in enumerate([*letters, *map("".join, merges)])}
    inner = Tokenizer(models.BPE(vocab, merges))
    inner.add_special_tokens(["</s>", "<s>", "<|im_end|>", "<|im_start|>"])
    inner.add_special_tokens(["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"])
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=bos, eos_token=eos)
    made.chat_template = template
    return made


def metaspace() -> PreTrainedTokenizerFast:
    """SentencePiece's way: a space is the first letter of the next token, and the text gets one."""
    vocab = {"<s>": 0, "</s>": 1, "▁": 2, "a": 3, "b": 4, "c": 5, "▁b": 6, "▁c": 7, "é": 8}
    inner = Tokenizer(models.BPE(vocab, [("▁", "b"), ("▁", "c")]))
    inner.add_special_tokens(["<s>", "</s>"])
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    inner.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def words() -> PreTrainedTokenizerFast:
    """Whole words; white space is dropped."""
    vocab = {"<pad>": PAD, "<s>": BOS, "</s>": EOS, "a": A, "b": B, "c": C, "d": D}
    inner = Tokenizer(models.WordLevel(vocab, unk_token="<pad>"))
    inner.add_special_tokens(["<pad>", "<s>", "</s>"])
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
