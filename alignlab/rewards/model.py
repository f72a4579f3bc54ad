"""A trained reward model as a reward."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import AutoConfig

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.models import ScoreModel
from alignlab.models.loading import load_tokenizer
from alignlab.rewards.base import Reward


class ModelReward(Reward):
    """Scores of a sequence-classification folder with one output, such as a trained reward model.

    It reads prompt + completion as one text, with its own tokenizer, and is scored at the last
    token: where the prompt ends makes no difference. A shift and a scale that stand in the folder
    (``alignlab.rewards.normalise``) are applied.

    Args:
        path: Folder or hub id of the scorer and its tokenizer.
        append_eos: Close each text with the end-of-text token. A text does not say whether it was
            cut off, so set this as most completions of the training pairs end.
        batch_size: Texts per forward.
        device: Where it runs; ``None`` takes a GPU where there is one.

    Raises:
        ConfigError: Nothing usable at ``path``, no trained head, or several outputs.
    """

    def __init__(
        self,
        path: str,
        append_eos: bool = True,
        batch_size: int = 64,
        device: str | None = None,
    ) -> None:
        check_trained_scorer(path)
        # One completion a prompt: nothing to share, so nothing to plan.
        model = ScoreModel.load(path, layout="flat").eval()
        self.append_eos, self.batch_size = append_eos, batch_size
        self.model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """``[N]`` float32 scores; texts are joined as they are."""
        trees = self._trees([p + c for p, c in zip(prompts, completions, strict=True)])
        return score_trees(self.model, trees, self.batch_size).float()

    def _trees(self, texts: list[str]) -> list[PromptTree]:
        tokenizer = self.model.tokenizer
        if not texts:
            return []
        trees = []
        for i, ids in enumerate(tokenizer(texts, add_special_tokens=False)["input_ids"]):
            if tokenizer.bos_token_id is not None and ids[:1] != [tokenizer.bos_token_id]:
                ids = [tokenizer.bos_token_id, *ids]
            if self.append_eos:
                ids = [*ids, tokenizer.eos_token_id]
            trees.append(PromptTree(i, str(i), tuple(ids[:1]), (tuple(ids[1:]),)))
        return trees


@torch.no_grad()
def score_trees(model: ScoreModel, trees: Sequence[PromptTree], batch_size: int) -> Tensor:
    """``[N]`` float64 scores, on the CPU, of N trees with one completion each.

    Args:
        model: The scorer, in evaluation mode.
        trees: What to score.
        batch_size: Completions per forward.
    """
    scores = torch.zeros(len(trees), dtype=torch.float64)
    # Texts of like length share a batch: less padding, same scores.
    order = sorted(range(len(trees)), key=lambda i: trees[i].longest)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = collate([trees[i] for i in rows]).to(model.device)
        scores[rows] = model.scores(batch).double().cpu()
    return scores


def check_trained_scorer(path: str) -> None:
    """Refuse a folder or hub id that holds no trained scorer with one output.

    Raises:
        ConfigError: Nothing usable at ``path``, no trained head, or several outputs.
    """
    load_tokenizer(path)  # says what is wrong where there is nothing usable
    config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    kinds = config.architectures or []
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise ConfigError(
            f"{path}: a {', '.join(kinds) or 'model of unknown kind'} has no trained score head. "
            "Give the folder of a trained reward model."
        )
    if config.num_labels != 1:
        raise ConfigError(
            f"{path}: a reward is one number, this model gives {config.num_labels}. "
            "Use alignlab.rewards.classifier.ClassifierReward for a classifier."
        )
