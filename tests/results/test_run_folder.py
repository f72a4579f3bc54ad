"""The names in a run's folder, and when an evaluation counts as whole."""

from pathlib import Path

import pytest

from alignlab.errors import DataError
from alignlab.files import write_record
from alignlab.results.run_folder import (
    Evaluation,
    RunFolder,
    SampleText,
    evaluations_in,
    job_folders,
)

TEXT = SampleText("p0", "A", "film\x85\u2028", 1.0, proxy_reward=None, kl=0.5, length=2)


def evaluation(logs: Path, step: int) -> Evaluation:
    made = Evaluation(logs, step)
    made.write_texts([TEXT])
    made.scores.write_bytes(b"scores")
    made.seal(12.5)
    return made


def test_a_job_is_named_by_its_stage_and_key(tmp_path: Path) -> None:
    for name in ("dpo/beta0.5-s0", "sft/all"):
        (tmp_path / "stages" / name).mkdir(parents=True)
    dpo, sft = job_folders(tmp_path)
    assert (dpo.run_id, dpo.stage, dpo.key) == ("dpo-beta0.5-s0", "dpo", "beta0.5-s0")
    assert (sft.run_id, sft.long_name) == ("sft", "sft-all")
    assert sft.done is None
    write_record(sft.path / "done.json", {"seconds": 1.0})
    assert sft.done == {"seconds": 1.0}
    assert (dpo.logs, dpo.config) == (dpo.path / "train", dpo.path / "config.yaml")


def test_evaluations_are_found_wherever_the_logger_put_them_in_order_of_steps(
    tmp_path: Path,
) -> None:
    run = RunFolder(tmp_path / "dpo" / "s0")
    for step in (1_000_000, 20, 3):
        evaluation(run.logs / "version_0", step)
    names = [each.scores.name for each in run.evaluations]
    assert names == ["step-000003.parquet", "step-000020.parquet", "step-1000000.parquet"]
    run.evaluations[1].remove()
    assert [each.step for each in run.evaluations] == [3, 1_000_000]


@pytest.mark.parametrize("name", ["scores", "texts", "record"])
def test_an_evaluation_is_whole_if_each_file_is_what_was_written(tmp_path: Path, name: str) -> None:
    made = evaluation(tmp_path, 20)
    assert made.is_whole
    assert made.seconds == 12.5
    assert made.read_texts() == [TEXT]
    path: Path = getattr(made, name)
    path.write_bytes(path.read_bytes().replace(b"s", b"t", 1) + b" ")
    assert not made.is_whole
    path.unlink()
    assert not made.is_whole
    assert [each.step for each in evaluations_in(tmp_path)] == [20]


def test_damaged_texts_are_not_read(tmp_path: Path) -> None:
    made = evaluation(tmp_path, 20)
    made.texts.write_bytes(made.texts.read_bytes().replace(b"film", b"fuml"))
    with pytest.raises(DataError, match=r"step-000020\.texts\.jsonl is damaged"):
        made.read_texts()
