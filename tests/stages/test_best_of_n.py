"""Best-of-n by other rewards against all subsets of the same samples, written out."""

import json
import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from alignlab.errors import ConfigError
from alignlab.evaluation.prompts import load_prompts
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.results.csv_tables import read_table
from alignlab.results.prompt_tables import read_prompt_tables
from alignlab.rewards.build import build_reward
from alignlab.rollouts.sampler import sample
from alignlab.stages.best_of_n import TABLE, measure_best_of_n

SUM = "tests.rollouts.word_sum.WordSum"
GOLD = {"class_path": SUM, "init_args": {"modulus": 7}}
PROXY = {"class_path": SUM}
WATCHDOG = {"class_path": SUM, "init_args": {"modulus": 5}}


def test_what_a_proxy_picks_is_told_by_gold(build: Callable[..., Policy], tmp_path: Path) -> None:
    """Gold's mean over all subsets of n samples of the one that the proxy likes best."""
    build(dtype="float32", spread=0.1).save(tmp_path / "policy")
    lines = [json.dumps({"id": f"p{i}", "prompt": f" w{3 + i} w{5 + i}"}) for i in range(4)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    shared: dict[str, Any] = {
        "out": tmp_path,
        "reference": str(tmp_path / "policy"),
        "prompts": str(tmp_path / "prompts.jsonl"),
        "reward": GOLD,
        "max_new_tokens": 4,
        "seed": 2,
    }
    measure_best_of_n(
        **shared, proxies={"by_sum": PROXY, "by_gold": GOLD}, samples=8, watchdog=WATCHDOG, limit=3
    )
    policy = Policy.load_for_eval(str(tmp_path / "policy"))
    drawn = sample(
        policy, load_prompts(shared["prompts"], policy.tokenizer, limit=3), samples=8,
        max_new_tokens=4, spec=SamplingSpec(), seed=2, rollout=1, stop_ids=policy.stop_ids,
    )  # fmt: skip
    texts = drawn.texts(policy.tokenizer)
    gold, proxy, watchdog = (
        build_reward(spec)(*texts).double().numpy().reshape(3, 8)
        for spec in (GOLD, PROXY, WATCHDOG)
    )
    tables = {(t.objective, t.step): t for t in read_prompt_tables(tmp_path / TABLE)}
    assert tables.keys() == {(name, n) for name in ("by_sum", "by_gold") for n in (1, 2, 4)}
    watched = {(r["proxy"], r["n"]): r for r in read_table(tmp_path / "watchdog.csv")}
    for n in (1, 2, 4):
        table = tables["by_sum", n]
        assert (table.run_id, table.seed) == ("by_sum-s2", 2)
        assert table.scores.prompt_ids == ("p0", "p1", "p2")
        assert table.scores.proxy_reward is not None
        gains = []
        for p in range(3):
            picked = []
            for some in combinations(range(8), n):
                top = max(proxy[p, list(some)])
                level = [i for i in range(8) if proxy[p, i] == top]  # ties: the reference decides
                picked.append((fmean(gold[p, level]), top, fmean(watchdog[p, level])))
            for value, expected in zip(
                (table.scores.reward[p], table.scores.proxy_reward[p]), zip(*picked, strict=True),
                strict=False,
            ):  # fmt: skip
                assert value == pytest.approx(fmean(expected))
            gains.append(fmean(c for *_, c in picked) - fmean(watchdog[p]))
        assert float(watched["by_sum", str(n)]["watchdog_gain"]) == pytest.approx(
            fmean(gains), abs=1e-6
        )
    assert np.all(tables["by_sum", 1].scores.kl == 0)
    assert 0 < tables["by_sum", 2].scores.kl.mean() <= math.log(2) - 1 / 2
    with pytest.raises(ConfigError, match="samples >= 2, got 1"):
        measure_best_of_n(**shared, proxies={"by_sum": PROXY}, samples=1)
