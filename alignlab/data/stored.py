"""Tokenised rows in a file: memory-mapped, so that processes share it and it may exceed memory.

The file is in Arrow's format, written a few thousand trees at a time. A token takes 2 bytes, or 4
if the vocabulary has more than 65,536 tokens; a loss mask takes a bit per token, and nothing if all
tokens count. Its hash and the row reports are stored beside it, so that damage is noticed.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, overload

from lightning.pytorch.utilities import rank_zero_only

from alignlab.data.encode import Encoder
from alignlab.data.files import named
from alignlab.data.rows import Text, Turn
from alignlab.data.tree import PromptTree, TreeBounds, bounds_of
from alignlab.files import (
    alone,
    is_as_stamped,
    read_record,
    sha256,
    sha_of,
    stamp,
    write_record,
    written_whole,
)

FOLDER = "ALIGNLAB_CACHE"  # environment variable: the folder of the files; empty for none
AT_ONCE = 2048  # trees of a batch in the file
_ROOM = Path(__file__).parent


def cache_folder() -> Path | None:
    """The folder of tokenised rows: ``$ALIGNLAB_CACHE``, else one of the user's own."""
    named = os.environ.get(FOLDER)
    if named is not None:
        return Path(named).expanduser() if named else None
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "alignlab" / "rows"


class StoredTrees(Sequence[PromptTree]):
    """Trees of a file, each made when it is asked for.

    Args:
        batches: Of the file.
        places: Of the trees in the file, which are their ``index``.
        labelled: Places where a tree without labels has labels of 0, as others have some.
    """

    def __init__(self, batches: "Batches", places: range, labelled: Sequence[range]) -> None:
        self._batches, self._range, self._labelled = batches, places, labelled

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, place: int) -> PromptTree: ...
    @overload
    def __getitem__(self, place: slice) -> list[PromptTree]: ...
    def __getitem__(self, place: int | slice) -> PromptTree | list[PromptTree]:
        if isinstance(place, slice):
            return [self._tree(index) for index in self._range[place]]
        return self._tree(self._range[place])

    def __iter__(self) -> Iterator[PromptTree]:
        return map(self._tree, self._range)

    def __add__(self, others: Sequence[PromptTree]) -> Sequence[PromptTree]:
        """These and those that follow them in the file."""
        if not others:
            return self
        if not isinstance(others, StoredTrees) or others._batches is not self._batches:
            return [*self, *others]
        assert others._range.start == self._range.stop, "the parts of a file are added in order"
        places = range(self._range.start, others._range.stop)
        return StoredTrees(self._batches, places, [*self._labelled, *others._labelled])

    @property
    def bounds(self) -> TreeBounds:
        """What no tree of the file exceeds."""
        return self._batches.bounds

    @property
    def lengths(self) -> list[int]:
        """``PromptTree.longest`` of each, without making the trees."""
        return self._batches.lengths(self._range)

    def _tree(self, index: int) -> PromptTree:
        return self._batches.tree(index, any(index in places for places in self._labelled))


class Batches:
    """The batches of a file, with its columns as arrays that lie in the mapped file."""

    def __init__(self, source: Any, bounds: Sequence[int]) -> None:
        import pyarrow as pa

        self.bounds = TreeBounds(*bounds)
        file = pa.ipc.open_file(source)
        self._columns = [
            {name: _Column(batch.column(name)) for name in batch.schema.names}
            for batch in map(file.get_batch, range(file.num_record_batches))
        ]
        self.trees = sum(len(columns["row"].values) for columns in self._columns)

    def lengths(self, places: range) -> list[int]:
        longest = chain.from_iterable(c["longest"].values.tolist() for c in self._columns)
        return list(longest)[places.start : places.stop]

    def tree(self, index: int, labelled: bool) -> PromptTree:
        batch, place = divmod(index, AT_ONCE)
        columns = self._columns[batch]
        own = {name: column[place] for name, column in columns.items()}
        ids, mask, labels = own["completions"], own["mask"], own["labels"]
        spans = list(pairwise([0, *own["ends"]]))
        if labels is None and labelled:
            labels = [0.0] * len(spans)
        return PromptTree(
            index,
            own["id"].decode(errors="surrogatepass"),
            tuple(own["prompt"]),
            tuple(tuple(ids[a:b]) for a, b in spans),
            None if mask is None else tuple(tuple(mask[a:b]) for a, b in spans),
            None if labels is None else tuple(labels),
            own["row"],
            None if own["source"] is None else _text(own["source"]),
        )


