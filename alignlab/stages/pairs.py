"""The stage that makes preference pairs: a policy's completions, labelled by a reward.

Two ways to label. ``bradley_terry``: the better completion wins with probability
sigma(scale (r1 - r2)) (Bradley and Terry 1952), as a person's choices would be modelled.
``deterministic``: it always wins, as in the controlled experiment of Rafailov et al. 2023
(arXiv:2305.18290, section 6.1). All randomness is a function of (seed, prompt, number).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from alignlab.bounds import Amount, Count, Fraction, Positive, Seed, Share
from alignlab.data.rows import PreferencePair, Prompt, split_by_prompt
from alignlab.data.sources import write_rows
from alignlab.data.texts import as_completion
from alignlab.errors import ConfigError
from alignlab.functional.noise import uniform
from alignlab.functional.sampling import SamplingSpec
from alignlab.stages.completed import Completed, Completions, Tally

Labels = Literal["bradley_terry", "deterministic"]
# Rollout numbers for this noise; training runs count up from 0.
_LABELS, _CHOICE = -2, -3  # completions are -1


def make_pairs(
    *,
    out: Path,
    policy: str,
    prompts: str,
    reward: Mapping[str, Any],
    max_new_tokens: Count,
    samples: Count = 4,
    pairs_per_prompt: Count | None = None,
    labels: Labels = "bradley_terry",
    scale: Positive = 1.0,
    validation_share: Share = 0.05,
    temperature: Positive = 1.0,
    top_k: Amount = 0,
    top_p: Fraction = 1.0,
    stop_at_eos: bool = True,
    seed: Seed = 0,
    limit: Count | None = None,
    batch_size: Count = 256,
) -> None:
    """Write ``pairs.jsonl``, ``validation.jsonl`` (other prompts) and ``summary.json``.

    Args:
        out: Folder to write into.
        policy: Folder or hub id of the policy that completes, usually the reference.
        prompts: File or hub id of prompts.
        reward: ``class_path`` and ``init_args`` of the gold reward.
        max_new_tokens: Tokens of a completion that does not end by itself.
        samples: Completions per prompt.
        pairs_per_prompt: How many of a prompt's C(samples, 2) pairs to keep, chosen at random;
            all when left out.
        labels: How a pair is labelled, see the module. Ties are dropped when ``deterministic``.
        scale: Factor on reward differences of ``bradley_terry``: larger means fewer mistakes.
        validation_share: Expected share of prompts held out; 0 writes no ``validation.jsonl``.
        temperature: Of sampling.
        top_k: Of sampling; 0 keeps all tokens.
        top_p: Of sampling.
        stop_at_eos: End completions at the end-of-text token; otherwise all have full length.
        seed: Completions, labels and the split are functions of it.
        limit: How many prompts to use, from the start.
        batch_size: Completions sampled at a time.

    Raises:
        ConfigError: An impossible value.
        DataError: No usable prompt.
    """
    labelling = Labelling(labels, scale, samples, pairs_per_prompt, seed)
    spec = SamplingSpec(temperature, top_k, top_p)
    source = Completed(policy, prompts, reward, limit, max_new_tokens, stop_at_eos)
    tally = PairTally()
    pairs: list[PreferencePair] = []
    for row, index, own in source.draw(samples, spec, seed, batch_size, tally):
        pairs += labelling.pairs(row, index, own, tally)
    _write(Path(out), pairs, validation_share, seed, tally, source.refused)


@dataclass(slots=True)
class PairTally(Tally):
    """Counts for ``summary.json``."""

    empty: int = 0
    identical: int = 0
    tied: int = 0
    agreed: int = 0
    decided: int = 0

    def summary(self) -> dict[str, Any]:
        """Counts and means as plain values."""
        return {
            **Tally.summary(self),
            "dropped": {
                "an empty completion": self.empty,
                "identical texts": self.identical,
                "tied rewards": self.tied,
            },
            # Of the pairs whose rewards differ, how many labels say what the reward says.
            "agreement_with_gold": self.agreed / self.decided if self.decided else None,
        }


@dataclass(frozen=True, slots=True)
class Labelling:
    """How a prompt's completions become labelled pairs; arguments as in ``make_pairs``."""

    labels: Labels
    scale: float
    samples: int
    pairs_per_prompt: int | None
    seed: int

    def __post_init__(self) -> None:
        if self.labels not in ("bradley_terry", "deterministic"):
            raise ConfigError(f"labels: bradley_terry or deterministic, got {self.labels!r}.")
        if self.scale <= 0:
            raise ConfigError(f"pairs need scale > 0, got {self.scale}.")
        if self.samples < 2:
            raise ConfigError(f"pairs need samples >= 2 completions a prompt, got {self.samples}.")
        most = self.samples * (self.samples - 1) // 2
        if self.pairs_per_prompt is not None and not 1 <= self.pairs_per_prompt <= most:
            raise ConfigError(
                f"{self.samples} samples make 1 to {most} pairs, "
                f"got pairs_per_prompt={self.pairs_per_prompt}."
            )

    def pairs(
        self, row: Prompt, index: int, own: Completions, tally: PairTally
    ) -> Iterator[PreferencePair]:
        """The pairs of prompt ``row``, whose noise is named by ``index``."""
        every = list(combinations(range(self.samples), 2))
        luck = self._noise(_LABELS, index, len(every)).tolist()
        for number in self._chosen_pairs(index, len(every)):
            pair = every[number]
            if not self._usable(pair, own, tally):
                continue
            gap = float(own.rewards[pair[0]] - own.rewards[pair[1]])
            first_wins = luck[number] < self._chance(gap)
            winner, loser = pair if first_wins else pair[::-1]
            tally.decided += gap != 0
            tally.agreed += gap != 0 and first_wins == (gap > 0)
            yield PreferencePair(
                id=f"{row.id}#{pair[0]}-{pair[1]}",
                prompt=row.prompt,
                chosen=as_completion(row.prompt, own.texts[winner]),
                rejected=as_completion(row.prompt, own.texts[loser]),
                chosen_ends=own.finished[winner],
                rejected_ends=own.finished[loser],
            )

    def _chosen_pairs(self, index: int, every: int) -> list[int]:
        if self.pairs_per_prompt is None:
            return list(range(every))
        order = self._noise(_CHOICE, index, every).argsort()
        return sorted(order[: self.pairs_per_prompt].tolist())

    def _usable(self, pair: tuple[int, int], own: Completions, tally: PairTally) -> bool:
        one, two = (own.texts[k] for k in pair)
        if not one.strip() or not two.strip():
            tally.empty += 1
        elif one == two:
            tally.identical += 1
        elif self.labels == "deterministic" and own.rewards[pair[0]] == own.rewards[pair[1]]:
            tally.tied += 1
        else:
            return True
        return False

    def _chance(self, gap: float) -> float:
        """That the first of two completions is preferred when its reward is ``gap`` larger."""
        if self.labels == "deterministic":
            return float(gap > 0)
        return float(torch.tensor(self.scale * gap, dtype=torch.float64).sigmoid())

    def _noise(self, use: int, index: int, count: int) -> Tensor:
        """``[count]`` numbers, one for each of a prompt's pairs."""
        numbers = torch.arange(count)
        return uniform(self.seed, use, torch.full_like(numbers, index), numbers, 0)


def _write(
    out: Path,
    pairs: list[PreferencePair],
    share: float,
    seed: int,
    tally: PairTally,
    refused: dict[str, int],
) -> None:
    train, held_out = split_by_prompt(pairs, share, seed)
    if not train or (share and not held_out):
        raise ConfigError(
            f"{tally.prompts} prompts gave {len(train)} pairs to train on and {len(held_out)} to "
            f"validate with: {tally.summary()['dropped']} dropped. Use more prompts or samples, or "
            f"another validation_share than {share}."
        )
    write_rows(out / "pairs.jsonl", train)
    if share:
        write_rows(out / "validation.jsonl", held_out)
    summary = {
        "pairs": len(train),
        "validation_pairs": len(held_out),
        **tally.summary(),
        "refused_prompts": refused,
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
