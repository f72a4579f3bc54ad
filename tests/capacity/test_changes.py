"""Which changes are proposed, in which order, and which are enough: with a made-up memory."""

from dataclasses import replace
from pathlib import Path

import pytest

from alignlab.capacity.changes import changes
from alignlab.capacity.memory import Placement
from alignlab.capacity.setup import Setup, read_setup
from tests.capacity.examples import stage

ONE = Placement()
ORDER = [
    "model.init_args.policy.activation_checkpointing",
    "data.init_args.micro_batch_size",
    "model.init_args.policy.lora",
    "model.init_args.policy.quantised",
    "trainer.devices",
]


def made_up(setup: Setup, place: Placement) -> dict[str, float]:
    """100 of weights, 40 of them with adapters, 10 in 4 bits; 8 of activations a row, or 2."""
    rows = setup.micro_batch_size or -(-setup.batch_size // place.devices)
    weights = 100 if setup.trained.lora is None else 40 if setup.trained.double is None else 10
    return {
        "weights": weights * place.share,
        "activations": rows * (2 if setup.checkpointed else 8),
    }


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    monkeypatch.setattr("alignlab.capacity.changes.memory_of", made_up)
    return read_setup([stage(tmp_path, rows={"batch_size": 8})])  # 100 + 8 x 8


def keys(setup: Setup, room: float, place: Placement = ONE) -> list[str]:
    _, together = changes(setup, place, room)
    return [change.key for change in together]


def test_each_change_alone_the_cheapest_first(setup: Setup) -> None:
    alone, _ = changes(setup, ONE, 112)
    assert [change.key.split(":")[0] for change in alone] == ORDER
    assert [change.total for change in alone] == [116, 108, 104, 74, 82]
    assert alone[1].key == "data.init_args.micro_batch_size: 1"
    assert alone[-1].key == "trainer.devices: 2"  # shards of 50, and 4 rows


def test_the_cheapest_that_is_enough_comes_alone(setup: Setup) -> None:
    assert keys(setup, 116) == [f"{ORDER[0]}: true"]
    assert keys(setup, 110) == ["data.init_args.micro_batch_size: 1"]
    assert keys(setup, 104) == ["model.init_args.policy.lora: {rank: 16}"]


def test_the_largest_micro_batch_that_fits(setup: Setup) -> None:
    assert keys(setup.with_checkpoints(), 104) == ["data.init_args.micro_batch_size: 2"]


def test_changes_add_up_before_there_are_more_devices(setup: Setup) -> None:
    assert keys(setup, 50) == [
        f"{ORDER[0]}: true",
        "data.init_args.micro_batch_size: 1",
        "model.init_args.policy.lora: {rank: 16}",
    ]
    last = keys(setup, 7)
    assert last[-1] == "trainer.devices: 2"
    assert len(last) == 5


def test_what_is_done_already_is_not_proposed(setup: Setup) -> None:
    adapted = replace(setup.trained.with_lora(), double=True)
    done = replace(setup, micro_batch_size=1, models=[adapted]).with_checkpoints()
    assert keys(done, 5, Placement("fsdp", 2)) == ["trainer.devices: 4"]


def test_nothing_may_help(setup: Setup) -> None:
    assert keys(setup, 1) == []
