"""A number that is lost: which step, rows and tensor; the step is kept, and stopped or skipped."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from alignlab.callbacks.non_finite import (
    FOLDER,
    WEIGHTS,
    NonFinite,
    Part,
    first_bad,
    from_tensors,
    read,
    to_tensors,
)
from alignlab.data.rollouts import RolloutBatch
from alignlab.data.trees import PromptTree, collate
from alignlab.errors import DataError
from alignlab.objectives.schedule import Schedule
from tests.cells import make_cell, rows_file

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*:UserWarning")


class Model(nn.Module):
    """Three layers in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(2, 2) for _ in range(3))

    def forward(self, x):
        return self.third(self.second(self.first(x)))


def test_the_first_tensor_is_named_in_order_of_the_computation(monkeypatch):
    model, x = Model(), torch.ones(1, 2)
    assert first_bad(model, lambda: model(x).sum())[0] == ""
    loss = lambda: (model(x) * torch.tensor([1.0, math.nan])).sum()  # noqa: E731
    assert first_bad(model, loss)[0] == "the loss, of finite outputs"
    # The root of 0 is finite and its gradient is not.
    flat = lambda: (0 * model.second(model.first(x))).sum().sqrt()  # noqa: E731
    assert first_bad(model, flat)[0] == "gradient at second"
    assert all(p.grad is None for p in model.parameters())
    assert first_bad(model, flat, backward=False)[0] == ""
    monkeypatch.setattr(model.second, "forward", lambda y: y / 0)
    assert first_bad(model, lambda: model(x).sum())[0] == "output of second"
    model.third.weight.data[0, 0] = math.inf
    assert first_bad(model, lambda: model(x).sum())[0] == "weight third.weight"
    assert not model.second._forward_hooks


@pytest.fixture
def fit(build, tmp_path):
    build().save(tmp_path / "start")
    source = rows_file(tmp_path / "rows.jsonl")

    def train(name, spoil, *, then="stop", steps=3, micro=2):
        objective, data = make_cell(
            name, source, str(tmp_path / "start"), tmp_path / "cache", Schedule(), micro=micro
        )
        seen = []

        class Spoil(L.Callback):
            """Damages one step, and keeps the weights behind every step."""

            def on_train_batch_start(self, trainer, module, batch, index):
                spoil(trainer, module, batch, index)

            def on_train_batch_end(self, trainer, module, *_):
                state = {k: v.clone() for k, v in module.trained.state_dict().items()}
                seen.append((trainer.global_step, state))

        trainer = L.Trainer(
            max_steps=steps, max_epochs=-1, accelerator="cpu", accumulate_grad_batches=4 // micro,
            logger=False, default_root_dir=tmp_path, gradient_clip_val=1.0,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
            num_sanity_val_steps=0, callbacks=[Spoil(), NonFinite(then)],
        )  # fmt: skip
        trainer.fit(objective, data)
        return dict(seen)

    return train


def losing(which, *, step=1, micro=1):
    """Lose a number of the second micro-batch of the second step: ``loss`` or ``gradient``."""
    chosen = list[str]()

    def spoil(trainer, module, batch, index):
        if trainer.global_step == step and index % 2 == micro:
            chosen.append(batch.ids[1])
        if getattr(module, "spoilt", False):
            return
        module.spoilt, real = True, module.losses

        def losses(trees):
            found, means = real(trees)
            for row in range(len(trees.ids)):
                if trees.ids[row] in chosen and trainer.global_step == step:
                    bad = torch.tensor(math.nan) if which == "loss" else (0 * found[row]).sqrt()
                    found = torch.where(torch.arange(len(found)) == row, found + bad, found)
            return found, means

        module.losses = losses

    return spoil, chosen


def test_it_stops_before_the_update_and_keeps_the_step(fit, tmp_path):
    spoil, chosen = losing("loss")
    with pytest.raises(FloatingPointError) as caught:
        fit("dpo", spoil)
    said = str(caught.value)
    path = tmp_path / FOLDER / "000002.json"
    assert said.startswith("step 2: loss is not finite: micro-batch 2 of process 0, rows [")
    assert f"loss is not finite for 1 rows, e.g. {chosen}" in said
    assert "first bad tensor: the loss, of finite outputs" in said
    assert f"alignlab replay {path}" in said
    record, parts = read(path)
    assert record == {"objective": "DPO", "step": 2}
    assert [part.number for part, _ in parts] == [1, 2]
    assert math.isfinite(parts[0][0].loss)
    assert math.isnan(parts[1][0].loss)
    assert parts[1][1].ids[1] == chosen[0]
    kept = load_file(path.with_suffix(WEIGHTS))
    assert all(name.startswith("policy.") and "reference" not in name for name in kept)
    assert json.loads(path.read_text())["step"] == 2


