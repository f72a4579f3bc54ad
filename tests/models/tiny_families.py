"""Every decoder family of transformers, made tiny, and what alignlab makes of it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
)

from alignlab.data.trees import PromptTree, collate
from alignlab.errors import ConfigError
from alignlab.functional.sampling import SamplingSpec
from alignlab.models import Policy, ScoreModel
from alignlab.rollouts.sampler import sample
from tests.tiny import EOS, VOCABULARY

LARGEST = 20_000_000  # parameters
TOLERANCE = 1e-4  # nats a token

# Sizes by every name that a config has for them; windows and chunks are shorter than the rows.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embedding_size", "emb_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 4),
    **dict.fromkeys(("decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("attention_heads", "num_key_value_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "ffn_hidden_size"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 512),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_num_experts", "moe_num_primary_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts"), 1),
    **dict.fromkeys(("moe_intermediate_size", "expert_intermediate_size", "expert_ffn_size"), 16),
    **dict.fromkeys(("shared_expert_intermediate_size",), 16),
    **dict.fromkeys(("sliding_window", "window_size", "attention_window_size"), 32),
    **dict.fromkeys(("keep_window_size", "sliding_window_size"), 32),
    "local_attention": 64,
    "attention_chunk_size": 48,
    "rotary_dim": 4,
    "word_embed_proj_dim": 32,
    "head_dim": 8,
    "global_head_dim": 8,
    "query_pre_attn_scalar": 8,
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank"), 8),
    **dict.fromkeys(("index_head_dim", "index_topk"), 8),
    "index_n_heads": 2,
    **dict.fromkeys(("state_size", "ssm_state_size", "mamba_d_state", "mamba_state_dim"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_headdim", "mamba_dt_rank"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("lru_width", "attention_hidden_size", "hidden_size_per_layer_input"), 32),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "dim_ff"), VOCABULARY),
    "type_vocab_size": 2,
    "pad_token_id": 0,
    **dict.fromkeys(("bos_token_id", "decoder_start_token_id"), 1),
    "eos_token_id": EOS,
}
# What a family's own checks ask for besides.
HYBRID = ["linear_attention", "full_attention"] * 2
OWN: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_types": HYBRID},
    "bamba": {"attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "cohere": {"logit_scale": 0.25},
    "dbrx": {"attn_config": {"kv_n_heads": 4, "rope_theta": 1e4, "clip_qkv": 8.0}},
    "dots3_note_text": {"per_layer_config": {}, "head_dim": 16},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma2": {"final_logit_softcapping": 5.0},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granite": {"logits_scaling": 6.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    "granitemoehybrid": {"layer_types": HYBRID},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"layer_types": HYBRID},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8, "n_groups": 1},
    **{name: {"use_sliding_window": True, "max_window_layers": 1} for name in ("qwen2", "qwen3")},
    "reformer": {
        "is_decoder": True,
        "attn_layers": ["local", "local"],
        "axial_pos_embds_dim": [16, 16],
        "axial_pos_shape": [16, 32],
    },
    "roc_bert": {"pronunciation_vocab_size": 32, "shape_vocab_size": 32},
    "xmod": {"default_language": "en_XX"},
    **{
        name: {
            "layers_block_type": ["linear_attention", "hybrid"] * 2,
            "attention_hidden_size": 64,
            "attention_head_dim": 16,
        }
        for name in ("zamba", "zamba2")
    },
    "zaya": {"num_experts_per_tok": 1},
}

# Why a family is not made tiny.
NOT_TINY = {
    "blt": "reads bytes by patches of several models",
    "cohere_compass_text": "its default config is not complete",
    "dots3_note": "settings of single layers in its default config name layers by number",
    "gemma3n": "needs timm",
    "gemma4_assistant": "drafts for another model",
    "gemma4_unified_assistant": "drafts for another model",
    "kimi_linear": "takes minutes",
    "mimo_v2_flash": "its rotary embedding fails at small sizes",
    "musicgen": "its config has no decoder's settings",
    "musicgen_melody": "its config has no decoder's settings",
    "qwen4_exp": "its default config is not complete",
    "qwen4_exp_text": "its default config is not complete",
    "xlstm": "its kernels fail at small sizes",
}
# Refused at load: they look ahead, keep index_topk tokens of longer rows, or have a head of their
# own kind.
_REFUSED = """
    axk2 bert bert-generation big_bird camembert cpmant data2vec-text deepseek_v32 deepseek_v4
    dots3_note_text electra emu3 ernie glm_moe_dsa hy_v4 inkling_text llama4 llama4_text
    megatron-bert mllama modernbert-decoder prophetnet recurrent_gemma rembert roberta
    roberta-prelayernorm roc_bert roformer xlm xlm-roberta xlm-roberta-xl xlnet xmod
"""
# Families whose classifier is one linear layer on the last token's state; others' are refused.
_SCORERS = """
    arcee axk1 biogpt bloom deepseek_v2 deepseek_v3 diffllama doge exaone4 falcon gemma gemma2
    gemma3 gemma3_text glm glm4 gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss gptj helium
    hunyuan_v1_dense hunyuan_v1_moe jamba jetmoe llama minicpm3 minimax ministral ministral3
    mistral mixtral mpt nemotron olmo olmo2 olmo3 openai-gpt opt persimmon phi phi3 phimoe qwen2
    qwen2_moe qwen3 qwen3_5 qwen3_5_text qwen3_moe qwen3_next seed_oss smollm3 stablelm
    starcoder2 zamba zamba2
