"""The reference of pair objectives: what the policy was, whichever way it is kept."""

import math
import shutil

import pytest
import torch
from torch.testing import assert_close

from alignlab.data.trees import collate
from alignlab.errors import ConfigError
from alignlab.models import (
    AdapterOffReference,
    CachedReference,
    FrozenReference,
    Lora,
    Policy,
    PromptTuning,
    StartReference,
)
from alignlab.models.reference import make_reference
from alignlab.objectives.dpo import DPO
from alignlab.objectives.lndpo import LNDPO
from tests.objectives.direct import PAIRS, by_loop, moved


def test_training_moves_the_policy_and_not_the_reference(build):
    objective = LNDPO(build("llama"), torch.optim.AdamW)
    trees = collate(PAIRS)
    before = objective.four_logps(trees, objective.policy(trees))
    assert_close(before[:2], before[2:])
    optimizer = torch.optim.SGD(objective.parameter_groups(), lr=0.1)
    objective.losses(trees)[0].sum().backward()
    optimizer.step()
    after = objective.four_logps(trees, objective.policy(trees))
    assert_close(after[2:], before[2:], rtol=0, atol=0)
    assert (after[0] > before[0]).any()


def test_chosen_and_rejected_of_policy_and_reference_in_this_order(build):
    objective = LNDPO(build("llama"), torch.optim.AdamW)
    ref, _ = by_loop(objective.policy, PAIRS)
    sums, _ = by_loop(moved(objective.policy), PAIRS)
    trees = collate(PAIRS)
    with torch.no_grad():
        four = objective.four_logps(trees, objective.policy(trees))
    assert_close(four, (sums[::2], sums[1::2], ref[::2], ref[1::2]))


def test_auto_takes_the_adapter_off_where_there_is_one(build, tmp_path):
    build("llama", dtype="float32").save(tmp_path)
    adapted = LNDPO(Policy(source=str(tmp_path), lora=Lora(rank=2)), torch.optim.AdamW)
    assert isinstance(adapted.reference, AdapterOffReference)
    assert isinstance(LNDPO(build("llama"), torch.optim.AdamW).reference, FrozenReference)


LORA, PROMPT = {"lora": Lora(rank=2)}, {"prompt_tuning": PromptTuning(3)}


@pytest.fixture(scope="module")
def folders(build, tmp_path_factory):
    """Base, trained adapters and trained virtual tokens on it, and the adapters merged."""
    root = tmp_path_factory.mktemp("ways")
    build("llama").save(root / "base")
    for name, settings in (("lora", LORA), ("prompt", PROMPT)):
        policy = Policy(str(root / "base"), dtype="float64", **settings)
        moved(policy)
        policy.save(root / name)
    merged = Policy(str(root / "lora"), dtype="float64")
    merged.model = merged.model.merge_and_unload()
    merged.save(root / "merged")
    return root


@pytest.mark.parametrize(
    ("source", "settings", "kind"),
    [
        ("base", {}, FrozenReference),
        ("base", LORA, AdapterOffReference),
        ("base", PROMPT, StartReference),
        ("lora", {}, StartReference),
        ("lora", LORA, AdapterOffReference),
        ("lora", PROMPT, StartReference),
        ("prompt", {}, StartReference),
        ("merged", {}, FrozenReference),
        ("merged", LORA, AdapterOffReference),
    ],
)
def test_however_it_was_loaded_the_reference_is_the_policy_at_its_start(
    folders, tmp_path, source, settings, kind
):
    """Before a step DPO's loss is log 2; after one the reference is where it was."""
    trees, expected = collate(PAIRS), [math.log(2)] * len(PAIRS)
    policy = Policy(str(folders / source), dtype="float64", **settings)
    start = by_loop(Policy(str(folders / source), dtype="float64", **settings), PAIRS)[0]
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    objective = DPO(policy, torch.optim.AdamW, beta=1.0)
    references = [objective.reference, FrozenReference(policy)]
    references.append(CachedReference(policy, PAIRS, tmp_path))
    assert isinstance(objective.reference, kind)
    assert [name for name, p in policy.named_parameters() if p.requires_grad] == trained
    assert objective.losses(trees)[0].tolist() == pytest.approx(expected, abs=1e-6)
    moved(policy)
    assert not torch.allclose(policy(trees).logps, start, atol=0.01)
    for reference in references:
        assert_close(reference.token_logps(trees).sum(1), start, rtol=0, atol=1e-5)
    assert not [name for name in objective.kept_names() if ".start." in name]
    policy.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "start").exists()
    again = Policy(str(tmp_path / "saved"), dtype="float64")
    assert_close(again(trees).logps, policy(trees).logps, rtol=0, atol=1e-5)


def test_a_policy_that_went_on_has_a_new_start(folders):
    """The second objective's reference is the policy as the first one left it."""
    trees, policy = collate(PAIRS), Policy(str(folders / "lora"), dtype="float64")
    make_reference(policy, "auto")
    moved(policy)
    before = policy(trees).token_logps.detach()
    assert torch.equal(make_reference(policy, "auto").token_logps(trees), before)


def test_biases_that_train_beside_adapters_need_a_copy_of_the_model(folders):
    """Adapters switched off or exchanged would leave the trained biases in the reference."""
    policy = Policy(str(folders / "lora"), dtype="float64")
    policy.model.get_base_model().model.norm.weight.requires_grad_(True)
    assert isinstance(make_reference(policy, "auto"), FrozenReference)


def test_adapters_that_would_train_biases_of_a_model_without_any_have_a_start(folders, tmp_path):
    """Peft puts no second set beside one that trains biases, though there are none here."""
    shutil.copytree(folders / "lora", tmp_path / "lora")
    written = tmp_path / "lora" / "adapter_config.json"
    written.write_text(written.read_text().replace('"bias": "none"', '"bias": "lora_only"'))
    policy, trees = Policy(str(tmp_path / "lora"), dtype="float64"), collate(PAIRS)
    start = policy(trees).token_logps.detach()
    reference = make_reference(policy, "auto")
    moved(policy)
    assert isinstance(reference, StartReference)
    assert torch.equal(reference.token_logps(trees), start)


@pytest.mark.parametrize(("source", "settings"), [("lora", {}), ("prompt", {}), ("base", PROMPT)])
def test_no_adapter_is_switched_off_that_the_policy_starts_with(folders, source, settings):
    policy = Policy(str(folders / source), **settings)
    with pytest.raises(ConfigError, match=r"not the policy at its start\. Set .* to auto"):
        LNDPO(policy, torch.optim.AdamW, reference="adapter_off")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, r"LNDPO needs beta > 0, got 0\.0\. Set model\.init_args\.beta"),
        ({"reference": "cached"}, r"model\.init_args\.reference_cache"),
        ({"reference": "adapter_off"}, "needs a policy with lora"),
    ],
)
def test_impossible_settings_name_their_key(build, settings, message):
    with pytest.raises(ConfigError, match=message):
        LNDPO(build("llama"), torch.optim.AdamW, **settings)
