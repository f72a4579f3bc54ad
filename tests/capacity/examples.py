"""Stage files for a tiny Llama whose parameters are counted here by hand."""

from pathlib import Path
from typing import Any

import yaml

VOCABULARY, HIDDEN, LAYERS, INNER = 64, 16, 2, 24
CONFIG = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
}
LINEAR = 16 * 16 + 16 * 8 + 16 * 8 + 16 * 16 + 3 * 16 * 24  # q, k, v, o and the MLP: 1,920
BLOCK = LINEAR + 2 * 16  # and two norms
PARAMETERS = LAYERS * BLOCK + 2 * VOCABULARY * HIDDEN + HIDDEN
ADAPTERS = LAYERS * 4 * (32 + 24 + 24 + 32 + 3 * 40)  # rank 4, (in + out) of each layer


def stage(
    folder: Path,
    objective: str = "dpo.DPO",
    data: str = "modules.PreferenceData",
    policy: dict[str, Any] | None = None,
    trainer: dict[str, Any] | None = None,
    rows: dict[str, Any] | None = None,
    **model: Any,
) -> str:
    """Write a stage's YAML; gives the word that names it to ``fit`` and ``plan``."""
    policy = {"config": CONFIG, "tokenizer": "nowhere"} | (policy or {})
    optimizer = {"class_path": "torch.optim.AdamW"}
    rows = {"source": "no/such.jsonl", "batch_size": 4, "max_length": 32} | (rows or {})
    config = {
        "model": {
            "class_path": f"alignlab.objectives.{objective}",
            "init_args": {"policy": policy, "optimizer": optimizer, **model},
        },
        "data": {"class_path": f"alignlab.data.{data}", "init_args": rows},
        "trainer": {"max_steps": 10, **(trainer or {})},
    }
    file = folder / "stage.yaml"
    file.write_text(yaml.safe_dump(config))
    return f"--config={file}"
