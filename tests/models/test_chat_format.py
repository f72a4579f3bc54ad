"""Llama 3's chat format on tokenizers that lack it: strings and ids typed from its publication."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

from alignlab.data.chat import render, unread_fields
from alignlab.data.rows import Demonstration, Prompt, RowReport, Turn
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import (
    AdapterOffReference,
    Lora,
    Policy,
    PromptTuning,
    Quantised,
    ScoreModel,
    make_reference,
)
from alignlab.models.chat_format import set_chat_format
from alignlab.models.loading import load_model
from alignlab.models.value import ValueFunction
from alignlab.rollouts.sampler import sample
from tests.tiny import FAMILIES

# One id a letter, newline or pair of newlines; the special tokens in the order of Meta's file.
LETTERS = {letter: k for k, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
SPACE, NEWLINE, NEWLINES = 26, 27, 28
BEGIN, END, OPEN, CLOSE, EOT = 29, 30, 31, 32, 33
SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]


def llama_like(special: bool = True) -> PreTrainedTokenizerFast:
    """Letters under GPT-2's pattern, which parts newlines from a text behind them."""
    vocab = LETTERS | {"Ġ": SPACE, "Ċ": NEWLINE, "ĊĊ": NEWLINES}
    inner = Tokenizer(models.BPE(vocab, [("Ċ", "Ċ")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(SPECIAL if special else ["<s>", "</s>"])
    begin, end = SPECIAL[:2] if special else ("<s>", "</s>")
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=begin, eos_token=end)


def ids(text: str) -> list[int]:
    return [LETTERS[letter] for letter in text]


def test_golden_string() -> None:
    tokenizer = llama_like()
    set_chat_format(tokenizer, "llama3")
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "  hi\n"},
        {"role": "assistant", "content": "yo "},
        {"role": "user", "content": "ok"},
    ]
    wanted = (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "be kind<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        "yo<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "ok<|eot_id|>"
    )
    assert tokenizer.apply_chat_template(messages, tokenize=False) == wanted
    opened = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert opened == wanted + "<|start_header_id|>assistant<|end_header_id|>\n\n"


def test_golden_ids_and_mask_of_two_turns() -> None:
    """Both replies are trained to their ``<|eot_id|>``; headers and the user's turn are not."""
    tokenizer = llama_like()
    set_chat_format(tokenizer, "llama3")
    turns = tuple(map(Turn, ["user", "assistant"] * 2, ["hi", "yo", "ok", "so"]))
    rows = [Demonstration("r", turns[:1], turns[1:])]
    report = RowReport("rows", seen=1)
    (tree,) = tokenise(rows, tokenizer, report)
    assert tree.prompt == (
        *(BEGIN, OPEN, *ids("user"), CLOSE, NEWLINES, *ids("hi"), EOT),
        *(OPEN, *ids("assistant"), CLOSE, NEWLINES),
    )
    user = (OPEN, *ids("user"), CLOSE, NEWLINES, *ids("ok"), EOT)
    header = (OPEN, *ids("assistant"), CLOSE, NEWLINES)
    assert tree.completions == ((*ids("yo"), EOT, *user, *header, *ids("so"), EOT),)
    untrained = [False] * len(user + header)
    assert tree.loss_masks == ((*[True] * 3, *untrained, *[True] * 3),)
    assert (report.straddling, report.ended) == (0, 1)


def test_rollout_prompt_is_the_training_prompt_though_newlines_stand_at_the_border() -> None:
    tokenizer = llama_like()
    assert tokenizer("\n\nyo")["input_ids"] == [NEWLINE, NEWLINE, *ids("yo")]
    set_chat_format(tokenizer, "llama3")
    row = Demonstration("r", (Turn("user", "hi"),), (Turn("assistant", "yo"),))
    (tree,) = tokenise([row], tokenizer, RowReport("rows", seen=1))
    (prompt,) = tokenise([Prompt("r", row.prompt)], tokenizer, RowReport("rows", seen=1))
    assert prompt.prompt == tree.prompt
    assert tokenizer("a\n\nb")["input_ids"] == [*ids("a"), NEWLINE, NEWLINE, *ids("b")]


