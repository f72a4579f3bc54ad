"""Per-prompt tables: round trips, the row of points.csv made from them, bad files."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from alignlab.errors import DataError
from alignlab.results.prompt_tables import (
    MEASURES,
    OPTIONAL,
    PROMPT_COLUMNS,
    PromptScores,
    PromptTable,
    read_prompt_tables,
    write_prompt_tables,
)


def make_table(step: int, *, proxy: bool = True) -> PromptTable:
    rng = np.random.default_rng(step)
    return PromptTable(
        objective="dpo",
        run_id="dpo-s0",
        seed=0,
        step=step,
        scores=PromptScores(
            prompt_ids=("a", "b", "c"),
            kl=rng.random(3),
            kl_k1=rng.normal(size=3),
            reward=rng.normal(size=3),
            proxy_reward=rng.normal(size=3) if proxy else None,
            length=np.array([3.0, 4.0, 8.0]),
            n_samples=np.array([4, 4, 4]),
            entropy=rng.random(3),
            chosen_logp=rng.normal(size=3) if proxy else None,
            rejected_logp=rng.normal(size=3) if proxy else None,
        ),
    )


def test_round_trip_in_order_of_step(tmp_path: Path) -> None:
    path = tmp_path / "points" / "dpo-s0.parquet"
    write_prompt_tables(path, [make_table(20), make_table(5, proxy=False)])
    once = path.read_bytes()
    back = read_prompt_tables(path)
    assert [(t.objective, t.run_id, t.seed, t.step) for t in back] == [
        ("dpo", "dpo-s0", 0, 5),
        ("dpo", "dpo-s0", 0, 20),
    ]
    assert back[0].scores.proxy_reward is None
    assert back[0].scores.chosen_logp is None
    wanted = make_table(20).scores
    assert back[1].scores.prompt_ids == wanted.prompt_ids
    for name in (*MEASURES, "n_samples"):
        assert np.array_equal(getattr(back[1].scores, name), getattr(wanted, name)), name
    write_prompt_tables(path, back)
    assert path.read_bytes() == once


def test_the_files_columns_are_the_documented_ones(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    write_prompt_tables(path, [make_table(1)])
    assert tuple(pq.ParquetFile(path).schema_arrow.names) == tuple(PROMPT_COLUMNS)


def test_a_table_of_older_code_has_no_entropy_and_no_held_out_pairs(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    write_prompt_tables(path, [make_table(1)])
    pq.write_table(pq.read_table(path).drop_columns(list(OPTIONAL[1:])), path)
    (table,) = read_prompt_tables(path)
    assert (table.scores.entropy, table.scores.chosen_logp) == (None, None)
    assert table.scores.means().keys() == {"kl", "kl_k1", "reward", "proxy_reward", "length"}


def test_point_is_the_mean_over_prompts_with_clustered_errors() -> None:
    table = make_table(7)
    point = table.point(
        experiment="toy", hparams={"beta": 1}, config_sha="c", git_sha="g", seconds=1.5
    )
    scores = table.scores
    assert scores.proxy_reward is not None
    assert point.kl == pytest.approx(sum(scores.kl) / 3)
    assert point.kl_k1_se == pytest.approx(stats.sem(scores.kl_k1))
    assert point.reward_se == pytest.approx(stats.sem(scores.reward))
    assert point.proxy_reward == pytest.approx(sum(scores.proxy_reward) / 3)
    assert (point.length, point.n_prompts, point.n_samples) == (5.0, 3, 12)
    assert (point.objective, point.run_id, point.step) == ("dpo", "dpo-s0", 7)


def test_bad_files_are_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(DataError, match=r"none\.parquet: no such table"):
        read_prompt_tables(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(DataError, match=r"text\.parquet: not a Parquet table"):
        read_prompt_tables(tmp_path / "text.parquet")
    pq.write_table(pa.table({"run_id": ["x"]}), tmp_path / "thin.parquet")
    with pytest.raises(DataError, match=r"thin\.parquet: lacks the columns objective, seed"):
        read_prompt_tables(tmp_path / "thin.parquet")


@pytest.mark.parametrize(
    ("name", "values"),
    [("kl", ["a"] * 3), ("objective", [0.5] * 3), ("kl", [0.5, None, 1.0]), ("seed", [0.0] * 3)],
)
def test_a_column_of_another_kind_is_named(tmp_path: Path, name: str, values: list) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    write_prompt_tables(path, [make_table(1)])
    pq.write_table(pa.table({**pq.read_table(path).to_pydict(), name: values}), path)
    with pytest.raises(DataError, match=rf"t\.parquet: column '{name}' holds"):
        read_prompt_tables(path)


def test_a_name_of_a_column_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_prompt_tables(path, [make_table(1)])
    path.write_bytes(path.read_bytes().replace(b"n_samples", b"\xf0_samples"))
    with pytest.raises(DataError, match=r"t\.parquet: "):
        read_prompt_tables(path)
