"""Faults that people make, planted one at a time in a small stage: the doctor finds each.

The healthy stages at the end have no warning.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Trainer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.optim import SGD
from transformers import PreTrainedTokenizerFast

from alignlab.callbacks.probe import FrontierProbe
from alignlab.data.modules import DemonstrationData, PreferenceData
from alignlab.data.rollout_data import RolloutData
from alignlab.data.trees import PromptTrees
from alignlab.doctor.examine import FAST, examine
from alignlab.doctor.finding import Finding, findings
from alignlab.doctor.patient import Patient
from alignlab.doctor.start import trained
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import Policy, ScoreModel, Scores
from alignlab.models.adapters import Lora
from alignlab.models.layouts import Rows
from alignlab.models.reference import FrozenReference
from alignlab.objectives.base import Objective, PairLoss
from alignlab.objectives.dpo import DPO
from alignlab.objectives.on_policy import Sampling
from alignlab.objectives.ppo import PPO
from alignlab.objectives.rm import RewardModel
from alignlab.objectives.schedule import Schedule
from alignlab.objectives.sft import SFT
from alignlab.rewards.base import Reward
from alignlab.rewards.model import ModelReward
from tests.cells import (
    DIRECT,
    ON_POLICY,
    SCORERS,
    VALUES,
    WITHOUT_REFERENCE,
    make_cell,
    rows_file,
)

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
         "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip
CONFIG = {"model_type": "llama", "max_position_embeddings": 64, **SIZES}
PAIRS = [
    {"prompt": " w3" + f" w{4 + k}" * (1 + k % 3), "chosen": " w5 w6" + " w7" * (k % 4),
     "rejected": " w8 w9" + " w8" * ((k + 1) % 4)}
    for k in range(24)
]  # fmt: skip
CELLS = (
    *ON_POLICY, *VALUES, *SCORERS, *DIRECT, *WITHOUT_REFERENCE, "lm", "sft", "sft_on_prompts",
    "classify", "classify_tied", "dpo", "dpo_cached", "dpo_lora", "dpo_qlora",
)  # fmt: skip
optimizer = partial(SGD, lr=0.1)


class Sevens(Reward):
    """A reward that likes w7."""

    def __call__(self, prompts: Any, completions: Any) -> Tensor:
        return torch.tensor([float(text.count("w7") - text.count("w8")) for text in completions])


class Place(Sevens):
    """A reward that depends on the batch."""

    def __call__(self, prompts: Any, completions: Any) -> Tensor:
        return torch.arange(len(completions)).float()


class LeftPadded(Policy):
    """Pads prompts on the left and hides nothing."""

    def hidden_states(self, trees: PromptTrees, select: Tensor, *, after: bool) -> Tensor:
        width = trees.prompt_ids.shape[1]
        ids = torch.zeros_like(trees.prompt_ids)
        for row, n in enumerate(trees.prompt_lengths.tolist()):
            ids[row, width - n :] = trees.prompt_ids[row, :n]
        lengths = torch.full_like(trees.prompt_lengths, width)
        padded = replace(trees, prompt_ids=ids, prompt_lengths=lengths)
        return super().hidden_states(padded, select, after=after)


class Leaky(Policy):
    """Lets packed completions see each other."""

    def _run(self, rows: Rows, select: Tensor, *, after: bool) -> Tensor:
        return super()._run(replace(rows, branches=None), select, after=after)


class Untempered(Policy):
    """Samples at a temperature and scores without it."""

    def forward(self, trees: PromptTrees, want: Any = (), spec: Any = None) -> Scores:
        return super().forward(trees, want)


class Half(Policy):
    """Gives log-probs in float16."""

    def forward(self, *args: Any, **named: Any) -> Scores:
        scores = super().forward(*args, **named)
        return replace(scores, token_logps=scores.token_logps.half())


class HalfLengthDPO(DPO):
    """Adds a term that the loss should not have."""

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        loss = super().pair_loss(trees, scores)
        return loss._replace(losses=loss.losses + 0.01 * scores.lengths.view(-1, 2).sum(1))


class UndefinedDPO(DPO):
    """Has no loss."""

    def pair_loss(self, trees: PromptTrees, scores: Scores) -> PairLoss:
        loss = super().pair_loss(trees, scores)
        return loss._replace(losses=loss.losses * torch.nan)


class World:
    """A folder with rows and a policy, and healthy stages made of them."""

    def __init__(self, folder: Path, tokenizer: Path) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.only: str | None = None  # the check to make, of all
        Policy(config=CONFIG, tokenizer=str(tokenizer)).save(folder / "sft")
        self.rows("pairs", PAIRS)
        self.trainer = Trainer(accelerator="cpu", logger=False, max_steps=5,
                               enable_checkpointing=False, enable_progress_bar=False)  # fmt: skip

    def rows(self, name: str, rows: list[dict[str, Any]]) -> str:
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    def policy(self, kind: type[Policy] = Policy, **settings: Any) -> Policy:
        return kind(source=str(self.folder / "sft"), **settings)

    def dpo(self, kind: type[DPO] = DPO, **policy: Any) -> DPO:
        return kind(self.policy(**policy), optimizer)

    def ppo(self, temperature: float = 1.0, reward: Any = None) -> PPO:
        sampling = Sampling(max_new_tokens=4, spec=SamplingSpec(temperature))
        return PPO(self.policy(), reward or Sevens(), sampling, optimizer)

    def pairs(self, source: str | None = None, **settings: Any) -> PreferenceData:
        source = source or str(self.folder / "pairs.jsonl")
        return PreferenceData(source, 8, **{"max_length": 32} | settings)

    def prompts(self) -> RolloutData:
        return RolloutData(str(self.folder / "pairs.jsonl"), 8, 8)

    def probe(self, objective: Objective, **settings: Any) -> FrontierProbe:
        given = {"samples": 1, "max_new_tokens": 4, "every_n_steps": 5} | settings
        probe = FrontierProbe(str(self.folder / "pairs.jsonl"), Sevens(), **given)
        probe.prepare(objective)
        probe.on_fit_start(self.trainer, objective)
        return probe

    def examine(
        self, objective: Objective, data: Any = None, probe: FrontierProbe | None = None
    ) -> dict[str, Finding]:
        data = data or self.pairs()
        data.connect(objective.tokenizer)
        data.setup("fit")
        patient = Patient(objective, self.trainer, data, probe)
        if self.only is None:
            found = examine(patient)
        else:
            found = findings({self.only: FAST[self.only]}, patient)
        return {each.name: each for each in found}


@pytest.fixture(scope="module")
def world(words: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"), words)


def changed(**columns: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
    return [row | {name: value(row) for name, value in columns.items()} for row in PAIRS]


def chat(row: dict[str, Any]) -> dict[str, Any]:
    def turn(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text.strip()}]

    return {"prompt": turn("user", row["prompt"]), "chosen": turn("assistant", row["chosen"]),
            "rejected": turn("assistant", row["rejected"])}  # fmt: skip


def byte_level(folder: Path) -> str:
    """A tokenizer of bytes, with a chat template of a model that has other marks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {token: k for k, token in enumerate(["<pad>", "<bos>", "<eos>", *alphabet])}
    inner = Tokenizer(models.BPE(ids, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    return str(folder)


def eos_is_missing(world: World) -> dict[str, Finding]:
    rows = changed(chosen_ends=lambda row: False, rejected_ends=lambda row: False)
    return world.examine(world.dpo(), world.pairs(world.rows("open", rows)))


def double_bos(world: World) -> dict[str, Finding]:
    objective = world.dpo()
    objective.tokenizer.chat_template = (
        "{{ bos_token }}{{ bos_token }}{% for m in messages %} w4 {{ m['content'] }}<eos>"
        "{% endfor %}{% if add_generation_prompt %} w4{% endif %}"
    )
    rows = world.rows("chats", [chat(row) for row in PAIRS])
    return world.examine(objective, world.pairs(rows))


def template_of_another_model(world: World) -> dict[str, Finding]:
    config = CONFIG | {"max_position_embeddings": 512}
    policy = Policy(config=config, tokenizer=byte_level(world.folder / "bytes"))
    rows = world.rows("chats", [chat(row) for row in PAIRS])
    return world.examine(DPO(policy, optimizer), world.pairs(rows, max_length=512))


def tokenizer_of_another_model(world: World) -> dict[str, Finding]:
    bare = world.folder / "bare"
    Policy(config=CONFIG, tokenizer=str(world.tokenizer)).model.save_pretrained(bare)
    other = PreTrainedTokenizerFast.from_pretrained(world.tokenizer)
    other.eos_token = "Ġw9"
    other.save_pretrained(world.folder / "other")
    policy = Policy(source=str(bare), tokenizer=str(world.folder / "other"))
    rows = changed(rejected=lambda row: " w8" * len(row["rejected"].split()))
    return world.examine(DPO(policy, optimizer), world.pairs(world.rows("no_w9", rows)))


def weights_of_another_tokenizer(world: World) -> dict[str, Finding]:
    objective = world.dpo()
    with torch.no_grad():  # sure of what never comes
        objective.policy.model.get_output_embeddings().weight.mul_(2000)
    return world.examine(objective)


def reference_is_the_policy(world: World) -> dict[str, Finding]:
    objective = world.dpo()
    objective.reference.policy.model = objective.policy.model  # type: ignore[attr-defined]
    return world.examine(objective)


def reference_trains(world: World) -> dict[str, Finding]:
    objective = world.dpo()
    objective.reference.policy.requires_grad_(True)  # type: ignore[attr-defined]
    return world.examine(objective)


def reference_is_another_model(world: World) -> dict[str, Finding]:
    objective = world.dpo()
    other = Policy(config=CONFIG, tokenizer=str(world.tokenizer), seed=5)
    objective.reference = FrozenReference(other)
    return world.examine(objective)


def probe_measures_to_another_model(world: World) -> dict[str, Finding]:
    wide = CONFIG | {"initializer_range": 0.4}
    Policy(config=wide, tokenizer=str(world.tokenizer)).save(world.folder / "else")
    objective = world.dpo()
    probe = world.probe(objective, reference=str(world.folder / "else"))
    return world.examine(objective, probe=probe)


def policy_of(kind: type[Policy], world: World) -> dict[str, Finding]:
    """A class whose fault the checks at load cannot see: it comes afterwards."""
    objective = world.dpo()
    objective.policy.__class__ = kind
    return world.examine(objective)


def scored_at_another_temperature(world: World) -> dict[str, Finding]:
    objective = world.ppo(temperature=0.5)
    with torch.no_grad():
        objective.policy.model.get_output_embeddings().weight.mul_(50)
    objective.policy.__class__ = Untempered
    return world.examine(objective, world.prompts())


def evaluated_at_another_temperature(world: World) -> dict[str, Finding]:
    objective = world.ppo(temperature=0.5)
    return world.examine(objective, world.prompts(), world.probe(objective))


def frozen_policy(world: World) -> dict[str, Finding]:
    objective = world.dpo()
    objective.policy.requires_grad_(False)
    return world.examine(objective)


def not_a_number(world: World) -> dict[str, Finding]:
    objective = SFT(world.policy(), optimizer)
    with torch.no_grad():
        objective.policy.model.get_output_embeddings().weight[3] = torch.nan
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in PAIRS]
    return world.examine(objective, DemonstrationData(world.rows("rows", rows), 8))


def labels_are_exchanged(world: World) -> dict[str, Finding]:
    rows = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in PAIRS]
    objective = world.dpo()
    data = world.pairs(world.rows("exchanged", rows))
    return world.examine(objective, data, world.probe(objective))


