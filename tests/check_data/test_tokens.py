"""Tokens of rows: their lengths and which of them are trained on, without torch."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from alignlab.check_data.survey import Source, Survey, survey
from alignlab.check_data.tokens import EXAMPLES, Example, load, plain_examples, tokenised
from alignlab.errors import ConfigError, DataError
from tests.data.files import jsonl
from tests.data.tokens import CHATML, bytewise, metaspace, words

CHAT = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
    {"role": "assistant", "content": "d"},
]


def read(folder: Path, *records: Any) -> Survey:
    return survey(Source(str(jsonl(folder, list(records)))))


def test_lengths_and_marks_of_a_pair(tmp_path: Path) -> None:
    """<s> a b | c d </s> and <s> a b | d </s>: three and two trained tokens."""
    found = tokenised(
        read(tmp_path, {"prompt": "a b", "chosen": " c d", "rejected": " d"}), words()
    )
    assert found.lengths == {
        "prompt": [3],
        "chosen": [3],
        "rejected": [2],
        "prompt + longest completion": [6],
        "trained": [5],
    }
    chosen, rejected = [("<s> a b", False), (" c d </s>", True)], [("<s> a b", False),
                                                                   (" d </s>", True)]  # fmt: skip
    assert found.examples == [Example("rows.jsonl:1", [("chosen", chosen), ("rejected", rejected)])]
    assert (found.report.seen, found.report.count, found.template) == (
        *(1, 0),
        "the tokenizer has no chat template",
    )


def test_a_conversation_with_two_trained_turns(tmp_path: Path) -> None:
    found = tokenised(read(tmp_path, {"messages": CHAT}), bytewise(CHATML, bos=None))
    (example,) = found.examples
    ((column, pieces),) = example.branches
    assert column == "completion"
    assert pieces == [
        ("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", False),
        ("b<|im_end|>", True),
        ("\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n", False),
        ("d<|im_end|></s>", True),
    ]
    assert found.lengths["trained"] == [5]
    assert found.template == (
        "the chat template of the tokenizer does not mark what the assistant writes"
    )


def test_a_space_before_the_first_trained_word_is_shown(tmp_path: Path) -> None:
    """SentencePiece drops it where a text is decoded from its middle on."""
    found = tokenised(read(tmp_path, {"prompt": "a", "completion": " b"}), metaspace())
    ((_, pieces),) = found.examples[0].branches
    assert "".join(text for text, _ in pieces[1:]).startswith(" b")


def test_whole_texts_and_prompts(tmp_path: Path) -> None:
    found = tokenised(read(tmp_path, {"text": "a b"}), words())
    assert found.lengths == {"text": [3], "trained": [3]}
    assert found.examples[0].branches == [("text", [("<s>", False), (" a b </s>", True)])]
    found = tokenised(read(tmp_path, {"prompt": "a b"}), words())
    assert found.lengths == {"prompt": [3], "trained": [0]}
    assert found.examples[0].branches == [("prompt", [("<s> a b", False)])]


def test_a_chat_format_is_shown_before_training(tmp_path: Path) -> None:
    """Of a tokenizer without a template: that of a file, and Llama 3's."""
    bytewise(None).save_pretrained(tmp_path / "plain")
    (tmp_path / "chat.jinja").write_text(CHATML)
    rows = read(tmp_path, {"messages": CHAT[:2]})
    with pytest.raises(ConfigError, match="--chat-format of check-data"):
        tokenised(rows, load(str(tmp_path / "plain")))
    for name, trained in ((str(tmp_path / "chat.jinja"), "b<|im_end|>"), ("llama3", "b<|eot_id|>")):
        (example,) = tokenised(rows, load(str(tmp_path / "plain"), name)).examples
        ((_, pieces),) = example.branches
        assert "".join(text for text, counts in pieces if counts).startswith(trained)


