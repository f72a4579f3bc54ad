"""``alignlab plan`` on the command line."""

from pathlib import Path

import pytest

from alignlab.capacity.memory import PARTS, Placement
from alignlab.capacity.setup import Setup
from alignlab.cli import main
from tests.capacity.examples import stage

LECTURE = ("--trained", "175e9,175e9", "--frozen", "175e9,175e9", "--gpu", "a100-80gb")

INSTRUCTGPT = ("--trained", "175e9,6e9", "--frozen", "175e9,6e9", "--memory", "80")


def plan(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    with pytest.raises(SystemExit) as end:
        main(["plan", *words])
    out = capsys.readouterr()
    assert end.value.code == status, out.err
    return out.out if status == 0 else out.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*LECTURE, "--gradients", "4", "--price", "2"), ("7.00 TB", ": 88,", "176.00 EUR")),
        (LECTURE, ("6.30 TB", ": 79,")),
        (INSTRUCTGPT, ("3.26 TB", ": 41,")),
    ],
)
def test_the_lectures_sums(
    words: tuple[str, ...], said: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    out = plan(capsys, *words)
    assert all(text in out for text in said)


def test_a_table_of_places_with_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = stage(tmp_path).removeprefix("--config=")
    out = plan(capsys, file, "--gpu", "h100", "--devices", "1,2", "--price", "2", "--lengths=20,8")
    lines = {line[:12].strip(): line[12:].split() for line in out.split("\n")}
    assert "1 device" in out
    assert "DDP x 2" in out
    assert "FSDP2 x 2" in out
    assert lines["fits"] == ["yes"] * 3
    assert len(lines["tokens/s"]) == len(lines["s a step"]) == 3


def test_settings_and_overlays_as_in_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = stage(tmp_path).removeprefix("--config=")
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("data: {init_args: {batch_size: 6}}\n")
    more = ("--config", str(overlay), "--data.init_args.micro_batch_size=3", "--devices", "1")
    out = plan(capsys, file, *more)
    assert "DPO, 6 rows in an optimizer step" in out
    assert "rows in a forward         3" in out


def test_what_does_not_fit_is_followed_by_what_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("memory", "changes"):
        monkeypatch.setattr(f"alignlab.capacity.{module}.memory_of", made_up)
    file = stage(tmp_path).removeprefix("--config=")
    out = plan(capsys, file, "--memory", "100", "--devices", "1")
    assert "It does not fit on 1 device: 160.00 GB of 95.00 GB. Changes:" in out
    assert "runs twice: saves 100.00 GB, fits" in out
    assert "Cheapest that fits: model.init_args.policy.activation_checkpointing: true\n" in out


def made_up(setup: Setup, place: Placement) -> dict[str, float]:
    """160 GB, or 60 with checkpointing."""
    return dict.fromkeys(PARTS, 0.0) | {"activations": 60e9 if setup.checkpointed else 160e9}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "there is nothing to plan"),
        (("stage",), "neither a YAML file nor DIR:STAGE"),
        (("no.yaml",), "no.yaml"),
        (("--trained", "5", "no.yaml"), "need no config"),
        (("no.yaml", "--gradients", "4"), "--gradients belongs to"),
        (("--trained", "0"), "expected numbers above 0"),
        (("no.yaml", "--lengths", "5"), "--lengths needs two numbers"),
    ],
)
def test_a_wrong_call_says_what_to_change(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in plan(capsys, *words, status=2)


def test_an_unknown_key_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = stage(tmp_path, betta=1).removeprefix("--config=")
    assert "betta" in plan(capsys, file, status=2)