def test_a_gradient_names_where_it_comes_from(fit):
    spoil, _ = losing("gradient")
    with pytest.raises(FloatingPointError, match=r"step 2: gradient is not .* tensor: gradient at"):
        fit("simpo", spoil)


@pytest.mark.parametrize("which", ["loss", "gradient"])
def test_a_skipped_step_changes_no_weight_and_training_goes_on(fit, capsys, tmp_path, which):
    spoil, _ = losing(which)
    after = fit("simpo", spoil, then="skip", steps=4)
    equal = [all(torch.equal(v, after[n + 1][k]) for k, v in after[n].items()) for n in (1, 2, 3)]
    assert equal == [True, False, False]
    assert all(bool(torch.isfinite(v).all()) for v in after[4].values())
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped: ")]
    assert len(said) == 1
    assert "step 2" in said[0]
    assert len(list((tmp_path / FOLDER).glob("*.json"))) == 1


def test_a_loss_of_finite_gradients_stops_too(fit):
    def spoil(trainer, module, batch, index):
        if trainer.global_step == 1 and not getattr(module, "spoilt", False):
            module.spoilt, real = True, module.losses
            module.losses = lambda trees: (real(trees)[0] + math.inf, {})

    with pytest.raises(FloatingPointError, match="step 2: loss is not finite"):
        fit("simpo", spoil)


def test_weights_that_are_lost_end_the_run_in_any_case(fit):
    def spoil(trainer, module, batch, index):
        if trainer.global_step == 1:
            next(iter(module.trained.parameters())).data.fill_(math.nan)

    with pytest.raises(FloatingPointError, match="first bad tensor: weight policy"):
        fit("simpo", spoil, then="skip")


def test_a_batch_is_the_same_after_it_was_saved():
    trees = [PromptTree(i, f"r{i}", (1, 4)[: i + 1], ((3, 4, 5), (6,))) for i in range(2)]
    batch = collate(trees)
    for each in (
        batch,
        RolloutBatch(batch, torch.rand(4, 3), torch.rand(4, 3), first=True, pretraining=batch),
    ):
        part = Part(0, 1, batch.ids, 0.0, "", "")
        again = from_tensors(part, to_tensors(each, part.facts))
        assert type(again) is type(each)
        assert to_tensors(again, {}).keys() == to_tensors(each, {}).keys()
        for name, value in to_tensors(each, {}).items():
            assert torch.equal(value, to_tensors(again, {})[name])
        inner = again.trees if isinstance(again, RolloutBatch) else again
        assert inner.ids == batch.ids
        assert inner.totals == batch.totals
        assert again.first or again is inner


def test_another_file_is_no_saved_step(tmp_path: Path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataError, match="is no saved step"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize("then", ["stop", "skip"])
def test_a_rollout_whose_loss_is_lost(fit, capsys, then):
    """The lists of a policy gradient have another unit, and rollouts another batch."""

    def spoil(trainer, module, batch, index):
        if getattr(module, "spoilt", False):
            return
        module.spoilt, real = True, module.losses

        def losses(batch, scores):
            found, means = real(batch, scores)
            return found * (math.nan if trainer.global_step == 1 else 1.0), means

        module.losses = losses

    train = partial(fit, "rloo", spoil, then=then)
    if then == "skip":
        train()
        assert "skipped: step 2: loss is not finite" in capsys.readouterr().err
    else:
        with pytest.raises(FloatingPointError, match="step 2: loss is not finite"):
            train()


@pytest.mark.parametrize("name", ["kto", "beta_dpo", "bco"])
def test_a_skipped_step_leaves_no_trace_in_running_statistics(fit, capsys, name):
    """KTO's divergence and beta-DPO's usual margin would be NaN, and all later losses with them."""
    before = dict[int, dict[str, torch.Tensor]]()

    def spoil(trainer, module, batch, index):
        own = {k: v.clone() for k, v in module.named_buffers(recurse=False)}
        before.setdefault(trainer.global_step, own)  # ahead of a step's first micro-batch
        if getattr(module, "spoilt", False):
            return
        module.spoilt, real = True, module.policy.forward

        def forward(*given, **settings):
            scores = real(*given, **settings)
            if trainer.global_step == 1:
                logps, each = scores.logps * math.nan, scores.token_logps * math.nan
                scores = replace(scores, logps=logps, token_logps=each)
            return scores

        module.policy.forward = forward

    after = fit(name, spoil, then="skip", steps=4, micro=4 if name == "beta_dpo" else 2)
    assert before[1]
    assert all(torch.equal(before[2][k], value) for k, value in before[1].items())
    assert all(bool(value.isfinite().all()) for value in before[3].values())
    equal = [all(torch.equal(v, after[n + 1][k]) for k, v in after[n].items()) for n in (1, 2, 3)]
    assert equal == [True, False, False]
    assert capsys.readouterr().err.count("skipped: ") == 1
