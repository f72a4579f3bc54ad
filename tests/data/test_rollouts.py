"""The rollout loader: what it deals out, when it samples, and how it continues."""

from typing import Any

import pytest
import torch

from alignlab.data.rollout_data import RolloutData
from alignlab.data.rollouts import Pretraining, RolloutBatch, RolloutLoader
from alignlab.data.trees import PromptTree, StepTotals, collate
from alignlab.errors import ConfigError


def phase(rollout: int, prompts: int = 8, each: int = 2) -> RolloutBatch:
    """Prompt p's completions have p % 3 + 1 and p % 3 + 2 tokens; numbers name their cell."""
    trees = collate(
        [
            PromptTree(
                p, str(p), (9,) * (1 + p % 2), tuple((5,) * (1 + p % 3 + k) for k in range(each))
            )
            for p in range(prompts)
        ]
    )
    cells = torch.arange(trees.loss_mask.numel(), dtype=torch.float64).view(trees.loss_mask.shape)
    return RolloutBatch(trees, cells + 1000 * rollout, -cells, cells, None)


class Phases:
    """Collects phases and remembers which were asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, rollout: int) -> RolloutBatch:
        self.asked.append(rollout)
        return phase(rollout)


def loader(collect: Any = phase, **settings: Any) -> RolloutLoader:
    sizes = {"prompts": 8, "minibatches": 2, "micro_batches": 2, "inner_epochs": 3, "seed": 1}
    return RolloutLoader(collect, **(sizes | settings))


def test_every_inner_epoch_deals_out_every_prompt_once():
    batches = list(loader())
    assert len(batches) == len(loader()) == 12
    for epoch in range(3):
        dealt = [b.trees.index.tolist() for b in batches[4 * epoch : 4 * epoch + 4]]
        assert sorted(p for some in dealt for p in some) == list(range(8))
    orders = [[b.trees.index.tolist() for b in batches[i : i + 4]] for i in (0, 4, 8)]
    assert orders[0] != orders[1] != orders[2]


def test_only_the_first_step_of_a_phase_is_marked_first():
    assert [b.first for b in loader()] == [True] * 2 + [False] * 10


def test_numbers_stay_with_their_completion():
    whole = phase(0)
    for batch in loader():
        for m, p in enumerate(batch.trees.group.tolist()):
            prompt = int(batch.trees.index[p])
            row = 2 * prompt + m % 2
            n = int(batch.trees.completion_lengths[m])
            assert n == prompt % 3 + 1 + m % 2
            assert torch.equal(batch.old_token_logps[m, :n], whole.old_token_logps[row, :n])
            assert torch.equal(batch.advantages[m, :n], whole.advantages[row, :n])


def test_totals_are_those_of_the_minibatch():
    batches = list(loader())
    for first, second in zip(batches[::2], batches[1::2], strict=True):
        tokens = int(first.trees.loss_mask.sum() + second.trees.loss_mask.sum())
        assert first.trees.totals == second.trees.totals == StepTotals(4, 8, tokens)


@pytest.mark.parametrize("world", [1, 2])
def test_totals_leave_out_groups_that_were_dropped(world):
    """Prompts 1, 2 and 6 are dropped; a step counts what is left of it, on every rank."""

    def collect(rollout: int) -> RolloutBatch:
        whole = phase(rollout)
        whole.trees.loss_mask[[2, 3, 4, 5, 12, 13]] = False
        return whole

    steps: dict[int, list[RolloutBatch]] = {}
    for rank in range(world):
        dealt = loader(collect, micro_batches=2 // world, rank=rank, world_size=world)
        for position, batch in enumerate(dealt):
            steps.setdefault(position * world // 2, []).append(batch)
    assert len(steps) == 6
    for batches in steps.values():
        left = [p for batch in batches for p in batch.trees.index.tolist() if p not in (1, 2, 6)]
        tokens = sum(2 * (p % 3 + 1) + 1 for p in left)
        for batch in batches:
            assert batch.trees.totals == StepTotals(len(left), 2 * len(left), tokens)


def test_a_phase_is_sampled_when_its_first_batch_is_asked_for():
    collect = Phases()
    dealt = loader(collect)
    iterator = iter(dealt)
    assert collect.asked == []
    for _ in range(12):
        next(iterator)
    assert collect.asked == [0]  # the next phase waits for the update
    next(iter(dealt))
    assert collect.asked == [0, 1]


@pytest.mark.parametrize("stop", [1, 5, 11, 12, 13])
def test_a_loader_continues_with_the_batches_that_were_left(stop):
    def run(dealt: RolloutLoader, most: int) -> list[RolloutBatch]:
        out: list[RolloutBatch] = []
        while len(out) < most:
            for batch in dealt:
                out.append(batch)
                if len(out) == most:
                    break
        return out

    whole = run(loader(), 24)
    stopped = loader()
    run(stopped, stop)
    collect = Phases()
    resumed = loader(collect)
    resumed.load_state_dict(stopped.state_dict())
    rest = run(resumed, 24 - stop)
    assert 0 not in collect.asked  # rollouts in use came from the state
    for a, b in zip(whole[stop:], rest, strict=True):
        assert a.trees.index.tolist() == b.trees.index.tolist()
        assert torch.equal(a.old_token_logps, b.old_token_logps)
        assert a.first == b.first


@pytest.mark.parametrize("now", [1, 4])
def test_a_phase_continues_with_its_steps_cut_otherwise(now):
    """After three steps of two micro-batches, the other three are cut into ``now``."""
    stopped = loader()
    for _, _batch in zip(range(6), stopped, strict=False):
        pass
    resumed = loader(micro_batches=now)
    resumed.load_state_dict(stopped.state_dict())
    rest = [batch.trees.index.tolist() for batch in resumed]
    wanted = [batch.trees.index.tolist() for batch in loader(micro_batches=now)]
    assert rest == wanted[3 * now :]


def test_sizes_must_divide():
    with pytest.raises(ConfigError, match="8 prompts a rollout cannot be cut into 3"):
        loader(minibatches=3)


@pytest.fixture
def prompts_file(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(f'{{"prompt": "w{i}"}}\n' for i in range(3, 13)))
    return str(path)


def test_prompts_are_all_used_before_any_is_used_again(words, prompts_file):
    from transformers import AutoTokenizer

    data = RolloutData(prompts_file, rollout_size=4, batch_size=2, seed=3)
    data.connect(AutoTokenizer.from_pretrained(words))
    data.setup()
    phases = [[tree.index for tree in data.prompts_of(r)] for r in range(4)]
    assert all(len(set(chosen)) == 4 for chosen in phases)
    assert not set(phases[0]) & set(phases[1])  # 10 prompts: two phases of 4 a pass
    assert phases[:2] != phases[2:]  # another order in the next pass
    again = RolloutData(prompts_file, rollout_size=4, batch_size=2, seed=3)
    again.connect(AutoTokenizer.from_pretrained(words))
    again.setup()
    assert [tree.index for tree in again.prompts_of(3)] == phases[3]


def test_impossible_sizes_name_their_keys(words, prompts_file):
    from transformers import AutoTokenizer

    with pytest.raises(ConfigError, match="multiple of batch_size"):
        RolloutData(prompts_file, rollout_size=5, batch_size=2)
    data = RolloutData(prompts_file, rollout_size=16, batch_size=2)
    data.connect(AutoTokenizer.from_pretrained(words))
    data.setup()
    with pytest.raises(ConfigError, match="fewer than the 16 of a rollout"):
        data.train_dataloader()
    with pytest.raises(ConfigError, match=r"batch_size 2 is not a multiple .* 4 process.*Change"):
        data.micro_batches(4)  # more ranks than prompts of a step


def texts(number: int = 11) -> list[PromptTree]:
    return [PromptTree(i, str(i), (1,), ((5,) * (1 + i % 3),)) for i in range(number)]


def test_texts_of_a_step_are_a_function_of_its_number():
    mix = Pretraining(texts(), batch_size=4, seed=3)
    steps = [mix.batch(step, 0, 1) for step in range(6)]
    passes = [[i for batch in steps[k : k + 2] for i in batch.index.tolist()] for k in (0, 2, 4)]
    for once in passes:  # 11 texts: two steps of 4 a pass, three left over
        assert len(set(once)) == 8
    assert passes[0] != passes[1]
    again = Pretraining(texts(), batch_size=4, seed=3)
    for step in (5, 0, 3):
        assert again.batch(step, 0, 1).index.tolist() == steps[step].index.tolist()
    other = Pretraining(texts(), batch_size=4, seed=4)
    assert other.batch(0, 0, 1).index.tolist() != steps[0].index.tolist()


def test_texts_go_with_every_step_and_are_cut_as_it_is():
    mix = Pretraining(texts(), batch_size=4, seed=3)
    batches = list(loader(pretraining=mix))
    for step, (first, second) in enumerate(zip(batches[::2], batches[1::2], strict=True)):
        whole = mix.batch(step, 0, 1)
        assert first.pretraining is not None
        assert second.pretraining is not None
        parts = first.pretraining.index.tolist() + second.pretraining.index.tolist()
        assert parts == whole.index.tolist()
        assert first.pretraining.totals == second.pretraining.totals == whole.totals
    following = loader(pretraining=mix)
    following.rollout = 1
    later = next(iter(following)).pretraining
    assert later is not None
    assert later.index.tolist() == mix.batch(6, 0, 2).index.tolist()  # six steps a phase


def test_ranks_share_a_step_between_them():
    """Two ranks of one micro-batch deal what one process deals in two, texts included."""
    mix = Pretraining(texts(), batch_size=4, seed=3)
    alone = list(loader(pretraining=mix))
    ranks = [loader(pretraining=mix, micro_batches=1, rank=rank, world_size=2) for rank in range(2)]
    for step, both in enumerate(zip(*ranks, strict=True)):
        for part, batch in enumerate(both):
            one = alone[2 * step + part]
            assert batch.trees.index.tolist() == one.trees.index.tolist()
            assert batch.trees.totals == one.trees.totals
            assert batch.pretraining is not None
            assert one.pretraining is not None
            assert batch.pretraining.index.tolist() == one.pretraining.index.tolist()
            assert batch.first == one.first


def test_a_mix_that_cannot_be_dealt_out_names_its_key():
    with pytest.raises(ConfigError, match="11 texts for steps of 12"):
        Pretraining(texts(), batch_size=12, seed=0)
    with pytest.raises(ConfigError, match="5 texts of a step cannot be cut into 2"):
        list(loader(pretraining=Pretraining(texts(), batch_size=5, seed=0)))
