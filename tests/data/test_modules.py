from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import ModelCheckpoint

from alignlab.data.modules import (
    CandidateData,
    DemonstrationData,
    JudgedData,
    LabelledData,
    PreferenceData,
    PromptData,
    RankingData,
    RatingData,
    TextData,
    TreeData,
)
from alignlab.data.trees import PromptTrees
from alignlab.errors import ConfigError, DataError
from tests.data import files
from tests.data.tokens import BOS, EOS, A, C, D, merging


class Recorder(pl.LightningModule):
    """Notes which trees every optimizer step and every validation pass saw."""

    def __init__(self, tokenizer=None) -> None:
        super().__init__()
        self.tokenizer = tokenizer or merging()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []
        self.validated: list[int] = []
        self.steps: list[int] = []
        self.strict_loading = False

    def training_step(self, batch: PromptTrees) -> torch.Tensor:
        self.seen.append(batch.index.tolist())
        self.steps.append(self.global_step)
        return self.weight * batch.index.sum() / batch.totals.prompts

    def validation_step(self, batch: PromptTrees) -> None:
        self.validated += batch.index.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def jsonl(folder: Path, records: list, name: str = "rows.jsonl") -> str:
    return str(files.jsonl(folder, records, name))


def pairs(n: int) -> list[dict[str, str]]:
    return [
        {"prompt": "c" * (k % 5 + 1), "chosen": "a" * (k + 1), "rejected": "d"} for k in range(n)
    ]


def trainer(folder: Path, **settings) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **settings,
    )


# ---------------------------------------------------------------- resume with a real Trainer


def fit(folder: Path, source: str, limit: float, resume: Path | None = None) -> Recorder:
    """Eight optimizer steps, with a checkpoint of each."""
    model = Recorder()
    data = PreferenceData(source, batch_size=4, micro_batch_size=2, seed=1)
    every = ModelCheckpoint(folder / "kept", "{step}", every_n_train_steps=1, save_top_k=-1)
    fitted = trainer(
        folder,
        max_steps=8,
        accumulate_grad_batches=2,
        limit_train_batches=limit,
        callbacks=[every],
    )
    fitted.fit(model, data, ckpt_path=resume)
    return model


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize("limit", [1.0, 4])
def test_fit_stopped_at_any_step_and_resumed_sees_the_same_batches(
    tmp_path: Path, limit: float
) -> None:
    """11 pairs make epochs of steps of 4, 4 and 3: 8 steps end inside the third epoch.

    With ``limit_train_batches=4`` every epoch is left after two of its three steps.
    """
    source = jsonl(tmp_path, pairs(11))
    whole = fit(tmp_path, source, limit)
    assert whole.steps == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
    epoch = whole.seen[:6] if limit == 1.0 else whole.seen[:4]
    assert len({k for batch in epoch for k in batch}) == (11 if limit == 1.0 else 8)
    for stop in range(1, 8):
        resumed = fit(tmp_path, source, limit, resume=tmp_path / "kept" / f"step={stop}.ckpt")
        assert resumed.seen == whole.seen[2 * stop :], stop
        assert resumed.weight.item() == whole.weight.item()


def test_validation_sees_every_row_once(tmp_path: Path) -> None:
    model = Recorder()
    data = PreferenceData(
        jsonl(tmp_path, pairs(8)),
        batch_size=4,
        validation_source=jsonl(tmp_path, pairs(13)[::-1], "val.jsonl"),
    )
    trainer(tmp_path, max_epochs=1, enable_checkpointing=False).fit(model, data)
    assert model.validated == list(range(8, 21))  # indices go on after the 8 training trees
    assert data.shared_prompts == 5


def test_accumulation_must_match_the_batch_size(tmp_path: Path) -> None:
    data = PreferenceData(jsonl(tmp_path, pairs(8)), batch_size=4, micro_batch_size=2)
    with pytest.raises(ConfigError, match=r"accumulate_grad_batches is 1\. Set it to 2"):
        trainer(tmp_path, max_epochs=1, enable_checkpointing=False).fit(Recorder(), data)


# ---------------------------------------------------------------- the modules


def connected(data: TreeData, tokenizer=None) -> TreeData:
    data.connect(tokenizer or merging())
    data.setup()
    return data


def first(data: TreeData) -> PromptTrees:
    return next(iter(data.train_dataloader()))


