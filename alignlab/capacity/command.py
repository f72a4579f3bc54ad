"""``alignlab plan``: what a training run needs, and what to change where that is too much."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.capacity.copies import DEVICES, GB, bytes_of_copies, devices_for
from alignlab.errors import ConfigError

if TYPE_CHECKING:
    from alignlab.capacity.memory import Placement
    from alignlab.capacity.setup import Setup

EXAMPLE = "alignlab plan experiments/own_data/dpo.yaml --gpu h100 --devices 1,8 --price 2.50"
USABLE = 0.95  # of a device's memory; the rest is the driver's and lost between allocations
NAMES = {"one": "1 device", "ddp": "DDP", "fsdp": "FSDP2"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``alignlab plan``."""
    add = parser.add_argument
    add(
        "stage",
        nargs="?",
        metavar="CONFIG",
        help="a stage's YAML or DIR:STAGE; settings such as --data.init_args.batch_size=8 may "
        "follow, as in alignlab fit",
    )
    add("--config", action="append", default=[], metavar="FILE", help="an overlay; may be repeated")
    add("--gpu", choices=DEVICES, help="the kind of GPU (default: none, plan memory only)")
    add("--memory", type=_number, metavar="GB", help="memory of a device, instead of the GPU's")
    add("--devices", type=_list, metavar="LIST", help="device counts to plan for (default: 1,8)")
    add("--mfu", type=_number, help="model FLOPs utilisation, 0 to 1 (default: 0.35)")
    add("--price", type=_number, metavar="EUR/h", help="price of one device per hour")
    add(
        "--lengths",
        type=_list,
        metavar="P,C",
        help="tokens of every prompt and completion, instead of reading the data",
    )
    add("--probe", action="store_true", help="train a few steps here to measure them")
    copies = parser.add_argument_group(
        "estimates without a config",
        "Memory of models in mixed precision with AdamW. Example, the four models of PPO at 175 B, "
        "which need 88 devices of 80 GB: alignlab plan --trained 175e9,175e9 "
        "--frozen 175e9,175e9 --gradients 4 --gpu a100-80gb --price 2",
    )
    add = copies.add_argument
    add("--trained", type=_list, metavar="LIST", help="parameters of each model that is trained")
    add("--frozen", type=_list, metavar="LIST", help="parameters of each frozen model")
    add("--gradients", type=int, choices=(2, 4), help="bytes of a gradient (default: 2)")


def run(args: argparse.Namespace) -> int:
    """Carry out ``alignlab plan``; returns the exit status."""
    memory = _memory(args)
    if args.trained or args.frozen:
        if args.stage or args.settings:
            raise ConfigError("--trained and --frozen need no config. Leave one of them out.")
        print(_sums(args, memory))
        return 0
    if args.gradients:
        raise ConfigError("--gradients belongs to --trained and --frozen. Take it out.")
    if not args.stage and not args.config:
        raise ConfigError(f"there is nothing to plan. Give a stage: {EXAMPLE}")
    overlays = [f"--config={file}" for file in args.config]
    with tempfile.TemporaryDirectory() as folder:
        _plan(args, _words(args.stage, [*overlays, *args.settings], Path(folder)), memory)
    return 0


def _words(stage: str | None, words: list[str], folder: Path) -> list[str]:
    """What ``alignlab fit`` would read."""
    from alignlab.plan.address import as_config, with_installed

    if stage is None:
        return with_installed(words)
    if stage.endswith((".yaml", ".yml")):
        return with_installed(["--config", stage, *words])
    if ":" not in stage:
        raise ConfigError(
            f"{stage}: neither a YAML file nor DIR:STAGE. Write settings with an equals sign, such "
            "as --data.init_args.batch_size=8."
        )
    return as_config("plan", [stage, *words], folder)


def _memory(args: argparse.Namespace) -> float | None:
    if args.memory:
        return float(args.memory * GB)
    return DEVICES[args.gpu].memory if args.gpu else None


def _sums(args: argparse.Namespace, memory: float | None) -> str:
    """The sums of ``bytes_of_copies``, in words."""
    size = bytes_of_copies(args.trained or (), args.frozen or (), gradient=args.gradients or 2)
    lines = [f"weights, gradients, optimizer: {_bytes(size)}"]
    if memory:
        devices = devices_for(size, memory)
        lines.append(f"devices of {memory / GB:g} GB: {devices}, without activations and caches")
        if args.price:
            lines.append(f"price: {devices * args.price:,.2f} EUR for an hour")
    return "\n".join(lines)


def _plan(args: argparse.Namespace, words: Sequence[str], memory: float | None) -> None:
    from alignlab.capacity.memory import Placement, own_place
    from alignlab.capacity.setup import read_setup

    lengths = args.lengths and tuple(map(int, args.lengths))
    if lengths and len(lengths) != 2:
        raise ConfigError("--lengths needs two numbers, of a prompt and a completion: 512,256.")
    setup = read_setup(words, lengths)
    for line in _models(setup):
        print(line)
    gpu = bool(args.gpu or args.memory)
    counts = [int(n) for n in args.devices or ((1, 8) if gpu else (setup.devices,))]
    places = []
    for n in counts:
        several = [Placement("ddp", n, gpu), Placement("fsdp", n, gpu)]
        places += [Placement("one", 1, gpu)] if n == 1 else several
    totals = _table(args, setup, places, memory)
    for note in setup.notes:
        print(f"note: {note}.")
    own = own_place(setup, gpu)
    total = totals.get(own) or _total(setup, own)
    if memory and total > USABLE * memory:
        print("\n".join(_advice(setup, own, total, USABLE * memory)))
    if args.probe:
        print("\n".join(_probe(args, setup, words, _total(setup, _here(setup)))))


