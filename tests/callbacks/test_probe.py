"""Probes at fixed steps; a run that was killed ends with the files of one that was not."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from alignlab.callbacks.probe import FrontierProbe
from alignlab.callbacks.resume import LAST, Resume
from alignlab.data.trees import PromptTree, PromptTrees, collate
from alignlab.errors import ConfigError, DataError
from alignlab.evaluation.points import evaluate_policy
from alignlab.evaluation.prompts import load_prompts
from alignlab.models.policy import Policy
from alignlab.results.prompt_tables import read_scores
from alignlab.rewards import Reward
from tests.tiny import EOS

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec", "ignore:.*many workers")
STEPS = 5


class Words(Reward):
    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return torch.tensor([float(len(text.split())) for text in completions])


class Imitate(pl.LightningModule):
    """Raises the log-probs of fixed completions; draws from the global generator as it goes."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def training_step(self, batch: PromptTrees, batch_idx: int) -> Tensor:
        return -self.policy(batch).logps.mean() * (1 + torch.rand(()))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Batches:
    """Endless micro-batches of one tree, different ones in turn; two make a step."""

    def __init__(self) -> None:
        self.place = 0

    def __len__(self) -> int:
        return 2 * STEPS

    def __iter__(self) -> Iterator[PromptTrees]:
        while self.place < len(self):
            self.place += 1
            completion = tuple(3 + (self.place * k) % 20 for k in range(1, 4))
            yield collate([PromptTree(self.place, "x", (1, 3), (completion, (EOS,)))])

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


class Kill(pl.Callback):
    """Ends training after a micro-batch as a kill would."""

    def __init__(self, micro_batch: int) -> None:
        self.micro_batch = micro_batch

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.micro_batch:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, build: Callable[..., Policy]) -> Path:
    folder = tmp_path_factory.mktemp("probe")
    build(dtype="float32").save(folder / "reference")
    rows = [{"id": f"p{i}", "prompt": " w4 w5"[: 3 * (1 + i % 2)]} for i in range(4)]
    (folder / "prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def make_probe(files: Path, **changed: Any) -> FrontierProbe:
    arguments = {
        "prompts": str(files / "prompts.jsonl"),
        "reference": str(files / "reference"),
        "reward": Words(),
        "samples": 3,
        "max_new_tokens": 4,
        "every_n_steps": 2,
        "proxy": Words(),
        "limit": 3,
    }
    return FrontierProbe(**{**arguments, **changed})


def train(
    files: Path, folder: Path, *extra: pl.Callback, resume: bool = False, **probe: Any
) -> Imitate:
    pl.seed_everything(3, verbose=False)
    if resume:
        torch.manual_seed(77)  # the state must come from the checkpoint
    torch.set_num_threads(1)
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=2,
        callbacks=[make_probe(files, **probe), Resume(every_steps=1), *extra],
    )
    module = Imitate(Policy.load(str(files / "reference")))
    ckpt = folder / LAST if resume else None
    trainer.fit(module, Batches(), ckpt_path=ckpt, weights_only=True)
    return module


def tables(folder: Path) -> dict[str, bytes]:
    """What must not depend on interruptions: per-prompt results and texts, not the seconds."""
    kept = (*folder.glob("points/*.parquet"), *folder.glob("points/*.texts.jsonl"))
    return {path.name: path.read_bytes() for path in kept}


@pytest.fixture(scope="module")
def whole(files: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Imitate]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, train(files, folder)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder of the same name: it is the run's name."""
    return tmp_path / "run"


def test_files_at_due_steps_and_at_the_end(whole: tuple[Path, Imitate]) -> None:
    folder, _ = whole
    found = sorted(path.name for path in (folder / "points").iterdir())
    assert found == [
        f"step-{step:06d}{kind}"
        for step in (2, 4, 5)
        for kind in (".json", ".parquet", ".texts.jsonl")
    ]
    record = json.loads((folder / "points" / "step-000004.json").read_text())
    assert record["seconds"] > 0
    texts = (folder / "points" / "step-000005.texts.jsonl").read_text().splitlines()
    assert len(texts) == 9  # three prompts, three samples
    assert json.loads(texts[0])["prompt_id"] == "p0"


