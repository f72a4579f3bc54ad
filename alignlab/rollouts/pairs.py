"""The stage that makes preference pairs: a policy's completions, labelled by a reward.

Two ways to label. ``bradley_terry``: the better completion wins with probability
sigma(scale (r1 - r2)) (Bradley and Terry 1952), as a person's choices would be modelled.
``deterministic``: it always wins, as in the controlled experiment of Rafailov et al. 2023
(arXiv:2305.18290, section 6.1). All randomness is a function of (seed, prompt, number).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from alignlab.data.rows import PreferencePair, Prompt, Text, Turn, split_by_prompt
from alignlab.data.sources import read_rows, write_rows
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError
from alignlab.functional.noise import uniform
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.rewards.base import Reward
from alignlab.rewards.build import build_reward
from alignlab.rollouts.sampler import sample

Labels = Literal["bradley_terry", "deterministic"]
# What noise is for, as a "rollout" that no training has: those count up from 0.
_COMPLETIONS, _LABELS, _CHOICE = -1, -2, -3
_AT_ONCE = 2048  # completions between two steps of the progress bar


def make_pairs(
    *,
    out: Path,
    policy: str,
    prompts: str,
    reward: Mapping[str, Any],
    max_new_tokens: int,
    samples: int = 4,
    pairs_per_prompt: int | None = None,
    labels: Labels = "bradley_terry",
    scale: float = 1.0,
    validation_share: float = 0.05,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    stop_at_eos: bool = True,
    seed: int = 0,
    limit: int | None = None,
    batch_size: int = 256,
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
        limit: Use the first so many prompts.
        batch_size: Completions sampled side by side.

    Raises:
        ConfigError: An impossible value.
        DataError: No usable prompt.
    """
    labelling = Labelling(labels, scale, samples, pairs_per_prompt, seed)
    spec = SamplingSpec(temperature, top_k, top_p)
    gold = build_reward(reward)
    model = Policy.load(policy)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    rows, trees, refused = _prompts(model, prompts, limit, max_new_tokens)
    stops = model.stop_ids if stop_at_eos else []
    if stop_at_eos and not stops:
        raise ConfigError(f"the tokenizer of {policy} has no end-of-text token: stop_at_eos=false.")
    tally = Tally()
    pairs: list[PreferencePair] = []
    for part in _parts(len(trees), samples):
        drawn = sample(
            model,
            trees[part],
            samples=samples,
            max_new_tokens=max_new_tokens,
            spec=spec,
            seed=seed,
            rollout=_COMPLETIONS,
            stop_ids=stops,
            batch_size=batch_size,
        )
        questions, answers = drawn.texts(model.tokenizer)
        rewards = _score(gold, questions, answers).view(-1, samples)
        for i, tree in enumerate(drawn.trees):
            own = Completions(
                answers[i * samples : (i + 1) * samples], drawn.finished[i], rewards[i]
            )
            tally.count(own, tree)
            pairs += labelling.pairs(rows[part][i], tree.index, own, tally)
    _write(Path(out), pairs, validation_share, seed, tally, refused)


@dataclass(frozen=True, slots=True)
class Completions:
    """One prompt's K completions: texts, whether each ended by itself, and rewards ``[K]``."""

    texts: list[str]
    finished: list[bool]
    rewards: Tensor


@dataclass(slots=True)
class Tally:
    """What happened, for ``summary.json``."""

    prompts: int = 0
    completions: int = 0
    finished: int = 0
    tokens: int = 0
    reward_sum: float = 0.0
    reward_squares: float = 0.0
    empty: int = 0
    identical: int = 0
    tied: int = 0
    agreed: int = 0
    decided: int = 0

    def count(self, own: Completions, tree: PromptTree) -> None:
        """Add one prompt's completions."""
        self.prompts += 1
        self.completions += len(own.texts)
        self.finished += sum(own.finished)
        self.tokens += sum(map(len, tree.completions))
        self.reward_sum += float(own.rewards.sum())
        self.reward_squares += float(own.rewards.square().sum())

    def summary(self) -> dict[str, Any]:
        """Counts and means as plain values."""
        mean = self.reward_sum / self.completions
        variance = max(self.reward_squares / self.completions - mean**2, 0.0)
        return {
            "prompts": self.prompts,
            "completions": self.completions,
            "finished_share": self.finished / self.completions,
            "mean_tokens": self.tokens / self.completions,
            "reward_mean": mean,
            "reward_sd": variance**0.5,
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
        self, row: Prompt, index: int, own: Completions, tally: Tally
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
                chosen=_as_completion(row.prompt, own.texts[winner]),
                rejected=_as_completion(row.prompt, own.texts[loser]),
                chosen_ends=own.finished[winner],
                rejected_ends=own.finished[loser],
            )

    def _chosen_pairs(self, index: int, every: int) -> list[int]:
        if self.pairs_per_prompt is None:
            return list(range(every))
        order = self._noise(_CHOICE, index, every).argsort()
        return sorted(order[: self.pairs_per_prompt].tolist())

    def _usable(self, pair: tuple[int, int], own: Completions, tally: Tally) -> bool:
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


def _as_completion(prompt: Text, text: str) -> Text:
    return text if isinstance(prompt, str) else (Turn("assistant", text),)


def _prompts(
    policy: Policy, source: str, limit: int | None, max_new_tokens: int
) -> tuple[list[Prompt], list[PromptTree], dict[str, int]]:
    """The usable rows, their trees one for one, and how many were refused for which reason."""
    rows, refusals = read_rows(source, Prompt, limit=limit)
    context = getattr(policy.model.config, "max_position_embeddings", None)
    room = None if context is None else max(context - max_new_tokens, 2)
    trees, report = tokenise(rows, policy.tokenizer, refusals, max_length=room)
    left = iter(rows)
    kept = [next(row for row in left if row.id == tree.id) for tree in trees]
    return kept, trees, report.refusals.counts


def _parts(prompts: int, samples: int) -> Iterator[slice]:
    each = max(1, _AT_ONCE // samples)
    with tqdm(total=prompts, desc="pairs", unit="prompt") as bar:
        for start in range(0, prompts, each):
            yield slice(start, start + each)
            bar.update(min(each, prompts - start))


def _score(reward: Reward, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
    scores = reward(prompts, completions).double().cpu()
    bad = (~scores.isfinite()).nonzero()
    if len(bad):
        i = int(bad[0])
        raise ConfigError(f"the reward gave {scores[i]} for {prompts[i] + completions[i]!r}.")
    return scores


def _write(
    out: Path,
    pairs: list[PreferencePair],
    share: float,
    seed: int,
    tally: Tally,
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
