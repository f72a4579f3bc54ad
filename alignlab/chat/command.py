"""The command ``alignlab chat``."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.errors import ConfigError
from alignlab.files import check_writable

if TYPE_CHECKING:
    from alignlab.chat.speaker import Speaker

EXAMPLE = "alignlab chat lightning_logs/version_0 --beside Qwen/Qwen3-0.6B --save my_pairs.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's options."""
    parser.add_argument(
        "policy",
        metavar="RUN",
        help="a run's folder, EXPERIMENT:STAGE, or a model's folder or hub id",
    )
    parser.add_argument("--beside", metavar="RUN", help="a second policy, in a column of its own")
    parser.add_argument("--scale", metavar="NAME", help="scale of EXPERIMENT:STAGE")
    parser.add_argument("--system", metavar="TEXT", help="the system message")
    parser.add_argument(
        "--tools",
        type=Path,
        metavar="FILE",
        help="JSON list of schemas of tools, for the chat template; calls are shown, not executed",
    )
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N")
    parser.add_argument("--temperature", type=float, default=0.7, help="0 is greedy")
    parser.add_argument("--top-p", type=float, default=1.0, help="1 keeps every token")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--save",
        type=Path,
        default=Path("preferences.jsonl"),
        metavar="FILE",
        help="append preferences, as PreferenceData reads them (default: preferences.jsonl)",
    )


def run(args: argparse.Namespace) -> int:
    """Talk in the terminal; returns the exit status.

    Raises:
        ConfigError: An impossible setting or policy, a file that cannot be written, or two
            policies of which one alone has a chat template.
        DataError: A conversation that a template refuses.
    """
    import torch

    from alignlab.chat.conversation import Conversation
    from alignlab.chat.speaker import Speaker
    from alignlab.functional.sampling import SamplingSpec
    from alignlab.models.policy import Policy
    from alignlab.winrate.policies import read_contender

    if args.max_new_tokens < 1:
        raise ConfigError(f"--max-new-tokens {args.max_new_tokens}: expected at least 1.")
    check_writable(args.save.absolute().parent)
    spec = SamplingSpec(args.temperature, 0, args.top_p)
    speakers = []
    for given in filter(None, (args.policy, args.beside)):
        source, *_ = read_contender(given, scale=args.scale, results=None).sources
        policy = Policy.load_for_eval(source)
        speakers.append(Speaker(given, policy, most=args.max_new_tokens, spec=spec, seed=args.seed))
    if len({speaker.chats for speaker in speakers}) > 1:
        without = next(speaker.name for speaker in speakers if not speaker.chats)
        raise ConfigError(
            f"{without} has no chat template and the other policy has one, so they cannot be given "
            "the same conversation. Compare policies of one kind."
        )
    if args.system is not None and not speakers[0].chats:
        raise ConfigError(f"--system: {args.policy} has no chat template. Leave the option out.")
    tools = [] if args.tools is None else _tools(args.tools, speakers)
    if not speakers[0].chats:
        print(f"{args.policy} has no chat template: each message is a text that it continues.")
    with torch.no_grad():
        talk = Conversation(speakers, args.save, ask=input, system=args.system, tools=tools)
        kept = talk.run()
    if kept:
        print(f"{kept} preferences were added to {args.save}")
    return 0


def _tools(path: Path, speakers: "Sequence[Speaker]") -> list[Any]:
    """The schemas in a file.

    Raises:
        ConfigError: It holds no list of objects, or a policy's chat template does not render them.
    """
    from alignlab.data.chat import unread_fields
    from alignlab.data.rows import Refused, Turn

    try:
        tools = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ConfigError(f"--tools {path}: cannot be read as JSON ({problem}).") from problem
    if not isinstance(tools, list) or not tools or not all(isinstance(t, dict) for t in tools):
        raise ConfigError(f"--tools {path}: expected a JSON list of tools, each an object.")
    for speaker in speakers:
        if not speaker.chats:
            raise ConfigError(
                f"--tools: {speaker.name} has no chat template. Leave the option out."
            )
        try:
            hello = Turn("user", "hello").with_extra("tools", tools)
            unread_fields(speaker.policy.tokenizer, (hello,))
        except Refused as problem:
            raise ConfigError(
                f"--tools: {speaker.name}: {problem}. Leave the option out."
            ) from problem
    return tools
