"""``alignlab``: the command line. A subcommand's imports happen when it runs."""

import argparse
import os
import re
import select
import shlex
import sys
import tempfile
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignlab import __version__
from alignlab.capacity import command as plan_command
from alignlab.chat import command as chat_command
from alignlab.check_data import command as check_data_command
from alignlab.claims import command as claims_command
from alignlab.doctor import command as doctor_command
from alignlab.errors import ConfigError, DataError, failure, is_full
from alignlab.records import command as records_command
from alignlab.report import command as frontier_command
from alignlab.report import table_command
from alignlab.rollouts import command as sample_command
from alignlab.start import compare as compare_command
from alignlab.start import init as init_command
from alignlab.winrate import command as winrate_command

SUCCESS, FAILURE, BAD_INPUT = 0, 1, 2
INTERRUPTED = 130  # 128 + SIGINT
UNREAD = 141  # 128 + SIGPIPE
COMMANDS: tuple[tuple[str, str, Any], ...] = (  # those with a module of their own
    ("init", "write a folder of short files to start from", init_command),
    ("compare", "compare objectives on your own preference pairs", compare_command),
    (
        "check-data",
        "show what training would read from a file, and what is wrong with it",
        check_data_command,
    ),
    ("doctor", "check a stage before it trains", doctor_command),
    ("plan", "estimate memory, time and price of a stage before it runs", plan_command),
    ("sample", "write completions of prompts with a policy", sample_command),
    ("chat", "talk to a policy, or to two side by side", chat_command),
    ("frontier", "print and draw reward against KL", frontier_command),
    ("table", "print a frontier for a paper or a README", table_command),
    ("claims", "decide from tables which claims of papers and lectures hold", claims_command),
    (
        "winrate",
        "measure how often a judge prefers a policy's completions, at each temperature",
        winrate_command,
    ),
)


def main(words: Sequence[str] | None = None) -> None:
    """Run one subcommand and exit: 0 success, 2 bad call, config or data, 1 failure.

    If the reader of its output has ended, as in ``alignlab frontier DIR | head``, the command ends
    without a message, like other Unix tools.
    """
    try:
        try:
            sys.exit(_status(list(sys.argv[1:] if words is None else words)))
        finally:
            print(end="", flush=True)  # what is buffered fails here, and not while Python ends
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(UNREAD)


def _status(words: list[str]) -> int:
    """Run one subcommand; its exit status.

    Raises:
        BrokenPipeError: Nobody reads the output.
    """
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a class of the user's; last, so that it hides no library
    # FutureWarnings address the authors of libraries, not users.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        if words[:1] in (["fit"], ["validate"]):
            # LightningCLI builds their options from the signatures of models and data.
            status = _train(words[0], words[1:])
        else:
            args = _parsed(words)
            status = args.command(args)
    except (ConfigError, DataError) as error:
        status = _tell(error, str(error), BAD_INPUT, debug)
    except KeyboardInterrupt as error:
        continues = words[:1] in (["run"], ["sweep"], ["winrate"], ["compare"])
        more = f"; continue with: alignlab {shlex.join(words)}" if continues else ""
        status = _tell(error, str(error) or f"interrupted{more}", INTERRUPTED, debug)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            raise
        message = failure(error) + ("" if is_full(error) else " (--debug shows where)")
        status = _tell(error, message, FAILURE, debug)
    return status


def _is_unread() -> bool:
    """Whether the reader of standard output or standard error is gone."""
    streams = select.poll()
    streams.register(1, 0)
    streams.register(2, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in streams.poll(0))


def _tell(error: BaseException, message: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"error: {message}", file=sys.stderr)
    return status


