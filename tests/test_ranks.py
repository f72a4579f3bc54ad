"""Two processes train what one does: every objective, under each strategy, in float64.

All cells of a test run share one pair of processes. ``pytest -k`` selects cells by name. With
``RANKS_TABLE=FILE.csv`` in the environment, the differences that were found are added to the file.
"""

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from alignlab.models import Policy
from tests.cells import (
    AGAIN,
    CANDIDATES,
    DIRECT,
    ON_POLICY,
    QLORA,
    SCORERS,
    VALUES,
    VARIANTS,
    WITHOUT_REFERENCE,
    rows_file,
)
from tests.ranks import ROWS, STEPS, Cell, largest_gap, spawn, train
from tests.tiny import FAMILIES

NAMES = [
    "lm",
    "sft",
    "classify",
    "classify_tied",
    "classify_alone",
    *SCORERS,
    "dpo",
    "dpo_cached",
    "dpo_lora",
    *DIRECT,
    *CANDIDATES,
]
NAMES += [*VARIANTS, *WITHOUT_REFERENCE, *ON_POLICY, *VALUES, *QLORA]
CHECKPOINTED = [name + AGAIN for name in ("sft", "reward_model", "dpo_lora", "ppo_adapter", *QLORA)]
FEW = [
    Cell("sft", accumulate=2),
    Cell("reward_model", "fsdp2"),
    Cell("dpo_lora", "fsdp2", 2),
    Cell("simpo"),
    Cell("kto", "fsdp2"),
    Cell("bco", accumulate=2),
    Cell("ppo", "fsdp2"),
    Cell("ppo_adapter"),
    Cell("rloo", "fsdp2"),
    Cell("dapo", accumulate=2),
    Cell("reward_model" + AGAIN, "fsdp2"),
]
REST = [
    Cell(name, strategy, accumulate)
    for name in NAMES + CHECKPOINTED
    for strategy in ("ddp", "fsdp2")
    for accumulate in ((2,) if name in CHECKPOINTED else (1,) if name == "beta_dpo" else (1, 2))
    if Cell(name, strategy, accumulate) not in FEW
]
EXACT = 1e-12  # of weights that moved by about 0.1
SINGLE = 1e-4  # where layers in 4 bits compute in float32
COLUMNS = ["cell", "strategy", "micro_batches", "ranks", "weights", "loss"]
Run = Callable[[Sequence[Cell]], dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, build: Any, words: Path) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    build("llama", dtype="float64", spread=0.2).save(folder / "lm")
    # Not GPT-2, whose keys' bias has a gradient of 0: Adam would enlarge its rounding errors.
    config = {"model_type": "llama", "tie_word_embeddings": True, "initializer_range": 0.2}
    tied = Policy(config=config | FAMILIES["llama"], tokenizer=str(words), dtype="float64")
    tied.save(folder / "tied")
    rows_file(folder / "rows.jsonl", ROWS)
    return folder


@pytest.fixture(scope="module")
def few(ground: Path) -> dict[str, dict[str, Any]]:
    return spawn(FEW, ground)


