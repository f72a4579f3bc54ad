"""``alignlab winrate``: how often a judge prefers a policy, over sampling temperatures."""

import argparse
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.errors import ConfigError

if TYPE_CHECKING:
    from alignlab.winrate.contest import Contest
    from alignlab.winrate.matches import Judge

TEMPERATURES = "0,0.25,0.5,0.75,1"
EXAMPLE = (
    "alignlab winrate --policy dpo=results/quickstart/stages/dpo/beta1.3-s0 "
    "--against sft=results/quickstart/stages/sft/all "
    "--prompts results/quickstart/stages/world/all/prompts_eval.jsonl "
    "--reward alignlab.rewards.rule.ToySentiment --max-new-tokens 20 --out winrate"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``alignlab winrate``."""
    parser.add_argument(
        "--policy",
        action="append",
        required=True,
        metavar="[NAME=]MODEL[,MODEL]",
        help="folder or hub id, a run of alignlab fit, or EXPERIMENT:STAGE; several are the "
        "seeds of one policy; may be repeated",
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="OPPONENT",
        help="chosen, rejected or completion: a column of the prompts' file; else a policy as "
        "above; may be repeated (default: the policies are compared with each other)",
    )
    parser.add_argument(
        "--prompts", required=True, metavar="FILE", help="held-out pairs or prompts, or a hub id"
    )
    parser.add_argument("--split", metavar="NAME", help="split of the prompts, such as test")
    parser.add_argument(
        "--limit", type=int, default=256, metavar="N", help="the first N prompts (default: 256)"
    )
    _add_sampling(parser)
    _add_judges(parser)
    parser.add_argument("--scale", metavar="NAME", help="scale of EXPERIMENT:STAGE")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="results folder of EXPERIMENT:STAGE"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="where tables, figure and page go; a stopped call continues from what is there",
    )


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--temperatures",
        type=_numbers,
        default=TEMPERATURES,
        metavar="LIST",
        help="sampling temperatures; 0 is greedy (default: 0,0.25,0.5,0.75,1)",
    )
    parser.add_argument(
        "--against-temperature",
        type=float,
        metavar="T",
        help="temperature of opponents that are policies (default: that of the policy)",
    )
    parser.add_argument(
        "--samples", type=int, default=1, metavar="N", help="samples per prompt and temperature"
    )
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling noise")
    parser.add_argument("--batch-size", type=int, default=256, help="completions per batch")


def _add_judges(parser: argparse.ArgumentParser) -> None:
    judge = parser.add_mutually_exclusive_group(required=True)
    judge.add_argument(
        "--reward",
        metavar="SPEC",
        help="the higher score wins: length, my_reward.py:FUNCTION, a class path, the folder of a "
        "scorer, or a sum such as 0.7*FIRST + 0.3*SECOND",
    )
    judge.add_argument(
        "--endpoint",
        metavar="URL",
        help="ask a model behind this OpenAI-compatible API, such as http://localhost:8000/v1",
    )
    judge.add_argument("--person", action="store_true", help="ask you, in this terminal")
    served = parser.add_argument_group("with --endpoint")
    served.add_argument("--judge-model", metavar="NAME", help="name of the judge's model")
    served.add_argument(
        "--question",
        metavar="NAME",
        help="tldr-concise, tldr-simple or dialogue (of the DPO paper), or a file with {prompt}, "
        "{a} and {b}",
    )
    served.add_argument(
        "--api-key-env",
        metavar="NAME",
        help="environment variable with the key (default: OPENAI_API_KEY)",
    )
    served.add_argument(
        "--price-in", type=_price, metavar="DOLLARS", help="price of a million input tokens"
    )
    served.add_argument(
        "--price-out", type=_price, metavar="DOLLARS", help="price of a million output tokens"
    )
    served.add_argument("--concurrency", type=int, metavar="N", help="calls at a time (default: 8)")
    served.add_argument(
        "--request",
        metavar="JSON",
        help='further request fields: {"max_tokens": null, "max_completion_tokens": 512}',
    )
    served.add_argument("--yes", action="store_true", help="do not ask before calls are made")


def run(args: argparse.Namespace) -> int:
    """Hold the contest and print the table; returns the exit status.

    Raises:
        ConfigError: An impossible setting, model or judge.
        DataError: Prompts or scores that cannot be used.
    """
    judge = _judge(args)
    from alignlab.report.win_rates import PAGE, WIN_RATES, win_rate_sentences, win_rate_table
    from alignlab.winrate.contest import hold

    rows = hold(_contest(args), judge, args.out)
    print(win_rate_table(rows))
    print("\n" + "\n".join(win_rate_sentences(rows)))
    print(f"\nTable and figure: {args.out / WIN_RATES}, winrate.png, .svg, .pdf")
    print(f"Texts side by side: {args.out / PAGE}")
    return 0


def _contest(args: argparse.Namespace) -> "Contest":
    from alignlab.winrate.contest import Contest
    from alignlab.winrate.policies import COLUMNS, read_contender
    from alignlab.winrate.sampling import Settings

    def contender(text: str) -> Any:
        return read_contender(text, scale=args.scale, results=args.results)

    return Contest(
        policies=[contender(text) for text in args.policy],
        against=[text if text in COLUMNS else contender(text) for text in args.against],
        prompts=args.prompts,
        split=args.split,
        limit=args.limit,
        temperatures=args.temperatures,
        against_temperature=args.against_temperature,
        sampling=Settings(args.samples, args.max_new_tokens, args.seed, args.batch_size),
    )


def _judge(args: argparse.Namespace) -> "Judge":
    options = ("judge_model", "question", "api_key_env", "price_in", "price_out", "concurrency",
               "request", "yes")  # fmt: skip
    given = [f"--{name.replace('_', '-')}" for name in options if getattr(args, name)]
    if given and not args.endpoint:
        raise ConfigError(f"{', '.join(given)}: only with --endpoint. Leave it out.")
    if args.reward:
        from alignlab.winrate.scored import RewardJudge

        return RewardJudge(args.reward)
    if args.person:
        from alignlab.winrate.person import Person

        return Person()
    return _served(args)


def _served(args: argparse.Namespace) -> "Judge":
    from alignlab.winrate.endpoint import KEY, Endpoint, EndpointJudge
    from alignlab.winrate.questions import read_question

    if not args.judge_model or not args.question:
        raise ConfigError("--endpoint needs --judge-model and --question.")
    if (args.price_in is None) != (args.price_out is None):
        raise ConfigError("give both --price-in and --price-out, or neither.")
    if args.concurrency is not None and not 1 <= args.concurrency <= 256:
        raise ConfigError(f"--concurrency must be 1 to 256, got {args.concurrency}.")
    key = os.environ.get(args.api_key_env or KEY)
    if args.api_key_env and not key:
        raise ConfigError(f"--api-key-env {args.api_key_env}: no such environment variable.")
    settings: dict[str, Any] = {} if args.concurrency is None else {"concurrency": args.concurrency}
    if args.price_in is not None:
        settings["prices"] = (args.price_in, args.price_out)
    endpoint = Endpoint(
        url=args.endpoint,
        model=args.judge_model,
        question=read_question(args.question),
        key=key,
        request=_object(args.request),
        **settings,
    )
    return EndpointJudge(endpoint, _confirmed if not args.yes else lambda: True)


def _object(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"--request {text}: expected a JSON object.")
    return found


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("nobody can confirm the calls here. Add --yes to make them.")
    return input("Make these calls? [y/N] ").strip().lower() in ("y", "yes")


def _numbers(text: str) -> list[float]:
    numbers = re.fullmatch(r"\d*\.?\d+(,\d*\.?\d+)*", text)
    if numbers is None:
        raise argparse.ArgumentTypeError(f"expected numbers such as 0,0.5,1, got {text!r}")
    return [float(part) for part in text.split(",")]


def _price(text: str) -> float:
    price = float(text)
    if not 0 <= price < math.inf:
        raise argparse.ArgumentTypeError(f"expected dollars, got {text!r}")
    return price