def chosen_is_longer(world: World) -> dict[str, Finding]:
    rows = changed(chosen=lambda row: row["chosen"] + " w5 w6 w7")
    return world.examine(world.dpo(), world.pairs(world.rows("longer", rows)))


def prompts_are_cut_away(world: World) -> dict[str, Finding]:
    return world.examine(world.dpo(), world.pairs(max_length=4, truncation="keep_end"))


def completions_are_cut(world: World) -> dict[str, Finding]:
    return world.examine(world.dpo(), world.pairs(max_length=7, truncation="keep_start"))


def rows_are_refused(world: World) -> dict[str, Finding]:
    rows = [
        row | ({"chosen": row["rejected"]} if k % 4 == 0 else {}) for k, row in enumerate(PAIRS)
    ]
    return world.examine(world.dpo(), world.pairs(world.rows("equal", rows)))


def prompts_end_in_a_space(world: World) -> dict[str, Finding]:
    policy = Policy(config=CONFIG, tokenizer=byte_level(world.folder / "bytes"))
    inner = policy.tokenizer.backend_tokenizer
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    trained = models.BPE(inner.get_vocab() | {"Ġw": 259}, [("Ġ", "w")])
    inner.model = trained
    rows = changed(prompt=lambda row: "w3 ", chosen=lambda row: row["chosen"].strip(),
                   rejected=lambda row: row["rejected"].strip())  # fmt: skip
    return world.examine(DPO(policy, optimizer), world.pairs(world.rows("spaces", rows)))