def _parsed(words: list[str]) -> argparse.Namespace:
    """Parse the options; ``plan`` and ``doctor`` may have more, which are settings of a stage."""
    parser = _parser()
    args, settings = parser.parse_known_args(words)
    if settings and args.command not in (plan_command.run, doctor_command.run):
        parser.error(f"unrecognized arguments: {' '.join(settings)}")
    args.settings = settings
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alignlab",
        description="Align language models and measure the reward-KL frontier.",
        epilog="Example: alignlab run experiments/quickstart",
    )
    parser.add_argument("--version", action="version", version=f"alignlab {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_sweep(commands)
    for name, what, command in COMMANDS:
        own = _add(commands, name, what, command.EXAMPLE)
        command.add_arguments(own)
        own.set_defaults(command=_frontier if name == "frontier" else command.run)
    _add_export(commands)
    _add_replay(commands)
    _add_overoptimisation(commands)
    _add_records(commands)
    stages = _add(
        commands, "stages", "list what 'call:' in a pipeline.yaml may name", "alignlab stages"
    )
    stages.set_defaults(command=_stages)
    for name, what in (("fit", "train one stage"), ("validate", "validate one stage")):
        commands.add_parser(name, help=f"{what} from its YAML; alignlab {name} --help")
    return parser


def _add_records(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for name, add, what, example in records_command.COMMANDS:
        add(_add(commands, name, what, example))


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = _add(
        commands,
        "run",
        "run an experiment's stages; those that are up to date are skipped",
        "alignlab run experiments/imdb --scale small --seeds 0,1,2",
    )
    run.add_argument("experiment", type=_path, metavar="EXPERIMENT_DIR")
    run.add_argument("--scale", help="overlay EXPERIMENT_DIR/scales/NAME.yaml", metavar="NAME")
    run.add_argument(
        "--results",
        type=_path,
        metavar="DIR",
        help="where tables, figures and weights go (default: results/<experiment>[-<scale>])",
    )
    run.add_argument(
        "--seeds",
        type=_whole_numbers,
        metavar="LIST",
        help="such as 0,1,2 (default: those of the pipeline)",
    )
    run.add_argument(
        "--only",
        metavar="STAGES",
        help="run only these stages and those they need: dpo or pool,dpo,frontier",
    )
    run.add_argument("--force", action="store_true", help="also run what is up to date")
    run.add_argument(
        "--smoke",
        action="store_true",
        help="run every stage with tiny models, in results/<experiment>[-<scale>]-smoke",
    )
    run.add_argument("--workers", type=_positive, default=2, help="worker processes (default: 2)")
    run.set_defaults(command=_run)


def _add_sweep(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sweep = _add(
        commands,
        "sweep",
        "try settings of an experiment's stages; the same command continues a stopped sweep",
        "alignlab sweep sweeps/quickstart.yaml --workers 2",
    )
    sweep.add_argument("sweep", type=_path, metavar="SWEEP.yaml")
    sweep.add_argument("--workers", type=_positive, default=2, help="worker processes (default: 2)")
    sweep.add_argument(
        "--storage",
        metavar="URL",
        help="where the study is kept: sqlite:///FILE, journal:///FILE or "
        "postgresql://USER@HOST/DATABASE (default: a SQLite file in the results folder)",
    )
    sweep.add_argument(
        "--results",
        type=_path,
        metavar="DIR",
        help="where tables, figures and weights go (default: results/sweep-<name>)",
    )
    sweep.add_argument(
        "--dry-run",
        action="store_true",
        help="check every key, print the trials and an estimate of time and disk",
    )
    sweep.add_argument(
        "--add",
        action="append",
        default=[],
        metavar="KEY=VALUE,...",
        help="add a point to the study, such as beta=0.5,lr=1.0e-3, and exit; a running call "
        "takes it up; may be given again",
    )
    sweep.add_argument(
        "--submit",
        choices=("local", "slurm"),
        help="start --jobs calls of this sweep on one study, here or as a SLURM array; wait for "
        "them and draw the frontier",
    )
    sweep.add_argument("--jobs", type=_positive, help="jobs to submit (default: 2)")
    sweep.add_argument(
        "--job",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a submitit setting of the jobs, such as timeout_min=600 or slurm_partition=gpu",
    )
    sweep.set_defaults(command=_sweep)


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = _add(
        commands,
        "export",
        "write a run's model as a Hugging Face folder with a model card, and check it",
        "alignlab export lightning_logs/version_0 --merge --out my-model",
    )
    export.add_argument(
        "run", type=_path, metavar="RUN", help="folder of alignlab fit, or of a stage that trains"
    )
    export.add_argument("--merge", action="store_true", help="merge adapters into the weights")
    export.add_argument(
        "--ckpt",
        type=_path,
        metavar="FILE",
        help="export the weights of this checkpoint (default: the finished model)",
    )
    export.add_argument("--out", type=_path, metavar="DIR", help="default: RUN/export")
    export.set_defaults(command=_export)


def _add_overoptimisation(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> None:
    own = _add(
        commands,
        "overoptimisation",
        "refit and redraw gold reward against learned reward from an experiment's tables",
        "alignlab overoptimisation results/quickstart-overoptimisation",
    )
    own.add_argument("results", type=_path, metavar="RESULTS_DIR", help="its results folder")
    own.set_defaults(command=_overoptimisation)


def _add_replay(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    replay = _add(
        commands,
        "replay",
        "rerun a saved step whose loss or gradient was not finite, and find the first bad tensor",
        "alignlab replay lightning_logs/version_0/non_finite/000013.json",
    )
    replay.add_argument("step", type=_path, metavar="FILE", help="the step's .json file")
    replay.add_argument(
        "--weights",
        type=_path,
        metavar="FILE",
        help="a checkpoint or .safetensors file (default: the weights saved with the step)",
    )
    replay.set_defaults(command=_replay)


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    what: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=what, description=f"{what[0].upper()}{what[1:]}.", epilog=f"Example: {example}"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _path(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"expected a path, got {text!r}")
    return Path(text)


def _whole_numbers(text: str) -> list[int]:
    if not re.fullmatch("[0-9]{1,10}(,[0-9]{1,10})*", text):
        raise argparse.ArgumentTypeError(f"expected numbers such as 0,1,2, got {text!r:.60}")
    return [int(part) for part in text.split(",")]


def _positive(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to 9999, got {text!r}")
    return int(text)


def _run(args: argparse.Namespace) -> int:
    from alignlab.pipeline import run_experiment

    return run_experiment(
        args.experiment,
        scale=args.scale,
        results=args.results,
        seeds=args.seeds,
        only=args.only,
        force=args.force,
        smoke=args.smoke,
        workers=args.workers,
    )


def _sweep(args: argparse.Namespace) -> int:
    if args.submit is None and (args.jobs or args.job):
        raise ConfigError("--jobs and --job need --submit. Add --submit local or --submit slurm.")
    if args.add:
        if args.submit or args.dry_run:
            raise ConfigError("--add cannot be combined with --dry-run or --submit. Leave one out.")
        from alignlab.sweep.add import add_points

        return add_points(args.sweep, args.add, results=args.results, storage=args.storage)
    if args.submit is not None and not args.dry_run:
        from alignlab.sweep.submit import submit_sweep

        return submit_sweep(
            args.sweep,
            cluster=args.submit,
            jobs=args.jobs or 2,
            settings=args.job,
            results=args.results,
            workers=args.workers,
            storage=args.storage,
        )
    from alignlab.sweep import run_sweep

    return run_sweep(
        args.sweep,
        results=args.results,
        workers=args.workers,
        storage=args.storage,
        dry_run=args.dry_run,
    )


def _export(args: argparse.Namespace) -> int:
    from alignlab.export import export

    return export(args.run, merge=args.merge, ckpt=args.ckpt, out=args.out)


def _replay(args: argparse.Namespace) -> int:
    from alignlab.training.replay import replay

    return replay(args.step, args.weights)


def _overoptimisation(args: argparse.Namespace) -> int:
    from alignlab.stages.overoptimisation import draw_again

    draw_again(args.results)
    return SUCCESS


def _stages(args: argparse.Namespace) -> int:
    from alignlab.stages.listing import listed, stage_functions

    print(listed(list(stage_functions())))
    return SUCCESS


def _frontier(args: argparse.Namespace) -> int:
    from alignlab.training.lone_run import as_results

    given = args.results
    args.results = as_results(given)
    if args.results != given and args.out is None and len(given) == 1:
        args.out = given[0]  # one folder of runs: its frontier goes there
    return frontier_command.run(args)


def _train(command: str, words: list[str]) -> int:
    if not words or {"-h", "--help"} & set(words):
        from alignlab.training.help import show

        show(command, words)
        return SUCCESS
    own = argparse.ArgumentParser(f"alignlab {command}", add_help=False, allow_abbrev=False)
    own.add_argument("--resume", nargs="?", type=Path, const=Path())
    typed = [command, *words]
    given, words = own.parse_known_args(words)
    from alignlab.plan.address import fit_words

    with tempfile.TemporaryDirectory() as temporary:
        words = fit_words(command, words, Path(temporary))
        from alignlab.doctor.examine import Doctor
        from alignlab.training import fit

        if command == "fit":
            fit.fit(words, given.resume, typed, [Doctor()])
        else:
            fit.validate(words, given.resume)
    return SUCCESS


if __name__ == "__main__":
    main()
