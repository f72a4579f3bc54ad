"""What could be changed so that a training run fits, the cheapest change first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from alignlab.capacity.memory import Placement, memory_of
from alignlab.capacity.setup import Setup
from alignlab.errors import ConfigError

SHARDS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True, slots=True)
class Change:
    """A change, and what a device holds with it.

    Args:
        what: What is changed, and what it costs besides.
        key: The setting that does it.
        total: Bytes on a device afterwards.
        setup: The run as it then is.
        place: Where it then is.
    """

    what: str
    key: str
    total: float
    setup: Setup
    place: Placement


Step = tuple[str, str, Setup, Placement]


def changes(setup: Setup, place: Placement, room: float) -> tuple[list[Change], list[Change]]:
    """Single changes with the memory that each needs, and the cheapest way to fit.

    Args:
        setup: The run as it is.
        place: Where it is.
        room: Bytes that it may take on a device.

    Returns:
        Each change alone, the cheapest first; and those to be made together, in the same order:
        one where one is enough, none where nothing helps.
    """
    alone = [_made(step) for step in _steps(setup, place, room)]
    for change in alone:
        if change.total <= room and change.place == place:
            return alone, [change]
    together: list[Change] = []
    for make in KINDS:
        for step in make(setup, place, room):
            together.append(_made(step))
            setup, place = step[2], step[3]
        if together and together[-1].total <= room:
            return alone, together
    return alone, []


def _made(step: Step) -> Change:
    what, key, setup, place = step
    return Change(what, key, sum(memory_of(setup, place).values()), setup, place)


def _steps(setup: Setup, place: Placement, room: float) -> Iterator[Step]:
    for make in KINDS:
        yield from make(setup, place, room)


def _checkpointing(setup: Setup, place: Placement, room: float) -> Iterator[Step]:
    if not setup.checkpointed:
        what = "activation checkpointing: each layer's forward runs twice"
        key = f"model.init_args.{setup.trained.role}.activation_checkpointing: true"
        yield what, key, setup.with_checkpoints(), place


def _micro_batch(setup: Setup, place: Placement, room: float) -> Iterator[Step]:
    """The largest micro-batch that fits, or the smallest there is."""
    each = setup.micro_batch_size or -(-setup.batch_size // place.devices)
    smaller = [n for n in range(each - 1, 0, -1) if setup.batch_size % (n * place.devices) == 0]
    found: Step | None = None
    for size in smaller:
        changed = replace(setup, micro_batch_size=size)
        what = f"micro-batches of {size} instead of {each}: the same step in more forwards"
        found = what, f"data.init_args.micro_batch_size: {size}", changed, place
        if size == 1 or _made(found).total <= room:
            break
    if found:
        yield found


def _adapters(setup: Setup, place: Placement, room: float) -> Iterator[Step]:
    if all(model.lora is not None for model in setup.models if model.trained):
        return
    models = [m.with_lora() if m.trained and m.lora is None else m for m in setup.models]
    changed = replace(setup, models=models, reference=False)
    trained = setup.trained
    what = "adapters (LoRA) instead of all weights: another method, usually a larger learning rate"
    yield what, f"model.init_args.{trained.role}.lora: {{rank: 16}}", changed, place


def _four_bits(setup: Setup, place: Placement, room: float) -> Iterator[Step]:
    """Only under adapters: weights in 4 bits cannot be trained."""
    trained = [model for model in setup.models if model.trained]
    if all(model.double is not None for model in trained):
        return
    models = [
        replace(m if m.lora is not None else m.with_lora(), double=True) if m.trained else m
        for m in setup.models
    ]
    changed = replace(setup, models=models, reference=False)
    what = "adapters on weights in 4 bits (QLoRA): slower, and a reference that is rounded too"
    yield what, f"model.init_args.{setup.trained.role}.quantised: {{double: true}}", changed, place


def _shards(setup: Setup, place: Placement, room: float) -> Iterator[Step]:
    """Shards on the fewest devices that hold the run."""
    found: Step | None = None
    for n in SHARDS:
        wider = Placement("fsdp", n, place.gpu)
        if n <= place.devices and place.strategy == "fsdp":
            continue
        step = f"shards on {n} devices (FSDP2)", f"trainer.devices: {n}", setup, wider
        try:
            total = _made(step).total
        except ConfigError:  # a step has no rows for that many devices
            continue
        found = step
        if total <= room:
            break
    if found:
        yield found


KINDS: tuple[Callable[[Setup, Placement, float], Iterator[Step]], ...] = (
    _checkpointing,
    _micro_batch,
    _adapters,
    _four_bits,
    _shards,
)
