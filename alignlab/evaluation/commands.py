"""What the command line and the pipeline call: ``alignlab frontier`` and the pool's stage."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.bounds import Amount, Count, Seed
from alignlab.errors import ConfigError
from alignlab.evaluation.derived import Comparison, Effect, Hypervolume, Importance, write_derived
from alignlab.evaluation.tables import BUDGETS, FrontierRow, Point, write_frontier

if TYPE_CHECKING:
    from alignlab.report.findings import Findings

EXAMPLE = "alignlab frontier results/quickstart"
CURVE_POINTS = 24  # budgets between those of the table, for smooth lines
LARGEST_SHOWN = 25.0  # nats; a run that left for KL 100 should not squeeze all others


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``alignlab frontier``."""
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULTS_DIR",
        help="folders with a points.csv, or runs of alignlab fit",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where table and figures go (default: the folder; for several, 'frontier' beside "
        "the first)",
    )


def run(args: argparse.Namespace) -> int:
    """Carry out ``alignlab frontier``; returns the exit status."""
    frontier_command(args.results, args.out)
    return 0


def frontier_command(
    dirs: Sequence[Path], out: Path | None = None, *, reward_label: str = "gold reward"
) -> None:
    """Write ``frontier.csv``, figures, the tables beside it and ``report.html``; print the table.

    ``curves.csv`` has the same columns at more budgets: what the figure's lines are drawn from.
    ``comparisons.csv``, ``hypervolumes.csv``, ``effects.csv`` and ``importances.csv``: see
    ``derived``. ``samples.csv``: texts from both ends of each objective's frontier, as far as
    checkpoints still have theirs.

    Args:
        dirs: Results folders; several are merged.
        out: Where the files go. Default: the folder itself, or ``frontier`` beside the first of
            several.
        reward_label: Name and unit of the reward in the figure.

    Raises:
        DataError: Folders that cannot be read or do not belong together.
        ArithmeticError: An efficiency lies above 1 beyond its interval. The files are written,
            with that cell empty.
    """
    from alignlab.evaluation.csv_tables import write_table
    from alignlab.evaluation.findings import gather, sample_rows
    from alignlab.evaluation.frontier import build_frontier
    from alignlab.evaluation.results import read_results
    from alignlab.report.figure import draw_frontier
    from alignlab.report.page import write_page
    from alignlab.report.table import frontier_sentences, frontier_table

    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: a file stands there. Name another folder with --out.")
    found = read_results(dirs)
    out = out or (dirs[0] if len(dirs) == 1 else dirs[0].parent / "frontier")
    budgets = _curve_budgets(found.points)
    frontier = build_frontier(found.tables, found.pool, budgets=budgets)
    rows = [row for row in frontier.rows if row.kl_budget in BUDGETS]
    write_frontier(out / "frontier.csv", rows)
    write_frontier(out / "curves.csv", frontier.rows)
    title = ", ".join(sorted({point.experiment for point in found.points}))
    draw_frontier(
        frontier.rows,
        found.points,
        out,
        title=f"{title}: reward against KL",
        reward_label=reward_label,
    )
    page = gather(
        dirs,
        found,
        frontier,
        out=out,
        title=f"{title}: reward against KL",
        reward_label=reward_label,
    )
    _write_derived(out, page)
    if page.samples:
        write_table(out / "samples.csv", sample_rows(page))
    write_page(out / "report.html", page)
    print(f"{title}: {len(found.points)} checkpoints, {rows[0].n_prompts} prompts\n")
    print(frontier_table(rows))
    sentences = [frontier_sentences(rows), _short_of_budgets(rows, found.points)]
    print("\n" + "\n".join(filter(None, sentences)))
    print(f"\nTable and figure: {out}/frontier.csv, .png, .svg")
    print(f"To look into: {out}/report.html")
    wrong = [str(row) for row in frontier.impossible if row.kl_budget in BUDGETS]
    if wrong:
        raise ArithmeticError(
            f"impossible efficiency: {'; '.join(wrong)}. Check that policies and pool share the "
            "reward's scale, the prompts, the reference and the sampling settings."
        )


def _short_of_budgets(rows: Sequence[FrontierRow], points: Sequence[Point]) -> str:
    """What to do where no trained objective reaches any budget of the table."""
    names = {point.objective for point in points}
    if any(row.reward is not None for row in rows if row.objective in names):
        return ""
    farthest = max(points, key=lambda point: point.kl)
    return (
        f"No run reaches KL {min(BUDGETS):g}, the smallest budget: the farthest is "
        f"{farthest.run_id} ({farthest.objective}) with KL {farthest.kl:.2g} after step "
        f"{farthest.step}. Train longer, raise the learning rate, or lower beta or kl_coef."
    )


def _write_derived(out: Path, page: "Findings") -> None:
    for row_type, rows in (
        (Comparison, page.comparisons),
        (Hypervolume, page.hypervolumes),
        (Effect, page.effects),
        (Importance, page.importances),
    ):
        write_derived(out / f"{row_type.__name__.lower()}s.csv", row_type, rows)


def draw_pool(
    out: Path,
    *,
    reference: str,
    prompts: str,
    reward: Mapping[str, Any] | str,
    samples: Count,
    max_new_tokens: Count,
    seed: Seed,
    limit: Count | None = None,
    proxy: Mapping[str, Any] | str | None = None,
    proposals: Mapping[str, str] | None = None,
    proposal_samples: Amount = 0,
    batch_size: Count = 256,
) -> None:
    """Sample the oracle's pool and write ``out/pool.parquet``: a stage of the pipeline.

    Args:
        out: Folder to write to.
        reference: Folder of the reference policy.
        prompts: The evaluation's prompts, as the probe reads them.
        reward: The gold reward: ``class_path`` and ``init_args``.
        samples: Reference samples per prompt. Effective sample size falls about like exp(KL), and
            best-of-n needs 16 n.
        max_new_tokens: As in the probe.
        seed: Of the sampling noise.
        limit: As in the probe.
        proxy: A learned reward, for best-of-n ranked by it.
        proposals: Folders of trained policies to sample from as well, by name: they carry the
            optimum to larger KL.
        proposal_samples: Samples per prompt from each of them.
        batch_size: Completions side by side.
    """
    from alignlab.evaluation.pool import POOL_NAME
    from alignlab.evaluation.pool_sampling import build_pool
    from alignlab.evaluation.prompts import load_prompts
    from alignlab.models.policy import Policy
    from alignlab.rewards.build import build_reward

    policy = Policy.load_for_eval(reference)
    pool = build_pool(
        policy,
        load_prompts(prompts, policy.tokenizer, limit=limit),
        build_reward(reward),
        samples=samples,
        max_new_tokens=max_new_tokens,
        seed=seed,
        stop_ids=policy.stop_ids,
        proposals={k: Policy.load_for_eval(v) for k, v in (proposals or {}).items()},
        proposal_samples=proposal_samples,
        proxy=None if proxy is None else build_reward(proxy),
        batch_size=batch_size,
    )
    pool.save(out / POOL_NAME)


def _curve_budgets(points: Sequence[Point]) -> list[float]:
    """The table's budgets and others, evenly spaced on the figure's square-root axis."""
    largest = min(max(point.kl for point in points), LARGEST_SHOWN)
    dense = (largest * (k / CURVE_POINTS) ** 2 for k in range(1, CURVE_POINTS + 1))
    return sorted({*BUDGETS, *(round(budget, 4) for budget in dense if budget > 0.01)})
