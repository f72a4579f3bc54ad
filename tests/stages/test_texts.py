import pytest

from alignlab.errors import DataError
from alignlab.results.csv_tables import read_table
from alignlab.results.run_folder import Evaluation, SampleText
from alignlab.stages.texts import measure_texts, variety
from tests.data.files import jsonl


def test_varieties_by_hand() -> None:
    """a b a b | c: words 3 of 5, pairs (ab ba ab) 2 of 3, triples 2 of 2; 1 of 3 pairs again."""
    assert variety([" a b a b", " c"]) == pytest.approx(
        {
            "texts": 2, "words": 2.5, "distinct_1": 3 / 5, "distinct_2": 2 / 3, "distinct_3": 1,
            "repeated": 1 / 3,
        }
    )  # fmt: skip
    assert variety(["", ""])["distinct_1"] is None


def test_a_row_for_each_checkpoint_after_the_reference(tmp_path) -> None:
    for step, texts in ((4, ["x x x", "x x"]), (8, ["x y", "z"])):
        evaluation = Evaluation(tmp_path / "dpo" / "s0" / "train", step)
        evaluation.scores.parent.mkdir(parents=True, exist_ok=True)
        evaluation.scores.write_bytes(b"")
        kept = [SampleText("p", "q", text, 0.0, None, 0.0, 1) for text in texts]
        evaluation.write_texts(kept)
        evaluation.seal(1.0)
    own = [{"prompt": "q", "completion": f"w{i} v{i}"} for i in range(3)]
    measure_texts(
        out=tmp_path, runs=[[str(tmp_path / "dpo" / "s0")]], baseline=str(jsonl(tmp_path, own))
    )
    rows = read_table(tmp_path / "texts.csv")
    assert [(row["run"], row["step"], row["texts"]) for row in rows] == [
        ("reference", "0", "2"),
        ("dpo-s0", "4", "2"),
        ("dpo-s0", "8", "2"),
    ]
    assert [float(row["distinct_1"]) for row in rows] == [1, 1 / 5, 1]
    with pytest.raises(DataError, match="has 1 texts, a checkpoint 2"):
        measure_texts(
            out=tmp_path,
            runs=[str(tmp_path / "dpo" / "s0")],
            baseline=str(jsonl(tmp_path, own[:1])),
        )
    with pytest.raises(DataError, match="no run has kept texts"):
        measure_texts(out=tmp_path, runs=[str(tmp_path / "other" / "s0")])
