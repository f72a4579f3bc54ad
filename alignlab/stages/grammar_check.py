"""How well policies know the toy world's grammar: after texts of the data and after their own.

Fine-tuning sees only prefixes of the data; sampling continues a policy's own ("exposure bias",
Ranzato et al. 2016, arXiv:1511.06732). The grammar's exact next-word distribution measures the
error after both (Arora et al. 2022, arXiv:2204.01171, section 3, with an estimated one).
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from alignlab.bounds import Count, Seed
from alignlab.data.rows import Demonstration, Prompt, RowReport
from alignlab.data.sources import read_rows
from alignlab.data.tokenise import tokenise
from alignlab.data.trees import PromptTree, collate
from alignlab.functional.sampling import SamplingSpec
from alignlab.models.policy import Policy
from alignlab.results.csv_tables import write_table
from alignlab.results.run_folder import RunFolder
from alignlab.results.statistics import Floats
from alignlab.rollouts.comparison import check_samples
from alignlab.rollouts.sampler import sample
from alignlab.worlds.toy import MAX_TOKENS, is_review, write_completion
from alignlab.worlds.toy_grammar import END, bigrams, next_words

PREFIXES = ("data", "own", "broken")


class Step(NamedTuple):
    """A policy's next-word distribution after one prefix, beside the grammar's.

    Attributes:
        position: Words of the completion before it.
        prefix: One of ``PREFIXES``: of the data, of the policy's own samples, or of these where the
            grammar cannot go on from it.
        nll: Cross entropy of the grammar's distribution and the policy's, nats; NaN if broken.
        excess: The same less the grammar's entropy: KL(grammar || policy).
        wrong: The policy's probability of words that cannot come next; NaN if broken.
        misfit: Its probability of words that nowhere follow the word before; NaN where there is no
            such word, or none that the grammar knows.
    """

    position: int
    prefix: str
    nll: float
    excess: float
    wrong: float
    misfit: float


def check_grammar(
    *,
    out: str | Path,
    policies: Mapping[str, str | Sequence[str]],
    prompts: str,
    samples: Count = 8,
    limit: Count | None = None,
    seed: Seed = 0,
    batch_size: Count = 512,
) -> None:
    """Stage: ``exposure.csv`` and ``rubbish.csv`` of policies of the toy world.

    ``rubbish.csv`` has a row per policy: ``rubbish`` is the share of its completions that the
    grammar cannot write, ``expected`` what that share would be if every step were as wrong as
    after the grammar's own texts (one less the product of the chances to be right); ``nll`` is the
    cross entropy of the grammar's completions, nats per completion, ``entropy`` the grammar's part
    of it. ``exposure.csv`` has the means of ``Step`` by position and kind of prefix.

    Args:
        out: Folder to write.
        policies: Name in the tables -> folder, or one folder for each seed.
        prompts: File of the world's prompts.
        samples: Completions of each, by the policy and by the grammar.
        limit: How many prompts to use, from the start.
        seed: Of both.
        batch_size: Completions per batch.
    """
    rows, report = read_rows(prompts, Prompt, limit=limit)
    report.tell()
    texts = _by_the_grammar([str(row.prompt) for row in rows], samples, seed)
    shares, steps = [], []
    for name, given in policies.items():
        for folder in [given] if isinstance(given, str) else given:
            label = {"policy": name, "run": RunFolder(folder).run_id}
            policy = Policy.load_for_eval(folder)
            own = _by_the_policy(policy, rows, samples, seed, batch_size)
            along = {
                "data": list(_steps(policy, texts, "data", batch_size)),
                "own": list(_steps(policy, own, "own", batch_size)),
            }
            shares.append({**label, **_share(own, along["data"])})
            steps += [{**label, **row} for row in _means([*along["data"], *along["own"]])]
    write_table(Path(out) / "rubbish.csv", shares)
    write_table(Path(out) / "exposure.csv", steps)


Texts = Sequence[tuple[str, str]]  # prompt and completion


def _by_the_grammar(prompts: Sequence[str], samples: int, seed: int) -> Texts:
    return [
        (prompt, write_completion(prompt, random.Random(f"{seed}/{prompt}/{k}").random))
        for prompt in prompts
        for k in range(samples)
    ]


def _by_the_policy(
    policy: Policy, rows: Sequence[Prompt], samples: int, seed: int, batch_size: int
) -> Texts:
    """Its own completions; what does not end within the world's longest review is cut off."""
    trees = tokenise(rows, policy.tokenizer, RowReport("prompts", refuse="error"))
    drawn = sample(
        policy,
        trees,
        samples=samples,
        max_new_tokens=MAX_TOKENS,
        spec=SamplingSpec(),
        seed=seed,
        stop_ids=policy.stop_ids,
        batch_size=batch_size,
    )
    check_samples(policy, drawn, SamplingSpec())
    return list(zip(*drawn.texts(policy.tokenizer), strict=True))


