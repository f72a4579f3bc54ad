"""Every objective in a real trainer: resume is bit-exact, and how a step is cut does not matter."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch.testing import assert_close

from alignlab.callbacks.resume import Resume
from alignlab.data.loader import TreeLoader
from alignlab.data.rollout_data import RolloutData
from alignlab.errors import ConfigError, DataError
from alignlab.objectives.base import Objective
from alignlab.objectives.schedule import Schedule
from tests.cells import DIRECT, ON_POLICY, SCORERS, VARIANTS, Made, make_cell, rows_file

STEPS = 10  # three PPO phases of four steps, the last one not finished
WARM = Schedule(warmup_steps=2, decay="cosine", total_steps=STEPS)  # a stopped run plans the whole


@pytest.fixture(scope="module")
def ground(tmp_path_factory, build) -> tuple[str, str]:
    """A data file and the folder of a starting policy."""
    folder = tmp_path_factory.mktemp("ground")
    build("llama", dtype="float64", spread=0.2).save(folder / "lm")
    return rows_file(folder / "rows.jsonl"), str(folder / "lm")


@pytest.fixture
def make(ground, tmp_path) -> Callable[..., Made]:
    """Objective and data by name; further settings as ``make_cell`` takes them."""
    source, start = ground

    def made(name: str, **settings: Any) -> Made:
        return make_cell(name, source, start, tmp_path / "cache", WARM, **settings)

    return made


def fit(
    made: Made,
    folder: Path,
    *,
    steps: int,
    accumulate: int = 1,
    ckpt: Path | None = None,
    callbacks: Sequence[L.Callback] = (),
) -> dict[str, torch.Tensor]:
    """Train to ``steps`` optimizer steps in all; returns what a checkpoint would hold."""
    trainer = L.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        accumulate_grad_batches=accumulate,
        gradient_clip_val=1.0,
        callbacks=[Resume(), *callbacks],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(made[0], made[1], ckpt_path=ckpt, weights_only=True)
    assert trainer.global_step == steps
    return {name: value.clone() for name, value in made[0].state_dict().items()}


ALL = ["lm", "sft", "classify", *SCORERS, *DIRECT, "dpo", "dpo_cached"]
ALL += ON_POLICY
SLOW = ("gspo", "cispo", "reinforce_pp")  # dapo takes the same path, with fewer groups
CHOSEN = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in ALL]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Lightning's advice on loggers and loaders
@pytest.mark.parametrize(
    "name", [*CHOSEN, *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS)]
)
def test_stopping_between_any_two_steps_changes_no_bit(make, tmp_path, name):
    """21 rows in steps of 4 are 6 an epoch (20 pairs: 5), so stops fall inside and at its end.

    On-policy 3 falls inside a phase and 8 between two.
    """
    stops = {"ppo": range(1, STEPS)}.get(name, [3, 8] if name in ON_POLICY else [1, 5, 6])
    whole = fit(make(name), tmp_path / "whole", steps=STEPS)
    for stop in stops:
        folder = tmp_path / f"stop{stop}"
        fit(make(name), folder, steps=stop)
        torch.manual_seed(stop)  # whatever the other process did with its generators
        resumed = fit(make(name), folder, steps=STEPS, ckpt=folder / "last.ckpt")
        assert whole.keys() == resumed.keys()
        for key, value in whole.items():
            assert torch.equal(value, resumed[key]), (stop, key)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_warm_up_of_the_values_leaves_the_policy_alone(make, tmp_path):
    """Six steps of warm-up; the policy's schedule begins then, at a rate of 0."""
    objective = make("ppo_warm")[0]
    start = {name: value.clone() for name, value in objective.state_dict().items()}
    trained = {f"policy.{name}" for name, _ in objective.policy.named_parameters()}
    for steps, with_policy in ((6, False), (7, False), (8, True)):
        end = fit(make("ppo_warm"), tmp_path / str(steps), steps=steps)
        moved = {name for name in start if not torch.equal(start[name], end[name])}
        assert bool(trained & moved) == with_policy, steps
        assert {name for name in moved if name.startswith("value.")}, steps
        assert "kl_coef" not in moved, steps  # both phases were sampled in the warm-up
        state = torch.load(tmp_path / str(steps) / "last.ckpt", weights_only=True)
        with_state = set(state["optimizer_states"][0]["state"])
        assert bool(with_state & set(range(len(trained)))) == (steps > 6), steps