def reward_model_of_another_vocabulary(world: World) -> dict[str, Finding]:
    folder = world.folder / "rm"
    ScoreModel(str(world.folder / "sft"), fresh_head=True).save(folder)
    reward = ModelReward(str(folder))
    reward.model.tokenizer = PreTrainedTokenizerFast.from_pretrained(byte_level(world.folder / "b"))
    return world.examine(world.ppo(reward=reward), world.prompts())


def reward_depends_on_the_batch(world: World) -> dict[str, Finding]:
    return world.examine(world.ppo(reward=Place()), world.prompts())


def rows_exceed_the_context(world: World) -> dict[str, Finding]:
    rows = changed(chosen=lambda row: " w5" * 70, rejected=lambda row: " w6" * 70)
    return world.examine(world.dpo(), world.pairs(world.rows("long", rows), max_length=100))


FAULTS: Mapping[str, tuple[Callable[[World], dict[str, Finding]], str, str, str]] = {
    # fault: where it is planted, the check that finds it, its state, words of its advice
    "EOS is missing in the data": (eos_is_missing, "EOS", "warning", "trained in none of 48"),
    "the template writes BOS twice": (double_bos, "BOS", "warning", "2 in 24 rows"),
    "chat template of another model": (
        template_of_another_model, "chat template", "warning", "<|im_start|>",
    ),
    "tokenizer of another model": (
        tokenizer_of_another_model, "special tokens", "warning", "eos_token is 9",
    ),
    "weights of another tokenizer": (
        weights_of_another_tokenizer, "likelihood", "warning", "a uniform guess has 3.47",
    ),
    "the reference shares the policy's storage": (
        reference_is_the_policy, "reference", "stop", "tensors of the reference",
    ),
    "the reference trains": (reference_trains, "reference", "stop", "weights that train"),
    "the reference is another model": (reference_is_another_model, "step 0", "stop", "differ by"),
    "KL is measured to another model": (
        probe_measures_to_another_model, "KL", "warning", "nats at step 0",
    ),
    "dropout is on": (
        lambda world: world.examine(world.dpo(dropout=0.2)), "dropout", "warning", "has dropout",
    ),
    "left padding is not hidden": (
        partial(policy_of, LeftPadded), "layout", "stop", "together and alone",
    ),
    "completions see each other": (partial(policy_of, Leaky), "layout", "stop", "flat"),
    "log-probs in float16": (partial(policy_of, Half), "precision", "stop", "float16"),
    "logits in bfloat16": (
        lambda world: world.examine(
            world.dpo(dtype="bfloat16", head_dtype="bfloat16", lora=Lora(rank=2))
        ),
        "precision", "warning", "logits are bfloat16",
    ),
    "trained weights in bfloat16": (
        lambda world: world.examine(world.dpo(dtype="bfloat16")),
        "precision", "warning", "trained weights are bfloat16",
    ),
    "scored at another temperature": (
        scored_at_another_temperature, "sampler", "stop", "another distribution",
    ),
    "evaluated at another temperature": (
        evaluated_at_another_temperature, "temperature", "warning", "samples at temperature 0.5",
    ),
    "a loss with another term": (
        lambda world: world.examine(world.dpo(HalfLengthDPO)), "loss", "warning", "log 2 = 0.6931",
    ),
    "a weight is not a number": (not_a_number, "trained", "stop", "is not finite"),
    "a loss is not a number": (
        lambda world: world.examine(world.dpo(UndefinedDPO)), "loss", "warning", "not finite for 4",
    ),
    "the policy is frozen": (frozen_policy, "trained", "stop", "weights are frozen"),
    "chosen and rejected are exchanged": (
        labels_are_exchanged, "order", "warning", "exchanged",
    ),
    "chosen completions are longer": (chosen_is_longer, "lengths", "warning", "length alone"),
    "prompts are truncated away": (
        prompts_are_cut_away, "truncation", "warning", "nothing is left of the prompt",
    ),
    "completions are truncated": (completions_are_cut, "truncation", "warning", "teach the policy"),
    "rows are refused": (rows_are_refused, "refused rows", "warning", "6 of 24 rows refused"),
    "prompts end in a space": (prompts_end_in_a_space, "border", "warning", "24 of 24 rows"),
    "rows exceed the context": (rows_exceed_the_context, "vocabulary", "stop", "has room for 64"),
    "a reward model of another vocabulary": (
        reward_model_of_another_vocabulary, "reward", "stop", "embeddings of",
    ),
    "a reward depends on its batch": (
        reward_depends_on_the_batch, "reward", "warning", "in another order",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(world: World, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, name, state, words = FAULTS[fault]
    monkeypatch.setattr(world, "only", name)
    found = plant(world)
    assert found[name].state == state, found
    assert words in found[name].advice


def test_healthy_stages_have_no_warning(world: World) -> None:
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in PAIRS]
    sft = DemonstrationData(world.rows("demonstrations", rows), 8)
    dpo, ppo = world.dpo(), world.ppo()
    model = ScoreModel(str(world.folder / "sft"))
    stages: list[tuple[Objective, Any, FrontierProbe | None]] = [
        (dpo, world.pairs(), world.probe(dpo)),
        (ppo, world.prompts(), world.probe(ppo)),
        (SFT(world.policy(), optimizer), sft, None),
        (RewardModel(model, optimizer), world.pairs(), None),
    ]
    for objective, data, probe in stages:
        found = world.examine(objective, data, probe)
        assert {name: f for name, f in found.items() if f.state != "ok"} == {}
        assert len(found) >= 11
    assert found.keys() >= {"layout", "loss", "precision"}


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_no_objective_has_a_warning(world: World, cell: str) -> None:
    source = rows_file(world.folder / "cells.jsonl")
    objective, data = make_cell(
        cell, source, str(world.folder / "sft"), world.folder / "cache", Schedule(), dtype="float32"
    )
    found = world.examine(objective, data)
    assert {name: f for name, f in found.items() if f.state != "ok"} == {}
    assert len(found) >= 10


def test_what_is_checked_is_not_changed(world: World) -> None:
    """Weights, modes, buffers and random generators: a run has the same bits without it."""
    objective = world.ppo()
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    modes = [module.training for module in objective.modules()]
    layout = objective.policy.layout
    assert layout == "packed"
    torch.manual_seed(3)
    wanted = torch.get_rng_state()
    world.examine(objective, world.prompts(), world.probe(objective))
    assert torch.equal(torch.get_rng_state(), wanted)
    assert [module.training for module in objective.modules()] == modes
    assert objective.policy.layout == layout
    after = objective.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k].nan_to_num(), after[k].nan_to_num()) for k in before)
    assert all(p.grad is None for p in objective.parameters())


def test_weights_in_codes_are_no_weights_that_train() -> None:
    """A model that was saved in 4 bits would train its norms alone; adapters train beside codes."""
    layer = torch.nn.Linear(2, 2)
    layer.register_parameter(
        "codes", torch.nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)
    )
    objective = SimpleNamespace(trained=torch.nn.ModuleDict({"model": layer}))
    patient: Any = SimpleNamespace(objective=objective, trainer=SimpleNamespace(max_steps=1))
    objective.trained.model = layer
    state, said = trained(patient)
    assert state == "stop"
    assert "1 of the model's weights are stored as codes" in said
    layer.peft_config = cast(Any, {})
    assert trained(patient)[0] == "ok"