@torch.no_grad()
def _steps(policy: Policy, texts: Texts, prefix: str, batch_size: int) -> Iterator[list[Step]]:
    """The steps of each text, its end included; a text without words has none."""
    texts = [(prompt, text) for prompt, text in texts if text.strip()]
    names = policy.tokenizer.get_vocab()
    ids = {word.removeprefix("Ġ"): i for word, i in names.items()}
    ids[END] = policy.tokenizer.eos_token_id
    follow = {word: [ids[b] for a, b in bigrams() if a == word] for word, _ in bigrams()}
    trees = [_tree(policy, i, *text) for i, text in enumerate(texts)]
    for start in range(0, len(trees), batch_size):
        batch = collate(trees[start : start + batch_size]).to(policy.device)
        logps = policy.log_softmax_at(batch).double().cpu()
        lengths = batch.loss_mask.sum(1).tolist()
        own = texts[start : start + batch_size]
        for (prompt, text), table in zip(own, logps.split(lengths), strict=True):
            words = tuple(text.split())
            yield [
                _step(prompt, words[:t], table[t].numpy(), prefix, ids, follow)
                for t in range(len(table))
            ]


def _tree(policy: Policy, index: int, prompt: str, text: str) -> PromptTree:
    row = Demonstration(str(index), prompt, text)
    (tree,) = tokenise([row], policy.tokenizer, RowReport("texts", refuse="error"))
    return tree


def _step(
    prompt: str,
    words: tuple[str, ...],
    logps: Floats,
    prefix: str,
    ids: Mapping[str, int],
    follow: Mapping[str, Sequence[int]],
) -> Step:
    nan = float("nan")
    fits = follow.get(words[-1]) if words else None
    misfit = nan if fits is None else 1 - float(np.exp(logps[list(fits)]).sum())
    chances = next_words(prompt, words)
    if not chances:
        return Step(len(words), "broken", nan, nan, nan, misfit)
    p = np.array(list(chances.values()))
    q = logps[[ids[word] for word in chances]]
    nll = -float(p @ q)
    excess = nll + float(p @ np.log(p))
    return Step(len(words), prefix, nll, excess, 1 - float(np.exp(q).sum()), misfit)


def _share(own: Texts, along_data: Sequence[Sequence[Step]]) -> dict[str, Any]:
    right = [np.prod([1 - step.wrong for step in steps]) for steps in along_data]
    nll = [sum(step.nll for step in steps) for steps in along_data]
    entropy = [sum(step.nll - step.excess for step in steps) for steps in along_data]
    return {
        "completions": len(own),
        "rubbish": 1 - float(np.mean([is_review(prompt, text) for prompt, text in own])),
        "expected": 1 - float(np.mean(right)),
        "nll": float(np.mean(nll)),
        "entropy": float(np.mean(entropy)),
    }


def _means(texts: Sequence[Sequence[Step]]) -> list[dict[str, Any]]:
    """A row per kind of prefix and position, and one over all positions (``all``)."""
    steps = [step for text in texts for step in text]
    rows = []
    for prefix in PREFIXES:
        of_kind = [step for step in steps if step.prefix == prefix]
        positions = sorted({step.position for step in of_kind})
        for position in ("all", *positions):
            found = [step for step in of_kind if position in ("all", step.position)]
            if found:
                figures = {
                    name: _mean([getattr(step, name) for step in found])
                    for name in ("nll", "excess", "wrong", "misfit")
                }
                label = {"prefix": prefix, "position": position, "steps": len(found)}
                rows.append({**label, **figures})
    return rows


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