class _Column:
    """A column of a batch: a number, bytes or a list of numbers for each tree."""

    def __init__(self, column: Any) -> None:
        import pyarrow as pa

        self._valid = column.is_valid() if column.null_count else None
        self._offsets = column.offsets.to_numpy() if pa.types.is_list(column.type) else None
        values = column if self._offsets is None else column.values
        packed = pa.types.is_boolean(values.type) or pa.types.is_binary(values.type)
        self.values = values if packed else values.to_numpy()

    def __getitem__(self, place: int) -> Any:
        """What a tree has; ``None`` for nothing."""
        if self._valid is not None and not self._valid[place].as_py():
            return None
        if self._offsets is None:
            found = self.values[place]
            return found.as_py() if hasattr(found, "as_py") else found.item()
        return self.values[self._offsets[place] : self._offsets[place + 1]].tolist()


class TreeWriter:
    """Writes trees to a file of Arrow, some at a time.

    Args:
        sink: An open file, or Arrow's buffer.
        vocabulary: Tokens of the tokenizer.
    """

    def __init__(self, sink: Any, vocabulary: int) -> None:
        import pyarrow as pa

        ids = pa.uint16() if vocabulary <= 1 << 16 else pa.uint32()
        self._lists = {
            "prompt": ids,
            "completions": ids,  # one after another
            "ends": pa.int32(),  # of each completion among their ids
            "mask": pa.bool_(),
            "labels": pa.float64(),
        }
        single = {
            "id": pa.binary(),
            "source": pa.binary(),
            "row": pa.int64(),
            "longest": pa.int32(),
        }
        lists = {name: pa.list_(number) for name, number in self._lists.items()}
        self._schema = pa.schema(single | lists)
        self._file = pa.ipc.new_file(sink, self._schema)
        self._trees: list[PromptTree] = []
        self.trees, self.bounds = 0, TreeBounds(0, 0)

    def add(self, tree: PromptTree) -> None:
        """Write a tree, whose ``index`` becomes its place in the file."""
        self._trees.append(tree)
        self.trees += 1
        if len(self._trees) == AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        if self._trees:
            self._flush()
        self._file.close()

    def _flush(self) -> None:
        """Write the trees so far as one Arrow batch; nested lists become a list and its ends."""
        import pyarrow as pa

        trees, self._trees = self._trees, []
        self.bounds = TreeBounds(*map(max, self.bounds, bounds_of(trees)))
        single = {
            "id": [tree.id.encode(errors="surrogatepass") for tree in trees],
            "source": [None if t.source is None else _as_bytes(t.source) for t in trees],
            "row": [tree.row for tree in trees],
            "longest": [tree.longest for tree in trees],
        }
        lists: dict[str, list[Any]] = {
            "prompt": [tree.prompt for tree in trees],
            "completions": [list(chain.from_iterable(tree.completions)) for tree in trees],
            "ends": [list(accumulate(map(len, tree.completions))) for tree in trees],
            "mask": [t.loss_masks and list(chain.from_iterable(t.loss_masks)) for t in trees],
            "labels": [tree.labels for tree in trees],
        }
        columns = [pa.array(v, type=self._schema.field(n).type) for n, v in single.items()]
        columns += [_lists(values, self._lists[name]) for name, values in lists.items()]
        self._file.write_batch(pa.record_batch(columns, schema=self._schema))


def _lists(values: list[Any], number: Any) -> Any:
    """Arrow's column of lists, in which ``None`` is no list."""
    import pyarrow as pa

    flat = pa.array(list(chain.from_iterable(value or () for value in values)), type=number)
    offsets = pa.array([0, *accumulate(len(value or ()) for value in values)], type=pa.int32())
    missing = pa.array([value is None for value in values])
    return pa.ListArray.from_arrays(offsets, flat, mask=missing)


