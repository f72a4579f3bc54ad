"""Why one of several processes failed, as the others say it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from bitsandbytes.optim import PagedAdamW8bit

from alignlab import distributed
from alignlab.distributed import (
    FSDP2,
    PeerFailed,
    cause_of,
    forget_cause,
    from_all,
    leave_group,
    own_share,
)
from alignlab.errors import ConfigError, PeerKilled

GLOO = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:51938")


def rank(number: int, world: int = 2) -> Any:
    return SimpleNamespace(global_rank=number, world_size=world)


def test_a_lost_connection_is_the_failure_of_the_process_that_was_first(tmp_path: Path) -> None:
    first = FloatingPointError("loss is not finite")
    assert cause_of(first, rank(1), tmp_path) is first
    assert cause_of(ConfigError("another"), rank(2, 3), tmp_path).args == ("another",)
    for number in (0, 2):
        said = cause_of(GLOO, rank(number, 3), tmp_path)
        assert isinstance(said, PeerFailed)
        assert str(said) == "process 1 failed: FloatingPointError: loss is not finite"
    forget_cause(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_user_did_wrong_is_said_as_it_is(tmp_path: Path) -> None:
    cause_of(ConfigError("data has no rows."), rank(0), tmp_path)
    assert str(cause_of(GLOO, rank(1), tmp_path)) == "process 0 failed: data has no rows."


@pytest.mark.parametrize("known", [True, False])
def test_a_process_that_was_killed_has_left_no_message(tmp_path: Path, known: bool) -> None:
    said = cause_of(GLOO, rank(0), tmp_path if known else None)
    assert isinstance(said, PeerKilled)  # so that a scheduler tries again
    assert str(said).startswith("process 0 lost its connection to another one")
    assert "--resume" in str(said)


def test_a_process_alone_fails_as_it_does(tmp_path: Path) -> None:
    assert cause_of(GLOO, rank(0, 1), tmp_path) is GLOO
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_the_shares_of_all_ranks_are_everything(
    world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(8):
        shares = []
        for number in range(world):
            monkeypatch.setattr(distributed, "rank_and_world_size", lambda n=number: (n, world))
            shares.append(own_share(list(range(n))))
        assert [item for share in shares for item in share] == list(range(n))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_alone_has_all_there_is() -> None:
    assert from_all("it") == ["it"]
    assert list(own_share([1, 2])) == [1, 2]


def test_an_optimizer_that_cannot_update_shards_is_refused(monkeypatch: Any) -> None:
    weights = [torch.nn.Parameter(torch.zeros(2))]
    strategy: Any = FSDP2()

    def setup(made: Any) -> None:
        monkeypatch.setattr(
            "lightning.pytorch.strategies.Strategy.setup_optimizers",
            lambda self, trainer: setattr(self, "optimizers", [made]),
        )
        strategy.setup_optimizers(None)

    setup(torch.optim.AdamW(weights))
    with pytest.raises(ConfigError, match=r"PagedAdamW8bit .* cannot update sharded weights"):
        setup(PagedAdamW8bit(weights))


def test_a_checkpoint_leaves_the_optimizer_its_shards(monkeypatch: Any) -> None:
    """The saved states are whole tensors; the optimizer in training keeps its shards."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    before = dict(optimizer.state[weight])
    monkeypatch.setattr(distributed, "whole", lambda tensor: tensor + 1)
    saved = FSDP2().optimizer_state(optimizer)["state"][0]
    assert torch.equal(saved["exp_avg"], before["exp_avg"] + 1)
    assert all(optimizer.state[weight][name] is value for name, value in before.items())


def test_a_process_leaves_its_group_once(tmp_path: Path) -> None:
    file = tmp_path / "store"
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    leave_group()
    assert not dist.is_initialized()
    leave_group()
