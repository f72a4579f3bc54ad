"""Processor seconds that a rank needs for a phase of rollouts, alone and as one of two.

    python benchmarks/ranks_sampling.py [--samples 4] [--tokens 48] [--phases 3]

A Llama of 5 M parameters, 64 prompts of 8 to 23 tokens, completions of full length, one thread a
process, gloo. A phase is sampled, rewarded, and scored by policy and reference. Imports, building
the models and a first phase, in which the sampler is tried out, are not counted.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPTS, WORDS = 64, 4096
SIZES = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 688,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}


def save_tokenizer(folder: Path) -> None:
    """Write a tokenizer with a token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(["<pad>", "<bos>", "<eos>"])}
    ids |= {f"w{i}": i for i in range(3, WORDS)}
    inner = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)


def seconds_of_phases(folder: Path, samples: int, tokens: int, phases: int) -> list[float]:
    """Processor seconds of this process in each phase but the first."""
    import torch

    from alignlab.data.trees import PromptTree
    from alignlab.models import Policy
    from alignlab.objectives.on_policy import Sampling
    from alignlab.objectives.rloo import RLOO
    from alignlab.rewards.base import Reward

    class Length(Reward):
        def __call__(self, prompts: Any, completions: Any) -> torch.Tensor:
            return torch.tensor([float(len(text)) for text in completions])

    torch.set_num_threads(1)
    policy = Policy(config=SIZES, tokenizer=str(folder))
    sampling = Sampling(tokens, stop_at_eos=False)
    objective = RLOO(policy, Length(), sampling, lambda weights: torch.optim.SGD(weights, lr=0.0))
    prompts = [
        PromptTree(i, str(i), (1, *(3 + (7 * i + j) % (WORDS - 3) for j in range(7 + i % 16))), ())
        for i in range(PROMPTS)
    ]
    found = []
    for rollout in range(phases + 1):
        begin = time.process_time()
        objective.collect(prompts, samples, rollout)
        found.append(time.process_time() - begin)
    return found[1:]


def as_rank(folder: Path, rank: int, world: int, settings: list[int]) -> None:
    """Be one of ``world`` processes, and write its seconds."""
    import torch.distributed as dist

    dist.init_process_group("gloo", rank=rank, world_size=world)
    found = seconds_of_phases(folder, *settings)
    (folder / f"{world}-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def measured(folder: Path, world: int, settings: list[int]) -> list[float]:
    """The median processor seconds of a phase in each of ``world`` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawned = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    spawned |= {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__, "--as", str(folder)]
    ranks = [
        subprocess.Popen([*words, str(r), str(world), *map(str, settings)], env=spawned)
        for r in range(world)
    ]
    if any(rank.wait() for rank in ranks):
        raise SystemExit("a process failed; see above")
    each = [json.loads((folder / f"{world}-{r}.json").read_text()) for r in range(world)]
    return [sorted(phases)[len(phases) // 2] for phases in each]


def main() -> None:
    """Measure one process and two, and print a table."""
    if sys.argv[1:2] == ["--as"]:
        folder, rank, world, *settings = sys.argv[2:]
        as_rank(Path(folder), int(rank), int(world), list(map(int, settings)))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    for name, value in (("samples", 4), ("tokens", 48), ("phases", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        save_tokenizer(Path(made))
        settings = [args.samples, args.tokens, args.phases]
        alone, *_ = measured(Path(made), 1, settings)
        print("| processes | processor seconds of each | of one's |\n|---|---|---|")
        print(f"| 1 | {alone:.2f} | 1.00 |")
        for seconds in measured(Path(made), 2, settings):
            print(f"| 2 | {seconds:.2f} | {seconds / alone:.2f} |", flush=True)


if __name__ == "__main__":
    main()
