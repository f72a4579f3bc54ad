"""A model sharded over one rank: its calls, its whole weights, and what is refused."""

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.evaluation.scoring import evaluating
from alignlab.models import LanguageHead, Policy, ScoreModel
from alignlab.models.sharding import gathered, is_sharded, make_whole, shard

TREES = [PromptTree(n, str(n), (1, *(3,) * n), ((4,) * (1 + n // 2),)) for n in (2, 30)]


@pytest.fixture
def mesh() -> Iterator[Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    names = ("data_parallel", "tensor_parallel")
    yield init_device_mesh("cpu", (1, 1), mesh_dim_names=names)
    dist.destroy_process_group()


def sharded(policy: Policy, mesh: Any) -> Policy:
    shard(torch.nn.ModuleDict({"policy": policy}), mesh)
    assert is_sharded(policy)
    assert all(isinstance(weight, DTensor) for weight in policy.parameters())
    return policy


def test_a_sharded_model_calls_its_transformer_once(build: Any, mesh: Any) -> None:
    policy, calls = build("llama"), []
    many = [PromptTree(i, str(i), (1, *(3,) * (60 * (i % 2))), ((4,),)) for i in range(64)]
    policy.layout = "flat"
    trees = collate(many)
    with torch.no_grad():
        wanted = policy(trees).token_logps
    policy.backbone.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        policy(trees)
        assert len(calls) > 1  # so that there is something to see
        calls.clear()
        found = sharded(policy, mesh)(trees).token_logps
    assert len(calls) == 1
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


def test_gathered_weights_are_whole_and_calls_are_free(build: Any, mesh: Any) -> None:
    policy = build("llama")
    with torch.no_grad():
        wanted = policy(collate(TREES)).token_logps
        sharded(policy, mesh)
        with gathered(policy):
            for _ in range(2):
                ids = torch.tensor([[1, 3, 4]])
                policy.head(policy.backbone(input_ids=ids, use_cache=False)[0])
                assert not any(isinstance(weight, DTensor) for weight in policy.parameters())
        assert all(isinstance(weight, DTensor) for weight in policy.parameters())
        assert torch.equal(policy(collate(TREES)).token_logps, wanted)


def test_gathered_weights_are_those_after_an_update(build: Any, mesh: Any) -> None:
    policy = sharded(build("llama"), mesh)
    (-policy(collate(TREES)).logps.sum()).backward()
    with gathered(policy):
        pass
    torch.optim.SGD(policy.parameters(), lr=0.1).step()
    with torch.no_grad():
        found = policy(collate(TREES)).token_logps
        with gathered(policy):
            assert torch.equal(policy(collate(TREES)).token_logps, found)
    make_whole(policy, keep=True)
    state = {name: weight.clone() for name, weight in policy.state_dict().items()}
    plain = build("llama")
    plain.load_state_dict(state)
    with torch.no_grad():
        assert torch.allclose(plain(collate(TREES)).token_logps, found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_a_sharded_model_is_saved_as_it_was(
    words: Path, mesh: Any, tmp_path: Path, tied: bool
) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = {"model_type": "llama", "intermediate_size": 24, "tie_word_embeddings": tied, **sizes}
    policy = Policy(config=config, tokenizer=str(words), dtype="float64")
    policy.save(tmp_path / "before")
    make_whole(sharded(policy, mesh), keep=True)
    output, embeddings = policy.model.get_output_embeddings(), policy.model.get_input_embeddings()
    assert (output.weight is embeddings.weight) == tied
    policy.save(tmp_path / "after")
    name = "model.safetensors"
    before, after = (tmp_path / when / name for when in ("before", "after"))
    assert after.read_bytes() == before.read_bytes()


def test_what_cannot_be_sharded_says_what_to_do(
    build: Any, mesh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = build("llama")
    monkeypatch.setattr(policy.whole_model, "_no_split_modules", None)
    with pytest.raises(ConfigError, match=r"_no_split_modules.*Set trainer.strategy to ddp"):
        sharded(policy, mesh)


def test_tensor_parallelism_names_the_strategy(build: Any) -> None:
    one, two = SimpleNamespace(size=lambda: 1), SimpleNamespace(size=lambda: 2)
    with pytest.raises(ConfigError, match=r"alignlab\.distributed\.FSDP2"):
        shard(torch.nn.Module(), {"data_parallel": one, "tensor_parallel": two})


def test_blocks_compute_in_bfloat16_on_float32_shards(build: Any, mesh: Any) -> None:
    """As in mixed precision without shards; gradients and evaluations are those of float32."""
    plain, policy = build("llama", dtype="float32"), build("llama", dtype="float32")
    trees = collate(TREES)
    with torch.no_grad():
        wanted = plain(trees).token_logps
    shard(torch.nn.ModuleDict({"policy": policy}), mesh, compute=torch.bfloat16)
    losses = []
    for model in (plain, policy):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(trees).logps.sum()
        loss.backward()
        losses.append(loss.detach())
    assert float((losses[0] - losses[1]).abs()) < 1e-3 * float(losses[0].abs())
    assert abs(float(losses[0]) - float(wanted.sum())) > 1e-3  # so that rounding would be seen
    for (name, one), (_, other) in zip(
        plain.named_parameters(), policy.named_parameters(), strict=True
    ):
        assert other.dtype == other.grad.dtype == torch.float32, name
        gap = (one.grad - other.grad.full_tensor()).norm() / one.grad.norm()
        assert float(gap) < 0.02, name
    with torch.no_grad(), gathered(policy, exact=True), evaluating(policy):
        assert torch.equal(policy(trees).token_logps, wanted)
    with gathered(policy):
        kinds = {name: weight.dtype for name, weight in policy.named_parameters()}
    assert {kind for name, kind in kinds.items() if ".layers." in name} == {torch.bfloat16}
    assert {kind for name, kind in kinds.items() if ".layers." not in name} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(policy(trees).logps.sum().detach(), losses[1])


def test_a_sharded_policy_in_bfloat16_is_evaluated_in_float32(build: Any, mesh: Any) -> None:
    plain, trees = build("llama", dtype="bfloat16"), collate(TREES)
    with evaluating(plain):
        wanted = plain(trees).token_logps
    policy = sharded(build("llama", dtype="bfloat16"), mesh)
    with gathered(policy, exact=True), evaluating(policy):
        assert torch.equal(policy(trees).token_logps, wanted)
    with pytest.raises(ConfigError, match=r"under alignlab\.models\.sharding\.gathered"):
        evaluating(policy).__enter__()


def test_shards_may_stay_in_the_memory_of_the_cpu(build: Any, mesh: Any) -> None:
    plain, policy = build("llama"), build("llama")
    shard(torch.nn.ModuleDict({"policy": policy}), mesh, cpu_offload=True)
    for model in (plain, policy):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(2):
            model(collate(TREES)).logps.sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        found, wanted = policy(collate(TREES)).token_logps, plain(collate(TREES)).token_logps
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


def test_a_head_that_is_tied_to_embeddings_learns_with_them(
    words: Path, mesh: Any, tmp_path: Path
) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = {"model_type": "llama", "intermediate_size": 24, "tie_word_embeddings": True, **sizes}
    Policy(config=config, tokenizer=str(words), dtype="float64").save(tmp_path)
    found = []
    for ranks in (False, True):
        scorer = ScoreModel(str(tmp_path), outputs=2, dtype="float64")
        parts = torch.nn.ModuleDict({"scorer": scorer, "head": LanguageHead(scorer)})
        assert len(list(parts["head"].parameters())) == 0
        if ranks:
            shard(parts, mesh)
        scores, states = scorer.scores_and_states(collate(TREES))
        (scores.sum() + parts["head"](states).square().sum()).backward()
        gradient = scorer.backbone.get_input_embeddings().weight.grad
        found.append(gradient.full_tensor() if ranks else gradient)
    assert torch.allclose(found[0], found[1], rtol=1e-12, atol=1e-12)
    assert bool(found[0][1:].any(1).all())  # tokens that are not read, too: by the output layer


def test_a_weight_that_is_shared_with_a_head_is_refused(build: Any, mesh: Any) -> None:
    policy, head = build("llama"), torch.nn.Linear(1, 1, bias=False)
    head.weight = policy.model.get_input_embeddings().weight
    parts = torch.nn.ModuleDict({"policy": policy, "head": head})
    with pytest.raises(ConfigError, match=r"shares its weight .*trainer\.strategy to ddp"):
        shard(parts, mesh)
