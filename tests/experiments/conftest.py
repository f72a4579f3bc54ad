"""The user's own reward class, which ``own_data/dpo.yaml`` names, is importable here."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "own_data"))
