"""Weights in 4 bits: gradients are those of the decoded weights, and nothing else changes them."""

import ast
import json
import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from peft.tuners.lora import LoraModel
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from alignlab.callbacks.journal import _model_line
from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.evaluation.scoring import evaluating
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
from alignlab.models.loading import load_model
from alignlab.models.quantised import dequantise, layers_in_4_bits
from alignlab.models.value import ValueFunction
from alignlab.objectives.dpo import DPO
from alignlab.rewards.model import ModelReward
from alignlab.rollouts.sampler import sample
from tests.tiny import FAMILIES

TREES = [
    PromptTree(0, "a", (1, 5, 6), ((7, 8, 2), (9, 2))),
    PromptTree(1, "b", (1,), ((4,), (6, 2))),
]
ADAM = partial(torch.optim.AdamW, lr=1e-2)
# QLoRA, appendix E: the 16 values of NF4, typed from the paper.
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip


@pytest.fixture
def base(words: Path, tmp_path: Path) -> str:
    """A Llama whose layers have a head of their own, in float32."""
    config = {"model_type": "llama", "initializer_range": 0.4, "max_position_embeddings": 64}
    config |= FAMILIES["llama"] | {"hidden_size": 64, "num_key_value_heads": 2}
    Policy(config=config, tokenizer=str(words)).save(tmp_path / "base")
    return str(tmp_path / "base")


def move(model: nn.Module, seed: int = 1) -> None:
    """All that trains is somewhere else."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator).to(p))


def by_hand(weight: Any, shape: torch.Size) -> Tensor:
    """Two codes a byte, the first in its upper half; 64 weights share the largest as a scale."""
    codes = [code for byte in weight.data.flatten().tolist() for code in (byte >> 4, byte & 15)]
    scales = weight.quant_state.absmax.tolist()
    values = [NF4[code] * scales[i // 64] for i, code in enumerate(codes)]
    return torch.tensor(values, dtype=torch.float64)[: shape.numel()].view(shape)


def decoded(policy: Policy) -> Policy:
    """The same policy on plain layers of the decoded weights."""
    for name, layer in layers_in_4_bits(policy.model).items():
        plain = nn.Linear(layer.in_features, layer.out_features, bias=False)
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        plain.weight = nn.Parameter(weight.to(layer.compute_dtype), requires_grad=False)
        policy.model.set_submodule(name, plain)
    return policy


def gradients(policy: Policy) -> dict[str, Tensor]:
    policy.zero_grad()
    policy.train()(collate(TREES)).logps.sum().backward()
    return {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}


def test_codes_are_those_of_the_paper(base: str) -> None:
    """Each weight is the nearest of the 16 multiples of its block's largest."""
    plain = Policy(base).model
    policy = Policy(base, lora=Lora(rank=2), quantised=Quantised(double=False))
    layers = layers_in_4_bits(policy.model)
    assert len(layers) == 14  # of two blocks; neither head nor embeddings
    for name, layer in layers.items():
        own = name.removeprefix("base_model.model.").removesuffix(".base_layer")
        exact = plain.get_submodule(own).weight.double()
        found = by_hand(layer.weight, exact.shape)
        assert_close(found, dequantize_4bit(layer.weight.data, layer.weight.quant_state).double())
        blocks = exact.detach().flatten().view(-1, 64)
        scale = blocks.abs().amax(1, keepdim=True)
        options = torch.tensor(NF4, dtype=torch.float64) * scale[..., None]
        nearest = (options - blocks[..., None]).abs().argmin(-1)
        wanted = torch.tensor(NF4, dtype=torch.float64)[nearest] * scale
        assert_close(found.flatten().view(-1, 64), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("double", "size"), [(False, 0.5625), (True, 0.516)])
def test_bytes_of_a_weight(words: Path, tmp_path: Path, double: bool, size: float) -> None:
    """Half a byte; a float32 for 64 weights, or a byte for them and a float32 for 256 bytes."""
    config = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 1024}
    config |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    Policy(config=config, tokenizer=str(words)).save(tmp_path)
    policy = Policy(str(tmp_path), lora=Lora(rank=2), quantised=Quantised(double))
    weights = stored = 0
    for layer in layers_in_4_bits(policy.model).values():
        state = layer.weight.quant_state
        parts = [layer.weight.data, state.absmax, *([state.state2.absmax] if double else [])]
        stored += sum(t.numel() * t.element_size() for t in parts)
        weights += layer.in_features * layer.out_features
    assert weights > 1_000_000
    assert stored / weights == pytest.approx(size, abs=2e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [Lora(rank=2), Lora(rank=2, dora=True)], ids=["lora", "dora"])
