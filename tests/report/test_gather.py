"""Texts of checkpoints: read from a run's folder, and picked from both ends of a frontier."""

from dataclasses import replace
from pathlib import Path

import pytest

from alignlab.errors import DataError
from alignlab.report.gather import key_of, read_kept, read_samples, read_trials, sample_rows
from alignlab.results.run_folder import Evaluation, SampleText
from alignlab.results.tables import Point
from tests.report.test_page import findings, point, sample

POINTS = [
    point(run, step, kl=kl, reward=0.0)
    for run, step, kl in [
        ("dpo-b1-s0", 10, 0.1),  # not its last checkpoint
        ("dpo-b1-s0", 20, 0.4),
        ("dpo-b2-s0", 20, 0.9),
        ("dpo-b3-s0", 20, 2.5),
        ("ppo-s0", 20, 1.5),
    ]
]


def text(point: Point) -> SampleText:
    return sample(prompt_id="p0", prompt="A film", completion=key_of(point), reward=point.kl)


def test_texts_come_from_the_least_and_the_most_kl_of_each_objective() -> None:
    found = findings(points=POINTS, samples={key_of(p): [text(p)] for p in POINTS})
    rows = sample_rows(found)
    assert [(row["run"], row["kl"]) for row in rows] == [
        ("dpo-b1-s0, step 20", 0.4),
        ("dpo-b3-s0, step 20", 2.5),
        ("ppo-s0, step 20", 1.5),
    ]
    assert rows[1] == {
        "run": "dpo-b3-s0, step 20",
        "kl": 2.5,
        "prompt": "A film",
        "completion": "dpo-b3-s0, step 20",
        "reward": 2.5,
        "reference": "dull",
        "reference_reward": -0.5,
    }


def test_runs_whose_texts_are_gone_are_passed_over() -> None:
    found = findings(points=POINTS, samples={key_of(POINTS[2]): [text(POINTS[2])]}, references={})
    (row,) = sample_rows(found)
    assert (row["kl"], row["reference"], row["reference_reward"]) == (0.9, "", None)


@pytest.mark.parametrize(("folder", "run"), [("dpo/b1-s0", "dpo-b1-s0"), ("ppo/all", "ppo")])
def test_texts_are_found_beside_a_runs_checkpoints(tmp_path: Path, folder: str, run: str) -> None:
    texts = [
        sample(prompt_id=f"p{9 - i}", prompt="A", completion=f"c{i}", reward=i) for i in range(8)
    ]
    # Line ends of Unicode inside a text, as json.dumps leaves them without ensure_ascii.
    ends = "a\x85b\u2028c\u2029d\x0ce"
    texts[7] = replace(texts[7], completion=ends)
    evaluation = Evaluation(tmp_path / "stages" / folder / "train", 20)
    evaluation.write_texts(texts)
    assert evaluation.texts.name == "step-000020.texts.jsonl"
    last = point(run, 20, kl=1.0, reward=0.0)
    found = read_samples([tmp_path], [last, point("gone", 20, kl=1.0, reward=0.0)])
    assert list(found) == [key_of(last)]
    assert [(s.prompt_id, s.completion) for s in found[key_of(last)]] == [
        ("p2", ends), ("p3", "c6"), ("p4", "c5"), ("p5", "c4"),
    ]  # fmt: skip


def test_trials_of_jobs_that_share_a_study_are_listed_once(tmp_path: Path) -> None:
    text = "slot,state,note\n0,complete,\n1,failed,a bug\n2,stopped,KL\n"
    for name in ("job-0", "job-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trials.csv").write_text(text)
    found = read_trials([tmp_path / "job-0", tmp_path / "job-1", tmp_path])
    assert [(row["slot"], row["state"], row["note"]) for row in found] == [
        ("1", "failed", "a bug"), ("2", "stopped", "KL"),
    ]  # fmt: skip


def test_texts_that_were_kept_in_the_table_come_back(tmp_path: Path) -> None:
    (tmp_path / "samples.csv").write_text(
        "run,kl,prompt,completion,reward,reference,reference_reward\n"
        '"dpo-b1-s0, step 20",0.4,A film,shines,1.5,dull,-0.5\n'
        '"dpo-b1-s0, step 20",0.4,A book,glows,1.25,,\n'
        '"of another folder, step 20",0.4,A film,shines,1.5,dull,-0.5\n'
    )
    samples, references = read_kept([tmp_path, tmp_path / "without"], POINTS)
    (own,) = samples.values()
    assert [(s.prompt, s.completion, s.reward) for s in own] == [
        ("A film", "shines", 1.5), ("A book", "glows", 1.25),
    ]  # fmt: skip
    assert [references.get(s.prompt_id) for s in own] == [("dull", -0.5), None]
    (tmp_path / "samples.csv").write_text("run,completion,reward,reference\nx,y,much,z\n")
    with pytest.raises(DataError, match=r"samples\.csv: a row cannot be read .*'much'"):
        read_kept([tmp_path], POINTS)
