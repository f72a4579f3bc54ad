"""Lightning data modules: a source, a kind of row, and how its trees are batched.

The tokenizer is the policy's: ``setup`` takes it from the trainer's module, or you pass it to
``connect``.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, cast

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.utilities import CombinedLoader

from alignlab.data.blocks import iter_labelled, iter_texts
from alignlab.data.files import data_files
from alignlab.data.loader import TreeLoader, micro_batches_of
from alignlab.data.repeats import Repeats
from alignlab.data.rows import (
    Candidates,
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
)
from alignlab.data.rows.judged import check_both
from alignlab.data.rows.split import is_held_out
from alignlab.data.sources import are_large, records_of, typed_rows
from alignlab.data.stored import (
    Notes,
    StoredTrees,
    TreeWriter,
    key_of,
    stored,
    without_sources,
)
from alignlab.data.tokenise import Truncation, iter_trees, with_labels
from alignlab.data.tree import PromptTree
from alignlab.data.trees import Padding
from alignlab.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHAPING = (  # settings that rows and trees depend on, beside the seed of a held-out share
    *("max_length", "truncation", "train_on_prompt", "refuse", "columns"),
    *("split", "limit", "validation_split", "validation_limit", "validation_share"),
)


@dataclass(eq=False, repr=False)
class TreeData(pl.LightningDataModule, Generic[R]):
    """Reads rows, splits them, tokenises them once, and makes the loaders.

    A subclass names its ``kind`` of row. ``setup`` sets ``train_trees`` and ``validation_trees``,
    whose indices are unique. Those of large files are in a file of tokenised rows, which processes
    and runs share (``alignlab.data.stored``).

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
        prefetch: Micro-batches that a thread makes while earlier ones are trained on. It hides
            their time on a GPU and gains nothing on a CPU.
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
    prefetch: int = 0
    train_on_prompt: bool = field(default=False, init=False)  # a setting of demonstrations

    def __post_init__(self) -> None:
        super().__init__()
        for name in ("length_window", "limit", "validation_limit"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ConfigError(f"data.init_args.{name} must be at least 1, got {count}.")
        if self.prefetch < 0:
            raise ConfigError(f"data.init_args.prefetch must be 0 or above, got {self.prefetch}.")
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
        self.train_trees: Sequence[PromptTree] = []
        self.validation_trees: Sequence[PromptTree] = []
        self.reports: dict[str, RowReport] = {}
        self.shared_prompts = 0
        self._prompts: dict[str, Any] = {}  # hashes of each part's, until they are compared

    def connect(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        """Set the tokenizer, where no trainer has a module with one."""
        self.tokenizer = tokenizer

    def setup(self, stage: str | None = None) -> None:
        """Read and tokenise, once."""
        if self.trainer is not None and stage == "fit":
            self._check_accumulation(self.trainer)
        if self.train_trees:
            return
        tokenizer, files = self._tokenizer(), self._large_files()
        if files is None:
            self._tokenise_all(tokenizer)
        else:
            self._open_stored(tokenizer, files)

    @property
    def train_rows(self) -> list[R]:
        """The usable training rows, read anew: they are not kept."""
        return list(self._rows("train", RowReport(self.source)))

    @property
    def validation_rows(self) -> list[R]:
        """The usable rows that are held out, read anew."""
        if "validation" not in self._parts:
            return []
        return list(self._rows("validation", RowReport(self.source)))

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
        trees = self.iter_trees(rows, tokenizer, report, first)
        return with_labels(list(without_sources(trees)), report)

    def iter_trees(
        self, rows: Iterable[R], tokenizer: "PreTrainedTokenizerBase", report: RowReport, first: int
    ) -> Iterator[PromptTree]:
        """Yield the same, without labels of 0 for rows that have none."""
        return iter_trees(
            cast("Iterable[Completable]", rows),
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
            prefetch=self.prefetch,
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

    @property
    def _parts(self) -> tuple[str, ...]:
        held_out = self.validation_source is not None or self.validation_share
        return ("train", "validation") if held_out else ("train",)

    def _tokenise_all(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        """Hold all trees in memory."""
        made: list[list[PromptTree]] = []
        for part, report in self._begin():
            rows = list(self._rows(part, report))
            made.append(self.tokenise(rows, tokenizer, report, sum(map(len, made))))
        self._note_shared_prompts()
        self.train_trees, self.validation_trees = [*made, []][:2]

    def _open_stored(self, tokenizer: "PreTrainedTokenizerBase", files: list[Path]) -> None:
        """Open the file of tokenised rows, or write it a few rows at a time."""

        def write(file: TreeWriter) -> Notes:
            counts = []
            for part, report in self._begin():
                rows = self._rows(part, report)
                trees = self.iter_trees(rows, tokenizer, report, file.trees)
                for tree in without_sources(trees):
                    file.add(tree)
                counts.append(report.trees)
            self._note_shared_prompts()
            reports = {part: asdict(report) for part, report in self.reports.items()}
            # As text, in which names keep their order.
            shared = self.shared_prompts
            return {"reports": json.dumps(reports), "counts": counts, "shared_prompts": shared}

        settings = {name: getattr(self, name) for name in _SHAPING}
        settings |= {"rows": type(self).__name__, "seed": self.validation_share and self.seed}
        key = key_of(settings, files, tokenizer)
        batches, notes = stored(key, len(tokenizer), write)
        self.reports = {
            part: RowReport(**report) for part, report in json.loads(notes["reports"]).items()
        }
        self.shared_prompts, first = notes["shared_prompts"], 0
        for part, count in zip(self._parts, notes["counts"], strict=True):
            self.reports[part].source = self._source_of(part)
            places = range(first, first := first + count)
            labelled = [places] if self.reports[part].labelled else []
            setattr(self, f"{part}_trees", StoredTrees(batches, places, labelled))

    def _large_files(self) -> list[Path] | None:
        """The files of a data set whose tokenised rows go to a file; ``None`` for memory.

        Other people's rows stay in memory: the file would not notice a change of their code.
        """
        if not all(own.__module__.startswith("alignlab.") for own in (type(self), self.kind)):
            return None
        sources = [s for s in (self.source, self.validation_source) if s is not None]
        found = [data_files(source) for source in sources]
        files = [file for group in found if group is not None for file in group]
        return files if are_large(files) and None not in found else None

    def _begin(self) -> Iterator[tuple[str, RowReport]]:
        """Each part with a new report."""
        for part in self._parts:
            self.reports[part] = RowReport(self._source_of(part), self.refuse)
            yield part, self.reports[part]

    def _source_of(self, part: str) -> str:
        if part == "train":
            return str(self.source)
        return str(self.validation_source or f"{self.source} (held out)")

    def _rows(self, part: str, report: RowReport) -> Iterator[R]:
        """Read the usable rows of a part, which ``report`` counts."""
        apart = part == "validation" and self.validation_source is not None
        source = self.validation_source if apart else self.source
        split, limit = self.split, self.limit
        if apart:
            split, limit = self.validation_split, self.validation_limit
        assert source is not None
        read, repeats = RowReport(str(source), self.refuse), Repeats()
        rows = typed_rows(records_of(source, split), self.kind, read, split, limit, self.columns)
        rows = self._one_side(rows, part, read) if self.validation_share else rows
        yield from repeats.watch(rows)
        read.repeats = repeats.counts()
        self._prompts[part] = repeats.prompts
        report.absorb(read)

    def _one_side(self, rows: Iterable[R], part: str, report: RowReport) -> Iterator[R]:
        """The training rows or those that ``validation_share`` holds out, as ``part`` says."""
        share, counts = self.validation_share, [0, 0]
        for row in rows:
            held_out = is_held_out(row, share, self.seed)
            counts[held_out] += 1
            if held_out == (part == "validation"):
                yield row
        if not all(counts):
            raise ConfigError(
                f"validation_share {share} splits the {sum(counts)} rows of {self.source} into "
                f"{counts[0]} and {counts[1]}. Use another share, or a validation_source."
            )
        report.seen -= counts[1]
        if part == "validation":  # what was refused and noted is in the training part's report
            report.seen, report.refused, report.by_reason = counts[1], {}, {}
            report.details = {}
            report.notes, report.unused = [], {}

    def _note_shared_prompts(self) -> None:
        if "validation" not in self.reports:
            return
        train, held_out = (np.unique(self._prompts.pop(part)) for part in self._parts)
        self.shared_prompts = len(np.intersect1d(train, held_out, assume_unique=True))
        if self.shared_prompts:
            self.reports["validation"].notes.append(
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
    better; a reward model then requires that difference of scores.
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


class CandidateData(TreeData[Candidates]):
    """Rated samples of each prompt: all of them in one tree, their ratings as labels.

    Columns: ``prompt``; ``completions``, a list, plain or conversational; ``ratings``, a list of as
    many numbers, larger is better; and ``ends`` as in rankings. ``alignlab.stages.candidates``
    writes such files. Lists need JSONL or Parquet.
    """

    kind = Candidates


class JudgedData(TreeData[JudgedCompletion]):
    """Completions judged one by one: one completion a tree, its label 1 if desirable, else 0.

    Columns: ``prompt`` and ``completion``, plain or conversational, and ``label``: ``desirable`` or
    ``undesirable``, or true or false. Training rows need both labels: one class alone teaches
    nothing.
    """

    kind = JudgedCompletion

    def setup(self, stage: str | None = None) -> None:
        """Read and tokenise, once.

        Raises:
            DataError: All usable training rows have one label.
        """
        super().setup(stage)
        labels = [label for tree in self.train_trees for label in tree.labels or ()]
        check_both(self.source, len(labels), sum(labels))


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

    def iter_trees(
        self, rows: Iterable[LabelledText], tokenizer: Any, report: RowReport, first: int
    ) -> Iterator[PromptTree]:
        """Yield trees of one block each."""
        length = self.max_length
        return iter_texts(rows, tokenizer, report, max_length=length, first_index=first)


class LabelledData(TreeData[LabelledText]):
    """Texts with a class or rating, which every completion of a tree carries as its label.

    Columns: ``text`` and ``label``, a number.
    """

    kind = LabelledText
    truncations = ("blocks", "drop", "keep_start", "keep_end")

    def iter_trees(
        self, rows: Iterable[LabelledText], tokenizer: Any, report: RowReport, first: int
    ) -> Iterator[PromptTree]:
        """Yield trees of one text each, in one completion or, with ``blocks``, in several."""
        return iter_labelled(
            rows,
            tokenizer,
            report,
            max_length=self.max_length,
            truncation=self.truncation or "blocks",
            first_index=first,
        )
