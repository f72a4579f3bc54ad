"""Constructors asked without models: every objective of the experiments can be built so far."""

import copy
from pathlib import Path
from typing import Any

import pytest

from alignlab import fit
from alignlab.errors import ConfigError
from alignlab.pipeline.plan import load_plan


def one_of_each_class() -> dict[str, dict[str, Any]]:
    """Class of the objective -> a training of it, from whatever experiment and scale."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(Path("experiments").glob("*/pipeline.yaml")):
        scales = (path.parent / "scales").glob("*.yaml")
        for scale in [None, *sorted(p.stem for p in scales if "smoke" not in p.stem)]:
            plan = load_plan(path.parent, scale=scale)
            for job in plan.jobs.values():
                if "config" in job.spec:
                    config = plan.resolved(job)["config"]
                    found.setdefault(config["model"]["class_path"], config)
    return found


EACH = one_of_each_class()


@pytest.mark.parametrize("name", EACH)
def test_constructors_are_reached_to_the_last(name: str) -> None:
    """The optimizer is asked after objective and data, so its complaint shows that they stood."""
    fit.check(EACH[name])
    config = copy.deepcopy(EACH[name])
    config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = -0.1
    with pytest.raises(ConfigError, match=r"model\.init_args\.optimizer: Invalid learning rate"):
        fit.check(config)
