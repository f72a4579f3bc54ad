"""The reference stays what the policy was, whichever way it is kept."""

import fcntl
import shutil
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.files import stamp, write_record
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import (
    AdapterOffReference,
    CachedReference,
    FrozenReference,
    Lora,
    Policy,
    reference,
)

TREES = [
    PromptTree(4, "a", (1, 5, 6), ((7, 8, 2), (9,))),
    PromptTree(0, "b", (1,), ((4, 4, 4), (5, 6)), ((True, False, True), (True, True))),
    PromptTree(2, "c", (1, 3), ((6,), (7, 7, 7, 7))),
]


def move(policy: Policy) -> None:
    """One step of training, by hand."""
    loss = policy(collate(TREES)).logps.sum()
    loss.backward()
    with torch.no_grad():
        for p in policy.parameters():
            if p.grad is not None:
                p.sub_(p.grad, alpha=0.1)


def test_processes_that_want_the_same_log_probs_take_turns(build, tmp_path, monkeypatch):
    """While one computes them the other waits, and then reads what the first has written."""
    policy = build("llama")
    first = CachedReference(policy, TREES, tmp_path / "first")
    (made,) = (tmp_path / "first").glob("*.safetensors")
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setattr(reference, "_write_cache", None)  # the second must not compute
    with ThreadPoolExecutor(1) as pool, (shared / f"{made.stem}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = pool.submit(CachedReference, policy, TREES, shared)
        assert wait([second], timeout=0.5).not_done
        shutil.copy(made, shared)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert torch.equal(second.result(30).table, first.table)


def test_a_frozen_copy_does_not_follow_the_policy(build):
    policy = build("llama")
    reference = FrozenReference(policy)
    before = reference.token_logps(collate(TREES))
    assert torch.equal(before, policy(collate(TREES)).token_logps)
    storages = {p.data_ptr() for p in policy.parameters()}
    assert not storages & {p.data_ptr() for p in reference.parameters()}
    move(policy)
    assert torch.equal(reference.token_logps(collate(TREES)), before)
    assert not torch.allclose(policy(collate(TREES)).token_logps, before)


def test_switching_adapters_off_gives_the_base_model(build, tmp_path):
    base = build("llama", dtype="float32")
    base.save(tmp_path)
    policy = Policy(source=str(tmp_path), lora=Lora(rank=2))
    reference = AdapterOffReference(policy)
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "lora_B" in name:
                p.fill_(0.1)
    assert_close(reference.token_logps(collate(TREES)), base(collate(TREES)).token_logps)
    assert not torch.allclose(policy(collate(TREES)).token_logps, base(collate(TREES)).token_logps)
    assert not list(reference.parameters())  # the policy's weights are saved once, as its own


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_switching_adapters_off_leaves_no_trace(build, tmp_path, dtype):
    """Mode, precision and what trains are afterwards what they were, module by module."""
    build("llama", dtype="float32").save(tmp_path)
    policy = Policy(source=str(tmp_path), dtype=dtype, lora=Lora(rank=2)).train()
    reference = AdapterOffReference(policy)

    def state() -> list[tuple]:
        modes = [(name, module.training) for name, module in policy.named_modules()]
        return modes + [(n, p.dtype, p.requires_grad) for n, p in policy.named_parameters()]

    before, own = state(), policy(collate(TREES)).token_logps
    logps = reference.token_logps(collate(TREES))
    assert (logps.dtype, logps.requires_grad) == (torch.float32, False)
    assert state() == before
    assert torch.equal(policy(collate(TREES)).token_logps, own)


def test_adapter_off_needs_an_adapter(build):
    with pytest.raises(ConfigError, match="needs a policy with lora"):
        AdapterOffReference(build("llama"))


def test_cached_log_probs_are_found_in_any_order(build, tmp_path):
    policy = build("llama")
    cached = CachedReference(policy, TREES, tmp_path, batch_size=2)
    for order in ([0, 1, 2], [2, 0], [1]):
        batch = collate([TREES[i] for i in order])
        assert_close(cached.token_logps(batch), policy(batch).token_logps, rtol=0, atol=1e-12)
    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) == 1
    stamp = files[0].stat().st_mtime_ns
    CachedReference(policy, TREES, tmp_path)
    assert files[0].stat().st_mtime_ns == stamp  # used again, not made again


def test_a_cache_misses_when_weights_or_data_change(build, tmp_path):
    policy = build("llama")
    CachedReference(policy, TREES, tmp_path)
    CachedReference(policy, TREES[:2], tmp_path)
    other = [replace(TREES[0], prompt=(1, 5, 7)), *TREES[1:]]  # as another tokenizer would cut it
    CachedReference(policy, other, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    move(policy)
    CachedReference(policy, TREES, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4


def test_a_damaged_cache_is_computed_again(build, tmp_path, caplog):
    policy = build("llama")
    CachedReference(policy, TREES, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    right = path.read_bytes()
    for wrong in (right[:-1], right[:-1] + bytes([right[-1] ^ 1]), b""):
        path.write_bytes(wrong)
        CachedReference(policy, TREES, tmp_path)
        assert path.read_bytes() == right
        assert "is damaged; its log-probs are computed again" in caplog.text


def test_a_damaged_cache_of_which_nothing_is_known_is_refused(build, tmp_path):
    from safetensors.torch import load_file, save_file

    policy = build("llama")
    CachedReference(policy, TREES, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    saved = load_file(path)
    save_file({**saved, "logps": saved["logps"].roll(1)}, path)
    path.with_suffix(".json").unlink()
    with pytest.raises(ConfigError, match="delete the cache"):
        CachedReference(policy, TREES, tmp_path)


def test_a_cache_of_bfloat16_is_allowed_its_rounding_and_no_more(build, tmp_path):
    """Rows in other batches are rounded otherwise, and the mean square of that is small."""
    from safetensors.torch import load_file, save_file

    policy = build("llama", dtype="bfloat16")
    CachedReference(policy, TREES, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    saved = load_file(path)

    def moved(nats: float) -> None:
        save_file({**saved, "logps": saved["logps"] + nats}, path)
        record = {"files": {path.name: stamp(path)}}
        write_record(path.with_suffix(".json"), record)

    moved(0.03)
    CachedReference(policy, TREES, tmp_path)
    moved(0.3)
    with pytest.raises(ConfigError, match=r"off by 3\.0e-01 nats a token; delete the cache"):
        CachedReference(policy, TREES, tmp_path)


def test_a_cache_belongs_to_one_precision(build, tmp_path):
    """The same batches in two precisions are two files, each within its own rounding."""
    policy = build("llama", dtype="float32")
    batches = [collate(TREES)]
    exact = CachedReference(policy, TREES, tmp_path, first=batches).table
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = CachedReference(policy, TREES, tmp_path, first=batches).table
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert not torch.equal(exact, mixed)


def test_a_cache_holds_one_distribution(build, tmp_path):
    cached = CachedReference(build("llama"), TREES, tmp_path)
    with pytest.raises(ConfigError, match="own distribution"):
        cached.token_logps(collate(TREES), SamplingSpec(temperature=0.5))


def test_a_cache_that_is_no_folder_is_named(build, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"reference_cache .*file: .* Name a folder that can be"):
        CachedReference(build("llama"), TREES, tmp_path / "file")
