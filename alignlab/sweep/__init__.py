"""Sweeps: a space over an experiment's stages, an Optuna study, a frontier at the end."""

from alignlab.sweep.run import run_sweep

__all__ = ["run_sweep"]
