"""TR-DPO: the loss, when and how far the reference moves, and what checkpoints remember of it."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import collate
from alignlab.errors import ConfigError
from alignlab.models import Lora, Policy
from alignlab.objectives.tr_dpo import TRDPO, tr_dpo_loss
from tests.cells import make_cell, rows_file
from tests.objectives.direct import PAIRS, column
from tests.objectives.test_training import WARM, fit

SGD = partial(torch.optim.SGD, lr=0.1)


def test_value_worked_by_hand():
    """Log-ratios 1 and -1, beta 0.5: log(1 + e^-1) = 0.313262."""
    losses, chosen, rejected = tr_dpo_loss(*column(-1, -4, -2, -3), beta=0.5)
    assert losses.item() == pytest.approx(0.313262, abs=1e-6)
    assert (chosen.item(), rejected.item()) == (0.5, -0.5)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, build) -> Path:
    folder = tmp_path_factory.mktemp("tr_dpo")
    build("llama", spread=0.2).save(folder / "lm")
    rows_file(folder / "rows.jsonl")
    return folder


def made(ground: Path, **settings: Any) -> Any:
    """TR-DPO by plain gradient descent, and its data."""
    policy = Policy(source=str(ground / "lm"), dtype="float64")
    _, data = make_cell("dpo", str(ground / "rows.jsonl"), str(ground / "lm"), ground, WARM)
    return TRDPO(policy, SGD, beta=0.3, **settings), data


def weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in model.parameters()]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_the_reference_moves_after_every_tau_steps(ground, tmp_path):
    """Two micro-batches a step; the starts are those of the policy at steps 0, 2 and 4."""
    seen: list[list[torch.Tensor]] = []
    objective, data = made(ground, alpha=0.25, tau=2)
    start = weights(objective.policy)
    step = objective.optimizer_step

    def recorded(*args, **kwargs):
        step(*args, **kwargs)
        seen.append([*weights(objective.policy), *weights(objective.reference.policy)])

    objective.optimizer_step = recorded
    data.micro_batch_size = 2
    fit((objective, data), tmp_path, steps=5, accumulate=2)
    count, expected = len(start), start
    for number, both in enumerate(seen, 1):
        if number % 2 == 0:
            pairs = zip(both[:count], expected, strict=True)
            expected = [0.25 * policy + 0.75 * ref for policy, ref in pairs]
        assert_close(both[count:], expected, rtol=0, atol=1e-14)
    assert not torch.equal(expected[0], start[0])
    assert not any(p.requires_grad for p in objective.reference.parameters())


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_reference_that_does_not_move_is_that_of_dpo(ground, tmp_path):
    """And one that is replaced at once has log-ratios of 0 before every step."""
    still = fit(made(ground, alpha=0.0, tau=1), tmp_path / "still", steps=4)
    late = fit(made(ground, tau=99), tmp_path / "late", steps=4)
    assert all(torch.equal(value, late[name]) for name, value in still.items())
    objective, data = made(ground, alpha=1.0, tau=1)
    fit((objective, data), tmp_path / "at_once", steps=3)
    assert objective.losses(collate(PAIRS))[0].tolist() == pytest.approx([math.log(2)] * 3)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_checkpoint_without_the_reference_is_refused(ground, tmp_path):
    fit(made(ground), tmp_path, steps=1)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    names = set(content["state_dict"])
    assert {f"reference.{name}" for name in names if name.startswith("policy.")} <= names
    content["state_dict"] = {k: v for k, v in content["state_dict"].items() if k[:3] != "ref"}
    with pytest.raises(ConfigError, match=r"lacks .* trained weights, e\.g\. reference\."):
        made(ground)[0].on_load_checkpoint(content)


@pytest.mark.parametrize("reference", ["cached", "adapter_off"])
def test_a_reference_that_cannot_move_is_refused(build, reference):
    with pytest.raises(ConfigError, match=r"TRDPO .* Set model\.init_args\.reference to frozen"):
        TRDPO(build("llama"), SGD, reference=reference)


def test_adapters_are_refused(build, ground):
    with pytest.raises(ConfigError, match="leave out lora"):
        TRDPO(Policy(source=str(ground / "lm"), lora=Lora(rank=2)), SGD)


@pytest.mark.parametrize("setting", [{"alpha": 1.5}, {"tau": 0}, {"beta": 0.0}])
def test_impossible_settings_name_their_key(build, setting):
    (name,) = setting
    with pytest.raises(ConfigError, match=rf"TRDPO needs {name} .*model\.init_args\.{name}"):
        TRDPO(build("llama"), SGD, **setting)
