from pathlib import Path

import pytest

from alignlab.models.policy import Policy
from alignlab.stages.policies import make_up_policy


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_a_made_up_policy_reads_and_writes_any_text(tmp_path: Path, kind: str) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    make_up_policy(out=tmp_path, config={"model_type": kind, "num_attention_heads": 2, **sizes})
    policy = Policy.load(tmp_path)
    assert policy.model.config.model_type == kind
    text = "TL;DR: größer\n\nthan 漢字"
    ids = policy.tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode())
    assert policy.tokenizer.decode(ids) == text
    assert policy.tokenizer.eos_token_id not in ids
    assert len({*policy.tokenizer.all_special_ids}) == 3
