"""Experiments as stages: plan them, skip what is done, carry out the rest in worker processes."""

from alignlab.pipeline.run import run_experiment

__all__ = ["run_experiment"]