def test_the_format_is_set_once() -> None:
    tokenizer = llama_like(special=False)
    begin, end, size = tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)
    added = set_chat_format(tokenizer, "llama3")
    assert tokenizer.convert_ids_to_tokens(list(added)) == SPECIAL
    assert list(added.values()) == [begin, end, None, None, end]
    assert len(tokenizer) == size + 5
    before = tokenizer.backend_tokenizer.to_str()
    assert set_chat_format(tokenizer, "llama3") == {}
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.fixture
def base(tmp_path):
    """A saved language model whose tokenizer knows no chat."""

    def make(family: str = "llama", **more: Any) -> str:
        llama_like(special=False).save_pretrained(tmp_path / "tokenizer")
        config = {"model_type": family} | FAMILIES[family] | more
        folder = tmp_path / family
        Policy(config=config, tokenizer=str(tmp_path / "tokenizer"), dtype="float64").save(folder)
        return str(folder)

    return make


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])  # GPT-2's embeddings are tied
def test_new_rows_of_a_pretrained_model_take_over_old_parts(base, family) -> None:
    plain = Policy(base(family), dtype="float64")
    generator = torch.get_rng_state()
    chat = Policy(base(family), dtype="float64", chat_format="llama3")
    assert chat.stop_ids == [chat.tokenizer.convert_tokens_to_ids(t) for t in SPECIAL[1::3]]
    assert torch.equal(torch.get_rng_state(), generator)
    size, begin, end = len(plain.tokenizer), 29, 30
    for mine, theirs in (
        (chat.model.get_input_embeddings(), plain.model.get_input_embeddings()),
        (chat.model.get_output_embeddings(), plain.model.get_output_embeddings()),
    ):
        old = theirs.weight
        assert torch.equal(mine.weight[:size], old)
        wanted = [old[begin], old[end], old.mean(0), old.mean(0), old[end]]
        assert torch.equal(mine.weight[size:], torch.stack(wanted))
    trees = collate([PromptTree(0, "a", (begin, 3, 4), ((5, 6),))])
    raw = plain.log_softmax_at(trees)
    kept = chat.log_softmax_at(trees)[:, :size].log_softmax(-1)  # what is left without new tokens
    assert float((raw - kept).abs().max()) < 1e-12


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_saved_folder_keeps_tokens_template_and_stop_set(base, tmp_path, family) -> None:
    chat = Policy(base(family), chat_format="llama3")
    chat.save(tmp_path / "chat")
    turn, text = chat.tokenizer.convert_tokens_to_ids(["<|eot_id|>", "<|end_of_text|>"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "chat")
    assert tokenizer.chat_template == chat.tokenizer.chat_template
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|begin_of_text|>", "<|eot_id|>")
    assert tokenizer("<|end_header_id|>\n\nhi")["input_ids"][1:] == [NEWLINES, *ids("hi")]
    assert tokenizer.decode([7, 8, turn], skip_special_tokens=True) == "hi"
    stored = GenerationConfig.from_pretrained(tmp_path / "chat").eos_token_id
    assert stored == [turn, text]
    again = Policy.load(tmp_path / "chat")
    assert again.stop_ids == chat.stop_ids == sorted([turn, text])
    named = Policy.load(tmp_path / "chat", chat_format="llama3")  # a YAML that says it twice
    assert len(named.tokenizer) == len(again.tokenizer)
    for name, weight in named.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name])
    assert ScoreModel(str(tmp_path / "chat")).tokenizer.chat_template == tokenizer.chat_template