class KilledAt(L.Callback):
    """Ends the training before an optimizer step, without any tidying up."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyError("killed")


def fit_with(objective: Objective, data: Any, folder: Path, **settings: Any) -> L.Trainer:
    """Train with a quiet trainer of these ``settings``."""
    ckpt = settings.pop("ckpt", None)
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    whole: dict[str, Any] = {"accelerator": "cpu", "default_root_dir": folder} | quiet | settings
    trainer = L.Trainer(**whole, num_sanity_val_steps=0)
    trainer.fit(objective, data, ckpt_path=ckpt, weights_only=True)
    return trainer


def fit_epochs(made: Made, folder: Path, *callbacks: L.Callback, **settings: Any) -> L.Trainer:
    """Train for as many epochs as ``settings`` say, in two micro-batches a step, and validate."""
    objective, data = made
    objective.schedule = Schedule(warmup_steps=2, decay="cosine")  # to the end of the epochs
    if not isinstance(data, RolloutData):
        data.validation_share = 0.2  # type: ignore[attr-defined]
    usual = {"max_epochs": 3, "max_time": {"hours": 1}, "accumulate_grad_batches": 2}
    kept = [Resume(every_steps=1), *callbacks]
    return fit_with(objective, data, folder, **usual | settings, callbacks=kept)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize(
    "name",
    [
        name if name in ("sft", "ppo") else pytest.param(name, marks=pytest.mark.slow)
        for name in ALL
    ],
)
def test_epochs_that_were_cut_off_continue_bit_for_bit(make, tmp_path, name):
    """With ``max_epochs`` the schedule counts the loader's batches, and the loader goes on.

    17 trees or so in steps of 4 are 5 an epoch, a phase of PPO has 4: 7 is inside an epoch.
    """
    whole = make(name, micro=2)
    trained = fit_epochs(whole, tmp_path / "whole").global_step
    assert trained == (12 if name in ON_POLICY else trained // 3 * 3)
    with pytest.raises(KeyError, match="killed"):
        fit_epochs(make(name, micro=2), tmp_path / "cut", KilledAt(7))
    torch.manual_seed(7)
    resumed = make(name, micro=2)
    ended = fit_epochs(resumed, tmp_path / "cut", ckpt=tmp_path / "cut" / "last.ckpt")
    assert ended.global_step == trained
    for key, value in whole[0].state_dict().items():
        assert torch.equal(value, resumed[0].state_dict()[key]), key


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("stop", [3, 6, 8])
@pytest.mark.parametrize("name", ["sft", "rloo", "kto"])
def test_steps_that_are_cut_otherwise_continue_as_they_were(make, tmp_path, name, stop):
    """Two micro-batches a step before, one or four after, as on another number of processes."""
    whole = fit(make(name), tmp_path / "whole", steps=STEPS)
    folder = tmp_path / "cut"
    fit(make(name, micro=2), folder, steps=stop, accumulate=2)
    for micro in (None, 1):
        accumulate = 4 // (micro or 4)
        resumed = fit(
            make(name, micro=micro),
            tmp_path / f"{micro}",
            steps=STEPS,
            accumulate=accumulate,
            ckpt=folder / "last.ckpt",
        )
        for key, value in whole.items():
            assert_close(resumed[key], value, rtol=0, atol=1e-12, msg=key)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("limit", [3, 0.5], ids=["batches", "share"])
def test_epochs_left_early_continue_bit_for_bit(make, tmp_path, limit):
    """3 micro-batches are a step and a half; half of an epoch's 9 are two steps."""
    whole, resumed = make("sft", micro=2), make("sft", micro=2)
    fit_epochs(whole, tmp_path / "whole", limit_train_batches=limit)
    with pytest.raises(KeyError, match="killed"):
        fit_epochs(make("sft", micro=2), tmp_path / "cut", KilledAt(4), limit_train_batches=limit)
    last = tmp_path / "cut" / "last.ckpt"
    fit_epochs(resumed, tmp_path / "cut", limit_train_batches=limit, ckpt=last)
    for key, value in whole[0].state_dict().items():
        assert torch.equal(value, resumed[0].state_dict()[key]), key


