"""``report.html``: the frontier to look into, on one page that needs no network."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template
from jinja2.utils import htmlsafe_json_dumps

from alignlab.files import atomic_write
from alignlab.report.gather import Findings, key_of
from alignlab.report.sections import sections
from alignlab.report.table import frontier_sentences
from alignlab.report.traces import axes, traces
from alignlab.results.tables import BUDGETS


def write_page(path: Path, found: Findings) -> None:
    """Write the page; equal findings give an equal file."""
    from plotly.offline import get_plotlyjs

    listed = [row for row in found.rows if row.kl_budget in BUDGETS]
    seeds = sorted({point.seed for point in found.points})
    runs = len({(point.experiment, point.run_id) for point in found.points})
    source = (files("alignlab.report") / "page.html").read_text(encoding="utf-8")
    text = Template(source, autoescape=True, undefined=StrictUndefined).render(
        title=found.title,
        subtitle=f"{runs} runs, {len(found.points)} checkpoints, {len(seeds)} "
        f"seed{'s' * (len(seeds) != 1)}, {listed[0].n_prompts} prompts",
        sentences=frontier_sentences(listed).split("\n"),
        invitation="No completion chosen yet."
        if found.samples
        else "The completions of these runs were not kept.",
        sections=sections(found, listed),
        found=found,
        data=htmlsafe_json_dumps(_data(found), ensure_ascii=False, allow_nan=False),
        plotly=get_plotlyjs(),
    )
    atomic_write(path, text.encode())


def _data(found: Findings) -> dict[str, Any]:
    linear, log, vertical = axes(found.rows, found.points)
    prompts: dict[str, Any] = {}
    for own in found.samples.values():
        for sample in own:
            reference = found.references.get(sample.prompt_id)
            prompts[sample.prompt_id] = {
                "text": sample.prompt,
                "reference": reference and {"text": reference[0], "reward": f"{reference[1]:.3g}"},
            }
    return {
        "traces": traces(found.rows, found.points, [key_of(point) for point in found.points]),
        "x": linear,
        "x_log": log,
        "y": vertical,
        "reward_label": found.reward_label,
        "prompts": prompts,
        "samples": {
            key: [
                {"prompt": s.prompt_id, "text": s.completion, "reward": f"{s.reward:.3g}"}
                for s in own
            ]
            for key, own in found.samples.items()
        },
    }
