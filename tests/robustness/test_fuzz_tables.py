"""Tables and records that somebody or a disk has changed: refused, made again, or read as is."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies

from alignlab.files import DONE, STARTED, stamp, write_record
from alignlab.plan import state
from alignlab.plan.experiment import load_plan
from alignlab.report.command import frontier_command
from alignlab.results.pool import POOL_NAME, Pool
from alignlab.results.prompt_tables import (
    PromptScores,
    PromptTable,
    read_prompt_tables,
    write_prompt_tables,
)
from alignlab.results.tables import (
    FrontierRow,
    Point,
    read_frontier,
    read_points,
    write_points,
    write_rows,
)
from tests.robustness.fuzzing import WORDS, attempt, fuzz, same, spoilt, spoilt_bytes

PROMPTS = tuple(f"p{i}" for i in range(6))
SAMPLES = 8
RUN = "dpo-beta1-s0"


@pytest.fixture(scope="module", autouse=True)
def _results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A results folder of one run with two checkpoints, and an experiment of two calls."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("tables"))
    tables = [table(step) for step in (10, 20)]
    write_prompt_tables(Path(f"valid/points/{RUN}.parquet"), tables)
    points = [
        own.point(
            experiment="demo", hparams={"beta": 1.0}, config_sha="c", git_sha="g", seconds=1.0
        )
        for own in tables
    ]
    write_points(Path("valid/points.csv"), points)
    write_rows(
        Path("valid/frontier.csv"), FrontierRow, [FrontierRow(objective="dpo", kl_budget=0.5)]
    )
    pool().save(Path("valid") / POOL_NAME)
    frontier_command([Path("valid")], Path("drawn"))
    yield
    os.chdir(before)


def table(step: int) -> PromptTable:
    kl = np.full(len(PROMPTS), step / 20)
    scores = PromptScores(
        prompt_ids=PROMPTS,
        kl=kl,
        kl_k1=kl + 0.01,
        reward=np.sqrt(kl) * 0.3 + 0.01 * np.arange(len(PROMPTS)),
        proxy_reward=None,
        length=np.full(len(PROMPTS), 5.0),
        n_samples=np.full(len(PROMPTS), 4),
    )
    return PromptTable(objective="dpo", run_id=RUN, seed=0, step=step, scores=scores)


def pool() -> Pool:
    rewards = np.random.default_rng(0).normal(size=(len(PROMPTS), SAMPLES))
    nothing = np.zeros_like(rewards)
    return Pool(
        prompt_ids=PROMPTS,
        rewards=rewards,
        proxy=None,
        proposals=("reference",),
        proposal=np.zeros(SAMPLES, dtype=np.int64),
        log_ref=nothing,
        log_mixture=nothing,
    )


@pytest.fixture(scope="module")
def content() -> dict[str, bytes]:
    """File -> its bytes, of the valid results folder."""
    files = [path for path in Path("valid").rglob("*") if path.is_file()]
    return {path.relative_to("valid").as_posix(): path.read_bytes() for path in files}


@fuzz("tables", 0.4)
@given(strategies.data())
def test_a_table_of_points(content: dict[str, bytes], data: strategies.DataObject) -> None:
    path = Path("points.csv")
    rows = [line.split(",") for line in content["points.csv"].decode().split("\n")]
    if data.draw(strategies.booleans()):
        rows = data.draw(spoilt(rows, 1))
        lines = [",".join(map(str, row)) if isinstance(row, list) else str(row) for row in rows]
        path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    else:
        path.write_bytes(data.draw(spoilt_bytes(content["points.csv"])))
    found = attempt("tables", lambda: read_points(path))
    if found.refused:
        return
    for point in found.value:
        numbers = {name: value for name, value in asdict(point).items() if type(value) is float}
        assert not any(map(math.isinf, numbers.values())), numbers
        assert point.n_prompts >= 0
    write_points(path, found.value)
    once = path.read_bytes()
    again = read_points(path)
    assert sorted(map(_names, again)) == sorted(map(_names, found.value))
    write_points(path, again)
    assert path.read_bytes() == once


def _names(point: Point) -> tuple[Any, ...]:
    """What a row is of; its numbers are rounded when they are written."""
    return point.key, point.objective, point.seed, str(point.hparams), point.n_prompts


@fuzz("tables", 0.15)
@given(strategies.data())
def test_a_table_of_the_frontier(content: dict[str, bytes], data: strategies.DataObject) -> None:
    Path("frontier.csv").write_bytes(data.draw(spoilt_bytes(content["frontier.csv"])))
    found = attempt("tables", lambda: read_frontier(Path("frontier.csv")))
    if not found.refused:
        for row in found.value:
            assert math.isfinite(row.kl_budget)


READERS = {f"points/{RUN}.parquet": read_prompt_tables, POOL_NAME: Pool.load}


@fuzz("tables", 0.35)
@given(strategies.sampled_from(list(READERS)), strategies.data())
def test_parquet_tables(content: dict[str, bytes], name: str, data: strategies.DataObject) -> None:
    path = Path("table.parquet")
    if data.draw(strategies.booleans()):
        path.write_bytes(data.draw(spoilt_bytes(content[name])))
    else:
        columns = data.draw(spoilt(pq.read_table(f"valid/{name}").to_pydict(), 1))
        try:
            pq.write_table(pa.table(columns), path)
        except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
            return
    found = attempt("tables", lambda: READERS[name](path))
    if found.refused:
        return
    if isinstance(found.value, Pool):
        assert np.isfinite(found.value.rewards).all()
        assert np.isfinite(found.value.log_ref).all()
    else:
        for own in found.value:
            assert np.isfinite([own.scores.kl, own.scores.reward, own.scores.length]).all()
            assert len(set(own.scores.prompt_ids)) == len(own.scores.prompt_ids)


@fuzz("tables", 0.1)  # a second each
@given(strategies.data())
def test_a_frontier_is_drawn_or_refused(
    content: dict[str, bytes], data: strategies.DataObject
) -> None:
    shutil.rmtree("spoilt", ignore_errors=True)
    shutil.copytree("valid", "spoilt")
    name = data.draw(strategies.sampled_from(sorted(content)))
    if name == "points.csv" and data.draw(strategies.booleans()):
        rows = content[name].decode().split("\n")
        cell = data.draw(strategies.sampled_from([c for c in rows[1].split(",") if c]))
        word = data.draw(strategies.sampled_from(WORDS))
        Path("spoilt", name).write_text("\n".join(rows).replace(cell, word))
    else:
        Path("spoilt", name).write_bytes(data.draw(spoilt_bytes(content[name])))
    attempt("tables", lambda: draw(Path("spoilt")))


def draw(folder: Path) -> None:
    with suppress(ArithmeticError):  # an efficiency above 1 is reported, not drawn
        frontier_command([folder])


STAGE = "tests.robustness.fuzz_stages"
EXPERIMENT = {
    "stages": {
        "world": {"call": f"{STAGE}.world"},
        "sft": {"call": f"{STAGE}.train", "needs": ["world"],
                "args": {"source": "{world}/rows.jsonl", "seed": 0}},
    },
}  # fmt: skip


@fuzz("records")
@given(strategies.data())
def test_what_is_damaged_is_made_again(data: strategies.DataObject) -> None:
    shutil.rmtree("results", ignore_errors=True)
    Path("demo").mkdir(exist_ok=True)
    Path("demo/pipeline.yaml").write_text(json.dumps(EXPERIMENT))
    plan = load_plan(Path("demo"))
    for job in plan.jobs.values():
        folder = plan.folder(job)
        folder.mkdir(parents=True)
        (folder / "rows.jsonl").write_text('{"prompt": "a"}\n')
        write_record(folder / STARTED, {"config_sha": job.config_sha})
        files = {"rows.jsonl": stamp(folder / "rows.jsonl")}
        write_record(
            folder / DONE,
            {"config_sha": job.config_sha, "seconds": 1.0, "metrics": {}, "stopped": None,
             "files": files, "logs": {}, "points": []},
        )  # fmt: skip
    assert state.what_to_do(plan).jobs == []
    job = data.draw(strategies.sampled_from(list(plan.jobs.values())))
    name = data.draw(strategies.sampled_from([DONE, STARTED, "rows.jsonl"]))
    path = plan.folder(job) / name
    before = path.read_bytes()
    if name == "rows.jsonl" or data.draw(strategies.booleans()):
        path.write_bytes(data.draw(spoilt_bytes(before)))
    else:
        tree: Any = data.draw(spoilt(json.loads(before)))
        path.write_text(json.dumps(tree))
    found = attempt("records", lambda: state.what_to_do(plan))
    assert not found.refused, found.refused
    if name != STARTED:
        intact = path.read_bytes() == before
        if name == DONE:
            intact = same(parsed(path.read_bytes()), json.loads(before))
        made_again = job.name in [each.name for each in found.value.jobs]
        needed = job.name == "sft" or intact  # nobody reads the world of a finished sft
        assert made_again != intact or not needed


def parsed(content: bytes) -> Any:
    try:
        return json.loads(content.decode())
    except ValueError:
        return None