def _as_bytes(source: Text) -> bytes:
    turns = not isinstance(source, str) and [[t.role, t.content, t.extra] for t in source]
    return json.dumps(source if turns is False else turns, ensure_ascii=False).encode()


def _text(content: bytes) -> Text:
    found = json.loads(content)
    return found if isinstance(found, str) else tuple(Turn(*turn) for turn in found)


def without_sources(trees: Iterable[PromptTree]) -> Iterator[PromptTree]:
    """Trees with completions without the text of their prompt, from which nobody samples."""
    return (replace(tree, source=None) if tree.completions else tree for tree in trees)


Notes = dict[str, Any]  # what is kept beside the trees, as JSON holds it


def stored(
    key: str, vocabulary: int, write: Callable[[TreeWriter], Notes]
) -> tuple[Batches, Notes]:
    """The file of ``key``; written first where it is missing or damaged.

    One process writes and others wait. Where the folder cannot be written, the same is held in
    memory.

    Args:
        key: A hash of all that the rows depend on.
        vocabulary: Tokens of the tokenizer.
        write: Writes all trees, and returns what is to be kept beside them.
    """
    import pyarrow as pa

    folder = cache_folder()
    if folder is not None:
        path = folder / f"{key}.arrow"
        try:
            notes = _sound(path) or _made(path, vocabulary, write)
            _say(f"tokenised rows: {path}")
            return Batches(pa.memory_map(str(path)), notes["bounds"]), notes
        except OSError as problem:
            why = problem.strerror or problem
            _say(f"note: tokenised rows are held in memory: {folder}: {why}. Set {FOLDER}.")
    sink = pa.BufferOutputStream()
    notes = _write(sink, vocabulary, write)
    return Batches(sink.getvalue(), notes["bounds"]), notes


def _write(sink: Any, vocabulary: int, write: Callable[[TreeWriter], Notes]) -> Notes:
    writer = TreeWriter(sink, vocabulary)
    notes = write(writer)
    writer.close()
    return {**notes, "bounds": writer.bounds}


def _made(path: Path, vocabulary: int, write: Callable[[TreeWriter], Notes]) -> Notes:
    """Write the file, unless another process just has."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(path.with_suffix(".lock")):
        if (notes := _sound(path)) is not None:
            return notes
        if path.exists():
            _say(f"{path} is damaged or incomplete; its rows are tokenised again")
        with written_whole(path) as beside, beside.open("wb") as file:
            notes = _write(file, vocabulary, write)
        write_record(path.with_suffix(".json"), {"files": {path.name: stamp(path)}, "notes": notes})
    return notes


def _sound(path: Path) -> Notes | None:
    """What is kept beside a file that is as it was written, else ``None``."""
    record = read_record(path.with_suffix(".json")) or {}
    was = record.get("files", {}).get(path.name)
    if was is None or not is_as_stamped(path, was, thorough=True):
        return None
    notes: Notes = record["notes"]
    return notes


@rank_zero_only
def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def key_of(settings: Mapping[str, Any], files: Sequence[Path], tokenizer: Any) -> str:
    """A hash of what the tokenised rows of files are a function of.

    That is the settings, the files' content, the tokenizer with its chat template, and the code.
    """
    Encoder(tokenizer)(["a"])  # calls leave settings in a tokenizer: these are ours
    own = {
        "vocabulary": tokenizer.backend_tokenizer.to_str(),
        "template": tokenizer.chat_template,
        "special": tokenizer.special_tokens_map,
        "ends": [tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)],
        "class": type(tokenizer).__name__,
    }
    code = [path.read_text(encoding="utf-8") for path in sorted(_ROOM.rglob("*.py"))]
    versions = [version(name) for name in ("tokenizers", "transformers", "pyarrow")]
    content = [(name, sha256(file)) for file, name in named(files)]
    return sha_of(json.dumps([settings, content, own, code, versions], default=str))[:32]