class AskToStop(L.Callback):
    """Wants the training to end after its third micro-batch: as a timer does, inside a step."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx == 2:
            trainer.should_stop = True


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_stop_waits_for_the_step_to_be_whole(make, tmp_path):
    """So that what a timer ended goes on, given more time, as if nobody had stopped it."""
    whole, resumed = make("sft", micro=2), make("sft", micro=2)
    fit_epochs(whole, tmp_path / "whole")
    stopped = fit_epochs(make("sft", micro=2), tmp_path / "cut", AskToStop())
    assert (stopped.global_step, stopped.fit_loop.epoch_loop.total_batch_idx) == (2, 3)
    fit_epochs(resumed, tmp_path / "cut", ckpt=tmp_path / "cut" / "last.ckpt")
    for key, value in whole[0].state_dict().items():
        assert torch.equal(value, resumed[0].state_dict()[key]), key


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_step_that_the_trainer_cuts_is_the_mean_of_what_it_saw(make, tmp_path):
    """Of a step of two micro-batches the first: its gradient over its own tokens."""
    objective, data = make("sft", micro=2)
    before = {name: p.detach().clone() for name, p in objective.policy.named_parameters()}
    kept: list[Any] = []
    losses = objective.losses

    def spy(trees: Any) -> Any:
        kept.append(trees)
        return losses(trees)

    objective.losses = spy
    objective.make_optimizer = partial(torch.optim.SGD, lr=1.0)
    objective.configure_optimizers = lambda: objective.make_optimizer(objective.parameters())
    trainer = fit_epochs((objective, data), tmp_path, max_epochs=1, limit_train_batches=1)
    assert trainer.global_step == 1
    seen = kept[0]  # what follows is validation
    by_hand = make("sft")[0].policy
    (-by_hand(seen).logps.sum() / int(seen.loss_mask.sum())).backward()
    after = dict(objective.policy.named_parameters())
    for name, parameter in by_hand.named_parameters():
        assert_close(before[name] - after[name], parameter.grad, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_phase_that_the_trainer_cuts_inside_a_step_is_refused(make, tmp_path):
    with pytest.raises(ConfigError, match=r"limit_train_batches 3 .* Give a multiple of 2"):
        fit_epochs(make("rloo", micro=2), tmp_path, limit_train_batches=3)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_time_alone_ends_a_training_unless_its_schedule_needs_an_end(make, tmp_path):
    objective, data = make("sft")
    objective.schedule = Schedule(warmup_steps=2)
    alone: dict[str, Any] = {"max_epochs": -1, "max_time": {"seconds": 1}}
    trainer = fit_with(objective, data, tmp_path, **alone)
    assert trainer.global_step > 0
    objective, data = make("sft")
    objective.schedule = Schedule(decay="linear")
    with pytest.raises(ConfigError, match=r"decay linear .* Set model.init_args.schedule.total_st"):
        fit_with(objective, data, tmp_path, **alone)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize(("steps", "message"), [(1, "after step 1 model"), (2, "not finite for 4")])
def test_a_training_that_diverges_ends_as_one(make, tmp_path, steps, message):
    """The first update leaves NaN: at the end of training, and else at the next loss."""
    objective, data = make("sft")
    objective.make_optimizer = partial(torch.optim.SGD, lr=math.inf)
    objective.schedule = Schedule()
    with pytest.raises(FloatingPointError, match=f"{message}.*diverged"):
        fit((objective, data), tmp_path, steps=steps)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("name", [*CHOSEN, "sft_on_prompts"])
def test_micro_batches_change_no_gradient(make, tmp_path, name):
    """After one step of plain gradient descent the weights are the gradients.

    What is logged of the step is that of all its micro-batches, too.
    """
    found, logged = [], []
    for micro in (None, 2, 1):
        objective, data = make(name, micro=micro)
        objective.make_optimizer = partial(torch.optim.SGD, lr=1.0)
        objective.schedule = Schedule()
        accumulate = 4 // (micro or 4)
        said: dict[str, torch.Tensor] = {}
        objective.log = lambda name, value, said=said, **_: said.update({name: value})
        folder = tmp_path / f"micro{micro}"
        found.append(fit((objective, data), folder, steps=1, accumulate=accumulate))
        logged.append(said)
    assert any(key.startswith("train/") for key in logged[0])
    for other, said in zip(found[1:], logged[1:], strict=True):
        for key, value in found[0].items():
            assert_close(other[key], value, rtol=0, atol=1e-10, msg=key)
        assert said.keys() == logged[0].keys()
        for key, value in logged[0].items():
            if key == "train/rewards/accuracies":  # margins are 0 up to rounding before an update
                continue
            assert_close(said[key], value, rtol=1e-6, atol=1e-12, msg=key)


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("dpo_cached", *ON_POLICY)])
def test_ranks_change_no_gradient(make, monkeypatch, name):
    """Two ranks of two micro-batches each, gradients averaged as DDP does, against one process."""

    def gradients(ranks: int, micro: int) -> dict[str, torch.Tensor]:
        objective, data = make(name, micro=micro)
        accumulate = 4 // (micro * ranks)
        trainer = SimpleNamespace(accumulate_grad_batches=accumulate, world_size=ranks)
        monkeypatch.setattr(objective, "_trainer", trainer)
        data.connect(objective.tokenizer)
        data.setup()
        for rank in range(ranks):
            loader = TreeLoader(
                data.train_trees,
                batch_size=4,
                micro_batch_size=micro,
                rank=rank,
                world_size=ranks,
            )
            for i, batch in zip(range(accumulate), loader, strict=False):
                loss = objective.training_step(batch, i)
                (loss / accumulate / ranks).backward()  # as Lightning and DDP divide
        return {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}

    alone, shared = gradients(1, 4), gradients(2, 1)
    assert alone
    assert alone.keys() == shared.keys()
    for key, value in alone.items():
        assert_close(shared[key], value, rtol=0, atol=1e-10, msg=key)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_first_ratio_of_every_phase_is_one_in_float32(make, tmp_path):
    objective, data = make("ppo", dtype="float32")
    gaps: list[float] = []
    objective.log = lambda name, value, **_: gaps.append(value) if "ratio" in name else None
    fit((objective, data), tmp_path, steps=9)
    assert len(gaps) == 3
    assert max(gaps) < 1e-5


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_learning_rates_are_counted_in_optimizer_steps(make, tmp_path, accumulate):
    """Linear warm-up over 2 steps, then a cosine over the other 3: the same for any cutting."""
    rates = {}
    for name in ("sft", "ppo"):
        objective, data = make(name, micro=4 // accumulate)
        objective.schedule = Schedule(warmup_steps=2, decay="cosine", total_steps=5)
        seen: list[list[float]] = []
        step = objective.optimizer_step

        def spy(epoch, batch, optimizer, closure=None, *, seen=seen, step=step):
            seen.append([group["lr"] for group in optimizer.param_groups])
            step(epoch, batch, optimizer, closure)

        objective.optimizer_step = spy
        fit((objective, data), tmp_path / name, steps=5, accumulate=accumulate)
        rates[name] = seen
    expected = [0.0, 0.005, 0.01, 0.0075, 0.0025]
    for seen in rates.values():
        for groups, rate in zip(seen, expected, strict=True):
            assert groups == pytest.approx([rate] * len(groups))


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_accumulation_that_does_not_match_the_data_is_refused(make, tmp_path):
    with pytest.raises(ConfigError, match="accumulate_grad_batches"):
        fit(make("sft", micro=2), tmp_path, steps=1, accumulate=1)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("name", ["dpo", "reward_model"])
def test_pairs_of_a_data_module_are_not_looked_at_again_in_every_batch(
    make, name, tmp_path, monkeypatch
):
    """The kind of its rows says that there are two; a loader of somebody's own says nothing."""

    def refuse(trees: Any) -> None:
        raise DataError("looked at")

    for module in ("base", "rm"):
        monkeypatch.setattr(f"alignlab.objectives.{module}.require_pairs", refuse)
    fit(make(name), tmp_path, steps=1)
    objective, data = make(name)
    data.connect(objective.tokenizer)
    data.setup()
    with pytest.raises(DataError, match="looked at"):
        fit((objective, data.train_dataloader()), tmp_path, steps=1)


def test_labels_are_checked_once_before_the_first_step(make, tmp_path):
    objective, data = make("classify")
    data.connect(objective.tokenizer)
    data.setup()
    data.validation_trees = [replace(data.train_trees[0], id="held", labels=(2.0,))]
    with pytest.raises(DataError, match="row 'held' has label 2"):
        fit((objective, data), tmp_path, steps=1)


def test_a_checkpoint_holds_what_trains_and_refuses_another_model(make, tmp_path):
    objective, _ = make("dpo")
    checkpoint: dict[str, Any] = {"state_dict": objective.state_dict()}
    assert any(name.startswith("reference.") for name in checkpoint["state_dict"])
    objective.on_save_checkpoint(checkpoint)
    kept = set(checkpoint["state_dict"])
    assert kept == {f"policy.{name}" for name in objective.policy.state_dict()}
    lacking = {"state_dict": {name: 0 for name in kept if "embed" not in name}}
    with pytest.raises(ConfigError, match="lacks 1 trained weights"):
        objective.on_load_checkpoint(lacking)