def test_demonstrations(tmp_path: Path) -> None:
    source = jsonl(tmp_path, [{"prompt": "c", "completion": "a"}])
    batch = first(connected(DemonstrationData(source, batch_size=1)))
    assert batch.completion_ids.tolist() == [[A, EOS]]
    assert batch.totals.tokens == 2


def test_demonstrations_of_pairs_end_where_the_chosen_text_ended(tmp_path: Path) -> None:
    """What preferred fine-tuning trains on: no end-of-text token after a text that was cut off."""
    rows = [
        {"prompt": "c", "chosen": "a", "rejected": "dd", "chosen_ends": ends, "rejected_ends": True}
        for ends in (True, False)
    ]
    data = connected(DemonstrationData(jsonl(tmp_path, rows), 2))
    assert [tree.completions for tree in data.train_trees] == [((A, EOS),), ((A,),)]
    assert data.reports["train"].ended == 1


def test_preferences(tmp_path: Path) -> None:
    batch = first(connected(PreferenceData(jsonl(tmp_path, pairs(2)), batch_size=2)))
    assert batch.completion_ids.shape[0] == 4
    assert batch.group.tolist() == [0, 0, 1, 1]


def test_a_margin_is_the_chosen_ones_label_and_none_is_zero(tmp_path: Path) -> None:
    plain, wide = {"prompt": "c", "chosen": "a", "rejected": "d"}, {"margin": 1.5}
    data = connected(PreferenceData(jsonl(tmp_path, [plain | wide, plain]), batch_size=2))
    assert [tree.labels for tree in data.train_trees] == [(1.5, 0.0), (0.0, 0.0)]
    assert "  1 pairs without a margin get 0, because others have one" in data.report().split("\n")
    bare = connected(PreferenceData(jsonl(tmp_path, [plain]), batch_size=1))
    assert bare.train_trees[0].labels is None
    assert bare.reports["train"].notes == []


def test_rankings(tmp_path: Path) -> None:
    """One tree a prompt, whatever the number of completions; labels are ranks."""
    rows = [
        {"prompt": "c", "completions": ["a", "d", "ad"], "ranks": [3, 1, 3]},
        {"prompt": "d", "completions": ["a", "ac"], "ranks": [1, 2], "ends": [True, False]},
    ]
    data = connected(RankingData(jsonl(tmp_path, rows), batch_size=2))
    assert [tree.labels for tree in data.train_trees] == [(1.0, 0.0, 1.0), (0.0, 1.0)]
    assert data.train_trees[1].completions == ((A, EOS), (A, C))
    batch = first(data)
    assert batch.totals.prompts == 2
    assert batch.totals.completions == 5


def test_rankings_whose_completions_are_cut_to_the_same_tokens(tmp_path: Path) -> None:
    row = {"prompt": "c", "completions": ["aa", "aad", "d"], "ranks": [0, 1, 2]}
    source = jsonl(tmp_path, [row, row | {"ranks": [0, 0, 1]}])
    data = RankingData(source, batch_size=1, max_length=4, truncation="keep_start")
    assert len(connected(data).train_trees) == 1
    report = data.reports["train"]
    assert report.counts == {"one completion, as tokens, has two ranks": 1}
    assert report.refusals.counts == report.counts


def test_ratings(tmp_path: Path) -> None:
    batch = first(
        connected(
            RatingData(
                jsonl(tmp_path, [{"prompt": "c", "completion": "a", "rating": -2.5}]), batch_size=1
            )
        )
    )
    assert batch.labels is not None
    assert batch.labels.tolist() == [-2.5]
    assert batch.completion_ids.tolist() == [[A, EOS]]


def test_candidates_keep_what_was_said_twice(tmp_path: Path) -> None:
    row = {"prompt": "d", "completions": ["a", "ac", "a"], "ratings": [1, -2.5, 1]}
    source = jsonl(tmp_path, [row | {"ends": [True, False, True]}, row | {"ratings": [1, 2, 3]}])
    data = connected(CandidateData(source, batch_size=1))
    (tree,) = data.train_trees  # of the other row one text has two ratings
    assert tree.labels == (1.0, -2.5, 1.0)
    assert tree.completions == ((A, EOS), (A, C), (A, EOS))


def test_judged_completions(tmp_path: Path) -> None:
    rows = [
        {"prompt": "c", "completion": "a", "label": "undesirable"},
        {"prompt": "c", "completion": "c", "label": "desirable"},
    ]
    data = connected(JudgedData(jsonl(tmp_path, rows), batch_size=2))
    assert {tree.completions[0]: tree.labels for tree in data.train_trees} == {
        (A, EOS): (0.0,),
        (C, EOS): (1.0,),
    }


