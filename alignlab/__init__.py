"""alignlab: align language models with PyTorch Lightning, and see the whole reward-KL frontier."""

import sys

from alignlab.names import MovedModules

__version__ = "0.1.0"

sys.meta_path.append(MovedModules())
