"""NB-SVM: a linear scorer on which words and word pairs a text contains (Wang & Manning 2012).

The paper interpolates a linear SVM between naive-Bayes log-count ratios and learned weights. Here,
as in Mesnil et al. (2014, arXiv:1412.5335), it is a logistic regression on binary n-gram features
scaled by those ratios, so that its output is a log-odds. No text is too long for a bag of n-grams,
so whole reviews need no chunks, and an n-gram counts once however often it is repeated.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_array
from torch import Tensor, nn

from alignlab.errors import DataError

WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?|[!?]")


def words(text: str) -> list[str]:
    """Lower-cased words, numbers, exclamation and question marks, in order.

    Contractions stay whole, so that "don't" differs from "do".
    """
    return WORD.findall(text.lower())


def ngrams(tokens: Sequence[str], longest: int) -> list[str]:
    """Distinct runs of 1 to ``longest`` words, in order of first appearance."""
    runs = chain.from_iterable(
        map(" ".join, zip(*(tokens[i:] for i in range(n)), strict=False))
        for n in range(2, longest + 1)
    )
    return list(dict.fromkeys(chain(tokens, runs)))


class NgramScorer(nn.Module):
    """The sum of a text's n-gram weights, and a bias: the log-odds that the text is positive.

    Args:
        vocabulary: The n-grams that have a weight, each once.
        longest: Words in the longest n-gram.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, vocabulary: Sequence[str], *, longest: int = 2) -> None:
        super().__init__()
        self.vocabulary = list(vocabulary)
        self.longest = longest
        self._ids = {gram: i for i, gram in enumerate(self.vocabulary)}
        # Buffers, not parameters: a reward is never trained by accident. `fit` works on its own.
        self.register_buffer("weight", torch.zeros(len(self.vocabulary), dtype=torch.float64))
        self.register_buffer("bias", torch.zeros((), dtype=torch.float64))

    def bags(self, texts: Iterable[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """Known n-grams of tokenised texts: flat ids and each text's offset, both long."""
        flat: list[int] = []
        offsets: list[int] = []
        find = self._ids.get
        for tokens in texts:
            offsets.append(len(flat))
            flat += [i for gram in ngrams(tokens, self.longest) if (i := find(gram)) is not None]
        return torch.tensor(flat, dtype=torch.long), torch.tensor(offsets, dtype=torch.long)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Log-odds ``[N]`` float64 that each text is positive; the bias where nothing is known."""
        return self.score([words(text) for text in texts])

    def score(self, texts: Sequence[Sequence[str]]) -> Tensor:
        """Log-odds ``[N]`` float64 of tokenised texts."""
        ids, offsets = self.bags(texts)
        return bag_sums(ids, offsets, self.weight) + self.bias

    def save(self, folder: str | Path) -> None:
        """Write ``weights.safetensors``, ``vocabulary.json.gz`` and ``config.json``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        save_file(tensors, folder / "weights.safetensors")
        # No time stamp in the archive: the same scorer is the same bytes, so its hash is its name.
        packed = gzip.compress(json.dumps(self.vocabulary).encode(), mtime=0)
        (folder / "vocabulary.json.gz").write_bytes(packed)
        config = {"class": "NgramScorer", "longest": self.longest}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: A file is missing, or the folder holds another model.
        """
        folder = Path(folder)
        for name in ("config.json", "vocabulary.json.gz", "weights.safetensors"):
            if not (folder / name).is_file():
                raise DataError(
                    f"{folder}: no {name}. Give the folder of a fitted n-gram scorer "
                    "(stage `gold` of experiments/imdb writes one)."
                )
        config = json.loads((folder / "config.json").read_text())
        if config.get("class") != "NgramScorer":
            found = config.get("class") or config.get("architectures")
            raise DataError(f"{folder}: holds {found}, not an NgramScorer. Give its folder.")
        vocabulary = json.loads(gzip.decompress((folder / "vocabulary.json.gz").read_bytes()))
        scorer = cls(vocabulary, longest=config["longest"])
        scorer.load_state_dict(load_file(folder / "weights.safetensors"))
        return scorer


def bag_sums(ids: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """``[N]``: the sum of ``weight`` ``[V]`` over each bag of ``ids``; 0 for an empty bag."""
    return F.embedding_bag(ids, weight[:, None], offsets, mode="sum").squeeze(1)


class _SparseProduct(torch.autograd.Function):
    """``matrix @ weight``; 20 times faster than the same sums (and gradients) as embedding bags."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, matrix: csr_array) -> Tensor:
        ctx.transposed = matrix.T
        return torch.from_numpy(matrix @ weight.detach().numpy())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return torch.from_numpy(ctx.transposed @ grads[0].numpy()), None


def presence_matrix(ids: Tensor, offsets: Tensor, size: int) -> csr_array:
    """Bags as a sparse ``[N, size]`` matrix of zeros and ones in float64."""
    starts = np.append(offsets.numpy(), len(ids))
    return csr_array((np.ones(len(ids)), ids.numpy(), starts), shape=(len(offsets), size))


def frequent_ngrams(texts: Iterable[Sequence[str]], *, longest: int, min_count: int) -> list[str]:
    """N-grams of at least ``min_count`` tokenised texts, sorted."""
    counts: Counter[str] = Counter()
    for tokens in texts:
        counts.update(ngrams(tokens, longest))
    return sorted(gram for gram, count in counts.items() if count >= min_count)


def log_count_ratios(ids: Tensor, offsets: Tensor, labels: Tensor, size: int) -> Tensor:
    """``[V]``: log of how much more often each n-gram is in positive than in negative texts.

    Wang & Manning (2012), section 2.1, with add-one smoothing; each side is normalised to sum to 1.
    ``labels`` ``[N]`` holds 0 and 1.
    """
    ends = torch.cat([offsets[1:], torch.tensor([len(ids)])])
    of_text = labels.repeat_interleave(ends - offsets)
    sides = [1 + torch.bincount(ids[of_text == side], minlength=size).double() for side in (1, 0)]
    positive, negative = (side / side.sum() for side in sides)
    return (positive / negative).log()


def fit_nbsvm(
    scorer: NgramScorer,
    whole: Sequence[Sequence[str]],
    whole_labels: Tensor,
    crops: Sequence[Sequence[str]],
    crop_labels: Tensor,
    *,
    l2: float,
    max_steps: int,
) -> None:
    """Fit ``scorer`` in place to whole texts and to crops of them, by L-BFGS in float64.

    The loss is the mean logistic loss over all texts and crops plus ``l2 / 2`` times the squared
    norm of the learned factors ``v``; an n-gram's weight is ``v`` times its log-count ratio, and
    the ratios are counted on whole texts.

    Args:
        scorer: Knows the vocabulary; its weight and bias are replaced.
        whole: Tokenised texts.
        whole_labels: ``[N]`` float, 0 negative, 1 positive.
        crops: Tokenised excerpts (may be empty).
        crop_labels: ``[C]`` float.
        l2: Strength of the penalty, > 0.
        max_steps: Most L-BFGS steps.
    """
    whole_ids, whole_offsets = scorer.bags(whole)
    ratios = log_count_ratios(whole_ids, whole_offsets, whole_labels, len(scorer.vocabulary))
    crop_ids, crop_offsets = scorer.bags(crops)
    present = presence_matrix(
        torch.cat([whole_ids, crop_ids]),
        torch.cat([whole_offsets, crop_offsets + len(whole_ids)]),
        len(scorer.vocabulary),
    )
    labels = torch.cat([whole_labels, crop_labels]).double()
    factors = torch.zeros_like(ratios, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        logits = _SparseProduct.apply(factors * ratios, present) + bias
        return F.binary_cross_entropy_with_logits(logits, labels) + l2 / 2 * factors.square().sum()

    minimise(loss, [factors, bias], max_steps)
    scorer.weight.copy_(factors.detach() * ratios)
    scorer.bias.copy_(bias.detach())


def calibrate(scorer: NgramScorer, texts: Sequence[Sequence[str]], labels: Tensor) -> Tensor:
    """Platt scaling (1999): make the logits of tokenised ``texts`` calibrated log-odds, in place.

    The slope and offset with the least logistic loss on these texts, which should be held out and
    as long as those to be scored, are folded into the weights and the bias. Returns both, ``[2]``.
    """
    logits = scorer.score(texts)
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        return F.binary_cross_entropy_with_logits(line[0] * logits + line[1], labels.double())

    minimise(loss, [line], 100)
    slope, offset = line.detach()
    scorer.weight.mul_(slope)
    scorer.bias.mul_(slope).add_(offset)
    return line.detach()


def minimise(loss: Callable[[], Tensor], parameters: list[Tensor], max_steps: int) -> None:
    """Minimise a smooth convex ``loss`` of ``parameters`` in place by L-BFGS."""
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=max_steps,
        tolerance_change=1e-14,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value.item()

    optimizer.step(closure)
