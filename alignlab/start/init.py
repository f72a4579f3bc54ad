"""``alignlab init``: a folder of short files to start from."""

import argparse
from pathlib import Path

from alignlab.start.fill import KINDS

EXAMPLE = "alignlab init my-dpo --from dpo --policy Qwen/Qwen2.5-0.5B --data pairs.jsonl"
DATA = {"sft-chat": "messages.jsonl", "kto": "judged.jsonl", "ppo": "prompts.jsonl"}
UNNAMED = "my/model"  # written into the files if no model is named
STAGES = {"sft-chat": "sft.yaml"}
FASTER = {"rm": 3, "sft-chat": 10}  # learning rates, beside that of objectives with a reference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommand's options."""
    add = parser.add_argument
    add("folder", type=Path, metavar="NAME", help="the folder to write")
    add("--from", dest="kind", choices=KINDS, required=True, help="what to start from")
    add("--policy", metavar="MODEL", default=UNNAMED, help="folder or hub id of the model")
    others = ", ".join(f"{file} for {kind}" for kind, file in DATA.items())
    add("--data", "--pairs", metavar="FILE", help=f"your rows (default: pairs.jsonl; {others})")
    add(
        "--reward",
        metavar="SPEC",
        help="what measures completions (default: NAME/my_reward.py:score); docs/rewards.md",
    )
    add("--steps", type=int, metavar="N", help="optimizer steps (default: 100)")
    add("--batch", type=int, metavar="N", help="rows per step (default: 32)")
    add("--lr", type=float, metavar="RATE", help="default: by the size of the model")
    add("--max-length", type=int, metavar="N", help="tokens of a row (default: 512)")
    add("--new-tokens", type=int, metavar="N", help="tokens of a completion (default: 64)")


def run(args: argparse.Namespace) -> int:
    """Write the folder; returns the exit status.

    Raises:
        ConfigError: The folder is there already, or the reward has none of the known forms.
    """
    from alignlab.rewards.spec import from_text
    from alignlab.start import fill

    folder, kind, first = args.folder, args.kind, "Next"
    if args.policy == UNNAMED:
        first = f"Write your model's folder or hub id in place of {UNNAMED} in its files, then"
    reward = args.reward or f"{folder}/my_reward.py:score"
    from_text(reward)
    data = args.data or DATA.get(kind, "pairs.jsonl")
    names = ("steps", "batch", "lr", "max_length", "new_tokens")
    given = {name: getattr(args, name) for name in names}
    if args.lr is None:
        given["lr"] = fill.learning_rate(args.policy) * FASTER.get(kind, 1)
    values = fill.settings(folder, policy=args.policy, reward=reward, **given)
    if kind == "compare":
        from alignlab.start.folder import compare_values, parts_of

        values = compare_values(values, data, ("dpo", "simpo"), settings=3, seeds=2)
        fill.write(folder, kind, values, parts_of(("dpo", "simpo"), reward))
        print(f"{folder} is written. {first}: alignlab run {folder}")
        return 0
    stage = STAGES.get(kind, f"{kind}.yaml")
    fill.write(folder, kind, {**values, "data": data, "stage": stage})
    print(f"{folder} is written. {first}: alignlab fit --config {folder / stage}")
    return 0
