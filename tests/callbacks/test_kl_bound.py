"""A run beyond its KL ends there; killed right behind the evaluation, it ends there too."""

from pathlib import Path

import pytest
from lightning.pytorch import LightningModule, Trainer

from alignlab.callbacks.kl_bound import KLBound
from alignlab.errors import ConfigError
from tests.callbacks.test_probe import Kill, files, train

__all__ = ["files"]  # a fixture
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*many workers")


def evaluations(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.rglob("points/*.parquet"))


def test_it_ends_at_the_first_evaluation_beyond(files: Path, tmp_path: Path) -> None:
    beyond, within = KLBound(limit=1e-6), KLBound(limit=1e6)
    train(files, tmp_path / "a", beyond)
    assert evaluations(tmp_path / "a") == ["step-000002"]
    assert beyond.reached is not None
    assert beyond.reached.startswith("KL ")
    assert beyond.reached.endswith(" > 1e-06 at step 2")
    train(files, tmp_path / "b", within)
    assert evaluations(tmp_path / "b") == ["step-000002", "step-000004", "step-000005"]
    assert within.reached is None


def test_continued_from_behind_the_evaluation_it_ends_there(files: Path, tmp_path: Path) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(files, tmp_path, Kill(4))  # two steps, four micro-batches
    again = KLBound(limit=1e-6)
    train(files, tmp_path, again, resume=True)
    assert evaluations(tmp_path) == ["step-000002"]
    assert again.reached is not None


def test_a_bound_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"limit > 0 .*, got 0"):
        KLBound(limit=0)


def test_without_an_evaluation_before_it_a_bound_is_refused(tmp_path: Path) -> None:
    trainer = Trainer(
        default_root_dir=tmp_path, callbacks=[KLBound(limit=1.0)], logger=False, accelerator="cpu"
    )
    bound = next(c for c in trainer.callbacks if isinstance(c, KLBound))  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="Add one under the key probe"):
        bound.setup(trainer, LightningModule(), "fit")