def _models(setup: "Setup") -> list[str]:
    lines = [f"{setup.objective}, {setup.batch_size} rows in an optimizer step"]
    for spec in setup.models:
        how = "frozen" if not spec.trained else "trained"
        if spec.lora is not None:
            how = f"{_count(spec.size.trained)} in adapters trained"
        kind = "4 bits" if spec.double is not None else str(spec.dtype).removeprefix("torch.")
        lines.append(f"{spec.role}: {_count(spec.size.parameters)} parameters, {kind}, {how}")
    return lines


def _table(
    args: argparse.Namespace,
    setup: "Setup",
    places: "Sequence[Placement]",
    memory: float | None,
) -> "dict[Placement, float]":
    """Print memory, speed and price for each place; the bytes on a device of each."""
    from alignlab.capacity.memory import PARTS, memory_of, micro_batch

    columns = [["GB per device", *PARTS, "together", "fits", "rows in a forward", *TIMES]]
    totals = {}
    for place in places:
        name = NAMES[place.strategy] + (f" x {place.devices}" if place.devices > 1 else "")
        try:
            parts = memory_of(setup, place)
        except ConfigError as error:
            print(f"note: {name}: {error}.")
            continue
        totals[place] = sum(parts.values())
        fits = "" if memory is None else "yes" if totals[place] <= USABLE * memory else "no"
        sizes = [_gigabytes(size) for size in (*parts.values(), totals[place])]
        rows = str(len(micro_batch(setup, place.devices)))
        columns.append([name, *sizes, fits, rows, *_times(args, setup, place)])
    rows_of = [row for row in zip(*columns, strict=True) if any(row[1:])]
    widths = [max(map(len, column)) for column in zip(*rows_of, strict=True)]
    print()
    for row in rows_of:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *rest]).rstrip())
    return totals


TIMES = ("tokens/s", "s a step", "hours", "EUR")


def _times(args: argparse.Namespace, setup: "Setup", place: "Placement") -> list[str]:
    if not args.gpu:
        return [""] * len(TIMES)
    from alignlab.capacity.speed import MFU, estimated

    speed = estimated(setup, place, DEVICES[args.gpu], args.mfu or MFU)
    hours = (setup.total_steps or 0) * speed.seconds / 3600
    price = hours * place.devices * args.price if args.price else 0.0
    return [
        f"{speed.tokens / speed.seconds:,.0f}",
        f"{speed.seconds:,.2f}",
        f"{hours:,.2f}" if hours else "",
        f"{price:,.2f}" if price else "",
    ]


def _advice(setup: "Setup", place: "Placement", total: float, room: float) -> list[str]:
    from alignlab.capacity.changes import changes

    alone, together = changes(setup, place, room)
    name = f"{NAMES[place.strategy]} x {place.devices}" if place.devices > 1 else "1 device"
    lines = ["", f"It does not fit on {name}: {_bytes(total)} of {_bytes(room)}. Changes:"]
    for change in alone:
        fits = ", fits" if change.total <= room else ""
        saved = _bytes(max(0.0, total - change.total))
        lines.append(f"  {change.what}: saves {saved}{fits}")
    if not together:
        return [*lines, "None of these makes it fit: take a smaller model or shorter rows."]
    return [*lines, "Cheapest that fits: " + "; ".join(change.key for change in together)]


def _here(setup: "Setup") -> "Placement":
    import torch

    from alignlab.capacity.memory import Placement

    return Placement("one", 1, torch.cuda.is_available())


def _probe(
    args: argparse.Namespace, setup: "Setup", words: Sequence[str], total: float
) -> list[str]:
    from alignlab.capacity.speed import probed, tokens_of_a_step

    probe = probed(words)
    lines = [
        "",
        f"measured here: {probe.seconds:.3f} s a step, "
        f"{tokens_of_a_step(setup) / probe.seconds:,.0f} tokens/s, "
        f"{_bytes(probe.peak)} at the peak ({_bytes(total)} planned)",
    ]
    if setup.total_steps:
        hours = setup.total_steps * probe.seconds / 3600
        price = f", {hours * args.price:,.2f} EUR" if args.price else ""
        lines.append(f"{setup.total_steps:,} steps: {hours:,.2f} hours{price}")
    return lines


def _total(setup: "Setup", place: "Placement") -> float:
    from alignlab.capacity.memory import memory_of

    return sum(memory_of(setup, place).values())


def _count(parameters: int) -> str:
    scale, unit = (1e9, "B") if parameters >= 1e9 else (1e6, "M")
    return f"{parameters / scale:,.3f} {unit}"


def _gigabytes(size: float) -> str:
    return f"{size / GB:,.2f}" if size else ""


def _bytes(size: float) -> str:
    return f"{size / 1e12:,.2f} TB" if size >= 1e12 else f"{size / GB:,.2f} GB"


def _number(text: str) -> float:
    return _positive(text, float)


def _list(text: str) -> tuple[float, ...]:
    return tuple(_positive(part, float) for part in text.split(","))


def _positive(text: str, kind: Callable[[str], float]) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e18:
        raise argparse.ArgumentTypeError(f"expected numbers above 0, got {text!r:.40}")
    return value
