"""Rewards: (prompts, completions) as texts -> scores on one stated scale."""

from alignlab.rewards.base import Reward

__all__ = ["Reward"]
