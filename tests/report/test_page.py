import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from alignlab.evaluation.power import Spread
from alignlab.report.gather import Findings, key_of
from alignlab.report.page import write_page
from alignlab.results.run_folder import SampleText
from alignlab.results.tables import Comparison, Effect, FrontierRow, Hypervolume, Importance, Point

BETA = "dpo/model.init_args.beta"
TRIALS = [
    {"slot": "3", "state": "diverged", "arm": "dpo", "params": f'{{"{BETA}": 0.1, "lr": null}}',
     "kl": "", "note": "dpo-beta0.1-s0: loss is <b>not finite"},
]  # fmt: skip


def point(run: str, step: int, kl: float, reward: float) -> Point:
    return Point(
        experiment="toy", objective=run.partition("-")[0], run_id=run, seed=0, step=step,
        hparams={"beta": 0.5}, kl=kl, kl_se=0.01, kl_k1=kl, kl_k1_se=0.01, reward=reward,
        reward_se=0.1, proxy_reward=None, length=5.0, n_prompts=8, n_samples=32, config_sha="c",
        git_sha="g", seconds=1.0,
    )  # fmt: skip


def row(objective: str, budget: float, reward: float) -> FrontierRow:
    return FrontierRow(
        objective=objective, kl_budget=budget, reward=reward, reward_lo=reward - 0.1,
        reward_hi=reward + 0.1, n_seeds=1, n_prompts=8,
    )  # fmt: skip


def sample(*, prompt_id: str, prompt: str, completion: str, reward: float) -> SampleText:
    return SampleText(prompt_id, prompt, completion, reward, proxy_reward=None, kl=0.0, length=3)


def findings(runs: int = 2, **changes: Any) -> Findings:
    points = [
        point(f"{name}-s{i}", step, kl=0.01 * step, reward=0.1 * step)
        for name in ("dpo", "ppo")
        for i in range(runs)
        for step in (10, 20)
    ]
    names: Sequence[str] = ("dpo", "ppo", "oracle", "reference")
    given: dict[str, Any] = {
        "title": "toy <b>",
        "reward_label": "gold",
        "rows": [row(name, budget, 1 + budget) for name in names for budget in (0.25, 0.5, 0.7)],
        "points": points,
        "comparisons": {
            Comparison(objective="dpo", other="ppo", kl_budget=0.5, difference=0.3, lo=lo, hi=0.5,
                       n_seeds=1, n_prompts=8):
            Spread(difference=0.3, prompts=8, prompt_sd=3.0) for lo in (0.1, -0.1)
        },
        "hypervolumes": [Hypervolume(objective="dpo", kl_max=0.5, hypervolume=0.2, lo=0.1, hi=0.3,
                                     n_seeds=1)],
        "effects": [Effect(objective="dpo", hparam="beta", value="0.5", n_runs=2, kl=0.2, kl_sd=0.0,
                           reward=2.0, reward_sd=0.0)],
        "importances": [Importance(objective="dpo", metric="kl", hparam="beta", importance=0.87,
                                   n_runs=8)],
        "trials": TRIALS,
        "win_rates": [],
        "samples": {key_of(points[1]): [sample(prompt_id="p0", prompt="A film", reward=1.5,
                                               completion="</script><script>alert(1)</script>")]},
        "references": {"p0": ("dull", -0.5)},
        "configs": {"Config of dpo-s0": "model: <x>"},
        "environment": {"torch": "2"},
        "command": "alignlab frontier results/toy",
    }  # fmt: skip
    return Findings(**given | changes)


class Elements(HTMLParser):
    """Scripts with their text, and every address that an element names."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.addresses: list[str] = []
        self.cells: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "action")]
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            attrs, text = self.scripts[-1]
            self.scripts[-1] = attrs, text + data
        elif self._inside == "td":
            self.cells.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def read(path: Path) -> tuple[Elements, Any]:
    page = Elements()
    page.feed(path.read_text())
    return page, json.loads(page.scripts[0][1])


def test_the_page_asks_nobody_for_anything(tmp_path: Path) -> None:
    write_page(tmp_path / "report.html", findings())
    page, _ = read(tmp_path / "report.html")
    assert page.addresses == ["data:,"]
    assert len(page.scripts) == 3
    assert all("src" not in attrs for attrs, _ in page.scripts)
    assert not re.search(r"@import|url\(", (tmp_path / "report.html").read_text()[:4000])


@pytest.mark.parametrize("runs", [500])
def test_a_thousand_runs_stay_under_ten_megabytes(tmp_path: Path, runs: int) -> None:
    write_page(tmp_path / "report.html", findings(runs))
    assert (tmp_path / "report.html").stat().st_size < 10_000_000
    _, data = read(tmp_path / "report.html")
    assert sum(len(t["x"]) for t in data["traces"] if t["mode"] == "markers") == 2000
