"""Which model is in the row: windows that a config names, models that look ahead, own forwards."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoConfig

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import Policy, ScoreModel
from alignlab.models.backbone import attention_windows, probe_trees
from alignlab.rollouts.sampler import sample
from tests.tiny import FAMILIES

NEO = {
    "model_type": "gpt_neo",
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "attention_types": [[["global", "local"], 1]],
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}


def random_tree(prompt: int, completions: list[int]) -> PromptTree:
    draw = torch.Generator().manual_seed(0)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 32, (n,), generator=draw).tolist())

    return PromptTree(0, "a", ids(prompt), tuple(ids(n) for n in completions))


@torch.no_grad()
@pytest.mark.parametrize(("layout", "window"), [("auto", 8), ("packed", 256)])
def test_a_local_window_bounds_places_in_the_row(words: Path, layout: Any, window: int) -> None:
    """Behind two completions of 40 a third would see less of its prompt than alone in its row."""
    config = NEO | {"window_size": window}
    policy = Policy(config=config, tokenizer=str(words), layout=layout, dtype="float64").eval()
    assert policy.layout_report == "flat: attention_types has local, which may not see a whole row"
    tree = random_tree(30, [40, 40, 20])
    found = policy(collate([tree])).token_logps
    for k, completion in enumerate(tree.completions):
        row = torch.tensor([tree.prompt + completion])
        own = policy.model(row).logits[0, 29:-1].log_softmax(-1)
        expected = own.gather(1, row[0, 30:, None])[:, 0]
        assert_close(found[k, : len(completion)], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("family", "settings", "windows"),
    [
        ("llama", {}, {}),
        ("mixtral", {"sliding_window": None, "num_local_experts": 8}, {}),
        ("mistral", {"sliding_window": 96}, {"sliding_window": 96}),
        ("qwen2", {"sliding_window": 96, "use_sliding_window": False}, {}),
        ("gpt_neo", {"window_size": 64}, {"window_size": 64}),
        ("llama4_text", {"attention_chunk_size": 48}, {"attention_chunk_size": 48}),
        ("recurrent_gemma", {"attention_window_size": 32}, {"attention_window_size": 32}),
        ("modernbert-decoder", {"local_attention": 64}, {"local_attention": 64}),
        ("doge", {"keep_window_size": 80}, {"keep_window_size": 80}),
    ],
)
def test_windows_that_a_config_names(
    family: str, settings: dict[str, Any], windows: dict[str, int]
) -> None:
    config = AutoConfig.for_model(family, vocab_size=32, **settings)
    found = attention_windows(config)
    assert found.items() >= windows.items()
    assert bool(found) == bool(windows)
    trees = probe_trees(config)
    longest = int((trees.prompt_lengths[trees.group] + trees.completion_lengths).max())
    assert longest == max([64, *(w + 8 for w in windows.values())])


@pytest.mark.parametrize(("context", "virtual"), [(16, 0), (64, 8), (2, 0)])
def test_probes_fit_into_the_context(context: int, virtual: int) -> None:
    config = AutoConfig.for_model("gpt2", vocab_size=32, n_positions=context)
    trees = probe_trees(config, virtual)
    lengths = trees.prompt_lengths[trees.group] + trees.completion_lengths
    assert int(lengths.max()) <= context - virtual
    assert int(trees.completion_lengths.min()) == 1


def test_layers_of_an_unknown_kind_stay_flat(words: Path) -> None:
    """A probe of 64 tokens shows nothing of what such a layer does beyond 64."""
    config = {"model_type": "gpt2"} | FAMILIES["gpt2"]
    policy = Policy(config=config, tokenizer=str(words))
    assert policy.layout_report.startswith("packed: agrees with flat rows")
    policy.model.config.layer_types = ["full_attention", "sparse_block_attention"]
    said = "flat: layer_types has sparse_block_attention, which may not see a whole row"
    assert policy.settle_layout() == said
    assert policy.layout == "flat"


def test_a_model_that_looks_ahead_is_refused(words: Path) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"model_type": "bert", "intermediate_size": 32, "initializer_range": 0.3} | small
    with pytest.raises(
        ConfigError, match=r"BertLMHeadModel sees tokens before it predicts them.*is_decoder"
    ):
        Policy(config=config, tokenizer=str(words))


def test_a_model_that_cannot_read_rows_is_refused_in_one_sentence(words: Path) -> None:
    """RemBERT's output layer reads what a layer between it and the transformer makes."""
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"model_type": "rembert", "is_decoder": True, "intermediate_size": 32} | small
    with pytest.raises(ConfigError, match=r"RemBertForCausalLM cannot read rows .* not supported"):
        Policy(config=config, tokenizer=str(words))


