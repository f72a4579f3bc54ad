"""The pool's file."""

from pathlib import Path

import numpy as np
import pytest

from alignlab.errors import DataError
from alignlab.results.pool import Pool
from tests.evaluation.worlds import World


def same(a: Pool, b: Pool) -> None:
    assert (a.prompt_ids, a.proposals, a.texts) == (b.prompt_ids, b.proposals, b.texts)
    for name in ("rewards", "proposal", "log_ref", "log_mixture"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), name
    assert (a.proxy is None) == (b.proxy is None)
    if a.proxy is not None and b.proxy is not None:
        assert np.array_equal(a.proxy, b.proxy)


def test_round_trip(tmp_path: Path) -> None:
    world = World(3, 6, seed=0)
    pool = world.pool(4, 0, [world.tilted(1.0)], 2)
    for saved in (pool, world.exact_pool()):
        saved.save(tmp_path / "a" / "pool.parquet")
        same(Pool.load(tmp_path / "a" / "pool.parquet"), saved)
    texts = tuple(tuple(f" text {p} {i}" for i in range(6)) for p in range(3))
    with_texts = Pool(**{**vars_of(pool), "texts": texts})
    with_texts.save(tmp_path / "pool.parquet")
    same(Pool.load(tmp_path / "pool.parquet"), with_texts)


def test_lengths_come_back_and_may_be_missing(tmp_path: Path) -> None:
    """A file of before there were lengths has no such column."""
    import pyarrow.parquet as pq

    path, pool = tmp_path / "pool.parquet", World(3, 6, seed=0).pool(4, 0)
    lengths = np.arange(12.0).reshape(3, 4)
    with_lengths = Pool(**{**vars_of(pool), "lengths": lengths})
    with_lengths.save(path)
    found = Pool.load(path)
    assert found.lengths is not None
    assert np.array_equal(found.lengths, lengths)
    taken = found.take(("prompt-2",)).lengths
    assert taken is not None
    assert np.array_equal(taken, [[8.0, 9.0, 10.0, 11.0]])
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["length"]), path)
    assert Pool.load(path).lengths is None


def vars_of(pool: Pool) -> dict:
    return {name: getattr(pool, name) for name in Pool.__dataclass_fields__}


def test_take_reorders_prompts() -> None:
    pool = World(3, 6, seed=0).pool(4, 0)
    taken = pool.take(("prompt-2", "prompt-0"))
    assert np.array_equal(taken.rewards, pool.rewards[[2, 0]])
    assert np.array_equal(taken.log_ref, pool.log_ref[[2, 0]])
    assert taken.prompt_ids == ("prompt-2", "prompt-0")
    with pytest.raises(DataError, match=r"1 of 2 evaluated prompts are not in it, e\.g\. 'nobody'"):
        pool.take(("prompt-0", "nobody"))


def test_a_ragged_pool_is_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "pool.parquet"
    World(3, 6, seed=0).pool(4, 0).save(path)
    pq.write_table(pq.ParquetFile(path).read().slice(1), path)
    with pytest.raises(DataError, match="samples of the same proposals for every prompt"):
        Pool.load(path)