@torch.no_grad()
@pytest.mark.parametrize("stop", ["<|eot_id|>", "<|end_of_text|>"])
def test_either_token_of_the_stop_set_ends_a_sampled_reply(base, stop) -> None:
    """The head is moved so that this token is all that a greedy policy says."""
    chat = Policy(base(), chat_format="llama3")
    token = chat.tokenizer.convert_tokens_to_ids(stop)
    (prompt,) = tokenise(
        [Prompt("r", (Turn("user", "hi"),))], chat.tokenizer, RowReport("rows", seen=1)
    )
    last = chat.backbone(torch.tensor([prompt.prompt]), use_cache=False)[0][0, -1]
    chat.model.get_output_embeddings().weight[token] = 100 * last
    drawn = sample(
        chat,
        [prompt],
        samples=1,
        max_new_tokens=4,
        spec=SamplingSpec(temperature=0),
        seed=0,
        stop_ids=chat.stop_ids,
    )
    assert drawn.trees[0].completions == ((token,),)
    assert drawn.finished == [[True]]


def test_a_model_from_scratch_has_the_format_too(tmp_path) -> None:
    llama_like(special=False).save_pretrained(tmp_path)
    config = {"model_type": "llama"} | FAMILIES["llama"]
    policy = Policy(config=config, tokenizer=str(tmp_path), chat_format="llama3")
    assert policy.model.config.vocab_size == len(policy.tokenizer)
    names = policy.tokenizer.convert_ids_to_tokens(policy.stop_ids)
    assert sorted(names) == ["<|end_of_text|>", "<|eot_id|>"]


def test_another_template_is_not_replaced(base, tmp_path) -> None:
    policy = Policy(base())
    policy.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    policy.save(tmp_path / "own")
    with pytest.raises(ConfigError, match="a chat template of its own"):
        Policy(str(tmp_path / "own"), chat_format="llama3")


def test_tokens_that_nothing_would_learn_are_refused(base, tmp_path) -> None:
    with pytest.raises(ConfigError, match="adds 5 tokens that virtual tokens, and adapters"):
        Policy(base(), chat_format="llama3", prompt_tuning=PromptTuning(2))
    Policy(base(), lora=Lora(rank=2)).save(tmp_path / "plain")
    with pytest.raises(ConfigError, match="adds 5 tokens that virtual tokens, and adapters"):
        Policy(str(tmp_path / "plain"), chat_format="llama3")
    Policy(base(), chat_format="llama3").save(tmp_path / "chat")
    policy = Policy(str(tmp_path / "chat"), chat_format="llama3", lora=Lora(rank=2))
    assert len(policy.stop_ids) == 2
    assert "tokens" not in str([n for n, p in policy.named_parameters() if p.requires_grad])