@pytest.mark.parametrize("double", [True, False])
def test_gradients_are_those_of_the_decoded_model(base: str, dtype, lora, double) -> None:
    """Exactly, and still after what is read without gradients: probes, rollouts."""
    policy = Policy(base, dtype=dtype, lora=lora, quantised=Quantised(double))
    move(policy)
    drawn: Any = {"samples": 2, "max_new_tokens": 4, "seed": 0, "stop_ids": [2]}
    sample(policy, [PromptTree(0, "p", (1, 5), ())], spec=SamplingSpec(), **drawn)
    with torch.no_grad():
        policy.eval()(collate(TREES))
    found, logps = gradients(policy), policy(collate(TREES)).logps
    wanted = gradients(decoded(policy))
    assert torch.equal(policy(collate(TREES)).logps, logps)
    assert set(found) == set(wanted)
    assert all(float(g.abs().max()) > 0 for g in found.values())
    assert all(torch.equal(found[name], wanted[name]) for name in found)


def test_codes_are_never_repacked(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with AVX512_BF16, which would cut later gradients; in copies, too, and when saved so."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    policy = Policy(base, lora=Lora(rank=2), quantised=Quantised())
    reference: Any = make_reference(policy, "frozen")
    for model in (policy, reference.policy):
        layers = layers_in_4_bits(model.model).values()
        assert layers
        assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
        assert not any(getattr(la.weight.quant_state, "packing_format_for_cpu", 0) for la in layers)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("quantised", [None, Quantised()], ids=["full", "4 bits"])
@pytest.mark.parametrize("lora", [Lora(rank=2), Lora(rank=2, dora=True)], ids=["lora", "dora"])
def test_policy_and_reference_are_one_model_at_step_0(base: str, dtype, quantised, lora) -> None:
    """KL is exactly 0, and training moves neither the reference nor a frozen weight."""
    policy = Policy(base, dtype=dtype, lora=lora, quantised=quantised)
    objective = DPO(policy, ADAM).train()
    assert isinstance(objective.reference, AdapterOffReference)
    pairs = collate(TREES)
    losses, means = objective.losses(pairs)
    assert float(means["rewards/margins"]) == 0.0
    assert_close(losses.detach().double(), torch.full((2,), math.log(2)).double())
    start = objective.reference.token_logps(pairs)
    assert torch.equal(policy(pairs).token_logps, start)
    frozen = {n: t.clone() for n, t in policy.state_dict().items() if "default" not in n}
    trained = [p for p in policy.parameters() if p.requires_grad]
    optimizer = ADAM(trained)
    for _ in range(3):
        optimizer.zero_grad()
        objective.losses(pairs)[0].sum().backward()
        optimizer.step()
    assert objective.losses(pairs)[0].sum() < losses.sum() - 0.05
    state = policy.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in frozen.items())
    assert torch.equal(objective.reference.token_logps(pairs), start)


def test_checkpoints_hold_no_codes(base: str) -> None:
    objective = DPO(Policy(base, lora=Lora(rank=2), quantised=Quantised()), ADAM)
    checkpoint: dict[str, Any] = {"state_dict": objective.state_dict()}
    objective.on_save_checkpoint(checkpoint)
    assert all(".lora_" in name for name in checkpoint["state_dict"])


@pytest.mark.parametrize("lora", [Lora(rank=2), Lora(rank=2, dora=True)], ids=["lora", "dora"])
def test_trained_adapters_are_continued_from_where_they_are(base, tmp_path, lora) -> None:
    """The reference is the policy at its start, and the values have adapters of their own."""
    policy = Policy(base, lora=lora, quantised=Quantised())
    move(policy)
    policy.save(tmp_path / "sft")
    again, pairs = Policy(str(tmp_path / "sft")), collate(TREES)
    reference = make_reference(again, "auto")
    start = again(pairs).token_logps.detach()
    assert torch.equal(policy(pairs).token_logps, start)
    assert not isinstance(reference, AdapterOffReference)
    values = ValueFunction(again, "adapter", True)
    values.head.weight.data.fill_(0.5)
    assert values(pairs).any()
    with torch.no_grad():
        for p in values.own_parameters():
            p.add_(0.1)
    assert torch.equal(again(pairs).token_logps, start)
    with torch.no_grad():
        for name, p in again.named_parameters():
            if ".default." in name:
                p.add_(0.1)
    assert torch.equal(reference.token_logps(pairs), start)
    assert not torch.equal(again(pairs).token_logps, start)


