"""Folders of adapters: they load anywhere, on what they were trained on, and can be built on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.models import LanguageHead, Lora, Policy, PromptTuning, ScoreModel
from alignlab.models.adapters import add_lora, base_of, change_nothing
from alignlab.models.value import ValueFunction

TREES = [PromptTree(0, "a", (1, 5, 6), ((7, 8, 2), (9,))), PromptTree(1, "b", (1, 4), ((4, 6),))]
LORA: dict[str, Any] = {"lora": Lora(rank=2)}
PROMPT: dict[str, Any] = {"prompt_tuning": PromptTuning(3)}


def move(policy: Policy, seed: int = 1) -> Policy:
    """Trained by hand: all that trains is somewhere else."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in policy.parameters():
            if p.requires_grad:
                p.add_(0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return policy.eval()


def load(folder: str | Path, **settings: Any) -> Policy:
    return Policy(str(folder), dtype="float64", **settings).eval()


def logps(policy: Policy) -> Tensor:
    with torch.no_grad():
        return policy(collate(TREES)).logps


@pytest.fixture
def base(build: Callable[..., Policy], tmp_path: Path) -> Path:
    build("llama").save(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapted(base: Path, tmp_path: Path) -> Path:
    """A folder of low-rank adapters on ``base``."""
    move(load(base, **LORA)).save(tmp_path / "sft" / "model")
    return tmp_path / "sft" / "model"


@pytest.fixture
def prompted(base: Path, tmp_path: Path) -> Path:
    """A folder of virtual tokens for ``base``."""
    move(load(base, **PROMPT)).save(tmp_path / "tuned")
    return tmp_path / "tuned"


def by_library(model: Any) -> Tensor:
    """Log-probs of ``TREES`` from the library's own logits."""
    out = []
    for tree in TREES:
        for completion in tree.completions:
            ids = torch.tensor([[*tree.prompt, *completion]])
            with torch.no_grad():
                logits = model(ids, use_cache=False).logits[0].double().log_softmax(-1)
            places = range(len(tree.prompt) - 1, ids.shape[1] - 1)
            out.append(sum(float(logits[i, ids[0, i + 1]]) for i in places))
    return torch.tensor(out, dtype=torch.float64)


def test_peft_reads_the_folder_as_we_do(adapted: Path) -> None:
    theirs = AutoPeftModelForCausalLM.from_pretrained(adapted, dtype=torch.float64)
    assert_close(logps(load(adapted)), by_library(theirs), rtol=0, atol=1e-4)


def test_new_adapters_go_on_the_old_ones_merged(base: Path, adapted: Path) -> None:
    """Base + old + new against peft, which merges the old ones by itself."""
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    merged = PeftModel.from_pretrained(plain, str(adapted)).merge_and_unload()
    policy = load(adapted, lora=Lora(rank=3, targets=["q_proj", "down_proj"]))
    assert_close(logps(policy), by_library(merged), rtol=0, atol=1e-4)
    assert all("lora" in name for name, p in policy.named_parameters() if p.requires_grad)
    move(policy)
    with torch.no_grad():
        for name, layer in merged.named_modules():
            if name.endswith(("q_proj", "down_proj")):
                new = policy.model.get_base_model().get_submodule(name)
                product = new.lora_B["default"].weight @ new.lora_A["default"].weight
                layer.weight += 2 * product  # alpha is twice the rank
    assert_close(logps(policy), by_library(merged), rtol=0, atol=1e-4)


@pytest.mark.parametrize("settings", [LORA, PROMPT], ids=["lora", "prompt"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_was_put_on_adapters_comes_back(
    build: Callable[..., Policy],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    family: str,
) -> None:
    """With the merged model beside it, wherever the whole folder is moved to; and once more."""
    build(family).save(tmp_path / "base")
    move(load(tmp_path / "base", **LORA)).save(tmp_path / "sft")
    policy = move(load(tmp_path / "sft", **settings), seed=2)
    monkeypatch.chdir(tmp_path)
    policy.save("dpo")
    shutil.rmtree(tmp_path / "base")
    shutil.rmtree(tmp_path / "sft")
    shutil.move(tmp_path / "dpo", tmp_path / "other" / "place")
    again = load(tmp_path / "other" / "place")
    assert_close(logps(again), logps(policy), rtol=0, atol=1e-9)
    move(again, seed=3).save(tmp_path / "further")
    assert_close(logps(load(tmp_path / "further")), logps(again), rtol=0, atol=1e-9)


@pytest.mark.parametrize("settings", [LORA, PROMPT], ids=["lora", "prompt"])
def test_adapters_on_a_model_from_scratch_come_back(
    words: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2}
    policy = move(Policy(config=config, tokenizer=str(words), dtype="float64", **settings))
    policy.save(tmp_path / "saved")
    assert_close(logps(load(tmp_path / "saved")), logps(policy), rtol=0, atol=1e-9)


def test_stop_tokens_stay_with_the_adapters(base: Path, tmp_path: Path) -> None:
    policy = load(base, **LORA)
    policy.model.generation_config.eos_token_id = [2, 7]
    policy.save(tmp_path / "saved")
    assert load(tmp_path / "saved").stop_ids == [2, 7]


@pytest.mark.parametrize("named", ["base", "../base", "./base"])
def test_a_folder_loads_from_any_working_directory(
    adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """The name of its model is relative to where it was trained, or to the folder itself."""
    config = adapted / "adapter_config.json"
    values = json.loads(config.read_text()) | {"base_model_name_or_path": named}
    config.write_text(json.dumps(values))
    before = logps(load(adapted))
    other = tmp_path / "elsewhere"
    other.mkdir()
    monkeypatch.chdir(other)
    assert torch.equal(logps(load(adapted)), before)
    monkeypatch.chdir(tmp_path)
    assert torch.equal(logps(load("sft/model")), before)


def test_a_relative_model_is_saved_by_its_whole_path(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    policy = move(load("base", **LORA))
    policy.save("saved")
    monkeypatch.chdir("/")
    assert_close(logps(load(tmp_path / "saved")), logps(policy))
    theirs = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float64)
    assert_close(by_library(theirs), logps(policy), rtol=0, atol=1e-4)


def test_adapters_and_model_that_moved_together_find_each_other(base: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.move(base, old / "runs" / "base")
    policy = move(load(old / "runs" / "base", **LORA))
    policy.save(old / "runs" / "sft")
    shutil.move(old, new)
    assert_close(logps(load(new / "runs" / "sft")), logps(policy))


def test_a_model_that_is_gone_or_not_one_is_named(base: Path, adapted: Path) -> None:
    shutil.copytree(base, adapted.parent / "base")
    with pytest.raises(ConfigError, match=r"may be any of .*/base, .*/sft/base\. Write the whole"):
        base_of(str(adapted), "base")
    with pytest.raises(ConfigError, match=r"need the model '/no/such', which does not exist"):
        base_of(str(adapted), "/no/such")
    with pytest.raises(ConfigError, match=r"'\./none', which does not exist. Put it back, or"):
        base_of(str(adapted), "./none")
    with pytest.raises(ConfigError, match="does not name their model"):
        base_of(str(adapted), None)
    assert base_of(str(adapted), "gpt2") == "gpt2"  # a hub id


def test_adapters_of_another_model_are_refused(
    build: Callable[..., Policy], base: Path, adapted: Path
) -> None:
    """Where their layers do not exist, and where they have other sizes."""
    build("gpt2").save(base)
    with pytest.raises(ConfigError, match=f"adapters in {adapted} do not fit their model {base}"):
        load(adapted)
    config = {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2}
    config |= {"num_hidden_layers": 2, "intermediate_size": 24}
    words = str(adapted)
    Policy(config=config, tokenizer=words).save(base)
    with pytest.raises(ConfigError, match=f"adapters in {adapted} do not fit their model {base}"):
        load(adapted)


def test_adapters_without_some_of_their_weights_are_refused(adapted: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = adapted / "adapter_model.safetensors"
    kept = {name: t for name, t in load_file(path).items() if "layers.1" not in name}
    save_file(kept, path)
    with pytest.raises(ConfigError, match="Found missing adapter keys"):
        load(adapted)


def test_dropout_of_saved_adapters_is_overridden_like_the_models_own(
    base: Path, tmp_path: Path
) -> None:
    Policy(str(base), lora=Lora(rank=2, dropout=0.5)).save(tmp_path / "saved")

    def rates(dropout: float | None) -> set[float]:
        policy = Policy(str(tmp_path / "saved"), dropout=dropout)
        return {m.p for m in policy.modules() if isinstance(m, torch.nn.Dropout)}

    assert rates(None) == {0.5}
    assert rates(0.0) <= {0.0}


def test_a_scorer_starts_from_adapters(base: Path, adapted: Path, tmp_path: Path) -> None:
    """A head on the states of base + adapters, saved as a whole scorer."""
    scorer = ScoreModel(str(adapted), dtype="float64", seed=3)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    merged = PeftModel.from_pretrained(plain, str(adapted)).merge_and_unload()
    with torch.no_grad():
        states = merged.model(torch.tensor([[1, 5, 6, 7, 8, 2]])).last_hidden_state[0, -1]
        wanted = states @ ScoreModel(str(base), dtype="float64", seed=3).head.weight[0]
        found = scorer.scores(collate(TREES))[0]
        assert_close(found, wanted, rtol=0, atol=1e-4)
        scorer.save(tmp_path / "rm")
        again = ScoreModel.load(tmp_path / "rm", dtype="float64")
        assert_close(again.scores(collate(TREES))[0], found)
        assert_close(scorer.values(collate(TREES)), again.values(collate(TREES)))
        head = LanguageHead(scorer)
        assert_close(head(states[None]), merged.lm_head(states[None]))


def test_a_scorers_adapters_are_a_scorer_and_no_policy(base: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, dtype=torch.float64
    )
    plain.config.pad_token_id = 0
    config = LoraConfig(task_type="SEQ_CLS", r=2, init_lora_weights=False)
    theirs: Any = get_peft_model(plain, config).eval()
    folder = tmp_path / "scorer"
    theirs.save_pretrained(folder)
    for file in base.glob("tokenizer*"):
        shutil.copy(file, folder)
    with torch.no_grad():
        wanted = theirs(torch.tensor([[1, 5, 6, 7, 8, 2]])).logits[0, 0]
        scorer = ScoreModel(str(folder), dtype="float64")
        assert_close(scorer.scores(collate(TREES))[0], wanted, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="adapters of a scorer, not of a language model"):
        load(folder)
    with pytest.raises(ConfigError, match="do not fit their model"):
        ScoreModel(str(folder), outputs=3)


def test_a_scorers_folder_is_no_policy(base: Path, tmp_path: Path) -> None:
    """Its language model's head would be random numbers."""
    ScoreModel(str(base)).save(tmp_path / "rm")
    with pytest.raises(ConfigError, match=r"lacks 1 weights of a LlamaForCausalLM, e\.g\. lm_head"):
        load(tmp_path / "rm")


@pytest.mark.parametrize("make", [ScoreModel, lambda path: Policy(path, **LORA)])
def test_virtual_tokens_cannot_be_merged(prompted: Path, make: Callable[[str], Any]) -> None:
    with pytest.raises(ConfigError, match="virtual tokens, which cannot be merged"):
        make(str(prompted))


def test_values_cannot_have_virtual_tokens_of_their_own(prompted: Path) -> None:
    with pytest.raises(ConfigError, match="needs a policy with LoRA"):
        ValueFunction(load(prompted), "adapter", True)


@pytest.mark.parametrize("part", ["lora_B", "lora_magnitude_vector", "trainable_tokens_delta"])
def test_adapters_that_moved_in_any_part_are_no_base(base: Path, part: str) -> None:
    """Low-rank product, DoRA's lengths and rows of tokens each make another model of the base."""
    plain = load(base).model
    model = add_lora(plain, Lora(rank=2, dora=True), [3, 5])
    assert change_nothing(model)
    moved = next(p for name, p in model.named_parameters() if part in name)
    with torch.no_grad():
        moved.view(-1)[0] += 1e-3
    assert not change_nothing(model)


def test_new_adapters_depend_on_the_seed_alone(base: Path) -> None:
    """Not on what was drawn before; those of the values are others."""

    def drawn(seed: int, before: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        torch.rand(before)
        state = torch.get_rng_state()
        policy = load(base, **LORA)
        assert torch.equal(torch.get_rng_state(), state)
        ValueFunction(policy, "adapter", True)
        return {n: p.detach() for n, p in policy.named_parameters() if "lora_A" in n}

    first, again, other = drawn(3, 0), drawn(3, 5), drawn(4, 0)
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        assert not torch.equal(weight, other[name])
        assert not torch.equal(weight, first[name.replace("default", "value")]) or "value" in name


def test_a_head_that_others_trained_in_full_has_its_own_bias(words: Path, tmp_path: Path) -> None:
    """Phi's output layer has a bias, and peft's ``modules_to_save`` trains a copy of both."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    more = {"intermediate_size": 24, "max_position_embeddings": 64, "initializer_range": 0.4}
    base = Policy(config={"model_type": "phi"} | sizes | more, tokenizer=str(words))
    base.save(tmp_path / "phi")
    lora = LoraConfig(r=2, target_modules="all-linear", modules_to_save=["lm_head"])
    theirs = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "phi"), lora)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in theirs.parameters():
            if p.requires_grad:
                p.normal_(std=0.3, generator=generator)
    theirs.save_pretrained(tmp_path / "adapters")
    base.tokenizer.save_pretrained(tmp_path / "adapters")
    with torch.no_grad():
        row = torch.tensor([[1, 5, 6, 7, 8, 2]])
        wanted = theirs.eval()(row).logits.log_softmax(-1)[0, 2:5].gather(1, row[0, 3:, None])[:, 0]
    policy = Policy(str(tmp_path / "adapters")).eval()
    found = policy(collate(TREES)).token_logps[0]
    assert_close(found, wanted, rtol=0, atol=1e-5)
    found.sum().backward()
    assert policy.model.get_output_embeddings().bias.grad.any()
