"""The limits of a model: positions in a row, and tokens with a row in its embeddings."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from alignlab.data.trees import PromptTree, PromptTrees, bounds_of
from alignlab.errors import DataError


def context_of(config: Any) -> int | None:
    """The most tokens that a row of a model of this config may have, if its config says so.

    With rotary factors of the kinds ``longrope`` and ``dynamic``, a row beyond the original context
    changes the states of its whole batch. For these the limit is the original context.
    """
    names = ("max_position_embeddings", "max_seq_len")
    bounds = [getattr(config, name, None) for name in names]
    rope = getattr(config, "rope_parameters", None) or {}
    for part in (rope, *(v for v in rope.values() if isinstance(v, dict))):
        if part.get("rope_type") in ("longrope", "dynamic"):
            original = part.get("original_max_position_embeddings")
            bounds.append(original or getattr(config, "original_max_position_embeddings", None))
    found = [bound for bound in bounds if isinstance(bound, int)]
    return min(found, default=None)


def positions_of(model: Any) -> int | None:
    """The positions of a model; learned ones may start after that of padding, as in RoBERTa."""
    tables = [
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and "position" in name
    ]
    bound = context_of(model.config)
    return min(tables if bound is None else [*tables, bound], default=None)


def misfit(model: Any, tokenizer: Any, ids: Sequence[int], room: int | None) -> str | None:
    """Describe what in a row of ``ids`` exceeds the limits of ``model``; ``None`` if nothing does.

    Args:
        model: The Hugging Face model.
        tokenizer: Names the token.
        ids: The row.
        room: The most tokens that there are positions for.
    """
    if room is not None and room < 1:
        return "cannot be read: max_new_tokens leaves no room for prompts. Lower it."
    if room is not None and len(ids) > room:
        return (
            f"has {len(ids)} tokens, and the model has room for {room}: shorten it, or let "
            "max_length drop or cut such rows."
        )
    rows = embedded(model)
    if rows is None or max(ids, default=0) < rows:
        return None
    token = next(i for i in ids if i >= rows)
    return (
        f"has token {token} ({tokenizer.convert_ids_to_tokens(token)!r}), and the model has "
        f"embeddings of {rows} tokens (the tokenizer has {len(tokenizer)}): use the model's own "
        "tokenizer, or a model that has learned this token."
    )


def other_id(tokenizer: Any, other: Any) -> str | None:
    """A token that has another id in ``other`` than in ``tokenizer``, if there is any."""
    theirs = other.get_vocab()
    odd = ((t, i) for t, i in tokenizer.get_vocab().items() if theirs.get(t) != i)
    found = min(odd, key=lambda pair: pair[1], default=None)
    if found is None:
        return None
    has = "no such token" if found[0] not in theirs else f"{found[0]!r} as {theirs[found[0]]}"
    return f"{found[0]!r} is token {found[1]} of one tokenizer, and the other has {has}"


def embedded(model: Any) -> int | None:
    """How many tokens have a row in the model's embeddings."""
    find = getattr(model, "get_input_embeddings", None)
    table = find() if find else None
    table = getattr(table, "original_module", table)  # without what adapters learn of its rows
    weight = getattr(table, "weight", None)
    return int(weight.shape[0]) if isinstance(weight, Tensor) else None


def check_rows(model: Any, tokenizer: Any, trees: Sequence[PromptTree], room: int | None) -> None:
    """Refuse trees that ``model`` cannot read.

    Args:
        model: The Hugging Face model.
        tokenizer: Names the token.
        trees: Rows to be read.
        room: The longest branch that it has positions for.

    Raises:
        DataError: A branch is too long, or has a token without an embedding; names the row.
    """
    longest, largest = bounds_of(trees)
    rows = embedded(model)
    if (room is None or longest <= room) and (rows is None or largest < rows):
        return
    for tree in trees:
        for branch in tree.completions or ((),):
            problem = misfit(model, tokenizer, (*tree.prompt, *branch), room)
            if problem:
                raise DataError(f"row {tree.id!r} {problem}")


def check_batch(model: Any, tokenizer: Any, trees: PromptTrees, room: int | None) -> None:
    """Refuse a batch that ``model`` cannot read; the check takes three maxima.

    Raises:
        DataError: See ``check_rows``.
    """
    if not len(trees.group):
        return
    lengths = trees.prompt_lengths[trees.group] + trees.completion_lengths
    rows = embedded(model)
    known = rows is None or max(int(trees.prompt_ids.max()), int(trees.completion_ids.max())) < rows
    if known and (room is None or int(lengths.max()) <= room):
        return
    for m, p in enumerate(trees.group.tolist()):
        prompt = trees.prompt_ids[p, : trees.prompt_lengths[p]].tolist()
        completion = trees.completion_ids[m, : trees.completion_lengths[m]].tolist()
        problem = misfit(model, tokenizer, [*prompt, *completion], room)
        if problem:
            raise DataError(f"row {trees.ids[p]!r} {problem}")