def _tables(policy: Policy) -> tuple[torch.Tensor, torch.Tensor]:
    model = policy.model
    return model.get_input_embeddings().weight, model.get_output_embeddings().weight


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("quantised", [None, Quantised()])
def test_adapters_learn_added_tokens(base, tmp_path, tied: bool, quantised) -> None:
    """Their rows, no others, in the embeddings and in a head of its own; saved without the base."""
    source = base(tie_word_embeddings=tied)
    settings: Any = {"chat_format": "llama3", "lora": Lora(rank=2), "quantised": quantised}
    policy = Policy(source, **settings)
    full = Policy(source, chat_format="llama3")
    added = sorted(full.tokenizer.convert_tokens_to_ids(SPECIAL))
    batch = collate([PromptTree(0, "a", (added[0], 5, added[2]), ((7, 8, added[4]), (9, 2)))])
    if quantised is None:
        assert torch.equal(policy(batch).logps, full(batch).logps)
    reference = make_reference(policy, "auto")
    assert isinstance(reference, AdapterOffReference)
    start = reference.token_logps(batch)
    assert torch.equal(policy(batch).token_logps, start)
    before = {n: p.detach().clone() for n, p in policy.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        policy(batch).logps.sum().backward()
        optimizer.step()
    assert all(torch.equal(p, before[n]) for n, p in policy.named_parameters() if n in before)
    assert torch.equal(reference.token_logps(batch), start)
    found = policy.eval()(batch).logps.detach()
    assert float((found - start.sum(1)).abs().min()) > 0.01
    inputs, head = _tables(policy)
    moved = [(a - b).abs().amax(1) > 0 for a, b in zip((inputs, head), _tables(full), strict=True)]
    moved_inputs, moved_head = ({i for i, m in enumerate(rows) if m} for rows in moved)
    assert moved_head == set(added)  # the loss pulls at every row of the head
    assert moved_inputs == (moved_head if tied else {added[0], added[2]})  # those that are read
    policy.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "base").exists()
    again = Policy(str(tmp_path / "saved"))
    assert torch.equal(again.eval()(batch).logps, found)
    merged = load_model(
        AutoModelForCausalLM, str(tmp_path / "saved"), dtype="float32", dropout=0.0, merge=True
    )
    assert torch.equal(merged.get_output_embeddings().weight, head)
    values = ValueFunction(policy, "adapter", True)
    values.head.weight.data.fill_(0.5)
    own = set(map(id, values.own_parameters()))
    names = {n for n, p in policy.named_parameters() if id(p) in own}
    assert any("trainable_tokens_delta" in name for name in names)
    assert torch.equal(policy(batch).logps, found)
    values(batch).sum().backward()
    scorer = ScoreModel(str(tmp_path / "saved"))
    assert torch.equal(scorer.model.get_input_embeddings().weight, inputs)


def test_an_unknown_format() -> None:
    with pytest.raises(ConfigError, match=r"must be llama3 or a template's file, .* got 'llama4'"):
        set_chat_format(llama_like(), "llama4")


TOOLS = [{"type": "function", "function": {"name": "heat", "parameters": {}}}]
CALL = {"type": "function", "function": {"name": "heat", "arguments": '{"in": "a"}'}}


def documented(tmp_path: Path) -> str:
    """The template of the page, in a file."""
    page = (Path(__file__).parents[2] / "docs" / "sft.md").read_text()
    path = tmp_path / "tools.jinja"
    path.write_text(page.partition("```jinja\n")[2].partition("```")[0])
    return str(path)


def test_a_template_in_a_file_renders_tools(base, tmp_path) -> None:
    """That of the docs: calls and the words of the assistant are trained on, the result is not."""
    policy = Policy(base(), chat_format=documented(tmp_path))
    policy.save(tmp_path / "chat")
    turns = (
        Turn("user", "hot").with_extra("tools", TOOLS),
        Turn("assistant", "").with_extra("tool_calls", [CALL]),
        Turn("tool", "30"),
        Turn("assistant", "yes"),
    )
    for tokenizer in (policy.tokenizer, Policy(str(tmp_path / "chat")).tokenizer):
        found = render(tokenizer, turns[:1], turns[1:], ends=True)
        shown = [found.text[a:b] for a, b in found.spans or ()]
        assert found.text[: found.boundary] == (
            '<s>Tools: [{"type": "function", "function": {"name": "heat", "parameters": {}}}]</s>'
            "\nuser\nhot</s>\nassistant\n"
        )
        assert shown == ['<call>{"name": "heat", "arguments": {"in": "a"}}</call></s>', "yes"]
        assert found.ends
        assert unread_fields(tokenizer, turns[:1], turns[1:]) == []
    assert policy.stop_ids == [policy.tokenizer.eos_token_id]
    Policy(str(tmp_path / "chat"), chat_format=documented(tmp_path))  # a YAML that says it twice


def test_a_file_without_a_template(tmp_path) -> None:
    path = tmp_path / "chat.jinja"
    with pytest.raises(ConfigError, match="no chat template"):
        set_chat_format(llama_like(), str(path))
    path.write_text("{% for message in messages %}")
    with pytest.raises(ConfigError, match="no chat template: Unexpected end of template"):
        set_chat_format(llama_like(), str(path))
