"""A trained reward model as a reward."""

from collections.abc import Sequence
from itertools import accumulate, groupby, takewhile

import torch
from torch import Tensor

from alignlab.data.chat import Rendered
from alignlab.data.texts import rendered
from alignlab.data.trees import PromptTree, in_length_order
from alignlab.errors import ConfigError, DataError
from alignlab.models import ScoreModel
from alignlab.models.adapters import is_adapter
from alignlab.models.limits import misfit
from alignlab.models.loading import is_scorer, load_config, load_tokenizer, outputs_of
from alignlab.models.modes import reading
from alignlab.rewards.base import Reward


class ModelReward(Reward):
    """Scores of a sequence-classification folder with one output, such as a trained reward model.

    It reads prompt + completion as one text, with its own tokenizer and chat template, and scores
    the last token, so it does not matter where the prompt ends. A prompt shared by neighbouring
    texts is computed once, and so is a repeated text. A shift and a scale in the folder
    (``alignlab.stages.normalise``) are applied.

    Args:
        path: Folder or hub id of the scorer and its tokenizer.
        append_eos: Close each text with the end-of-text token; set it to True if most completions
            of the training pairs end with one. A reply that was cut off is left open.
        batch_size: Texts per forward.
        device: Where it runs; ``None`` takes a GPU where there is one.

    Raises:
        ConfigError: Nothing usable at ``path``, no trained head, several outputs, or ``append_eos``
            without an end-of-text token.
    """

    def __init__(
        self,
        path: str,
        append_eos: bool = True,
        batch_size: int = 64,
        device: str | None = None,
    ) -> None:
        check_trained_scorer(path)
        model = ScoreModel.load_for_eval(path, device)
        if append_eos and model.tokenizer.eos_token_id is None:
            raise ConfigError(
                f"{path}: the tokenizer has no end-of-text token to close texts with. Set "
                "append_eos to false, as the pairs of its training ended without one."
            )
        self.path, self.append_eos, self.batch_size = path, append_eos, batch_size
        self.model = model

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float32 scores of the texts that training on such rows reads (``rendered``).

        Raises:
            DataError: A text of less than two tokens, longer than the scorer's context, or with a
                token that the scorer has no embedding of.
        """
        return TextScorer(self.model, self.path, self.append_eos, self.batch_size)(
            prompts, completions
        )


class TextScorer:
    """Reads texts as rows of training: begin-of-text first, end-of-text last, no padding counted.

    Args:
        model: In eval mode.
        path: Its folder, for messages.
        append_eos: As in ``ModelReward``.
        batch_size: Texts per forward.
        max_length: Tokens of a text that are read, from its start; ``None`` reads all.
    """

    def __init__(
        self,
        model: ScoreModel,
        path: str,
        append_eos: bool,
        batch_size: int,
        max_length: int | None = None,
    ) -> None:
        self.model, self.path, self.append_eos = model, path, append_eos
        self.batch_size, self.max_length = batch_size, max_length

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float32 scores, ``[N, outputs]`` of several outputs.

        Raises:
            DataError: As in ``ModelReward``.
        """
        rows = self._rows(rendered(self.model.tokenizer, prompts, completions, self.path))
        # Score each text once, because its last digits depend on the batch.
        prompt_of = dict(zip(reversed(rows), reversed(prompts), strict=True))
        trees: list[PromptTree] = []
        for _, group in groupby(dict.fromkeys(rows), key=prompt_of.__getitem__):
            own = list(group)
            for start in range(0, len(own), self.batch_size):
                some = own[start : start + self.batch_size]
                # Not the prompt's own tokens: its last one may merge with what follows.
                alike = takewhile(lambda ids: len(set(ids)) == 1, zip(*some, strict=False))
                n = max(1, min(len(list(alike)), min(map(len, some)) - 1))
                branches = tuple(ids[n:] for ids in some)
                trees.append(PromptTree(len(trees), str(len(trees)), some[0][:n], branches))
        scores = score_trees(self.model, trees, self.batch_size).float().tolist()
        score_of = dict(zip(dict.fromkeys(rows), scores, strict=True))
        return torch.tensor([score_of[ids] for ids in rows])

    def _rows(self, read: Sequence[Rendered]) -> list[tuple[int, ...]]:
        tokenizer, texts = self.model.tokenizer, [one.text for one in read]
        coded = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        rows = []
        for one, ids in zip(read, coded, strict=True):
            if tokenizer.bos_token_id is not None and ids[:1] != [tokenizer.bos_token_id]:
                ids = [tokenizer.bos_token_id, *ids]
            if one.ends and self.append_eos:
                ids = [*ids, tokenizer.eos_token_id]
            ids = ids[: self.max_length]
            problem = misfit(self.model.model, tokenizer, ids, self.model.room)
            if len(ids) < 2:
                problem = f"has {len(ids)} tokens, and a scorer reads two or more."
            if problem:
                raise DataError(f"{self.path}: the text {one.text[:60]!r} {problem}")
            rows.append(tuple(ids))
        return rows


def score_trees(model: ScoreModel, trees: Sequence[PromptTree], batch_size: int) -> Tensor:
    """``[M]`` (``[M, outputs]``) float64 scores, on the CPU, of M completions, tree after tree.

    Args:
        model: The scorer.
        trees: What to score.
        batch_size: Completions per forward; a tree is never cut.
    """
    first = list(accumulate((len(tree.completions) for tree in trees), initial=0))
    several = [model.outputs] if model.outputs > 1 else []
    scores = torch.zeros(first[-1], *several, dtype=torch.float64)
    with reading(model):
        for places, batch in in_length_order(trees, batch_size):
            rows = [m for i in places for m in range(first[i], first[i + 1])]
            scores[rows] = model.scores(batch.to(model.device)).double().cpu()
    return scores


def check_trained_scorer(path: str) -> None:
    """Refuse a folder or hub id that holds no trained scorer with one output.

    Raises:
        ConfigError: Nothing usable at ``path``, no trained head, or several outputs.
    """
    load_tokenizer(path, missing="a model")  # raises a clear error if none is usable
    config = None if is_adapter(path) else load_config(path)
    if not is_scorer(path):
        kinds = ", ".join(config.architectures or ["model of unknown kind"]) if config else "policy"
        raise ConfigError(
            f"{path}: a {kinds} has no trained score head. Give the folder of a trained reward "
            "model."
        )
    if (outputs := outputs_of(path)) != 1:
        raise ConfigError(
            f"{path}: a reward is one number, this model gives {outputs}. "
            "Use alignlab.rewards.classifier.ClassifierReward for a classifier."
        )
