"""``report.html``: the frontier to look into, on one page that needs no network."""

import html
import json
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from alignlab.files import atomic_write
from alignlab.report.findings import Findings, key_of
from alignlab.report.sections import all_sections
from alignlab.report.table import frontier_sentences
from alignlab.report.traces import axes, traces
from alignlab.results.tables import BUDGETS


def write_page(path: Path, found: Findings) -> None:
    """Write the page; equal findings give an equal file."""
    from plotly.offline import get_plotlyjs

    listed = [row for row in found.rows if row.kl_budget in BUDGETS]
    seeds = sorted({point.seed for point in found.points})
    runs = len({(point.experiment, point.run_id) for point in found.points})
    page = Template((files("alignlab.report") / "page.html").read_text(encoding="utf-8"))
    text = page.substitute(
        title=html.escape(found.title),
        subtitle=f"{runs} runs, {len(found.points)} checkpoints, {len(seeds)} "
        f"seed{'s' * (len(seeds) != 1)}, {listed[0].n_prompts} prompts",
        sentences=_paragraphs(frontier_sentences(listed)),
        invitation="No completion chosen yet."
        if found.samples
        else "The completions of these runs were not kept.",
        tables=all_sections(found, listed),
        data=_embedded(_data(found)),
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


def _embedded(data: Any) -> str:
    """JSON that is safe in a script element, whatever its texts contain."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in text.split("\n"))