def test_rows_that_only_tokenising_refuses(tmp_path: Path) -> None:
    """Equal as tokens; a special token inside a completion."""
    good = {"prompt": "a", "chosen": " b", "rejected": " c"}
    same = {**good, "rejected": "  b"}
    special = {**good, "chosen": " b </s> c"}
    found = tokenised(read(tmp_path, good, same, special), words())
    assert found.refused == {
        "rows.jsonl:2": "chosen and rejected are identical as tokens",
        "rows.jsonl:3": "end-of-text token inside the completion",
    }
    assert len(found.examples) == 1
    with pytest.raises(DataError, match="none of its 1 rows can be used"):
        tokenised(read(tmp_path, same), words())


def test_examples_are_drawn_at_random_and_the_same_at_every_call(tmp_path: Path) -> None:
    """Every tenth of 100 rows is of another kind: rows at even distances would show one kind."""
    found = read(tmp_path, *({"text": "a" if k % 10 else "b"} for k in range(100)))
    shown = [example.id for example in plain_examples(found.sample)]
    places = [int(name.partition(":")[2]) for name in shown]
    assert len(set(places)) == EXAMPLES
    assert places == sorted(places)
    assert len({b - a for a, b in pairwise(places)}) > 3
    assert [example.id for example in tokenised(found, words()).examples] == shown


def test_rows_are_shown_with_their_judgement_or_rating(tmp_path: Path) -> None:
    judged = [{"prompt": "a", "completion": " b", "label": label} for label in (True, 0, "0")]
    found = read(tmp_path, *judged)
    wanted = ["desirable", "undesirable", "undesirable"]
    assert [example.label for example in plain_examples(found.sample)] == wanted
    assert [example.label for example in tokenised(found, words()).examples] == wanted
    found = read(tmp_path, {"prompt": "a", "completion": " b", "rating": 2.5})
    assert [example.label for example in plain_examples(found.sample)] == ["rating 2.5"]


def test_without_a_tokenizer_texts_are_marked(tmp_path: Path) -> None:
    rows = [{"messages": [*CHAT[:3], {**CHAT[3], "tool_calls": [1]}]}]
    ((_, pieces),) = plain_examples(read(tmp_path, *rows).sample)[0].branches
    assert [text for text, trained in pieces if trained] == ["b", "d", ' {"tool_calls": [1]}']
    assert "".join(text for text, _ in pieces) == (
        'user: a\nassistant: b\nuser: c\nassistant: d {"tool_calls": [1]}\n'
    )
    plain = plain_examples(read(tmp_path, {"prompt": "a", "completion": " b"}).sample)
    assert plain[0].branches == [("completion", [("a", False), (" b", True)])]
    assert plain_examples(read(tmp_path, {"prompt": "a"}).sample)[0].branches == [
        ("prompt", [("a", False)])
    ]


def test_the_tokenizer_is_the_one_that_training_loads(tmp_path: Path) -> None:
    from alignlab.models.loading import load_tokenizer

    made = bytewise(CHATML)
    made.save_pretrained(tmp_path)
    for class_name in ("TokenizersBackend", "GPT2Tokenizer"):
        path = tmp_path / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": class_name}))
        ours, theirs = load(str(tmp_path)), load_tokenizer(str(tmp_path))
        assert type(ours) is type(theirs)
        assert ours("ab </s> b")["input_ids"] == theirs("ab </s> b")["input_ids"]
        assert ours.chat_template == theirs.chat_template == CHATML
    with pytest.raises(ConfigError):
        load(str(tmp_path / "nothing"))


def test_torch_is_not_imported(tmp_path: Path) -> None:
    made: PreTrainedTokenizerFast = bytewise(CHATML)
    made.save_pretrained(tmp_path / "tokenizer")
    path = jsonl(tmp_path, [{"messages": CHAT}, {"messages": CHAT}])
    code = (
        "import sys; from alignlab.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    words = ["check-data", path, "--test", path, "--tokenizer", tmp_path / "tokenizer"]
    words += ["--html", tmp_path / "page.html", "--quarantine", tmp_path / "quarantine.jsonl"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "«b<|im_end|>»" in done.stdout
