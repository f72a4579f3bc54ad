"""An objective refuses rows that its loss would read wrongly without noticing."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from alignlab.data.modules import (
    CandidateData,
    DemonstrationData,
    JudgedData,
    LabelledData,
    PreferenceData,
    RankingData,
    RatingData,
    TextData,
)
from alignlab.data.trees import PromptTree
from alignlab.errors import ConfigError
from alignlab.objectives.classify import Classify
from alignlab.objectives.dpo import DPO
from alignlab.objectives.kto import KTO
from alignlab.objectives.kwise_rm import KWiseRewardModel
from alignlab.objectives.qrpo import QRPO
from alignlab.objectives.regression import Regression
from alignlab.objectives.rm import RewardModel
from alignlab.objectives.sft import SFT
from alignlab.objectives.simpo import SimPO
from tests.objectives.scorers import fixed

ADAM = partial(torch.optim.AdamW, lr=1e-2)


def module(build, kind):
    scores = kind in (RewardModel, KWiseRewardModel, Regression, Classify)
    settings = {SimPO: {"gamma": 0.5}, QRPO: {"beta": 0.3}}.get(kind, {})
    return kind(fixed([0.0, 1.0]) if scores else build("llama"), ADAM, **settings)


def begin(monkeypatch, objective, data, trees=()) -> None:
    given = data("rows.jsonl", batch_size=2)
    given.train_trees = list(trees)
    loader = SimpleNamespace(micro_batches=1, micro_batch_size=2)
    trainer = SimpleNamespace(
        datamodule=given, train_dataloader=loader, accumulate_grad_batches=1, is_global_zero=True
    )
    monkeypatch.setattr(objective, "_trainer", trainer)
    objective.on_fit_start()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (RewardModel, RankingData),
        (RewardModel, RatingData),
        (KWiseRewardModel, PreferenceData),  # margins would be read as ranks
        (KWiseRewardModel, RatingData),
        (Regression, RankingData),  # the best would get the lowest score
        (DPO, RankingData),  # of two, the first may be the worse
        (SimPO, RankingData),
        (KTO, RatingData),  # a rating of 1 out of 5 would be desirable
        (KTO, RankingData),
        (SFT, PreferenceData),  # the rejected would be imitated, too
        (Classify, RatingData),
        (QRPO, RankingData),  # the best would be pushed down
        (QRPO, RatingData),  # there would be nothing to compare with
        (DPO, CandidateData),
    ],
)
def test_rows_of_another_kind_are_refused(build, monkeypatch, kind, data):
    with pytest.raises(ConfigError, match=rf"{kind.__name__} trains on rows.*{data.__name__} has"):
        begin(monkeypatch, module(build, kind), data)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (DPO, PreferenceData),
        (KTO, PreferenceData),
        (KTO, JudgedData),
        (SFT, DemonstrationData),
        (SFT, TextData),
        (Classify, LabelledData),
        (RewardModel, PreferenceData),
        (QRPO, CandidateData),
    ],
)
def test_rows_of_its_own_kind_are_taken(build, monkeypatch, kind, data):
    begin(monkeypatch, module(build, kind), data)


@pytest.mark.parametrize(("kind", "told"), [(RewardModel, False), (DPO, True), (SimPO, True)])
def test_margins_that_an_objective_does_not_use_are_told(build, monkeypatch, capsys, kind, told):
    tree = PromptTree(0, "r", (1,), ((3,), (4,)))
    begin(monkeypatch, module(build, kind), PreferenceData, [tree])
    assert capsys.readouterr().err == ""
    begin(monkeypatch, module(build, kind), PreferenceData, [replace(tree, labels=(2.0, 0.0))])
    said = f"{kind.__name__} does not use the pairs' margins (column 'margin')\n"
    assert capsys.readouterr().err == (said if told else "")