@pytest.mark.parametrize(("label", "other"), [(True, "undesirable"), (False, "desirable")])
def test_judgements_of_one_kind_are_refused(tmp_path: Path, label: bool, other: str) -> None:
    rows = [{"prompt": "c", "completion": text, "label": label} for text in ("a", "d")]
    with pytest.raises(DataError, match=rf"all 2 usable rows are .*\. Add {other} ones"):
        connected(JudgedData(jsonl(tmp_path, rows), batch_size=1))


def test_prompts(tmp_path: Path) -> None:
    batch = first(connected(PromptData(jsonl(tmp_path, [{"prompt": "a"}]), batch_size=1)))
    assert batch.prompt_ids.tolist() == [[BOS, A]]
    assert batch.completion_ids.shape[0] == 0


def test_texts(tmp_path: Path) -> None:
    source = jsonl(tmp_path, [{"text": "acdacd"}])
    data = connected(TextData(source, batch_size=2, max_length=5))
    assert [len(tree.completions[0]) for tree in data.train_trees] == [4, 3]
    labelled = jsonl(tmp_path, [{"text": "acdacd", "label": 1}, {"text": "a"}], "labelled.jsonl")
    table = connected(TextData(labelled, batch_size=2, max_length=5)).report_table()
    unused = [(row["reason"], row["rows"]) for row in table if row["what"] == "column not used"]
    assert unused == [("label", 1)]


def test_labelled(tmp_path: Path) -> None:
    source = jsonl(tmp_path, [{"text": "acdacd", "label": 1}])
    batch = first(connected(LabelledData(source, batch_size=1, max_length=5)))
    assert batch.labels is not None
    assert batch.labels.tolist() == [1.0, 1.0]
    assert batch.completion_lengths.tolist() == [4, 3]


@pytest.mark.parametrize(("padding", "width"), [("longest", 2), ("bucket", 16), ("max_length", 24)])
def test_padding(tmp_path: Path, padding, width: int) -> None:
    source = jsonl(tmp_path, [{"prompt": "c", "completion": "a"}])
    data = DemonstrationData(source, batch_size=1, max_length=24, padding=padding)
    assert first(connected(data)).completion_ids.shape == (1, width)


def test_truncation_is_handed_down(tmp_path: Path) -> None:
    source = jsonl(tmp_path, [{"prompt": "c", "completion": "acacac"}])
    data = DemonstrationData(source, batch_size=1, max_length=5, truncation="keep_start")
    assert connected(data).train_trees[0].longest == 5
    with pytest.raises(DataError, match="longer than max_length"):
        connected(DemonstrationData(source, batch_size=1, max_length=5))


@pytest.mark.parametrize(
    ("kind", "truncation"),
    [(TextData, "drop"), (DemonstrationData, "blocks"), (PromptData, "middle")],
)
def test_truncation_that_a_kind_cannot_do(kind, truncation: str) -> None:
    with pytest.raises(ConfigError, match=f"{kind.__name__} cannot do truncation '{truncation}'"):
        kind("rows.jsonl", batch_size=1, truncation=truncation)


def test_rows_of_one_prompt_are_never_on_both_sides(tmp_path: Path) -> None:
    records = [
        {"prompt": "abcd"[k % 4] * (k % 7 + 1), "chosen": "a" * (k + 1), "rejected": "d"}
        for k in range(200)
    ]
    data = connected(
        PreferenceData(jsonl(tmp_path, records), batch_size=8, validation_share=0.3, seed=2)
    )
    train, held_out = ({t.prompt for t in ts} for ts in (data.train_trees, data.validation_trees))
    assert train
    assert held_out
    assert not train & held_out
    assert data.shared_prompts == 0
    kept = {row["part"]: row["rows"] for row in data.report_table() if row["what"] == "kept"}
    assert kept == {"train": len(data.train_trees), "validation": len(data.validation_trees)}
    indices = [t.index for t in (*data.train_trees, *data.validation_trees)]
    assert sorted(indices) == list(range(200))


def test_train_on_prompt_is_for_demonstrations(tmp_path: Path) -> None:
    source = jsonl(tmp_path, [{"prompt": "ca", "completion": "d"}])
    data = DemonstrationData(source, batch_size=1, train_on_prompt=True)
    data.connect(merging())
    data.setup()
    assert data.train_trees[0].completions == ((C, A, D, EOS),)
    with pytest.raises(TypeError, match="unexpected keyword argument 'train_on_prompt'"):
        PreferenceData(source, batch_size=1, train_on_prompt=True)  # type: ignore[call-arg]


