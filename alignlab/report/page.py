"""``report.html``: the frontier to look into, on one page that needs no network."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2.utils import htmlsafe_json_dumps

from alignlab.files import atomic_write
from alignlab.pages import rendered
from alignlab.report.gather import Findings, key_of
from alignlab.report.parallel import parallel
from alignlab.report.sections import sections
from alignlab.report.table import frontier_sentences
from alignlab.report.traces import axes, share_traces, traces

REFRESH = 15  # seconds after which a page reads itself again, while runs are made


def write_page(path: Path, found: Findings) -> None:
    """Write the page; equal findings give an equal file."""
    from plotly.offline import get_plotlyjs

    listed = [row for row in found.rows if row.kl_budget in found.look.columns()]
    seeds = sorted({point.seed for point in found.points})
    runs = len({(point.experiment, point.run_id) for point in found.points})
    script, brush = (
        (files("alignlab.report") / name).read_text(encoding="utf-8")
        for name in ("page.js", "brush.js")
    )
    data = _data(found)
    text = rendered(
        "report/page.html",
        title=found.title,
        subtitle=f"{runs} runs, {len(found.points)} checkpoints, {len(seeds)} "
        f"seed{'s' * (len(seeds) != 1)}, {listed[0].n_prompts} prompts",
        sentences=frontier_sentences(listed, found.look).split("\n"),
        invitation="No completion chosen yet."
        if found.samples
        else "The completions of these runs were not kept.",
        sections=sections(found, listed),
        found=found,
        data=htmlsafe_json_dumps(data, ensure_ascii=False, allow_nan=False),
        plotly=get_plotlyjs(),
        has_shares=bool(data["share_traces"]),
        n_runs=len(data["parallel"]["runs"]),
        script=script + brush,
        refresh=REFRESH,
    )
    atomic_write(path, text.encode())


def _data(found: Findings) -> dict[str, Any]:
    prompts: dict[str, Any] = {}
    for own in found.samples.values():
        for sample in own:
            reference = found.references.get(sample.prompt_id)
            prompts[sample.prompt_id] = {
                "text": sample.prompt,
                "reference": reference and {"text": reference[0], "reward": f"{reference[1]:.3g}"},
            }
    return {
        "traces": traces(
            found.rows, found.points, [key_of(point) for point in found.points], found.look
        ),
        "share_traces": share_traces(found.rows, found.points, found.look),
        **axes(found.rows, found.points, found.look),
        "parallel": parallel(found),
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
