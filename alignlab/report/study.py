"""A study's results beside its frontier: tests against a base, own optima, costs, completions.

All of it is made from the tables of a results folder. What needs the pool of samples is written as
a table, too, so that a folder without the pool shows the same.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import yaml

from alignlab.evaluation.comparison import LEVEL
from alignlab.evaluation.effects import last_points
from alignlab.evaluation.fixed_points import (
    AIMS,
    GOLD,
    LEARNED,
    NoFixedPoint,
    Samples,
    Settings,
    own_optima,
)
from alignlab.evaluation.frontier import Frontier, common_prompts
from alignlab.evaluation.hull import hull_vertices, interpolate
from alignlab.evaluation.oracle import Optimum
from alignlab.evaluation.power import POWER
from alignlab.report.dots import draw_dots
from alignlab.report.look import EVERYTHING, Look
from alignlab.report.read import AGAINST, OWN_OPTIMA, Results
from alignlab.report.table import MISSING, PLUS_MINUS, Grid, aligned
from alignlab.results.csv_tables import read_table
from alignlab.results.pool import Pool
from alignlab.results.prompt_tables import PromptTable
from alignlab.results.run_records import CONFIGS
from alignlab.results.statistics import Floats
from alignlab.results.tables import (
    BUDGETS,
    PRIMARY,
    Against,
    Cost,
    FrontierRow,
    OwnOptimum,
    Point,
    Texts,
    write_rows,
)

OF_TEXTS = ("length", "entropy", "chosen_logp", "rejected_logp")
TUNING = "tuning"  # folder of the tables of trials, one for each stage
LEARNED_REWARD = "ModelReward"
NEAR = 0.9  # of the best trial's value: settings that are nearly as good
Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def write_study(
    folders: Sequence[Path],
    found: Results,
    frontier: Frontier,
    base: str,
    out: Path,
    look: Look = EVERYTHING,
) -> Frontier:
    """Write the study's tables and ``shares.png`` and ``.pdf`` into ``out``.

    Returns:
        The frontier with the own optima.
    """
    runs = read_runs(folders, found.points)
    own = frontier.own_optima
    rows = [row for row in frontier.rows if row.kl_budget in BUDGETS]
    if found.pool is not None:
        prompts = common_prompts(found.tables, found.pool)
        own = own_rows(found.pool.take(prompts), rows, runs)
    write_rows(out / AGAINST, Against, frontier.against)
    write_rows(out / OWN_OPTIMA, OwnOptimum, own)
    write_rows(out / "texts.csv", Texts, text_rows(found.tables, BUDGETS))
    write_rows(out / "costs.csv", Cost, cost_rows(found.points, runs, folders))
    draw_dots(rows, own, base, out, look)
    return frontier._replace(own_optima=own)


def study_text(base: str, frontier: Frontier, look: Look = EVERYTHING) -> str:
    """What ``alignlab frontier --base`` prints: the main table, and what the tests say."""
    table = against_grid(base, frontier.rows, frontier.against, frontier.own_optima, look)
    lines = [[label, *cells] for label, cells in zip(table.labels, table.cells, strict=True)]
    return (
        f"{aligned([[table.corner, *table.columns], *lines])}\n\n"
        f"{against_sentences(frontier.against, look)}"
    )


def read_runs(folders: Sequence[Path], points: Iterable[Point]) -> dict[str, list[dict[str, Any]]]:
    """Resolved configs of the runs of each objective, as far as they were kept."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for objective, own in last_points(points).items():
        paths = [f / CONFIGS / f"{point.run_id}.yaml" for point in own for f in folders]
        texts = [path.read_text(encoding="utf-8") for path in paths if path.exists()]
        runs[objective] = [yaml.load(text, yaml.CSafeLoader) for text in texts]
    return runs


