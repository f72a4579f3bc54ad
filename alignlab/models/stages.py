"""Stages of the pipeline that only handle models."""

from pathlib import Path

from alignlab.models.policy import Policy


def copy_policy(*, out: str | Path, source: str) -> None:
    """Stage: put a pretrained policy into a folder: the reference where none is trained.

    Args:
        out: Folder to write.
        source: Hub id or folder of a causal LM with its tokenizer.
    """
    Policy.load(source).save(out)
