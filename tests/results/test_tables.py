"""points.csv and frontier.csv: their columns, their bytes, and what happens to bad ones."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from alignlab.errors import DataError
from alignlab.results.tables import (
    BUDGETS,
    FRONTIER_COLUMNS,
    POINT_COLUMNS,
    FrontierRow,
    Point,
    merge_points,
    read_frontier,
    read_points,
    write_points,
    write_rows,
)

POINT = Point(
    experiment="quickstart",
    objective="dpo",
    run_id="dpo-beta0.1-s0",
    seed=0,
    step=100,
    hparams={"beta": 0.1, "optimizer": {"lr": 5e-7}, "a": 'ü, "q"'},
    kl=0.1 + 0.2,
    kl_se=1e-3 / 3,
    kl_k1=-0.0,
    kl_k1_se=math.nan,
    reward=2.5,
    reward_se=0.04,
    proxy_reward=None,
    length=17.25,
    n_prompts=128,
    n_samples=1024,
    config_sha="ab12",
    git_sha="cd34",
    seconds=12.5,
)


def test_columns_are_the_contracts() -> None:
    assert ",".join(POINT_COLUMNS) == (
        "experiment,objective,run_id,seed,step,hparams,kl,kl_se,kl_k1,kl_k1_se,reward,reward_se,"
        "proxy_reward,length,n_prompts,n_samples,config_sha,git_sha,seconds"
    )
    assert ",".join(FRONTIER_COLUMNS) == (
        "objective,kl_budget,reward,reward_lo,reward_hi,oracle_reward,oracle_ess,"
        "oracle_efficiency,efficiency_lo,efficiency_hi,n_seeds,n_prompts"
    )
    assert BUDGETS == (0.25, 0.5, 1, 2, 3, 5, 10)


def test_a_row_as_it_stands_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    write_points(path, [POINT])
    assert path.read_text().splitlines()[1] == (
        'quickstart,dpo,dpo-beta0.1-s0,0,100,"{""a"":""ü, \\""q\\"""",""beta"":0.1,'
        '""optimizer"":{""lr"":5e-07}}",0.3,0.000333333333,0,,2.5,0.04,,17.25,128,1024,ab12,cd34,12.5'
    )


def test_reading_and_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    points = [replace(POINT, step=step, kl=1 / (step + 3)) for step in (100, 5, 20)]
    write_points(path, points)
    once = path.read_bytes()
    back = read_points(path)
    write_points(path, reversed(back))
    assert path.read_bytes() == once
    assert [point.step for point in back] == [5, 20, 100]
    assert back[0].hparams == POINT.hparams
    assert math.isnan(back[0].kl_k1_se)
    assert [p.name for p in tmp_path.iterdir()] == ["points.csv"]


def test_merge_adds_replaces_and_forgets_another_configuration(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    other = replace(POINT, run_id="dpo-beta0.5-s0", config_sha="ff")
    merge_points(path, [POINT, replace(POINT, step=200), other])
    merged = merge_points(path, [replace(POINT, step=200, reward=9.0), replace(POINT, step=300)])
    assert [(p.run_id, p.step, p.reward) for p in merged] == [
        ("dpo-beta0.1-s0", 100, 2.5),
        ("dpo-beta0.1-s0", 200, 9.0),
        ("dpo-beta0.1-s0", 300, 2.5),
        ("dpo-beta0.5-s0", 100, 2.5),
    ]
    merged = merge_points(path, [replace(POINT, step=100, config_sha="new")])
    assert [(p.run_id, p.step, p.config_sha) for p in merged] == [
        ("dpo-beta0.1-s0", 100, "new"),
        ("dpo-beta0.5-s0", 100, "ff"),
    ]


def test_frontier_rows_keep_their_order_and_their_blanks(tmp_path: Path) -> None:
    path = tmp_path / "frontier.csv"
    rows = [
        FrontierRow(objective="ppo", kl_budget=1.0, reward=1 / 3, n_seeds=3, n_prompts=128),
        FrontierRow(objective="dpo", kl_budget=0.25),
    ]
    write_rows(path, FrontierRow, rows)
    assert path.read_text().splitlines()[1:] == [
        "ppo,1,0.333333,,,,,,,,3,128",
        "dpo,0.25,,,,,,,,,0,0",
    ]
    assert read_frontier(path)[1] == rows[1]


HEADER = ",".join(FRONTIER_COLUMNS) + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "columns do not match; missing: objective"),
        (HEADER.replace("n_seeds", "seeds").encode(), "missing: n_seeds; unknown: seeds"),
        ((HEADER + "dpo,0.25\n").encode(), r"frontier\.csv:2: 2 cells, expected 12"),
        ((HEADER + "dpo,1,x,,,,,,,,1,1\n").encode(), r"csv:2: column 'reward' cannot be 'x'"),
        (b"\xff\xfe\x00", "not a CSV table"),
    ],
)
def test_a_bad_table_is_named_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "frontier.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_frontier(path)


def test_a_missing_table_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"points\.csv: no such table"):
        read_points(tmp_path / "points.csv")


def test_importing_the_tables_pulls_in_nothing_heavy() -> None:
    code = (
        "import sys, alignlab.results.tables; "
        "print([m for m in ('torch', 'numpy', 'pyarrow', 'lightning') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
