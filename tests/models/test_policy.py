"""Policies from scratch and from folders: precision, dropout, head, errors, exported files."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import Lora, Policy
from alignlab.models.backbone import probe_trees
from alignlab.models.decoding import decoding_of
from alignlab.models.modes import reading
from alignlab.start.fill import learning_rate
from tests.tiny import FAMILIES, VOCABULARY

TREES = [PromptTree(0, "a", (1, 5, 6), ((7, 8, 2), (9,))), PromptTree(1, "b", (1,), ((4, 4, 4),))]


@torch.no_grad()
def test_saved_policy_is_a_hugging_face_folder_with_the_same_log_probs(build, tmp_path):
    policy = build("llama", dtype="float32")
    policy.save(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.eos_token_id == policy.tokenizer.eos_token_id
    logits = model(torch.tensor([[1, 5, 6, 7, 8, 2]])).logits[0]
    expected = [float(logits[2 + t].log_softmax(-1)[token]) for t, token in enumerate((7, 8, 2))]
    found = Policy.load(tmp_path)(collate(TREES)).token_logps[0].tolist()
    assert found == pytest.approx(expected, abs=1e-5)


def test_weights_from_scratch_are_a_function_of_the_seed(words):
    def make(seed: int) -> Policy:
        return Policy(
            config={"model_type": "llama"} | FAMILIES["llama"], tokenizer=str(words), seed=seed
        )

    before = torch.get_rng_state()
    first, again, other = make(1), make(1), make(2)
    assert torch.equal(torch.get_rng_state(), before)
    weight = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first.model.state_dict()[weight], again.model.state_dict()[weight])
    assert not torch.equal(first.model.state_dict()[weight], other.model.state_dict()[weight])


def test_gpt2_has_no_dropout_unless_asked(words):
    config = {"model_type": "gpt2"} | FAMILIES["gpt2"]
    batch = collate(TREES)
    quiet = Policy(config=config, tokenizer=str(words)).train()
    assert torch.equal(quiet(batch).logps, quiet(batch).logps)
    noisy = Policy(config=config, tokenizer=str(words), dropout=0.5).train()
    assert not torch.equal(noisy(batch).logps, noisy(batch).logps)


def test_log_probs_of_a_bf16_model_are_float32_and_close_to_exact_ones(build):
    exact = build("llama", dtype="float64", spread=0.2)
    half = build("llama", dtype="bfloat16", spread=0.2)
    half.model.load_state_dict(exact.model.state_dict())
    exact.model.load_state_dict(half.model.state_dict())  # the same rounded weights
    scores = half(collate(TREES))
    assert scores.token_logps.dtype == torch.float32
    assert_close(scores.token_logps.double(), exact(collate(TREES)).token_logps, atol=5e-2, rtol=0)


def test_the_sampling_spec_is_the_distribution_that_is_scored(build):
    policy = build("llama")
    batch = collate(TREES)
    spec = SamplingSpec(temperature=0.7)
    full = policy.log_softmax_at(batch, spec)
    assert_close(full.exp().sum(-1), torch.ones(len(full), dtype=full.dtype))
    chosen = full.gather(1, batch.completion_ids[batch.loss_mask][:, None])[:, 0]
    scored = policy(batch, spec=spec).token_logps[batch.loss_mask]
    assert_close(scored, chosen)
    assert not torch.allclose(scored, policy(batch).token_logps[batch.loss_mask])


@torch.no_grad()
def test_log_probs_of_a_completion_are_summed(build):
    """Under logits of 0 each of 32 tokens costs log 32: 3, 1 and 3 of them, and twice as many."""
    policy = build("llama")
    policy.model.get_output_embeddings().weight.zero_()
    scores = policy(collate(TREES))
    assert (scores.logps / math.log(VOCABULARY)).tolist() == pytest.approx([-3, -1, -3])
    assert scores.lengths.tolist() == [3, 1, 3]
    doubled = [replace(tree, completions=tuple(2 * c for c in tree.completions)) for tree in TREES]
    assert_close(policy(collate(doubled)).logps, 2 * scores.logps)


def test_chunks_change_memory_not_results(build):
    policy = build("qwen3")
    batch = collate(TREES)
    results = []
    for chunk in (1, 2, 4096):
        policy.chunk = chunk
        policy.zero_grad()
        scores = policy(batch, want=("entropies",))
        scores.logps.sum().backward()
        results.append((scores, [p.grad.clone() for p in policy.parameters()]))
    for scores, grads in results[:2]:
        assert_close(scores.token_logps, results[2][0].token_logps, rtol=0, atol=1e-12)
        assert_close(scores.entropies, results[2][0].entropies, rtol=0, atol=1e-12)
        for mine, theirs in zip(grads, results[2][1], strict=True):
            assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_lora_starts_as_the_base_and_trains_only_adapters(build, tmp_path):
    base = build("llama", dtype="float32")
    base.save(tmp_path)
    policy = Policy(source=str(tmp_path), lora=Lora(rank=2))
    assert_close(policy(collate(TREES)).logps, base(collate(TREES)).logps)
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    before = policy(collate(TREES)).logps
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "lora_B" in name:
                p.fill_(0.1)
    after = policy(collate(TREES)).logps
    assert not torch.allclose(before, after)
    policy.save(tmp_path / "adapter")
    assert_close(Policy.load(tmp_path / "adapter")(collate(TREES)).logps, after)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of"),
        ({"source": "x/y", "config": {"model_type": "llama"}}, "exactly one of"),
        ({"config": {"model_type": "llama"}}, "needs policy.init_args.tokenizer"),
        ({"source": "./nowhere"}, "no such folder"),
        ({"source": "nobody/has-this"}, "and the hub, where it might be"),
    ],
)
def test_bad_sources_say_what_to_do(settings, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=message):
        Policy(**settings)


def test_bad_configs_say_what_to_do(words, tmp_path):
    with pytest.raises(ConfigError, match="needs model_type"):
        Policy(config={"hidden_size": 8}, tokenizer=str(words))
    with pytest.raises(ConfigError, match="cannot build a model"):
        Policy(config={"model_type": "no-such-thing"}, tokenizer=str(words))
    with pytest.raises(ConfigError, match="is empty"):
        Policy(source=str(tmp_path))


def test_the_folder_of_a_run_is_not_a_model(build, tmp_path):
    build().save(tmp_path / "version_0" / "model")
    (tmp_path / "version_0" / "config.yaml").write_text("model: {}")
    with pytest.raises(ConfigError, match=r"is the folder of a run. Name its model, .*_0/model\."):
        Policy(str(tmp_path / "version_0"))
    with pytest.raises(ConfigError, match="is the folder of a run"):
        learning_rate(str(tmp_path / "version_0"))


def test_the_precision_of_a_forward_is_that_of_its_coarsest_part(build):
    fine, half = build("llama", dtype="float32"), build("llama", dtype="bfloat16")
    assert (fine.precision, half.precision) == (torch.float32, torch.bfloat16)
    assert build("llama").precision == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fine.precision == torch.bfloat16
    fine.head_dtype = torch.bfloat16
    assert fine.precision == torch.bfloat16


@torch.no_grad()
def test_a_coarse_head_is_not_taken_for_another_architecture(build, tmp_path) -> None:
    build("llama", dtype="float32").save(tmp_path)
    fine = Policy(str(tmp_path))
    coarse = Policy(str(tmp_path), head_dtype="bfloat16")
    trees = probe_trees(fine.model.config, 0)
    gap = (coarse(trees).logps - fine(trees).logps).abs().max()
    assert 1e-4 < float(gap) < 0.1
    with reading(coarse.model):
        assert decoding_of(coarse) == decoding_of(fine) == "shared"


def test_a_tokenizer_that_is_not_the_models_is_refused(build, tmp_path) -> None:
    """All its ids are in range, and each would be read as another token."""
    build().save(tmp_path / "lm")
    build().save(tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    text = path.read_text().replace("w3", "w0").replace("w4", "w3").replace("w0", "w4")
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"'Ġw\d+' is token \d+ of one tokenizer, and the other"):
        Policy(str(tmp_path / "lm"), tokenizer=str(tmp_path / "other"))
    Policy(str(tmp_path / "lm"), tokenizer=str(tmp_path / "lm"))
    (tmp_path / "lm" / "tokenizer.json").unlink()
    (tmp_path / "lm" / "tokenizer_config.json").unlink()
    Policy(str(tmp_path / "lm"), tokenizer=str(tmp_path / "other"))  # there is nothing to compare
