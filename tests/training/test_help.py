"""The page of ``fit``: it names what can be trained, without importing any of it."""

import importlib
import re

from alignlab.data.modules import TreeData
from alignlab.objectives.base import Objective
from alignlab.training.help import page
from tests.test_architecture import OBJECTIVES


def test_it_lists_every_objective_and_data_module_by_a_path_that_works() -> None:
    said = page("fit")
    paths = re.findall(r"^  (alignlab\.\S+)  +\S", said, re.MULTILINE)
    found = [getattr(importlib.import_module(p.rpartition(".")[0]), p.rpartition(".")[2])
             for p in paths]  # fmt: skip
    objectives = [each for each in found if issubclass(each, Objective)]
    assert {each.__module__.rpartition(".")[2] for each in objectives} == set(OBJECTIVES)
    data = [each for each in found if issubclass(each, TreeData)]
    assert len(objectives) + len(data) == len(found)
    assert {"PreferenceData", "TextData", "RolloutData"} <= {each.__name__ for each in data}
    assert max(map(len, said.splitlines())) <= 128


def test_both_commands_have_examples() -> None:
    assert "alignlab fit experiments/quickstart:dpo" in page("fit")
    assert page("validate").startswith("usage: alignlab validate DIR:STAGE")
