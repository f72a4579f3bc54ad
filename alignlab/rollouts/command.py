"""``alignlab sample``: completions of prompts with their log-probs, to look at or to keep."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError
from alignlab.files import check_writable

EXAMPLE = (
    'alignlab sample --policy results/quickstart/stages/sft/all --prompt "the plot of this film"'
)
PLAIN = (
    "--prompt is continued as plain text: the policy's chat template is not applied to it. For a "
    "user's turn use alignlab chat, or --prompts with a file of conversations."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's options."""
    parser.add_argument("--policy", required=True, metavar="DIR", help="folder or hub id")
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument(
        "--prompt", action="append", metavar="TEXT", help="plain text; may be repeated"
    )
    given.add_argument("--prompts", metavar="FILE", help="file or hub id of prompts")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N prompts of --prompts")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="samples per prompt")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy")
    parser.add_argument("--top-k", type=int, default=0, help="0 keeps every token")
    parser.add_argument("--top-p", type=float, default=1.0, help="1 keeps every token")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=256, help="completions per batch")
    parser.add_argument(
        "--reward",
        metavar="SPEC",
        help="score completions: length, my_reward.py:FUNCTION, a class path, the folder of a "
        "scorer, or a sum such as 0.7*FIRST + 0.3*SECOND",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="compare each sampled token's log-prob with the training forward's, and print the "
        "difference",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write JSONL instead of printing")


def run(args: argparse.Namespace) -> int:
    """Sample and print; returns the exit status.

    Raises:
        ConfigError: An impossible setting, policy or reward; with ``--check``, a policy that is
            sampled from another distribution than it is trained on.
        DataError: Prompts that cannot be read.
    """
    if args.out is None:
        for record in _records(args):
            print(_told(record))
        return 0
    import json

    check_writable(args.out.parent)  # before anything is sampled
    if args.out.is_dir():
        raise ConfigError(f"--out {args.out}: a folder. Name a file in it.")
    records = list(_records(args))
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    args.out.write_text(lines, encoding="utf-8")
    print(f"{len(records):,} completions in {args.out}")
    return 0


def _records(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from alignlab.data.rows import Prompt, RowReport
    from alignlab.data.sources import as_json, read_rows
    from alignlab.data.texts import as_completion
    from alignlab.data.tokenise import tokenise
    from alignlab.functional.sampling import SamplingSpec
    from alignlab.models.policy import Policy
    from alignlab.rewards.base import checked_rewards
    from alignlab.rewards.build import build_reward
    from alignlab.rollouts.comparison import check_samples
    from alignlab.rollouts.sampler import sample

    spec = SamplingSpec(args.temperature, args.top_k, args.top_p)
    reward = build_reward(args.reward) if args.reward else None
    if args.prompts:
        rows, report = read_rows(args.prompts, Prompt, limit=args.limit)
    else:
        rows = [Prompt(f"prompt {i + 1}", text) for i, text in enumerate(args.prompt)]
        report = RowReport("--prompt", seen=len(rows))
    policy = Policy.load_for_eval(args.policy)
    if args.prompt and policy.tokenizer.chat_template:
        print(PLAIN, file=sys.stderr)
    trees = tokenise(rows, policy.tokenizer, report)
    report.tell()
    drawn = sample(
        policy,
        trees,
        samples=args.samples,
        max_new_tokens=args.max_new_tokens,
        spec=spec,
        seed=args.seed,
        stop_ids=policy.stop_ids,
        batch_size=args.batch_size,
    )
    if args.check:
        gap = check_samples(policy, drawn, spec, most=len(trees) * args.samples)
        print(f"sampled log-probs equal the training forward's to {gap:.1e} nats a token")
    texts = drawn.texts(policy.tokenizer)
    scores = None if reward is None else checked_rewards(reward, *texts).tolist()
    each = [(tree, k, p) for p, tree in enumerate(trees) for k in range(args.samples)]
    for n, (tree, k, p) in enumerate(each):
        prompt = rows[tree.row].prompt
        if not isinstance(prompt, str) and args.out is None:
            prompt = policy.tokenizer.decode(list(tree.prompt))  # as the policy reads it
        yield {
            "id": tree.id,
            "prompt": as_json(prompt),
            "completion": as_json(as_completion(prompt, texts[1][n])),
            "ends": drawn.finished[p][k],
            "tokens": len(drawn.token_logps[p][k]),
            "logp": round(float(drawn.token_logps[p][k].sum()), 4),
            **({} if scores is None else {"reward": scores[n]}),
        }


def _told(record: dict[str, Any]) -> str:
    reward = f", reward {record['reward']:.3f}" if "reward" in record else ""
    cut = "" if record["ends"] else " ..."
    return (
        f"{record['prompt']}|{record['completion']}{cut}\n"
        f"    [{record['id']}: {record['logp']:.2f} nats, {record['tokens']} tokens{reward}]"
    )