def test_scores_are_those_of_the_scorers_own_forward(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("llama", dtype="float32").save(tmp_path)
    ScoreModel(str(tmp_path), outputs=3)
    read = ScoreModel._read
    monkeypatch.setattr(ScoreModel, "_read", lambda self, hidden: read(self, hidden) + 0.01)
    with pytest.raises(ConfigError, match="LlamaForSequenceClassification: what its transformer"):
        ScoreModel(str(tmp_path))


def test_a_scorer_without_a_linear_score_is_refused(words: Path, tmp_path: Path) -> None:
    small = {"d_model": 32, "decoder_layers": 1, "decoder_attention_heads": 4}
    encoder = {"encoder_layers": 1, "encoder_attention_heads": 4, "encoder_ffn_dim": 32}
    config = {"model_type": "bart", "decoder_ffn_dim": 32} | small | encoder
    Policy(config=config, tokenizer=str(words)).save(tmp_path)
    with pytest.raises(ConfigError, match=r"19 weights of a BartForSequenceClassification"):
        ScoreModel(str(tmp_path))


@torch.no_grad()
def test_rows_longer_than_sparse_attention_keeps_are_refused(build: Any) -> None:
    """Which tokens it keeps of them depends on padding: a policy's log-probs would, too."""
    policy = build("gpt2")
    policy.model.config.index_topk, policy.layout = 16, "flat"
    assert policy(collate([random_tree(9, [7, 7])])).mask.sum() == 14
    with pytest.raises(ConfigError, match=r"index_topk.* a row has 17: .* by 16 tokens"):
        policy(collate([random_tree(10, [8])]))  # 18, the last of which nothing reads
    policy.check_rows([random_tree(9, [7]), random_tree(9, [8])])
    with pytest.raises(ConfigError, match=r"index_topk.* a row has 17"):
        policy.check_rows([random_tree(10, [8]), random_tree(9, [7])])  # before the first step
    settings: dict[str, Any] = {"spec": SamplingSpec(), "seed": 0, "stop_ids": (), "samples": 1}
    sample(policy, [random_tree(9, [])], max_new_tokens=7, **settings)
    with pytest.raises(ConfigError, match=r"index_topk.* a row has 17"):
        sample(policy, [random_tree(9, [])], max_new_tokens=8, **settings)


@torch.no_grad()
def test_weights_do_not_change_with_the_mode_that_they_are_saved_in(
    words: Path, tmp_path: Path
) -> None:
    """RWKV halves the weights of its seventh layer as long as it is in eval mode."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 7, "attention_hidden_size": 16}
    policy = Policy(config={"model_type": "rwkv"} | sizes, tokenizer=str(words))
    for weight in policy.parameters():
        if weight.dim() >= 2:
            weight.normal_(0, 0.4, generator=torch.Generator().manual_seed(weight.shape[0]))
    batch = collate([random_tree(4, [5])])
    expected = policy.eval()(batch).logps
    policy.save(tmp_path)
    assert_close(Policy.load(tmp_path).eval()(batch).logps, expected)
    assert_close(policy.train()(batch).logps, expected)
