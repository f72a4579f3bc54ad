from collections.abc import Callable
from pathlib import Path

from alignlab.models.policy import Policy
from alignlab.results.csv_tables import read_table
from alignlab.stages.sample_table import write_samples
from tests.data.files import jsonl


class Words:
    """Words of the completion; a reward that can be checked by eye."""

    def __call__(self, prompts: list[str], completions: list[str]):
        import torch

        return torch.tensor([float(len(text.split())) for text in completions])


def test_samples_beside_demonstrations(build: Callable[..., Policy], tmp_path: Path) -> None:
    build("llama", dtype="float32").save(tmp_path / "policy")
    rows = [{"id": f"r{k}", "prompt": f"w{k} w5", "completion": " w6" * k} for k in range(3, 8)]
    tables = []
    for out in ("one", "two"):
        write_samples(
            out=tmp_path / out,
            policy=str(tmp_path / "policy"),
            source=str(jsonl(tmp_path, rows)),
            max_new_tokens=6,
            limit=4,
            reward=f"{__name__}.Words",
        )
        tables.append(read_table(tmp_path / out / "samples.csv"))
    assert tables[0] == tables[1]
    assert [row["id"] for row in tables[0]] == ["r3", "r4", "r5", "r6"]
    assert [row["prompt"].split() for row in tables[0]] == [[f"w{k}", "w5"] for k in range(3, 7)]
    for k, row in enumerate(tables[0], start=3):
        assert row["demonstrated"].split() == ["w6"] * k
        assert float(row["reward_demonstrated"]) == k
        assert float(row["reward_sampled"]) == len(row["sampled"].split())
        assert len(row["sampled"].split()) <= 6
        assert row["ends"] in ("True", "False")


def test_rows_with_one_id_keep_their_own_demonstrations(
    build: Callable[..., Policy], tmp_path: Path
) -> None:
    build("llama", dtype="float32").save(tmp_path / "policy")
    rows = [{"id": "c", "prompt": f"w{k}", "completion": f" w{k + 1}"} for k in range(5, 8)]
    write_samples(
        out=tmp_path,
        policy=str(tmp_path / "policy"),
        source=str(jsonl(tmp_path, rows)),
        max_new_tokens=2,
    )
    table = read_table(tmp_path / "samples.csv")
    assert [(row["prompt"].strip(), row["demonstrated"]) for row in table] == [
        ("w5", " w6"),
        ("w6", " w7"),
        ("w7", " w8"),
    ]
    assert len({row["id"] for row in table}) == 3
