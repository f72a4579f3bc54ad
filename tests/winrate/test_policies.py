import shutil
from pathlib import Path

import pytest
import yaml

from alignlab.errors import ConfigError
from alignlab.winrate.policies import Contender, identity_of, paired, read_contender


def read(text: str) -> Contender:
    return read_contender(text, scale=None, results=None)


def test_names_and_seeds(tmp_path: Path) -> None:
    assert read("dpo=a/b,c/d") == Contender("dpo", ("a/b", "c/d"))
    assert read("owner/model") == Contender("model", ("owner/model",))
    run = tmp_path / "version_3"
    (run / "model").mkdir(parents=True)
    (run / "config.yaml").write_text("")
    assert read(str(run)) == Contender("version_3", (str(run / "model"),))
    with pytest.raises(ConfigError, match="expected MODEL or NAME=MODEL"):
        read("dpo=a,,b")


def test_a_finished_stage_has_its_jobs_name(tmp_path: Path) -> None:
    folder = tmp_path / "dpo" / "beta0.5-s1"
    folder.mkdir(parents=True)
    (folder / "done.json").write_text("{}")
    assert read(str(folder)).name == "dpo-beta0.5-s1"


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    stages = {
        "dpo": {"fit": "s.yaml", "per_seed": True, "grid": {"model.init_args.beta": [0.1, 0.5]}},
        "sft": {"fit": "s.yaml"},
        "made": {"call": "alignlab.stages.policies.copy_policy", "args": {"source": "x"}},
    }
    Path("mine").mkdir()
    Path("mine/pipeline.yaml").write_text(yaml.safe_dump({"seeds": [0, 1], "stages": stages}))
    Path("mine/s.yaml").write_text("model: {class_path: M}\ndata: {class_path: D}\n")
    return "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dpo", r"several grid points. In place of 'dpo', name one of dpo-beta0\.1, dpo-beta0\.5"),
        ("made", "trains no 'made'. Stages that train: dpo, sft"),
        ("sft", "has no finished sft of the present settings. Train it: alignlab run mine --only"),
        ("dpo-beta0.5", r"no finished dpo-beta0\.5-s0, dpo-beta0\.5-s1 of"),
    ],
)
def test_a_stage_that_cannot_be_compared_is_told(experiment: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(f"{experiment}:{name}")


@pytest.mark.parametrize(
    ("name", "folders"),
    [
        ("dpo-beta0.5", ["dpo/beta0.5-s0", "dpo/beta0.5-s1"]),
        ("dpo-beta0.1-s1", ["dpo/beta0.1-s1"]),
        ("sft", ["sft/all"]),
    ],
)
def test_an_address_is_the_models_of_all_seeds(
    experiment: str, monkeypatch: pytest.MonkeyPatch, name: str, folders: list[str]
) -> None:
    monkeypatch.setattr("alignlab.plan.state.Standing.done", lambda *_: True)
    wanted = tuple(f"results/mine/stages/{folder}" for folder in folders)
    assert read(f"{experiment}:{name}") == Contender(name, wanted)
    assert read(f"other={experiment}:{name}").name == "other"


def test_a_model_is_what_its_files_hold(policies: dict[str, str], tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(policies["one"], moved)
    (moved / "done.json").write_text('{"seconds": 3}')
    assert identity_of(str(moved)) == identity_of(policies["one"]) != identity_of(policies["two"])
    assert identity_of("owner/model") == "owner/model"


def test_seeds_meet_seed_by_seed() -> None:
    one, two, three = (Contender(f"p{n}", tuple(f"{n}{k}" for k in range(n))) for n in (1, 2, 3))
    assert paired(two, two) == [("20", "20"), ("21", "21")]
    assert paired(one, three) == [("10", "30"), ("10", "31"), ("10", "32")]
    assert paired(three, one) == [("30", "10"), ("31", "10"), ("32", "10")]
    with pytest.raises(ConfigError, match=r"p2 has 2 seeds and p3 3\. Give equally many"):
        paired(two, three)
