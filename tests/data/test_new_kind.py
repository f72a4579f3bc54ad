"""A kind of row is one file: one that alignlab has never seen is read, refused and trained on."""

import json
from pathlib import Path

import pytest

from alignlab import cli

KIND = '''
"""Edits: what a writer drafted and what an editor made of it."""

from dataclasses import dataclass

from alignlab.data.modules import TreeData
from alignlab.data.rows import Branch, Completable, Refused, Text
from alignlab.objectives.dpo import DPO


@dataclass(frozen=True, slots=True)
class Edit(Completable):
    """A draft and its edited version, by how much it is better."""

    COLUMNS = (("prompt", "draft", "final"),)
    draft: Text
    final: Text
    hours: float

    @classmethod
    def parse(cls, read):
        prompt, draft, final = read.prompt_and("draft", "final")
        return cls(read.id, prompt, draft, final, read.number("hours") or 0.0)

    def check(self):
        Completable.check(self)
        if self.draft == self.final:
            raise Refused("nothing was edited")

    def branches(self):
        return [Branch("final", self.final), Branch("draft", self.draft)]

    @property
    def labels(self):
        return self.hours, 0.0


class EditData(TreeData[Edit]):
    """Edits: two completions a tree, the final one first."""

    kind = Edit


class EditDPO(DPO):
    """DPO on edits."""

    rows = (Edit,)
'''


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Lightning's advice
def test_a_new_kind_is_one_file(
    words: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "edits.py").write_text(KIND)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    rows: list[dict[str, object]] = [
        {"prompt": f" w{i}", "draft": " w9", "final": f" w{i + 1}", "hours": i} for i in range(3, 8)
    ]
    rows += [{**rows[0], "final": " w9"}, {"prompt": " w3", "draft": " w4"}]
    rows += [{**rows[0], "final": " "}, {**rows[0], "hours": "long"}]
    Path("edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = "hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 2"
    Path("edits.yaml").write_text(
        "model:\n  class_path: house.edits.EditDPO\n"
        f"  init_args: {{policy: {{source: null, tokenizer: {words}, "
        f"config: {{model_type: llama, {sizes}}}}}, beta: 0.5, "
        "optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.02}}}\n"
        "data:\n  class_path: house.edits.EditData\n"
        "  init_args: {source: edits.jsonl, batch_size: 5}\n"
        "trainer: {max_steps: 2, default_root_dir: run, accelerator: cpu, logger: false}\n"
    )
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit", "--config", "edits.yaml"])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    assert "Trained 2 steps. Model: run/model" in said.out
    assert "5 of 9 rows kept: 5 trees, 10 completions, 20 tokens" in said.err
    for reason in (
        "nothing was edited: edits.jsonl:6",
        "missing column 'final': edits.jsonl:7",
        "empty completion: edits.jsonl:8 (in 'final')",
        "wrong type in 'hours': edits.jsonl:9 (wants a number, got str 'long')",
    ):
        assert f"  refused 1 x {reason}\n" in said.err
