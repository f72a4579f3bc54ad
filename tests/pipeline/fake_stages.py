"""Stages of a fake experiment: tiny functions instead of models, with real tables."""

import errno
import os
import signal
import time
from pathlib import Path

import numpy as np

from alignlab.errors import DataError, PeerKilled
from alignlab.results.pool import POOL_NAME, Pool
from alignlab.results.prompt_tables import PromptScores, write_scores
from alignlab.results.run_folder import Evaluation

PROMPTS = tuple(f"p{i}" for i in range(8))
SAMPLES = 64


def write_words(out: Path, words: list[str], seconds: float = 0.0) -> None:
    """A file of words, after some time."""
    time.sleep(seconds)
    (out / "words.txt").write_text("\n".join(words))


def lose_a_rank_once(out: Path, witness: str) -> None:
    """Fail as a training run does when another of its processes was killed."""
    if not Path(witness).exists():
        Path(witness).touch()
        raise PeerKilled("process 0 lost its connection to another one")
    write_words(out, ["survived"])


def pool(out: Path) -> None:
    """Reference samples with standard normal rewards."""
    rewards = np.random.default_rng(0).normal(size=(len(PROMPTS), SAMPLES))
    nothing = np.zeros_like(rewards)
    Pool(
        prompt_ids=PROMPTS,
        rewards=rewards,
        proxy=None,
        proposals=("reference",),
        proposal=np.zeros(SAMPLES, dtype=np.int64),
        log_ref=nothing,
        log_mixture=nothing,
    ).save(out / POOL_NAME)


def train(
    out: Path, policy: str, seed: int, beta: float, seconds: float = 0.0, wild: bool = False
) -> None:
    """A run with two evaluations that needs the upstream folder ``policy``.

    The weights of a ``wild`` one are no numbers any more at the last.
    """
    assert (Path(policy) / "words.txt").exists()
    (out / "pid.txt").write_text(str(os.getpid()))
    for step in (10, 20):
        time.sleep(seconds)
        kl = np.full(len(PROMPTS), np.nan if wild and step == 20 else step / 20 / beta)
        scores = PromptScores(
            prompt_ids=PROMPTS,
            kl=kl,
            kl_k1=kl + 0.01 * seed,
            reward=0.5 * np.sqrt(kl) + 0.01 * np.random.default_rng(seed).normal(size=len(PROMPTS)),
            proxy_reward=None,
            length=np.full(len(PROMPTS), 5.0),
            n_samples=np.full(len(PROMPTS), 4),
        )
        evaluation = Evaluation(out / "train", step)
        evaluation.write_texts([])
        write_scores(evaluation.scores, scores)
        evaluation.seal(time.time())


def fail(out: Path, kind: str) -> None:
    """Fails over its input, over a bug, over a NaN, for lack of disk space, or without a word."""
    if kind == "input":
        raise DataError("rows.jsonl: no usable row")
    if kind == "bug":
        raise RuntimeError("a bug")
    if kind == "nan":
        raise FloatingPointError("loss is not finite for 1 rows")
    if kind == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(out: Path, witness: str) -> None:
    """Killed at the first call, well at the second."""
    if not Path(witness).exists():
        Path(witness).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (out / "words.txt").write_text("survived")


def stop_once(out: Path, witness: str) -> None:
    """Stopped for good at the first call, as by a debugger or a batch system; well at the next."""
    if not Path(witness).exists():
        Path(witness).touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    (out / "words.txt").write_text("survived")


def write_forever(out: Path) -> None:
    """Writes the time, again and again."""
    while True:
        (out / "now").write_text(str(time.time()))
        time.sleep(0.01)