def test_the_last_file_is_the_trained_policys_point(
    whole: tuple[Path, Imitate], files: Path
) -> None:
    folder, module = whole
    scores = read_scores(folder / "points" / "step-000005.parquet")
    reference = Policy.load(str(files / "reference"))
    wanted = evaluate_policy(
        module.policy,
        reference,
        load_prompts(files / "prompts.jsonl", reference.tokenizer, limit=3),
        Words(),
        samples=3,
        max_new_tokens=4,
        seed=0,
        stop_ids=[EOS],
    ).scores
    assert scores.prompt_ids == ("p0", "p1", "p2")
    assert scores.kl == pytest.approx(wanted.kl, rel=1e-5, abs=1e-8)
    assert scores.kl.mean() > 1e-3
    assert scores.reward.tolist() == wanted.reward.tolist()
    assert scores.proxy_reward is not None
    assert scores.proxy_reward.tolist() == wanted.reward.tolist()
    early = read_scores(folder / "points" / "step-000002.parquet")
    assert early.kl.mean() < scores.kl.mean()


@pytest.mark.parametrize("micro_batch", [1, 4, 5, 8, 9])
def test_a_killed_run_ends_with_the_same_files(
    whole: tuple[Path, Imitate], files: Path, run: Path, micro_batch: int
) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(files, run, Kill(micro_batch))
    train(files, run, resume=(run / LAST).exists())
    assert tables(run) == tables(whole[0])


def test_a_missing_due_file_is_made_on_resume(
    whole: tuple[Path, Imitate], files: Path, run: Path
) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(files, run, Kill(8))  # step 4 is done and saved
    (run / "points" / "step-000004.parquet").unlink()
    train(files, run, resume=True)
    assert tables(run) == tables(whole[0])
    (run / "points" / "step-000005.parquet").unlink()
    train(files, run, resume=True)  # nothing is left to train
    assert tables(run) == tables(whole[0])


def test_probing_does_not_disturb_the_training(
    whole: tuple[Path, Imitate], files: Path, run: Path
) -> None:
    seldom = train(files, run, every_n_steps=100)
    pairs = zip(seldom.policy.parameters(), whole[1].policy.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert [path.name for path in run.glob("points/*.parquet")] == ["step-000005.parquet"]


def test_a_new_run_forgets_the_files_of_an_older_one(
    whole: tuple[Path, Imitate], files: Path, run: Path
) -> None:
    stale = run / "points" / "step-000004.parquet"
    stale.parent.mkdir(parents=True)
    stale.write_text("old")
    (stale.parent / "step-000900.parquet").write_text("old")
    train(files, run)
    assert tables(run) == tables(whole[0])


def test_further_early_steps_are_evaluated_too(files: Path, run: Path) -> None:
    train(files, run, every_n_steps=4, also_after=[1, 3])
    found = sorted(path.stem for path in (run / "points").glob("*.parquet"))
    assert found == ["step-000001", "step-000003", "step-000004", "step-000005"]


@pytest.mark.parametrize("steps", [[0], [2], [1, 1]])
def test_further_steps_that_say_nothing_new_are_refused(files: Path, steps: list[int]) -> None:
    with pytest.raises(ConfigError, match="different steps >= 1 in also_after, none of them a"):
        make_probe(files, every_n_steps=2, also_after=steps)


def test_bad_settings_are_told(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every_n_steps and batch_size >= 1; got 3, 4, 0"):
        make_probe(files, every_n_steps=0)
    probe = make_probe(files)
    with pytest.raises(ConfigError, match="LightningModule trains none"):
        probe.setup(pl.Trainer(logger=False, accelerator="cpu"), pl.LightningModule(), "fit")


class Unusable(Reward):
    def __call__(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        return torch.tensor([float("nan")] * len(completions))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"reward": Unusable()}, "Unusable: 1 of 1 scores are not finite"),
        ({"proxy": Unusable()}, "Unusable: 1 of 1 scores are not finite"),
        ({"max_new_tokens": 10_000}, "exceeds the model's context"),
        ({"prompts": "gone.jsonl"}, "gone.jsonl: no such file"),
        ({"pairs": "gone.jsonl"}, "gone.jsonl: no such file"),
    ],
)
def test_what_no_evaluation_could_do_is_said_before_the_first_step(
    files: Path, run: Path, changed: dict[str, Any], said: str
) -> None:
    stop = Kill(0)  # would end the training before its first batch
    with pytest.raises((ConfigError, DataError), match=said):
        train(files, run, stop, **changed)
    assert not (run / "points").exists()


