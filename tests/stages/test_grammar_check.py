"""A policy that knows nothing, whose numbers are known, against the grammar."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from alignlab.data.rows import Prompt
from alignlab.data.sources import write_rows
from alignlab.models.policy import Policy
from alignlab.results.csv_tables import read_table
from alignlab.stages.grammar_check import _steps, check_grammar
from alignlab.worlds.toy import tokenizer, vocabulary
from alignlab.worlds.toy_grammar import bigrams, next_words

SIZE = len(vocabulary())
PROMPT = "the plot of this old film is"
CONFIG = {
    "model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.5,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    tokenizer().save_pretrained(tmp_path / "tokenizer")
    made = Policy(config=CONFIG, tokenizer=str(tmp_path / "tokenizer"), dtype="float64")
    return made.eval()


def test_steps_against_the_models_own_logits(policy: Policy) -> None:
    words = ("superb", "and", "the", "music", "is", "fun", ".")
    ((*steps,),) = _steps(policy, [(PROMPT, " " + " ".join(words))], "data", 4)
    assert [(step.position, step.prefix) for step in steps] == [(t, "data") for t in range(8)]
    ids = policy.tokenizer(f"<bos> {PROMPT} " + " ".join(words))["input_ids"]
    names = {word: vocabulary().index(word) for word in (*words, "but", ",")}
    with torch.no_grad():
        logps = policy.model(torch.tensor([ids])).logits[0].log_softmax(-1)[-8:]
    chances = next_words(PROMPT, words[:1])  # after "superb"
    nll = -sum(p * float(logps[1, names[word]]) for word, p in chances.items())
    assert steps[1].nll == pytest.approx(nll)
    entropy = -sum(p * math.log(p) for p in chances.values())
    assert steps[1].excess == pytest.approx(nll - entropy)
    right = sum(math.exp(logps[1, names[word]]) for word in chances)
    assert steps[1].wrong == pytest.approx(1 - right)
    fitting = sum(math.exp(logps[3, vocabulary().index(b)]) for a, b in bigrams() if a == "the")
    assert steps[3].misfit == pytest.approx(1 - fitting)
    assert math.isnan(steps[0].misfit)  # before it stands the prompt


def test_behind_a_mistake_only_neighbours_are_judged(policy: Policy) -> None:
    ((*steps,),) = _steps(policy, [(PROMPT, " superb superb .")], "own", 4)
    assert [step.prefix for step in steps] == ["own", "own", "broken", "broken"]
    assert all(math.isnan(step.nll) and math.isnan(step.wrong) for step in steps[2:])
    assert steps[2].misfit == pytest.approx(steps[1].misfit, abs=1)
    assert list(_steps(policy, [(PROMPT, "")], "own", 4)) == []


def test_tables_of_a_policy_that_says_everything_alike(policy: Policy, tmp_path: Path) -> None:
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.zero_()
    policy.save(tmp_path / "runs" / "all-s3")
    write_rows(tmp_path / "prompts.jsonl", [Prompt("a", PROMPT), Prompt("b", "the plot")])
    check_grammar(
        out=tmp_path / "out",
        policies={"even": [str(tmp_path / "runs" / "all-s3")]},
        prompts=str(tmp_path / "prompts.jsonl"),
        samples=3,
    )
    (row,) = read_table(tmp_path / "out" / "rubbish.csv")
    assert (row["policy"], row["run"], row["completions"]) == ("even", "runs-all-s3", "6")
    assert float(row["rubbish"]) == 1.0
    assert 0.999 < float(row["expected"]) <= 1.0  # at each step a few of the words are right
    steps = read_table(tmp_path / "out" / "exposure.csv")
    assert {step["prefix"] for step in steps} == {"data", "own", "broken"}
    data = [step for step in steps if step["prefix"] == "data"]
    assert data[0]["position"] == "all"
    assert int(data[0]["steps"]) == sum(int(step["steps"]) for step in data[1:])
    for step in data:
        assert float(step["nll"]) == pytest.approx(math.log(SIZE), abs=1e-5)
    # The first word of six texts, three of each prompt: 22 and 2 words are right.
    first = next(step for step in data if step["position"] == "0")
    right = [len(next_words(prompt, ())) for prompt in (PROMPT, "the plot")]
    assert float(first["wrong"]) == pytest.approx(1 - np.mean(right) / SIZE, abs=1e-5)
    assert float(row["nll"]) == pytest.approx(math.log(SIZE) * int(data[0]["steps"]) / 6, abs=1e-4)
