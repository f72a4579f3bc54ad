"""``python -m tests.schemas`` writes the JSON schemas of YAML files that editors can read."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from alignlab.plan.schema import PipelineKeys
from alignlab.sweep.spec import SweepKeys

SCHEMAS: dict[str, type[BaseModel]] = {"pipeline": PipelineKeys, "sweep": SweepKeys}


def schema(name: str) -> dict[str, Any]:
    """The JSON schema of a kind of file."""
    return SCHEMAS[name].model_json_schema()


if __name__ == "__main__":
    for each in SCHEMAS:
        text = json.dumps(schema(each), indent=1, sort_keys=True) + "\n"
        (Path("docs/schemas") / f"{each}.json").write_text(text, encoding="utf-8")