def test_held_out_pairs_are_measured_at_every_evaluation(files: Path, run: Path) -> None:
    """Training raises the log-probs of what it imitates; nothing else of the tables changes."""
    rows = [
        {"prompt": " w4 w5"[: 3 * (1 + i % 2)], "chosen": " w6", "rejected": " w7 w8"}
        for i in (0, 1)
    ]
    pairs = files / "pairs.jsonl"
    pairs.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    module = train(files, run, pairs=str(pairs))
    last = read_scores(run / "points" / "step-000005.parquet")
    tree = PromptTree(0, "x", (1, 4), ((6, EOS), (7, 8, EOS)))
    with torch.no_grad():
        chosen, rejected = module.policy(collate([tree])).token_logps.sum(1).tolist()
    assert last.chosen_logp is not None
    assert last.rejected_logp is not None
    assert last.prompt_ids[0] == "p0"
    assert last.chosen_logp[0] == pytest.approx(chosen, rel=1e-5)
    assert last.rejected_logp[0] == pytest.approx(rejected, rel=1e-5)


def test_the_longest_prompt_is_tried(files: Path, run: Path) -> None:
    """Two prompts of two tokens and one more; what fits behind the short ones is too long here."""
    reference = Policy.load(str(files / "reference"))
    prompts = load_prompts(files / "prompts.jsonl", reference.tokenizer, limit=3)
    lengths = [len(tree.prompt) for tree in prompts]
    assert lengths[0] < max(lengths)
    room = reference.model.config.max_position_embeddings - lengths[0]
    with pytest.raises((ConfigError, DataError), match="exceeds the model's context"):
        train(files, run, Kill(0), max_new_tokens=room)


def test_a_reference_of_other_tokens_is_refused_before_anything_is_written(
    files: Path, tmp_path: Path, build: Callable[..., Policy]
) -> None:
    other = Policy.load(str(files / "reference"))
    vocabulary = json.loads(other.tokenizer.backend_tokenizer.to_str())
    words = vocabulary["model"]["vocab"]
    a, b = sorted(words)[-2:]
    words[a], words[b] = words[b], words[a]
    other.tokenizer = type(other.tokenizer)(
        tokenizer_object=Tokenizer.from_str(json.dumps(vocabulary)),
        **{f"{kind}_token": getattr(other.tokenizer, f"{kind}_token") for kind in ("eos", "pad")},
    )
    other.save(tmp_path / "other")
    probe = make_probe(files, reference=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="the policy and the reference have different tokens"):
        probe.prepare(Imitate(Policy.load(str(files / "reference"))))


def test_without_a_reference_the_policy_at_the_start_is_it(
    whole: tuple[Path, Imitate], files: Path, run: Path
) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(files, run, Kill(8), reference=None)
    train(files, run, resume=True, reference=None)  # not the policy of the checkpoint
    assert tables(run) == tables(whole[0])