@pytest.fixture(scope="module")
def rest(ground: Path, request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    chosen = {item.callspec.id for item in request.session.items if hasattr(item, "callspec")}
    return spawn([cell for cell in REST if cell.id in chosen], ground)


def record(cell: Cell, ranks: str, one: Any, other: Any) -> tuple[float, float]:
    """The largest differences of weights and of losses, which are a line of the table."""
    gap = largest_gap(one["weights"], other["weights"])
    losses = [
        {(step, k): v for step, row in run["logged"] for k, v in row.items() if k.endswith("loss")}
        for run in (one, other)
    ]
    worst = max((abs(v - losses[0][at]) for at, v in losses[1].items()), default=0.0)
    line = [
        cell.name + "_epochs" * (cell.epochs is not None),
        cell.strategy,
        cell.accumulate,
        ranks,
    ]
    print(f"{cell.id}: dW {gap:.1e}")
    if table := os.environ.get("RANKS_TABLE"):
        new = not Path(table).exists()
        with Path(table).open("a", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerows([COLUMNS] * new + [[*line, f"{gap:.1e}", f"{worst:.1e}"]])
    return gap, worst


def check(cell: Cell, shared: dict[str, Any], ground: Path) -> None:
    alone = train(replace(cell, name=cell.name.removesuffix(AGAIN)), ground, 1)
    gap, _ = record(cell, "2", alone, shared)
    most = SINGLE if cell.name.removesuffix(AGAIN) in QLORA else EXACT
    assert gap <= most
    assert largest_gap(alone["moments"], shared["moments"]) <= most
    assert [step for step, _ in shared["logged"]] == [step for step, _ in alone["logged"]]
    for (step, wanted), (_, found) in zip(alone["logged"], shared["logged"], strict=True):
        if step is not None and step < 2:  # before the policy moves, margins are 0 up to rounding
            for row in (wanted, found):
                row.pop("train/rewards/accuracies", None)
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6, nan_ok=True), step


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("cell", FEW, ids=lambda cell: cell.id)
def test_two_processes_train_what_one_does(cell: Cell, few: Any, ground: Path) -> None:
    check(cell, few[cell.id], ground)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("cell", REST, ids=lambda cell: cell.id)
def test_two_processes_train_what_one_does_in_every_cell(
    cell: Cell, rest: Any, ground: Path
) -> None:
    check(cell, rest[cell.id], ground)


STOPPED = [
    Cell(name, strategy, steps=7)  # inside an epoch and inside a phase
    for name in ("sft", "ppo", "tr_dpo")
    for strategy in ("ddp", "fsdp2")
]


def continued(cell: Cell, ground: Path, **settings: Any) -> Cell:
    last = ground / f"{cell.id}-2" / "last.ckpt"
    return replace(cell, steps=STEPS, resume=str(last), **settings)


@pytest.fixture(scope="module")
def resumed(ground: Path) -> dict[str, dict[str, Any]]:
    spawn(STOPPED, ground)
    return spawn([continued(cell, ground) for cell in STOPPED], ground)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("cell", STOPPED, ids=lambda cell: cell.id)
def test_two_processes_are_continued_by_two_and_by_one(
    cell: Cell, resumed: Any, ground: Path
) -> None:
    """By one also with its steps cut into other micro-batches."""
    whole = train(replace(cell, steps=STEPS), ground, 1)
    ends = [resumed[continued(cell, ground).id]]
    ends += [train(continued(cell, ground, accumulate=n), ground, 1) for n in (1, 2)]
    for end in ends:
        gap = largest_gap(whole["weights"], end["weights"])
        print(f"{cell.id}: dW {gap:.1e}")
        assert gap <= EXACT
        assert largest_gap(whole["moments"], end["moments"]) <= EXACT


PASSED_ON = [  # from two ranks to one to three: inside an epoch, and inside a phase, at steps 2, 5
    Cell(name, strategy, steps=2, batch=6, validation=0.0, halts=True)  # 6, 6, 6 and 5 rows
    for name in ("sft", "ppo")
    for strategy in ("ddp", "fsdp2")
]
ENDS: list[dict[str, Any]] = [{"steps": 7}, {"steps": 7, "epochs": 3}]


def ended(cell: Cell, ground: Path, **end: Any) -> Cell:
    by_one = replace(cell, steps=5, resume="two").id
    last = str(ground / f"{by_one}-1" / "last.ckpt")
    return replace(cell, resume=last, halts=False, keeps=True, **end)


@pytest.fixture(scope="module")
def passed_on(ground: Path) -> dict[str, dict[str, Any]]:
    spawn(PASSED_ON, ground)
    by_two = {cell: str(ground / f"{cell.id}-2" / "last.ckpt") for cell in PASSED_ON}
    for cell, last in by_two.items():
        train(replace(cell, steps=5, resume=last), ground, 1)
    last_cells = [ended(cell, ground, **end) for cell in PASSED_ON for end in ENDS]
    return spawn(last_cells, ground, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("end", ENDS, ids=["max_steps", "max_epochs"])
@pytest.mark.parametrize("cell", PASSED_ON, ids=lambda cell: f"{cell.name}-{cell.strategy}")
def test_a_run_of_two_processes_goes_on_with_one_and_ends_with_three(
    cell: Cell, end: Any, passed_on: Any, ground: Path
) -> None:
    """What is saved at the end is the model of a run that was never stopped, for any library."""
    last = ended(cell, ground, **end)
    whole = train(replace(cell, halts=False, keeps=True, **end), ground, 1)
    found = passed_on[last.id]
    gap, _ = record(last, "2-1-3", whole, found)
    assert gap <= EXACT
    assert largest_gap(whole["moments"], found["moments"]) <= EXACT
    ids, logps = torch.tensor([[1, 5, 9, 12, 7, 3]]), []
    for folder in (f"{replace(cell, halts=False, **end).id}-1", f"{last.id}-3"):
        model = AutoModelForCausalLM.from_pretrained(ground / folder / "model", dtype="float64")
        with torch.no_grad():
            logps.append(model(ids).logits.log_softmax(-1))
    torch.testing.assert_close(*logps, rtol=0, atol=1e-11)
    assert model.generate(ids, max_new_tokens=2).shape[1] > 6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_mixed_precision_on_two_processes_is_that_of_one(ground: Path) -> None:
    """Shards are float32 weights; what blocks compute in bfloat16 is rounded the same way."""
    cell = Cell("dpo", "fsdp2", precision="bf16-mixed")
    (shared,) = spawn([cell], ground).values()
    alone = train(cell, ground, 1)
    assert {tensor.dtype for tensor in shared["weights"].values()} == {torch.float32}
    _, worst = record(replace(cell, name="dpo_bf16"), "2", alone, shared)
    assert worst < 0.02  # of losses of about 0.6
