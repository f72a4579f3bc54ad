"""Lightning data modules: a source, a kind of row, and how its trees are batched.

The tokenizer is the policy's: ``setup`` takes it from the trainer's module, or you pass it to
``connect``.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, cast

import lightning.pytorch as pl
from lightning.pytorch.utilities import CombinedLoader

from alignlab.data.blocks import tokenise_labelled, tokenise_texts
from alignlab.data.loader import TreeLoader, micro_batches_of
from alignlab.data.rows import (
    Completable,
    Demonstration,
    JudgedCompletion,
    LabelledText,
    PreferencePair,
    Prompt,
    R,
    Ranking,
    RatedCompletion,
    Refuse,
    RowReport,
    prompt_key,
    split_by_prompt,
)
from alignlab.data.sources import read_rows
from alignlab.data.tokenise import Truncation, tokenise
from alignlab.data.trees import Padding, PromptTree
from alignlab.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(eq=False, repr=False)
class TreeData(pl.LightningDataModule, Generic[R]):
    """Reads rows, splits them, tokenises them once, and makes the loaders.

    A subclass names its ``kind`` of row. ``setup`` sets ``train_rows`` and ``validation_rows``, and
    the trees made of them, ``train_trees`` and ``validation_trees``, whose indices are unique.

    Args:
        source: A ``.jsonl``, ``.csv`` or ``.parquet`` file, or the hub id of a data set.
        batch_size: Trees per optimizer step, over micro-batches and processes.
        micro_batch_size: Trees per forward; by default those of a whole step.
        max_length: Maximum tokens of a prompt + completion.
        truncation: What happens to a longer row. ``drop`` leaves it out with a count;
            ``keep_start`` cuts completions at their end; ``keep_end`` cuts the prompt at its
            beginning, then completions at their end (a whole text at its beginning); ``blocks``
            cuts a whole text into consecutive pieces. Default: ``blocks`` for whole texts, else
            ``drop``.
        padding: ``longest``, ``bucket`` (few shapes) or ``max_length`` (one shape).
        length_window: Optimizer steps whose trees are sorted by length together. More than 1 saves
            padding, but biases the steps (see ``TreeLoader``).
        validation_source: Like ``source``, for validation.
        split: Which part of ``source``: a hub split, or a value of a file's column ``split``.
        validation_split: Which part of ``validation_source``.
        validation_share: Share of prompts held out of ``source`` where there is no
            ``validation_source``; all rows of a prompt fall on one side.
        columns: Expected name of a column -> its name in the source, where they differ.
        seed: Seed of the shuffles and of what ``validation_share`` holds out.
        limit: Number of usable rows to keep, the first ones.
        validation_limit: The same for ``validation_source``.
        refuse: ``drop`` leaves unusable rows out with a count; ``error`` stops at the first.
    """

    kind: ClassVar[type[Any]]
    truncations: ClassVar[tuple[str, ...]] = ("drop", "keep_start", "keep_end")  # default first

    source: str
    batch_size: int
    micro_batch_size: int | None = None
    max_length: int = 512
    truncation: Literal["drop", "keep_start", "keep_end", "blocks"] | None = None
    padding: Padding = "longest"
    length_window: int = 1
    validation_source: str | None = None
    split: str | None = None
    validation_split: str | None = None
    validation_share: float = 0.0
    columns: dict[str, str] | None = None
    seed: int = 0
    limit: int | None = None
    validation_limit: int | None = None
    refuse: Refuse = "drop"
    train_on_prompt: bool = field(default=False, init=False)  # a setting of demonstrations

    def __post_init__(self) -> None:
        super().__init__()
        for name in ("length_window", "limit", "validation_limit"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ConfigError(f"data.init_args.{name} must be at least 1, got {count}.")
        if not 0 <= (share := self.validation_share) < 1:
            raise ConfigError(f"data.init_args.validation_share must lie in [0, 1), got {share}.")
        if share and self.validation_source is not None:
            raise ConfigError(
                "validation_source and validation_share are both given; use one of them."
            )
        self.micro_batches(1)  # an impossible pair of sizes stops here
        if self.truncation not in (None, *self.truncations):
            raise ConfigError(
                f"{type(self).__name__} cannot do truncation {self.truncation!r}. "
                f"Set data.init_args.truncation to one of {', '.join(self.truncations)}."
            )
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.train_rows: list[R] = []
        self.validation_rows: list[R] = []
        self.train_trees: list[PromptTree] = []
        self.validation_trees: list[PromptTree] = []
        self.reports: dict[str, RowReport] = {}
        self.shared_prompts = 0

    def connect(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        """Set the tokenizer, where no trainer has a module with one."""
        self.tokenizer = tokenizer

    def setup(self, stage: str | None = None) -> None:
        """Read and tokenise, once."""
        if self.trainer is not None and stage == "fit":
            self._check_accumulation(self.trainer)
        if self.train_trees:
            return
        tokenizer, reports = self._tokenizer(), self.reports
        read = partial(read_rows, kind=self.kind, columns=self.columns, refuse=self.refuse)
        self.train_rows, reports["train"] = read(self.source, split=self.split, limit=self.limit)
        if self.validation_source is not None:
            self.validation_rows, reports["validation"] = read(
                self.validation_source, split=self.validation_split, limit=self.validation_limit
            )
        elif self.validation_share:
            self._hold_out(reports["train"])
        self.train_trees = self.tokenise(self.train_rows, tokenizer, reports["train"], 0)
        if "validation" in reports:
            self.validation_trees = self.tokenise(
                self.validation_rows, tokenizer, reports["validation"], len(self.train_trees)
            )
            self._note_shared_prompts(reports["validation"])

    def micro_batches(self, world_size: int) -> int:
        """How many a rank accumulates in one optimizer step."""
        return micro_batches_of(self.batch_size, self.micro_batch_size, world_size)

    def report(self) -> str:
        """A readable report on the rows of each part; after ``setup``."""
        return "\n".join(f"{name}: {report.summary()}" for name, report in self.reports.items())

    def report_table(self) -> list[dict[str, str | int]]:
        """The same as a table: ``RowReport.table`` with the columns ``part`` and ``source``."""
        return [
            {"part": name, "source": report.source, **row}
            for name, report in self.reports.items()
            for row in report.table()
        ]

    def tokenise(
        self, rows: list[R], tokenizer: "PreTrainedTokenizerBase", report: RowReport, first: int
    ) -> list[PromptTree]:
        """Trees of rows, numbered from ``first``; here of prompts with their completions."""
        return tokenise(
            cast("list[Completable]", rows),
            tokenizer,
            report,
            max_length=self.max_length,
            truncation=cast(Truncation, self.truncation or self.truncations[0]),
            train_on_prompt=self.train_on_prompt,
            first_index=first,
        )

    def train_dataloader(self) -> TreeLoader:
        """Shuffled, stateful, sharded by rank."""
        return TreeLoader(
            self.train_trees,
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            seed=self.seed,
            padding=self.padding,
            max_length=self.max_length,
            length_window=self.length_window,
            # The loader must know where an epoch is left: Lightning's limit is not in its state.
            limit=self.trainer.limit_train_batches if self.trainer is not None else 1.0,
        )

    def val_dataloader(self) -> TreeLoader | CombinedLoader:
        """Validation rows in their own order, each once; no loader if there are none."""
        if not self.validation_trees:
            return _NoLoader()
        world = self.trainer.world_size if self.trainer is not None else 1
        return TreeLoader(
            self.validation_trees,
            batch_size=(self.micro_batch_size or self.batch_size) * world,
            shuffle=False,
            padding=self.padding,
            max_length=self.max_length,
        )

    def _hold_out(self, report: RowReport) -> None:
        """Move ``validation_share`` of the training rows to the validation rows."""
        rows, share = self.train_rows, self.validation_share
        self.train_rows, held_out = split_by_prompt(rows, share, self.seed)
        if not self.train_rows or not held_out:
            raise ConfigError(
                f"validation_share {share} splits the {len(rows)} rows of {self.source} into "
                f"{len(self.train_rows)} and {len(held_out)}. Use another share, or a "
                "validation_source."
            )
        report.seen -= len(held_out)
        self.validation_rows = held_out
        self.reports["validation"] = RowReport(
            f"{self.source} (held out)", self.refuse, len(held_out)
        )

    def _note_shared_prompts(self, report: RowReport) -> None:
        held_out = set(map(prompt_key, self.validation_rows))
        self.shared_prompts = len(held_out.intersection(map(prompt_key, self.train_rows)))
        if self.shared_prompts:
            report.notes.append(
                f"{self.shared_prompts:,} of {len(held_out):,} validation prompts are also in "
                "the training rows"
            )

    def _tokenizer(self) -> "PreTrainedTokenizerBase":
        module = self.trainer.lightning_module if self.trainer is not None else None
        found = self.tokenizer or getattr(module, "tokenizer", None)
        if found is None:
            raise ConfigError(
                f"{type(self).__name__} has no tokenizer, and neither has {type(module).__name__}. "
                "Give the module an attribute tokenizer, or call data.connect(tokenizer)."
            )
        return found

    def _check_accumulation(self, trainer: pl.Trainer) -> None:
        world, wanted = trainer.world_size, self.micro_batches(trainer.world_size)
        if (given := trainer.accumulate_grad_batches) != wanted:
            raise ConfigError(
                f"batch_size {self.batch_size} is {wanted} micro-batches on each of {world} "
                f"process(es), but trainer.accumulate_grad_batches is {given}. Set it to {wanted}."
            )


class _NoLoader(CombinedLoader):
    """Return no loaders, so that Lightning skips validation without a warning."""

    def __init__(self) -> None:
        super().__init__({}, mode="sequential")

    @property
    def flattened(self) -> list[Any]:
        return []

    @flattened.setter
    def flattened(self, flattened: list[Any]) -> None:
        assert not flattened


CompletionData = TreeData  # its name where other people's data modules extend it


@dataclass(eq=False, repr=False)
class DemonstrationData(TreeData[Demonstration]):
    """Prompts with a completion to imitate: one completion a tree.

    Columns: ``prompt`` and ``completion``, plain or conversational; or ``messages``; or those of a
    pair, whose chosen completion is used.

    Args:
        train_on_prompt: Train on every token of a row, including the prompt and all turns.
    """

    kind = Demonstration

    train_on_prompt: bool = False


class PreferenceData(TreeData[PreferencePair]):
    """Preference pairs: two completions a tree, the chosen one first.

    Columns: ``chosen`` and ``rejected``, plain or conversational, with ``prompt`` or with the
    prompt as their common beginning. ``margin``, a number, may say by how much the chosen one is
    better; a reward model then asks that much of its scores.
    """

    kind = PreferencePair


class RankingData(TreeData[Ranking]):
    """Rankings: all completions of a prompt in one tree, their ranks as labels.

    Columns: ``prompt``; ``completions``, a list, plain or conversational; ``ranks``, a list of as
    many numbers: smaller is better, equal is a tie. ``ends``, a list of true and false, may say
    which completions are complete. Lists need JSONL or Parquet.
    """

    kind = Ranking


class RatingData(TreeData[RatedCompletion]):
    """Completions with a rating: one completion a tree, its rating as label.

    Columns: ``prompt`` and ``completion``, plain or conversational, and ``rating``, a number.
    """

    kind = RatedCompletion


class JudgedData(TreeData[JudgedCompletion]):
    """Completions judged one by one: one completion a tree, its label 1 if desirable, else 0.

    Columns: ``prompt`` and ``completion``, plain or conversational, and ``label``: ``desirable`` or
    ``undesirable``, or true or false. Training rows need both: of one class alone there is nothing
    to tell apart.
    """

    kind = JudgedCompletion

    def setup(self, stage: str | None = None) -> None:
        """Read and tokenise, once.

        Raises:
            DataError: All usable training rows have one label.
        """
        super().setup(stage)
        labels = {label for tree in self.train_trees for label in tree.labels or ()}
        if len(labels) < 2:
            only, other = ("", "un") if 1.0 in labels else ("un", "")
            raise DataError(
                f"{self.source}: all {len(self.train_trees):,} usable rows are {only}desirable. "
                f"Add {other}desirable ones, or train on these as demonstrations."
            )


class PromptData(TreeData[Prompt]):
    """Prompts to complete: no completion in a tree. ``max_length`` bounds the prompt.

    Columns: ``prompt``, plain or conversational, or ``messages``, or those of a pair.
    """

    kind = Prompt


class TextData(TreeData[LabelledText]):
    """Texts for language modelling, each cut in blocks; ``max_length`` bounds a block.

    Column: ``text``.
    """

    kind = LabelledText
    truncations = ("blocks",)

    def tokenise(
        self, rows: list[LabelledText], tokenizer: Any, report: RowReport, first: int
    ) -> list[PromptTree]:
        """Trees of one block each."""
        length = self.max_length
        return tokenise_texts(rows, tokenizer, report, max_length=length, first_index=first)


class LabelledData(TreeData[LabelledText]):
    """Texts with a class or rating, which every completion of a tree carries as its label.

    Columns: ``text`` and ``label``, a number.
    """

    kind = LabelledText
    truncations = ("blocks", "drop", "keep_start", "keep_end")

    def tokenise(
        self, rows: list[LabelledText], tokenizer: Any, report: RowReport, first: int
    ) -> list[PromptTree]:
        """Trees of one text each, in one completion or, with ``blocks``, in several."""
        return tokenise_labelled(
            rows,
            tokenizer,
            report,
            max_length=self.max_length,
            truncation=self.truncation or "blocks",
            first_index=first,
        )
