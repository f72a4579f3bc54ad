"""An objective is one file and one YAML: one that alignlab has never seen, trained as any other."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from alignlab import cli
from alignlab.models.policy import Policy

OBJECTIVE = '''
"""Exponential loss on DPO's margin."""

from lightning.pytorch.cli import OptimizerCallable

from alignlab.models import Policy, ReferenceKind, make_reference
from alignlab.objectives.base import PairLoss, PairObjective
from alignlab.objectives.schedule import Schedule


def exponential_loss(chosen, rejected, ref_chosen, ref_rejected, *, beta):
    good, bad = beta * (chosen - ref_chosen), beta * (rejected - ref_rejected)
    return PairLoss((bad - good).exp(), good.detach(), bad.detach())


class Exponential(PairObjective):
    """``exp(-margin)``."""

    def __init__(
        self, policy: Policy, optimizer: OptimizerCallable, beta: float = 0.1,
        reference: ReferenceKind = "auto", reference_cache: str | None = None,
        schedule: Schedule | None = None,
    ):
        super().__init__(policy, optimizer, schedule)
        self.reference = make_reference(policy, reference, reference_cache)
        self.beta = beta

    def pair_loss(self, trees, scores):
        return exponential_loss(*self.four_logps(trees, scores), beta=self.beta)
'''
DPO = Path(__file__).parents[1] / "experiments" / "quickstart" / "dpo.yaml"


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Lightning's advice
def test_a_file_and_a_yaml_that_differs_from_its_sibling_in_the_model_alone(
    words: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "exponential.py").write_text(OBJECTIVE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f" w{i}", "chosen": f" w{i + 1}", "rejected": " w9"} for i in range(3, 8)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = yaml.safe_load(DPO.read_text())
    config["model"]["class_path"] = "exponential.Exponential"
    Path("exponential.yaml").write_text(yaml.safe_dump(config))
    sizes = "hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 2"
    Path("small.yaml").write_text(
        f"model: {{init_args: {{policy: {{source: null, tokenizer: {words}, "
        f"config: {{model_type: llama, {sizes}}}}}, reference_cache: cache, beta: 0.5, "
        "optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.02}}}}\n"
        "data: {init_args: {source: pairs.jsonl, batch_size: 5}}\nprobe: null\n"
        "trainer: {max_steps: 60, callbacks: [], default_root_dir: run, accelerator: cpu, "
        "logger: false}\n"
    )
    stages = [str(DPO.with_name("_pairs.yaml")), "exponential.yaml", "small.yaml"]
    files = [word for stage in stages for word in ("--config", stage)]
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit", *files])
    assert ended.value.code == 0
    assert "Trained 60 steps. Model: run/model" in capsys.readouterr().out
    policy = Policy.load("run/model")
    with torch.no_grad():
        ids = policy.tokenizer(" w3", return_tensors="pt")["input_ids"]
        logits = policy.model(ids).logits[0, -1].log_softmax(0)
    good, bad = (policy.tokenizer(word)["input_ids"][-1] for word in (" w4", " w9"))
    assert float(logits[good] - logits[bad]) > 2  # they were alike