def test_a_folder_says_what_its_base_was(base: str, tmp_path: Path) -> None:
    """Read without a word about it, it is what was trained; the base in full precision is not."""
    policy = Policy(base, dtype="bfloat16", lora=Lora(rank=2), quantised=Quantised(double=False))
    move(policy)
    folder = tmp_path / "adapters"
    policy.save(folder)
    assert sorted(p.name for p in folder.iterdir() if "token" not in p.name) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
        "generation_config.json",
    ]
    record = json.loads((folder / "base.json").read_text())
    assert record["quantised"] == {"double": False, "compute": None}
    assert (record["dtype"], record["vocabulary"], record["tokens"]) == ("bfloat16", 32, {})
    again = Policy(str(folder), dtype="bfloat16")
    assert torch.equal(again(collate(TREES)).logps, policy(collate(TREES)).logps)
    # Evaluation computes in float32, on the same codes.
    fine = Policy(str(folder))
    assert fine.precision == torch.float32
    codes = [
        [layer.weight.data for layer in layers_in_4_bits(model.model).values()]
        for model in (policy, fine)
    ]
    assert all(map(torch.equal, *codes))
    scales = layers_in_4_bits(fine.model).values()
    assert all(layer.weight.quant_state.dtype == torch.float32 for layer in scales)
    exact = fine(collate(TREES)).token_logps.detach()
    gap = (exact - policy(collate(TREES)).token_logps.detach()).square().mean().sqrt()
    with pytest.raises(
        ConfigError, match=r"base in 4 bits \(.*\"double\":false\}.*Leave quantised out"
    ):
        Policy(str(folder), quantised=Quantised())
    Policy(str(folder), quantised=Quantised(double=False))
    record["quantised"] = None  # as if it were not known
    (folder / "base.json").write_text(json.dumps(record))
    wrong = Policy(str(folder))(collate(TREES)).token_logps.detach()
    assert float((wrong - exact).square().mean().sqrt()) > 4 * float(gap)
    with pytest.raises(ConfigError, match="trained on a base in full precision, and would"):
        Policy(str(folder), quantised=Quantised())


def test_codes_do_not_depend_on_the_precision_of_an_evaluation(base: str, tmp_path: Path) -> None:
    """Those of a base that was read in bfloat16 are not those of its weights in float32."""

    def codes(policy: Policy) -> list[Tensor]:
        return [layer.weight.data for layer in layers_in_4_bits(policy.model).values()]

    settings: Any = {"lora": Lora(rank=2), "quantised": Quantised()}
    policy = Policy(base, dtype="bfloat16", **settings)
    policy.save(tmp_path / "adapters")
    assert not all(map(torch.equal, codes(policy), codes(Policy(base, **settings))))
    assert all(map(torch.equal, codes(policy), codes(Policy(str(tmp_path / "adapters")))))


