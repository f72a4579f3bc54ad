"""Two tiny policies in folders, and pairs for them."""

from pathlib import Path

import pytest

from alignlab.models.policy import Policy
from tests.data.files import jsonl
from tests.tiny import FAMILIES


@pytest.fixture(scope="session")
def policies(words: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of the policies ``one`` and ``two``."""
    made = {}
    for seed, name in enumerate(("one", "two")):
        config = {"model_type": "llama", "initializer_range": 0.4, "max_position_embeddings": 64}
        policy = Policy(config=config | FAMILIES["llama"], tokenizer=str(words), seed=seed)
        folder = tmp_path_factory.mktemp(name)
        policy.save(folder)
        made[name] = str(folder)
    return made


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 different prompts, and one that repeats the first."""
    rows = [
        {"id": f"r{k}", "prompt": f" w{3 + k % 20} w{4 + k // 20}", "chosen": " w9 w10",
         "rejected": " w5"}
        for k in range(40)
    ]  # fmt: skip
    again = {**rows[0], "id": "again", "chosen": " w31"}
    return jsonl(tmp_path_factory.mktemp("pairs"), [rows[0], again, *rows[1:]])


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty figure: drawing takes seconds."""

    def draw(rows: object, out: Path) -> None:
        (out / "winrate.svg").write_text("<svg/>")

    monkeypatch.setattr("alignlab.winrate.contest.draw_win_rates", draw)
