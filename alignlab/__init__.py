"""alignlab: align language models with PyTorch Lightning, and see the whole reward-KL frontier."""

__version__ = "0.1.0"