def test_another_base_is_refused(base: str, tmp_path: Path, build: Callable[..., Policy]) -> None:
    folder = tmp_path / "adapters"
    Policy(base, lora=Lora(rank=2)).save(folder)
    other = Policy(base)
    move(other)
    other.save(base)
    with pytest.raises(ConfigError, match=r"do not fit their model .* weights are not those"):
        Policy(str(folder))
    record = json.loads((folder / "base.json").read_text()) | {"weights": None}
    (folder / "base.json").write_text(json.dumps(record))
    Policy(str(folder))
    (folder / "base.json").write_text(json.dumps(record | {"vocabulary": 33}))
    with pytest.raises(ConfigError, match="has embeddings of 32 tokens, and they were tr"):
        Policy(str(folder))
    (folder / "base.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"base\.json cannot be read: 'weights'"):
        Policy(str(folder))


def test_a_folder_without_a_record_is_reported(base, tmp_path, caplog) -> None:
    """Of another library, which does not write down what is needed."""
    policy = Policy(base, lora=Lora(rank=2), quantised=Quantised())
    move(policy)
    policy.save(tmp_path / "adapters")
    (tmp_path / "adapters" / "base.json").unlink()
    logps = policy(collate(TREES)).logps
    again = Policy(str(tmp_path / "adapters"), quantised=Quantised())
    assert torch.equal(again(collate(TREES)).logps, logps)
    assert "does not say what its base was" in caplog.text


@pytest.mark.parametrize("lora", [Lora(rank=2), Lora(rank=2, dora=True)], ids=["lora", "dora"])
@pytest.mark.parametrize("double", [True, False])
def test_merged_weights_are_the_decoded_ones_plus_adapters(base, tmp_path, lora, double) -> None:
    policy = Policy(base, lora=lora, quantised=Quantised(double))
    move(policy)
    policy.save(tmp_path / "adapters")
    settings: Any = {"dtype": "float32", "dropout": 0.0, "merge": True}
    merged = load_model(AutoModelForCausalLM, str(tmp_path / "adapters"), **settings)
    assert not layers_in_4_bits(merged)
    Policy.load(base).model.load_state_dict(merged.state_dict())  # a plain model of its class
    merged.save_pretrained(tmp_path / "merged")
    policy.tokenizer.save_pretrained(tmp_path / "merged")
    again = Policy(str(tmp_path / "merged"))
    assert_close(again(collate(TREES)).logps, policy(collate(TREES)).logps, rtol=0, atol=1e-4)


def test_a_merge_that_changes_log_probs_is_refused(base, tmp_path, monkeypatch) -> None:
    policy = Policy(base, lora=Lora(rank=2), quantised=Quantised())
    move(policy)
    policy.save(tmp_path / "adapters")
    monkeypatch.setattr("peft.tuners.lora.LoraModel.merge_and_unload", LoraModel.unload)
    with pytest.raises(ConfigError, match=r"merged into the weights, the adapters give log-probs"):
        Policy(str(tmp_path / "adapters"), lora=Lora(rank=2))


@pytest.mark.parametrize("lora", [Lora(rank=2), Lora(rank=2, dora=True)], ids=["lora", "dora"])
@pytest.mark.parametrize("quantised", [None, Quantised()], ids=["full", "4 bits"])
def test_a_scorer_trains_adapters_and_its_head(base, tmp_path, lora, quantised) -> None:
    """Saved without its base, with its shift and scale; read again as scorer, reward and values."""
    scorer = ScoreModel(base, lora=lora, quantised=quantised, seed=3)
    assert bool(layers_in_4_bits(scorer.model)) == (quantised is not None)
    if quantised is None:
        plain = ScoreModel(base, seed=3)
        assert torch.equal(scorer.scores(collate(TREES)), plain.scores(collate(TREES)))
    trained = {n for n, p in scorer.named_parameters() if p.requires_grad}
    assert all(".lora_" in name or ".score." in name for name in trained)
    scorer.scores(collate(TREES)).sum().backward()
    weight = scorer.head.weight
    assert weight.grad is not None
    assert weight.grad.any()
    move(scorer)
    scorer.shift, scorer.scale = 0.5, 2.0
    wanted, values = scorer.scores(collate(TREES)), scorer.values(collate(TREES))
    scorer.save(tmp_path / "rm")
    assert not (tmp_path / "rm" / "model.safetensors").exists()
    again = ScoreModel(str(tmp_path / "rm"))
    assert torch.equal(again.scores(collate(TREES)), wanted)
    assert torch.equal(again.values(collate(TREES)), values)
    assert {n for n, p in again.named_parameters() if p.requires_grad} == trained
    move(again)
    assert not torch.equal(again.scores(collate(TREES)), wanted)
    reward = ModelReward(str(tmp_path / "rm"), append_eos=False)
    score = reward([" w5 w6"], [" w7 w8"])
    ids = collate([PromptTree(0, "a", (1, 5, 6), ((7, 8),))])
    assert_close(score, scorer.scores(ids), rtol=0, atol=1e-5)
    # New adapters go on the old ones merged; the merged scorer is kept beside them.
    over = ScoreModel(str(tmp_path / "rm"), lora=Lora(rank=2))
    assert_close(over.scores(collate(TREES)), wanted, rtol=0, atol=1e-4)
    over.save(tmp_path / "over")
    last = ScoreModel(str(tmp_path / "over"))
    assert torch.equal(last.scores(collate(TREES)), over.scores(collate(TREES)))


def test_virtual_tokens_before_weights_in_4_bits(base: str, tmp_path: Path) -> None:
    policy = Policy(base, prompt_tuning=PromptTuning(3), quantised=Quantised())
    move(policy)
    policy.save(tmp_path / "tuned")
    again = Policy(str(tmp_path / "tuned"))
    assert layers_in_4_bits(again.model)
    assert torch.equal(again(collate(TREES)).logps, policy(collate(TREES)).logps)


def test_what_cannot_be_is_refused_in_a_sentence(
    base: str, words: Path, tmp_path: Path, build: Callable[..., Policy]
) -> None:
    config = {"model_type": "llama", "hidden_size": 16}
    alone = r"in 4 bits cannot be trained, so .*quantised needs (a source and )?lora"
    for make in (
        lambda: Policy(base, quantised=Quantised()),
        lambda: Policy(config=config, tokenizer=str(words), lora=Lora(), quantised=Quantised()),
        lambda: ScoreModel(base, quantised=Quantised()),
    ):
        with pytest.raises(ConfigError, match=alone):
            make()
    build("gpt2").save(tmp_path / "gpt2")
    with pytest.raises(ConfigError, match="GPT2LMHeadModel has no linear layers that can be kept"):
        Policy(str(tmp_path / "gpt2"), lora=Lora(), quantised=Quantised())
    Policy(base, lora=Lora(rank=2)).save(tmp_path / "sft")
    with pytest.raises(ConfigError, match="holds adapters, and what they would be merged into"):
        Policy(str(tmp_path / "sft"), lora=Lora(), quantised=Quantised())
    with pytest.raises(
        ConfigError, match=r"named 'query'\. It has down_proj, embed_tokens, gate_proj"
    ):
        Policy(base, lora=Lora(targets=["q_proj", "query"]))
    with pytest.raises(ConfigError, match=r"named 'all-lin'\. It has"):
        ScoreModel(base, lora=Lora(targets="all-lin"))


def test_bitsandbytes_is_asked_for_where_it_is_missing(base, tmp_path, monkeypatch) -> None:
    policy = Policy(base, lora=Lora(rank=2), quantised=Quantised())
    policy.save(tmp_path / "adapters")
    monkeypatch.setattr("alignlab.models.quantised.find_spec", lambda name: None)
    for make in (Quantised, lambda: Policy(str(tmp_path / "adapters"))):
        with pytest.raises(ConfigError, match=r"which is not installed\. Install it with: pip"):
            make()


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", ["AdamW8bit", "PagedAdamW8bit", "PagedAdamW32bit"])
def test_its_optimizers_step(base: str, name: str) -> None:
    objective = DPO(
        Policy(base, lora=Lora(rank=2), quantised=Quantised()),
        partial(getattr(bitsandbytes.optim, name), lr=1e-2),
    )
    optimizer: Any = objective.make_optimizer(objective.parameter_groups())
    losses = []
    for _ in range(4):
        loss = objective.losses(collate(TREES))[0].sum()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.05


def test_weights_are_counted_and_not_their_bytes(base: str) -> None:
    """Two blocks: queries and outputs 64 x 64, keys and values 64 x 64, three of 24 x 64."""
    objective = DPO(Policy(base, lora=Lora(rank=2), quantised=Quantised()), ADAM)
    coded = 2 * (4 * 64 * 64 + 3 * 24 * 64)
    others = 2 * 32 * 64 + 5 * 64  # embeddings, head and norms
    trained = 2 * 2 * (4 * (64 + 64) + 3 * (24 + 64))
    said = _model_line(objective)
    assert f"{coded + others + trained:,} weights, {coded:,} in 4 bits, {trained:,} trained" in said


def test_bitsandbytes_is_imported_only_where_it_is_needed() -> None:
    """By functions: it is optional, and takes seconds to import."""
    for path in Path("alignlab").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "bitsandbytes" not in ast.unparse(node), path


def test_an_evaluation_computes_in_float32_with_the_codes_of_a_bfloat16_model(base: str) -> None:
    """The same as a dense model of float32 weights decoded from the codes."""
    policy = Policy(base, dtype="bfloat16", lora=Lora(rank=2), quantised=Quantised(double=False))
    dense = deepcopy(policy).float()
    for layer in layers_in_4_bits(dense.model).values():
        layer.weight.quant_state.dtype = torch.float32
    dequantise(dense.model)
    trees = collate([PromptTree(0, "a", (1, 4, 5), ((6, 7, 8, 2), (9,)))])
    with torch.no_grad():
        wanted, before = dense.eval()(trees).token_logps, policy.eval()(trees).token_logps
    with evaluating(policy):
        assert policy.precision == torch.float32
        assert_close(policy(trees).token_logps, wanted, rtol=0, atol=1e-5)
    assert policy.precision == torch.bfloat16
    with torch.no_grad():
        assert torch.equal(policy(trees).token_logps, before)


def test_layers_that_compute_coarsely_make_a_model_coarse(base: str) -> None:
    """Else a sampler that rounds in bfloat16 is compared as if it were exact, and refused."""
    lora = Lora(rank=2)
    coarse = Policy(base, lora=lora, quantised=Quantised(compute="bfloat16"))
    assert coarse.precision == torch.bfloat16
    assert Policy(base, lora=lora, quantised=Quantised()).precision == torch.float32
    assert Policy(base, lora=lora).precision == torch.float32
