"""Tokens a second of the sampler against Hugging Face ``generate``, same rows, one thread.

    python benchmarks/sampler.py MODEL_FOLDER [--rows 256] [--prompt 4] [--new 48] [--bf16]

Nothing stops a row, so both make the same number of tokens. Times are of the processor, which a
busy machine disturbs less than the wall clock; the best of ``--repeats`` counts.
"""

import argparse
import time
from collections.abc import Callable

import torch
from transformers import GenerationConfig

from alignlab.data.trees import PromptTree
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.rollouts.sampler import sample


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--samples", type=int, default=1, help="rows that share a prompt")
    parser.add_argument("--prompt", type=int, default=4)
    parser.add_argument("--new", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    policy = Policy.load(args.model).eval()
    size = (args.rows // args.samples, args.prompt)
    prompts = torch.randint(
        3, policy.model.config.vocab_size, size, generator=torch.Generator().manual_seed(0)
    )
    trees = [PromptTree(i, str(i), tuple(ids), ()) for i, ids in enumerate(prompts.tolist())]

    def ours() -> None:
        sample(
            policy,
            trees,
            samples=args.samples,
            max_new_tokens=args.new,
            spec=SamplingSpec(),
            seed=0,
            stop_ids=(),
            batch_size=args.rows,
        )

    policy.model.generation_config = GenerationConfig()  # with the model's own, EOS would stop rows
    rows = prompts.repeat_interleave(args.samples, 0)
    settings = GenerationConfig(do_sample=True, top_k=0, top_p=1.0, max_new_tokens=args.new)

    def theirs() -> None:
        policy.model.generate(
            rows, attention_mask=torch.ones_like(rows), generation_config=settings
        )

    tokens = args.rows * args.new
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
        for name, run in (("sampler", ours), ("generate", theirs)):
            print(f"{name}: {tokens / best(run, args.repeats):,.0f} tokens/s")


def best(run: Callable[[], None], repeats: int) -> float:
    """Least seconds of processor time."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return min(seconds)


if __name__ == "__main__":
    main()