def test_share_that_holds_out_nothing(tmp_path: Path) -> None:
    data = PreferenceData(jsonl(tmp_path, pairs(3)), batch_size=1, validation_share=0.001)
    with pytest.raises(ConfigError, match=r"validation_share 0\.001 splits the 3 rows .* 3 and 0"):
        connected(data)


def test_two_ways_to_validate_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="both given"):
        PreferenceData("a.jsonl", batch_size=1, validation_source="b.jsonl", validation_share=0.1)


def test_impossible_sizes_stop_before_any_reading() -> None:
    with pytest.raises(ConfigError, match="not a multiple of micro_batch_size 3"):
        PreferenceData("gone.jsonl", batch_size=4, micro_batch_size=3)


def test_the_row_report_says_what_became_of_every_row(tmp_path: Path) -> None:
    """Of 9 rows 3 are too long and 2 unreadable; the validation row is a training prompt."""
    long = [{"prompt": "c", "chosen": "a" * 9, "rejected": "d"}] * 3
    broken = [{"prompt": "c", "chosen": None, "rejected": "d"}, {"prompt": "c", "chosen": "a"}]
    data = PreferenceData(
        jsonl(tmp_path, [*pairs(4), *long, *broken]),
        batch_size=1,
        max_length=10,
        validation_source=jsonl(tmp_path, pairs(1), "val.jsonl"),
    )
    said = connected(data).report()
    lines = said.split("\n")
    assert lines[0].startswith("train: ")
    assert "4 of 9 rows kept" in lines[0]
    refused = "  refused 3 x longer than max_length: rows.jsonl:5 (12 > 10 tokens)"  # ten, BOS, EOS
    assert f"{refused}, rows.jsonl:6, rows.jsonl:7" in lines
    assert "  refused 1 x missing column 'chosen': rows.jsonl:8" in lines
    assert "  1 of 1 validation prompts are also in the training rows" in lines
    table = data.report_table()
    assert {tuple(row) for row in table} == {
        ("part", "source", "what", "reason", "rows", "examples")
    }
    train = [row for row in table if row["part"] == "train"]
    assert train[0]["source"] == str(tmp_path / "rows.jsonl")
    assert {row["what"]: row["rows"] for row in train if not row["reason"]} == {
        "read": 9,
        "kept": 4,
        "truncated": 0,
        "token across the border": 0,
    }
    assert {row["reason"]: row["rows"] for row in train if row["what"] == "refused"} == {
        "longer than max_length": 3,
        "missing column 'chosen'": 1,
        "missing column 'rejected'": 1,
    }


def test_no_tokenizer_says_how_to_give_one(tmp_path: Path) -> None:
    data = PromptData(jsonl(tmp_path, [{"prompt": "a"}]), batch_size=1)
    with pytest.raises(ConfigError, match=r"call data\.connect\(tokenizer\)"):
        data.setup()


def test_limit_takes_the_first_usable_rows(tmp_path: Path) -> None:
    data = PreferenceData(jsonl(tmp_path, pairs(9)), batch_size=1, limit=4)
    assert [tree.id for tree in connected(data).train_trees] == [
        f"rows.jsonl:{k}" for k in (1, 2, 3, 4)
    ]


@pytest.mark.parametrize(
    "kind",
    [
        DemonstrationData,
        PreferenceData,
        RankingData,
        RatingData,
        CandidateData,
        JudgedData,
        PromptData,
        TextData,
        LabelledData,
    ],
)
def test_yaml_builds_it_and_refuses_what_does_not_fit(kind) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(pl.LightningDataModule, "data")
    path = f"{kind.__module__}.{kind.__name__}"
    settings = {"source": "rows.jsonl", "batch_size": 4, "columns": {"text": "body"}, "seed": 3}
    config = parser.parse_object({"data": {"class_path": path, "init_args": settings}})
    built = parser.instantiate(config).data
    assert type(built) is kind
    assert (built.source, built.batch_size, built.columns) == ("rows.jsonl", 4, {"text": "body"})
    for wrong in ({"bach_size": 4}, {"batch_size": "many"}, {"padding": "left"}):
        bad = {"class_path": path, "init_args": settings | wrong}
        with pytest.raises(Exception, match=next(iter(wrong))):
            parser.parse_object({"data": bad})