def settings_of(config: Mapping[str, Any]) -> tuple[str, Settings]:
    """The class of a run's objective and its settings, ``reward`` as ``GOLD`` or ``LEARNED``."""
    model = config["model"]
    settings = dict(model.get("init_args") or {})
    reward = settings.pop("reward", None) or {}
    if _class(reward) == "BestOfN":  # of vBoN, around the reward that ranks
        settings["n"] = reward["init_args"]["n"]
        reward = reward["init_args"]["reward"]
    if reward:
        gold = reward["class_path"] in {own.get("class_path") for own in _probed(config)}
        known = LEARNED if _class(reward) == LEARNED_REWARD else GOLD if gold else None
        settings["reward"] = known or reward["class_path"]
    return _class(model), settings


def _class(entry: Mapping[str, Any]) -> str:
    return str(entry.get("class_path", "")).rpartition(".")[2]


def _probed(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    callbacks = (config.get("trainer") or {}).get("callbacks") or []
    found = [(callback.get("init_args") or {}).get("reward") for callback in callbacks]
    return [reward for reward in found if isinstance(reward, Mapping)]


def own_rows(pool: Pool, rows: Sequence[FrontierRow], runs: Runs) -> list[OwnOptimum]:
    """Each objective's own optimum at every budget where the optimum is known.

    Runs of an objective may differ in settings that move its own optimum; at each budget the best
    of them counts.

    Args:
        pool: Samples of the reference on the prompts of ``rows``.
        rows: The frontier.
        runs: See ``read_runs``.
    """
    samples = Samples.of(pool)
    cell = {(row.objective, row.kl_budget): row for row in rows}
    known = {
        budget: (row.reward, row.oracle_reward)
        for (name, budget), row in sorted(cell.items())
        if name == "reference" and row.reward is not None and row.oracle_reward is not None
    }
    found = []
    for objective, configs in sorted(runs.items()):
        best, why = _best_of(samples, configs, list(known))
        for budget, own in zip(known, best, strict=True):
            if own is None:
                text = why or "no strength has this KL, or the pool's samples are too few"
                found.append(OwnOptimum(objective=objective, kl_budget=budget, why=text))
                continue
            reference, optimal = known[budget]
            reward = float(own.reward.mean())
            share = (reward - reference) / (optimal - reference)
            reached = cell[objective, budget].oracle_efficiency
            found.append(
                OwnOptimum(
                    objective=objective,
                    kl_budget=budget,
                    reward=reward,
                    share=share,
                    ess=own.ess_reached,
                    kept=None if reached is None else reached / share,
                )
            )
    return found


def _best_of(
    samples: Samples, configs: Sequence[Mapping[str, Any]], budgets: Sequence[float]
) -> tuple[list[Optimum | None], str]:
    """The best own optimum at each budget among the settings that were run; why there is none."""
    distinct = {}
    for name, settings in map(settings_of, configs):
        reads = AIMS[name].reads if name in AIMS else {}
        own = {key: settings[key] for key in reads if key in settings}
        distinct[name, repr(sorted(own.items()))] = own
    best: list[Optimum | None] = [None] * len(budgets)
    why = "" if distinct else "no config of its runs was kept"
    for (name, _), own in sorted(distinct.items(), key=lambda item: item[0]):
        try:
            optima = own_optima(samples, name, own, budgets)
        except NoFixedPoint as reason:
            why = str(reason)
            continue
        for k, new in enumerate(optima):
            old = best[k]
            if new is not None and (old is None or new.reward.mean() > old.reward.mean()):
                best[k] = new
    return best, why


def text_rows(tables: Sequence[PromptTable], budgets: Sequence[float]) -> list[Texts]:
    """How long, how varied and how likely completions are along each objective's frontier.

    Mean over its seeds, for each between the checkpoints on its hull, from the first of them on; a
    budget that a seed does not have is left out.
    """
    grouped: dict[str, dict[int, list[PromptTable]]] = defaultdict(lambda: defaultdict(list))
    for table in sorted(tables, key=lambda table: (table.run_id, table.step)):
        grouped[table.objective][table.seed].append(table)
    rows = []
    for objective, seeds in sorted(grouped.items()):
        own = np.array([_along_the_hull(tables, budgets) for tables in seeds.values()])
        for k, budget in enumerate(budgets):
            measured = own[~np.isnan(own[:, k, 0]), k]  # of the seeds that have the budget
            if len(measured):
                named: dict[str, Any] = {
                    name: None if np.isnan(value) else float(value)
                    for name, value in zip(OF_TEXTS, measured.mean(0), strict=True)
                }
                rows.append(
                    Texts(objective=objective, kl_budget=budget, n_seeds=len(measured), **named)
                )
    return rows


def _along_the_hull(tables: Sequence[PromptTable], budgets: Sequence[float]) -> Floats:
    """``[budgets, OF_TEXTS]`` of one seed; NaN outside of its checkpoints, or not measured."""
    nothing = dict.fromkeys(OF_TEXTS, float("nan"))
    means = [nothing | table.scores.means() for table in tables]
    means.sort(key=lambda mean: (mean["kl"], -mean["reward"]))  # the hull's origin first
    kl, reward = (np.array([[mean[name] for mean in means]]) for name in ("kl", "reward"))
    hull = hull_vertices(kl, reward)[0]
    at = np.array(budgets)
    outside = (at < kl[0, hull[0]]) | (at > kl[0, hull[-1]])
    columns = []
    for name in OF_TEXTS:
        values = np.array([[mean[name] for mean in means]])
        columns.append(np.where(outside, np.nan, interpolate(kl[:, hull], values[:, hull], at)[0]))
    return np.stack(columns, axis=1)


def cost_rows(points: Sequence[Point], runs: Runs, folders: Sequence[Path]) -> list[Cost]:
    """What each objective's runs and trials cost, and how much its settings matter."""
    trials = _trials(folders, points)
    rows = []
    for objective, own in sorted(last_points(points).items()):
        lengths = mean(point.length for point in points if point.objective == objective)
        drawn = [_completions(config) for config in runs.get(objective, ())]
        values = sorted(float(trial["value"]) for trial in trials.get(objective, ()))
        best = values[-1] if values else None
        cpu = [float(trial["cpu_seconds"]) for trial in trials.get(objective, ())]
        rows.append(
            Cost(
                objective=objective,
                runs=len(own),
                seconds=mean(point.seconds for point in own),
                cpu_seconds=mean(cpu) if cpu else None,
                generated_tokens=mean(drawn) * lengths if drawn else None,
                trials=len(values),
                trial_seconds=sum(float(trial["seconds"]) for trial in trials.get(objective, ())),
                best=best,
                median=median(values) if values else None,
                worst=values[0] if values else None,
                near_best=None
                if best is None
                else sum(value >= NEAR * best for value in values) / len(values),
            )
        )
    return rows


def _completions(config: Mapping[str, Any]) -> int:
    """Completions that a run samples in its training; 0 where it reads pairs."""
    data, trainer = config.get("data") or {}, config.get("trainer") or {}
    own = data.get("init_args") or {}
    if "rollout_size" not in own:
        return 0
    steps = trainer.get("max_steps", 0) * trainer.get("accumulate_grad_batches", 1)
    phases = -(-steps * own["batch_size"] // (own["rollout_size"] * own.get("inner_epochs", 4)))
    return int(phases * own["rollout_size"] * own.get("samples_per_prompt", 1))


def _trials(folders: Sequence[Path], points: Sequence[Point]) -> dict[str, list[dict[str, str]]]:
    """The trials behind each objective's settings: those of the stages that its runs belong to."""
    found: dict[str, list[dict[str, str]]] = {}
    names = {point.run_id: point.objective for point in points}
    for folder in folders:
        for path in sorted((folder / TUNING).glob("*.csv")):
            own = {name for run, name in names.items() if f"{run}-".startswith(f"{path.stem}-")}
            for name in sorted(own or {path.stem}):
                found.setdefault(name, []).extend(read_table(path, min_rows=0))
    return found


def against_grid(
    base: str,
    rows: Sequence[FrontierRow],
    tests: Sequence[Against],
    own: Sequence[OwnOptimum],
    look: Look = EVERYTHING,
) -> Grid:
    """The study's main table: everything at KL ``PRIMARY``, the largest share first."""
    at = {row.objective: row for row in look.shown(rows) if row.kl_budget == PRIMARY}
    test = {row.objective: row for row in tests if row.kl_budget == PRIMARY}
    aim = {row.objective: row for row in own if row.kl_budget == PRIMARY}
    names = [name for name in at if name == base or name in test]
    names.sort(key=lambda name: (-(at[name].oracle_efficiency or -9.0), name))
    cells, bold = [], set()
    for i, name in enumerate(names):
        row = at[name]
        tested = test.get(name, Against(objective=name, base=base, kl_budget=PRIMARY))
        aimed = aim.get(name, OwnOptimum(objective=name, kl_budget=PRIMARY))
        cells.append(
            [
                _pm(row.oracle_efficiency, row.efficiency_hi),
                _number(aimed.share),
                _number(aimed.kept),
                _pm(tested.difference, tested.hi),
                _p(tested.p),
                _p(tested.p_holm),
                str(tested.seeds_needed or MISSING),
            ]
        )
        if tested.p_holm is not None and tested.p_holm < LEVEL:
            bold.add((i, 3))
    head = ["share of the gain", "own optimum's share", "kept of it", f"less {look.label(base)}"]
    head += ["p", "p (Holm)", "seeds to resolve"]
    labels = [look.label(name) for name in names]
    return Grid(head, labels, cells, frozenset(bold), f"at KL {PRIMARY:g}")


def against_caption(base: str) -> str:
    """How to read ``against_grid``."""
    return (
        f"Everything at KL {PRIMARY:g}, mean and half of its 95 % interval, paired over prompts "
        f"and seeds. Bold: different from {base} after Holm's correction at {100 * LEVEL:g} %, "
        "over all objectives that reach this KL. Own optimum: what the objective would keep with "
        "unlimited data and perfect optimisation. Seeds to resolve: where the difference is not "
        f"resolved, how many would resolve one of this size with a chance of {100 * POWER:g} %, at "
        f"the strictest level of the correction; {MISSING} where seeds alone would not."
    )


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"


def _p(value: float | None) -> str:
    return MISSING if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _pm(value: float | None, high: float | None) -> str:
    if value is None or high is None:
        return MISSING
    return f"{value:.3f}{PLUS_MINUS}{high - value:.3f}"


def against_sentences(tests: Sequence[Against], look: Look = EVERYTHING) -> str:
    """Which objectives differ from the base at KL ``PRIMARY``, and what the tests are."""
    tested = [row for row in tests if row.p_holm is not None]
    if not tested:
        return (
            f"No other objective reaches KL {PRIMARY:g} together with the base: nothing is tested."
        )
    base = look.label(tested[0].base)
    sides: dict[str, list[str]] = {"above": [], "below": [], "not resolved from": []}
    for row in tested:
        assert row.p_holm is not None
        assert row.difference is not None
        above = "above" if row.difference > 0 else "below"
        sides[above if row.p_holm < LEVEL else "not resolved from"].append(
            look.label(row.objective)
        )
    lines = [
        f"{side.capitalize()} {base}: {', '.join(names) or 'none'}."
        for side, names in sides.items()
    ]
    lines.append(
        f"Tested at KL {PRIMARY:g} only: {len(tested)} objectives, Holm's correction, "
        f"{100 * LEVEL:g} %. Other budgets in against.csv are descriptive."
    )
    return "\n".join(lines)
