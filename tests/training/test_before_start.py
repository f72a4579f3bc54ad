"""What is said before the first step, on configs as the parser makes them."""

import errno
from typing import Any, Literal

import pytest
from jsonargparse import Namespace

from alignlab.data.modules import DemonstrationData
from alignlab.errors import ConfigError
from alignlab.training.before_start import (
    check_validation,
    construction_error,
    make_trainer,
    refuse_nulls,
    tell_unused,
)


class Inner:
    def __init__(self, rate: float = 1.0, kind: Literal["a", "b"] = "a", more: int | None = 3):
        self.rate = 1 / rate


class Outer:
    def __init__(self, inner: Inner, names: list[str], untyped=2, empty: str = None) -> None:  # type: ignore[assignment]  # noqa: RUF013  # as others write it
        self.inner = inner


def config(key: str = "model", **inner: Any) -> Namespace:
    node = Namespace(class_path=f"{__name__}.Inner", init_args=Namespace(**inner))
    arguments = Namespace(inner=node, names=["x"], untyped=None, empty=None)
    outer = Namespace(class_path=f"{__name__}.Outer", init_args=arguments)
    if key == "trainer":
        return Namespace(trainer=Namespace(callbacks=[Namespace(a=1), outer]))
    return Namespace(**{key: outer})


def test_nulls_pass_where_the_type_or_the_default_allows_them() -> None:
    refuse_nulls(config(rate=0.5, more=None))


@pytest.mark.parametrize(
    ("key", "where"),
    [("model", "model"), ("data", "data"), ("trainer", "trainer.callbacks.1")],
)
def test_a_null_for_a_value_is_told_by_its_whole_key(key: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_nulls(config(key, rate=None))
    wanted = f"{where}.init_args.inner.init_args.rate must be a number, got null."
    assert str(caught.value) == wanted
    with pytest.raises(ConfigError, match=r"inner\.init_args\.kind must be one of .*, got null"):
        refuse_nulls(config(key, kind=None))


def failed(call: Any) -> Exception:
    """What a parser raises that tries several types: another error, from the constructor's."""
    try:
        try:
            call()
        except Exception as error:
            raise ValueError("Does not validate against any of the Union subtypes\n...") from error
    except ValueError as error:
        return error
    raise AssertionError


def test_a_constructors_error_names_key_class_and_cause() -> None:
    said = construction_error(failed(lambda: Inner(0.0)), config(rate=0.0))
    assert isinstance(said, ConfigError)
    assert str(said) == (
        "model.init_args.inner: Inner cannot be made: ZeroDivisionError: float division by zero. "
        "(--debug shows where)"
    )


def test_our_own_words_and_the_machines_troubles_are_passed_on() -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def refused() -> None:
        raise ConfigError("Inner needs rate > 0, got 0. Set it.")

    def too_large() -> None:
        raise MemoryError

    said = construction_error(failed(refused), config())
    assert str(said) == "Inner needs rate > 0, got 0. Set it."
    assert isinstance(construction_error(failed(full), config()), OSError)
    assert isinstance(construction_error(failed(too_large), config()), MemoryError)


class Times:
    """As much of a trainer as decides when validation comes."""

    world_size, is_global_zero, limit_val_batches = 1, True, 1.0

    def __init__(self, steps: int, interval: Any, every: int | None = 1, each: int = 1) -> None:
        self.max_steps, self.val_check_interval = steps, interval
        self.check_val_every_n_epoch, self.accumulate_grad_batches = every, each


class Rows(DemonstrationData):
    """Five micro-batches an epoch."""

    def __init__(self) -> None:
        super().__init__("rows.jsonl", 4)
        self.validation_trees = [None] * 3  # type: ignore[list-item]

    def train_dataloader(self) -> Any:
        return range(5)


@pytest.mark.parametrize(
    ("times", "never"),
    [
        (Times(5, 1.0), False),  # the epoch's end is the last step
        (Times(4, 1.0), True),
        (Times(4, 0.8), False),
        (Times(3, 0.8), True),
        (Times(4, 4), False),
        (Times(9, 1.0, every=2), True),
        (Times(10, 1.0, every=2), False),
        (Times(6, 7, every=None), True),
        (Times(7, 7, every=None), False),
        (Times(2, 1.0, each=2), True),  # two steps of two micro-batches; the third has one
        (Times(3, 1.0, each=2), False),
        (Times(4, 6, every=None, each=2), False),  # 5 + 2 micro-batches
        (Times(3, 6, every=None, each=2), True),
        (Times(-1, 1.0), False),
    ],
)
def test_validation_that_never_comes_is_said(
    times: Times, never: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    check_validation(Rows(), times)  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert ("the 3 validation rows are never evaluated" in said) == never


def test_validation_that_is_off_or_impossible(capsys: pytest.CaptureFixture[str]) -> None:
    times = Times(10, 1.0)
    times.limit_val_batches = 0.0
    check_validation(Rows(), times)  # type: ignore[arg-type]
    assert "trainer.limit_val_batches is 0" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="val_check_interval 6: an epoch has 5 batches"):
        check_validation(Rows(), Times(10, 6))  # type: ignore[arg-type]


def test_settings_that_act_only_beside_others_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    def told(max_steps: int = 9, **given: Any) -> list[str]:
        schedule = Namespace(class_path="alignlab.objectives.schedule.Schedule")
        defaults = {"warmup_steps": 0, "warmup_start": 0.0, "decay": "constant", "floor": 0.0}
        schedule.init_args = Namespace(**(defaults | given))
        inside = Namespace(class_path=f"{__name__}.Outer", init_args=Namespace(inner=schedule))
        tell_unused(Namespace(model=inside, trainer=Namespace(max_steps=max_steps)))
        return capsys.readouterr().err.splitlines()

    where = "note: model.init_args.inner"
    assert told() == told(warmup_steps=8, warmup_start=0.5, decay="cosine", floor=0.1) == []
    assert told(floor=0.1, warmup_start=0.5) == [
        f"{where}.init_args.floor 0.1 has no effect where decay is constant.",
        f"{where}.init_args.warmup_start 0.5 has no effect where warmup_steps is 0.",
    ]
    assert told(warmup_steps=9) == [f"{where}: warmup_steps 9 cover all 9 steps of the run."]
    assert told(warmup_steps=9, max_steps=-1) == []


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_machines_on_which_nobody_starts_a_training_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under torchrun, and where a user numbers the machines, somebody does."""
    settings: dict[str, Any] = {"num_nodes": 2, "devices": 2, "strategy": "ddp"}
    settings |= {"accelerator": "cpu", "logger": False, "accumulate_grad_batches": None}
    monkeypatch.delenv("NODE_RANK", raising=False)
    with pytest.raises(ConfigError, match=r"num_nodes 2: nothing starts .* torchrun --nnodes 2"):
        make_trainer(dict(settings), Namespace())
    monkeypatch.setenv("NODE_RANK", "0")
    assert make_trainer(dict(settings), Namespace()).num_nodes == 2
