"""Rows that a model cannot read are named, with the token or the numbers, before torch fails."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, PreTrainedTokenizerFast

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError, DataError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import Policy, PromptTuning, ScoreModel
from alignlab.models.limits import context_of
from alignlab.objectives.kto import KTO
from alignlab.objectives.on_policy import Sampling
from alignlab.objectives.rloo import RLOO
from alignlab.objectives.sft import SFT
from alignlab.rewards.rule import ToySentiment
from alignlab.rollouts.sampler import sample
from tests.models.test_modes import start

SGD = partial(torch.optim.SGD, lr=0.0)
FITS = PromptTree(0, "fits", (1, 4), (tuple([5] * 62), (6,)))
LONG = PromptTree(1, "long", (1, 4, 7), ((6,), tuple([5] * 62)))
LONG_ROW = r"row 'long' has 65 tokens, and the model has room for 64: shorten it"


@pytest.fixture(scope="module")
def folder(build: Callable[..., Policy], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 64 positions and 32 tokens; its tokenizer in ``more`` has 2 more."""
    root = tmp_path_factory.mktemp("limits")
    build("gpt2", dtype="float32").save(root / "lm")
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(root / "lm")
    tokenizer.add_tokens(["<tool>", "<end>"])
    tokenizer.save_pretrained(root / "more")
    return root


@pytest.mark.parametrize("layout", ["flat", "packed"])
@pytest.mark.parametrize("kind", [Policy, ScoreModel])
def test_a_row_longer_than_the_context_is_named(folder: Path, kind: Any, layout: Any) -> None:
    model = kind(str(folder / "lm"), layout=layout).eval()
    model(collate([FITS]))
    with pytest.raises(DataError, match=LONG_ROW):
        model(collate([FITS, LONG]))


@pytest.mark.parametrize("ids", [((1, 33), (4,)), ((1,), (4, 33))])
def test_a_token_without_an_embedding_is_named(folder: Path, ids: Any) -> None:
    policy = Policy(str(folder / "lm"), tokenizer=str(folder / "more")).eval()
    policy(collate([FITS]))  # a tokenizer may know more tokens than the rows have
    tree = PromptTree(1, "new", ids[0], (ids[1],))
    told = r"row 'new' has token 33 \('<end>'\), and the model has embeddings of 32 tokens"
    with pytest.raises(DataError, match=told + r" \(the tokenizer has 34\)"):
        policy(collate([FITS, tree]))
    if 33 in ids[0]:
        with pytest.raises(DataError, match=told):
            sample(
                policy,
                [tree],
                samples=1,
                max_new_tokens=2,
                spec=SamplingSpec(),
                seed=0,
                stop_ids=[2],
            )


def test_virtual_tokens_take_room(folder: Path) -> None:
    policy = Policy(str(folder / "lm"), prompt_tuning=PromptTuning(3))
    with pytest.raises(DataError, match="row 'fits' has 64 tokens, and the model has room for 61"):
        policy(collate([FITS]))


class Data:
    train_trees = (FITS,)
    validation_trees = (LONG,)


def begun(objective: Any, data: Any) -> None:
    objective._trainer = None
    start(objective)
    objective._trainer.datamodule = data
    objective.on_train_start()


def test_rows_of_training_and_validation_are_looked_at_before_the_first_step(folder: Path) -> None:
    with pytest.raises(DataError, match=LONG_ROW):
        begun(SFT(Policy(str(folder / "lm")), SGD), Data())


def test_prompts_need_room_for_what_is_sampled(folder: Path) -> None:
    class Prompts:
        train_trees = (PromptTree(0, "short", (1,), ()), PromptTree(1, "deep", (1,) * 55, ()))

    def begin(new: int) -> None:
        policy = Policy(str(folder / "lm"))
        begun(RLOO(policy, ToySentiment(), Sampling(new), SGD), Prompts())

    begin(9)
    with pytest.raises(DataError, match=r"row 'deep' has 55 tokens, .* has room for 54"):
        begin(10)
    with pytest.raises(DataError, match=r"max_new_tokens leaves no room for prompts\. Lower it"):
        begin(64)
    with pytest.raises(DataError, match=r"max_new_tokens leaves no room for prompts\. Lower it"):
        begin(64)


def test_mismatched_completions_are_cut_to_the_context(folder: Path) -> None:
    """60 tokens of one prompt and 40 of another's completion are each read in a row of 64."""
    trees = [
        PromptTree(0, "a", (1,) * 60, ((5, 6),), labels=(1.0,)),
        PromptTree(1, "b", (1, 4), ((7,) * 40,), labels=(0.0,)),
    ]
    objective = KTO(Policy(str(folder / "lm")), SGD)
    objective._watch(collate(trees))
    assert objective.kl_sums[1] == 2
    policy = objective.policy.eval()
    cut = [PromptTree(0, "a", (1,) * 60, ((7,) * 4,)), PromptTree(1, "b", (1, 4), ((5, 6),))]
    with torch.no_grad():
        wanted = policy(collate(cut)).logps
        others = collate(trees).mismatched()
        assert others is not None
        found = policy(others.shortened(64 - others.prompt_lengths)).logps
    assert found.tolist() == pytest.approx(wanted.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("rope", "bound"),
    [
        ({"rope_type": "longrope", "original_max_position_embeddings": 64}, 64),
        ({"rope_type": "default"}, 4096),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}, 4096),
    ],
)
def test_rotary_factors_that_a_batch_decides_are_not_reached(rope: Any, bound: int) -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    config = AutoConfig.for_model("llama", max_position_embeddings=4096)
    config.rope_parameters = {"rope_theta": 1e4, **rope, **factors}
    assert context_of(config) == bound


def test_a_long_rope_model_scores_a_row_by_itself_alone(words: Path) -> None:
    """Beside a row beyond its first context, a short one would be read with other factors."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [8.0] * 4}
    sizes = {
        "original_max_position_embeddings": 16,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = {"model_type": "phi3", "intermediate_size": 24, "max_position_embeddings": 64, **sizes}
    policy = Policy(config=config | {"rope_parameters": rope}, tokenizer=str(words))
    assert policy.room == 16
    with pytest.raises(DataError, match="'long' has 65 tokens, and the model has room for 16"):
        policy(collate([PromptTree(0, "short", (1,), ((5, 6),)), LONG]))
    with pytest.raises(ConfigError, match="context of 16"):
        sample(
            policy,
            [PromptTree(0, "a", (1,), ())],
            samples=1,
            max_new_tokens=16,
            spec=SamplingSpec(),
            seed=0,
            stop_ids=[2],
        )
