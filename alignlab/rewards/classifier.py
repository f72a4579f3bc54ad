"""A Hugging Face sentiment classifier as a reward, as in the DPO paper's controlled experiment."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from alignlab.data.texts import rendered
from alignlab.data.trees import length_batches
from alignlab.errors import ConfigError, DataError
from alignlab.models.limits import misfit, positions_of
from alignlab.models.loading import default_device, is_scorer, load_model, load_tokenizer
from alignlab.models.modes import reading
from alignlab.models.score import ScoreModel
from alignlab.names import moved_from
from alignlab.rewards.base import Reward
from alignlab.rewards.model import TextScorer

if not TYPE_CHECKING:
    __getattr__ = moved_from(__name__)


class ClassifierReward(Reward):
    """``log p(positive) - log p(negative)`` of prompt + completion, read as one text.

    A conversation is rendered with the classifier's own chat template, if it has one. A classifier
    that ``Classify`` trained reads begin-of-text first and end-of-text last, as in its training;
    others get the special tokens that their tokenizer adds.

    With two classes this is the log-odds; the paper plots its sigmoid (Rafailov et al. 2023,
    arXiv:2305.18290, section 6.1). Classes are found by name, never by position: libraries differ
    in how they order them.

    Args:
        path: Hub id or folder of a sequence classifier and its tokenizer, such as
            ``siebert/sentiment-roberta-large-english``.
        positive: Name of the class that is good.
        negative: Name of the class that is bad.
        batch_size: Texts per forward.
        max_length: Tokens of a text that are read, from its start.
        device: Where it runs; ``None`` takes a GPU where there is one.

    Raises:
        ConfigError: Nothing usable at ``path``, or it has no class of these names.
    """

    def __init__(
        self,
        path: str,
        positive: str = "POSITIVE",
        negative: str = "NEGATIVE",
        batch_size: int = 64,
        max_length: int = 512,
        device: str | None = None,
    ) -> None:
        self.path, self.tokenizer = path, load_tokenizer(path, missing="a model")
        if not is_scorer(path):
            raise ConfigError(
                f"{path} has no complete classifier, so its classes would be random numbers. Give "
                "the folder of a trained one, or of its adapters."
            )
        model = load_model(
            AutoModelForSequenceClassification, path, dtype="float32", dropout=None, merge=True
        )
        if self.tokenizer.pad_token_id is None:
            raise ConfigError(
                f"{path}: the tokenizer has no padding token, which texts read side by side need. "
                "Save it with one that the classifier was trained with."
            )
        named = {name.upper(): i for i, name in model.config.id2label.items()}
        if positive.upper() not in named or negative.upper() not in named:
            raise ConfigError(
                f"{path}: no classes {positive!r} and {negative!r}; it has "
                f"{', '.join(model.config.id2label.values())}. Name two of them as positive "
                "and negative in the reward's init_args, or save the model with these two names in "
                "its id2label."
            )
        self.positive, self.negative = named[positive.upper()], named[negative.upper()]
        self.batch_size, self.max_length = batch_size, max_length
        self.room = positions_of(model)
        self.device = device or default_device()
        self.scorer: TextScorer | None = None
        if getattr(model.config, "reads_rows", False):  # ``Classify`` trained it
            own = ScoreModel.load_for_eval(path, self.device, outputs=model.config.num_labels)
            self.scorer = TextScorer(own, path, True, batch_size, max_length)
            return
        self.model = model.eval().to(self.device)

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float32 log-odds of prompt + completion as one text (``rendered``).

        Raises:
            DataError: A text without a token, with one that the classifier has no embedding of, or
                with more, up to ``max_length``, than it has positions for.
        """
        if self.scorer is not None:
            if not len(completions):
                return torch.zeros(0)
            logits = self.scorer(prompts, completions)
            return logits[:, self.positive] - logits[:, self.negative]
        read = rendered(self.tokenizer, prompts, completions, self.path)
        scores = torch.zeros(len(read))
        for by_template in (False, True):  # a template has set the special tokens already
            some = [i for i, one in enumerate(read) if (one.spans is not None) == by_template]
            closing = self.tokenizer.eos_token or "" if by_template else ""
            texts = [read[i].text + closing * read[i].ends for i in some]
            each = list(dict.fromkeys(texts))  # each text once: its last digits depend on the batch
            found = self._log_odds(each, add_special_tokens=not by_template)
            known = dict(zip(each, found.tolist(), strict=True))
            scores[some] = torch.tensor([known[text] for text in texts])
        return scores

    def _log_odds(self, texts: list[str], *, add_special_tokens: bool) -> Tensor:
        scores = torch.zeros(len(texts))
        for rows in length_batches(list(map(len, texts)), [1] * len(texts), self.batch_size):
            batch = self.tokenizer(
                [texts[i] for i in rows],
                add_special_tokens=add_special_tokens,
                padding=True,
                truncation=True,
                max_length=self.max_length,
                return_tensors="pt",
            ).to(self.device)
            self._check([texts[i] for i in rows], batch)
            with reading(self.model):
                logits = self.model(**batch).logits.float()
            scores[rows] = (logits[:, self.positive] - logits[:, self.negative]).cpu()
        return scores

    def _check(self, texts: Sequence[str], batch: Any) -> None:
        for text, ids, mask in zip(texts, batch["input_ids"], batch["attention_mask"], strict=True):
            own = ids[mask.bool()].tolist()
            problem = (
                misfit(self.model, self.tokenizer, own, self.room) if own else "has no tokens."
            )
            if problem:
                raise DataError(f"{self.path}: the text {text[:60]!r} {problem}")