"""
REFUSED, SCORERS = {*_REFUSED.split()}, {*_SCORERS.split()}
# Mamba 2 clamps its time step in whole rows and not token by token: 6e-4 nats, in float64 too.
SAMPLER_TOLERANCE = {"nemotron_h": 1e-3, "zamba2": 1e-3}


def tiny_config(name: str) -> PreTrainedConfig:
    """The family's config with small sizes."""
    return AutoConfig.for_model(name, **_small(AutoConfig.for_model(name), OWN.get(name, {})))


def _small(config: PreTrainedConfig, own: dict[str, Any]) -> dict[str, Any]:
    known = {*config.to_dict(), *(getattr(config, "attribute_map", None) or {})}
    parts = {
        key: _small(part, own.get(key, {}))
        for key, part in vars(config).items()
        if isinstance(part, PreTrainedConfig)
    }
    return parts | {key: value for key, value in SIZES.items() if key in known} | own


def make_tiny(name: str, folder: Path, words: Path) -> Any:
    """A model of the family with weights of a trained one's size, saved with a tokenizer.

    Raises:
        Exception: Whatever the family raises of a config that it does not take.
    """
    config = tiny_config(name)
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if size > LARGEST:
        raise ValueError(f"{size / 1e6:.0f} M parameters: it has parts that SIZES does not shrink")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        with torch.no_grad():
            for label, weight in model.named_parameters():
                if weight.dim() >= 2 and 0 < weight.std() < 0.15:
                    weight.mul_(0.15 / weight.std())
                if weight.dim() == 1 and "bias" in label:
                    weight.add_(0.05 * torch.randn_like(weight))
            head = model.get_output_embeddings()
            if hasattr(head, "weight"):
                head.weight.mul_(3.0)  # peaked distributions, so that caps and scales matter
            model(torch.tensor([[1, 5, 6, 7]]))
    model.save_pretrained(folder)
    for file in words.iterdir():
        shutil.copy(file, folder)
    return model


def trees() -> list[PromptTree]:
    """Completions of 1 to 60 tokens of prompts of 1 to 41: beyond every window in ``SIZES``."""
    draw = torch.Generator().manual_seed(3)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (n,), generator=draw).tolist())

    return [
        PromptTree(0, "a", (1, *ids(19)), ((*ids(45), EOS), ids(7), ids(60))),
        PromptTree(1, "b", (1,), (ids(30), (*ids(3), EOS))),
        PromptTree(2, "c", (1, *ids(40)), (ids(50), ids(1), (*ids(44), EOS))),
    ]


def own_logps(model: Any, rows: list[PromptTree]) -> Iterator[Tensor]:
    """Log-probs of each completion's tokens by the library's own forward, one row at a time."""
    for tree in rows:
        for completion in tree.completions:
            row, n = torch.tensor([[*tree.prompt, *completion]]), len(tree.prompt)
            logps = model(input_ids=row).logits[0].double().log_softmax(-1)
            yield logps[n - 1 : -1].gather(1, row[0, n:, None])[:, 0]


@torch.no_grad()
def policy_error(folder: Path, layout: Any) -> float:
    """Largest error of a token's log-prob, in nats."""
    policy = Policy(source=str(folder), layout=layout).eval()
    scores = policy(collate(trees()))
    expected = torch.cat(list(own_logps(policy.model, trees())))
    return float((scores.token_logps[scores.mask] - expected).abs().max())


@torch.no_grad()
def sampler_error(folder: Path) -> float:
    """Largest error of a drawn token's log-prob, in nats."""
    policy = Policy(source=str(folder)).eval()
    drawn = sample(
        policy,
        trees(),
        samples=2,
        max_new_tokens=24,
        spec=SamplingSpec(),
        seed=0,
        stop_ids=(EOS,),
    )
    found = torch.cat([logps for row in drawn.token_logps for logps in row])
    expected = torch.cat(list(own_logps(policy.model, drawn.trees)))
    return float((found - expected).abs().max())


@torch.no_grad()
def scorer_error(folder: Path) -> float:
    """Largest error of a score, over the largest score."""
    scorer = ScoreModel(str(folder)).eval()
    found = scorer(collate(trees()))
    scorer.save(folder / "scorer")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "scorer").eval()
    rows = [torch.tensor([[*t.prompt, *c]]) for t in trees() for c in t.completions]
    expected = torch.cat([model(input_ids=row).logits[0] for row in rows])
    return float((found - expected).abs().max() / expected.abs().max())


def outcome(error: Callable[..., float], *args: Any, tolerance: float = TOLERANCE) -> str:
    """``right``, ``wrong by ...``, or ``refused: ...``."""
    try:
        found = error(*args)
    except ConfigError as problem:
        return f"refused: {problem}"
    return "right" if found < tolerance else f"wrong by {found:.1e}"
