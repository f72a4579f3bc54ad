import random

import pytest

from alignlab.data.blocks import tokenise_labelled, tokenise_texts
from alignlab.data.rows import (
    Demonstration,
    LabelledText,
    PreferencePair,
    Prompt,
    RowReport,
    Turn,
)
from alignlab.data.tokenise import Truncation, tokenise
from alignlab.data.trees import PromptTree, totals_of
from alignlab.errors import ConfigError, DataError
from tests.data.tokens import (
    A_SPACE_B,
    BARE,
    BOS,
    EOS,
    SPACE,
    A,
    B,
    C,
    D,
    bytewise,
    merging,
    metaspace,
    words,
)

Rows = list[Prompt] | list[Demonstration] | list[PreferencePair]


def trees_of(
    rows: Rows,
    tokenizer=None,
    max_length: int | None = None,
    truncation: Truncation = "drop",
    train_on_prompt: bool = False,
) -> tuple[list[PromptTree], RowReport]:
    report = RowReport("rows", seen=len(rows))
    trees = tokenise(
        rows,
        tokenizer or merging(),
        report,
        max_length=max_length,
        truncation=truncation,
        train_on_prompt=train_on_prompt,
    )
    return trees, report


def pair(prompt: str, chosen: str, rejected: str, **ends: bool) -> PreferencePair:
    return PreferencePair("r", prompt, chosen, rejected, **ends)


# ---------------------------------------------------------------- the border


def test_token_across_the_border_belongs_to_every_completion() -> None:
    """ "c" + "a" | " b" is c, "a b"; "a" leaves the prompt of " d", too, where nothing merges."""
    (tree,), report = trees_of([pair("ca", " b", " d")])
    assert tree.prompt == (BOS, C)
    assert tree.completions == ((A_SPACE_B, EOS), (A, SPACE, D, EOS))
    assert tree.loss_masks is None  # all of it counts, the moved "a" included
    assert report.straddling == 1


def test_clean_border_is_not_counted() -> None:
    (tree,), report = trees_of([pair("ca", " c", " d")])
    assert tree.prompt == (BOS, C, A)
    assert tree.completions == ((SPACE, C, EOS), (SPACE, D, EOS))
    assert report.straddling == 0


@pytest.mark.parametrize("adds_bos", [False, True])
def test_prompt_and_completion_ids_are_the_joint_ids(adds_bos: bool) -> None:
    tokenizer, draw = merging(adds_bos=adds_bos), random.Random(0)
    rows = [
        pair(*("".join(draw.choices("ab cd", k=draw.randint(1, 9))) + x for x in ("a", "b", "c")))
        for _ in range(300)
    ]
    trees, report = trees_of(rows, tokenizer)
    assert len(trees) == 300
    assert report.straddling > 20
    for tree, row in zip(trees, rows, strict=True):
        for ids, text in zip(tree.completions, (row.chosen, row.rejected), strict=True):
            joint = tokenizer(f"{row.prompt}{text}", add_special_tokens=False)["input_ids"]
            assert [*tree.prompt, *ids] == [BOS, *joint, EOS]


@pytest.mark.parametrize(
    "tokenizer", [bytewise(trim_offsets=True), bytewise(trim_offsets=False), metaspace()]
)
@pytest.mark.parametrize(
    ("prompt", "completion", "ids_of_prompt", "straddling"),
    [
        ("c ", "b", "c", True),
        ("c", " b", "c", False),
        ("c ", " c", "c ", False),
        ("é", "b", "é", False),
    ],
)
def test_border_where_a_space_belongs_to_the_next_token(
    tokenizer, prompt: str, completion: str, ids_of_prompt: str, straddling: bool
) -> None:
    """Trimmed offsets hide that the prompt's last space went to the completion's first token."""
    (tree,), report = trees_of([Demonstration("r", prompt, completion)], tokenizer)
    assert tokenizer.decode(tree.prompt[1:]) == ids_of_prompt
    whole = [*tree.prompt, *tree.completions[0]]
    assert tokenizer.decode(whole[1:-1]) == prompt + completion
    assert report.straddling == straddling


def test_newlines_that_are_cut_otherwise_before_a_word_are_counted() -> None:
    """GPT-2's pattern: "\\n\\n" alone is one piece, before a letter it is two."""
    tokenizer = bytewise(double_newline=True)
    rows = [Demonstration("r", "c\n\n", "d"), Demonstration("r", "c\n", "d")]
    _, report = trees_of(rows, tokenizer)
    assert report.straddling == 1


def test_dropped_space_is_not_a_merge() -> None:
    (tree,), report = trees_of([Demonstration("r", "c ", "d")], words())
    assert (tree.prompt, tree.completions) == ((BOS, C), ((D, EOS),))
    assert report.straddling == 0


def test_prompt_that_merges_away_is_refused_without_bos() -> None:
    with pytest.raises(DataError, match="no prompt token left of the border"):
        trees_of([Demonstration("r", "a", " b")], merging(bos=None))


def test_rollout_prompt_is_the_training_prompt() -> None:
    rows = [pair("cad", " c", " d"), pair("d c", "a", "b")]
    trees, _ = trees_of(rows)
    prompts, _ = trees_of([Prompt(row.id, row.prompt) for row in rows])
    assert [tree.prompt for tree in prompts] == [tree.prompt for tree in trees]
    assert [tree.completions for tree in prompts] == [(), ()]


# ---------------------------------------------------------------- beginning and end of text


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("prompt", ["c", "<s>c", ""])
def test_bos_stands_once_in_front(adds_bos: bool, prompt: str) -> None:
    (tree,), _ = trees_of([Demonstration("r", prompt, "d")], merging(adds_bos=adds_bos))
    assert [*tree.prompt, *tree.completions[0]].count(BOS) == 1
    assert tree.prompt[0] == BOS


def test_an_end_that_the_tokenizer_adds_by_itself_is_left_out() -> None:
    tokenizer = merging(adds_bos=True, adds_eos=True)
    (tree,), _ = trees_of([pair("c", "a", "d", chosen_ends=False)], tokenizer)
    assert (tree.prompt, tree.completions) == ((BOS, C), ((A,), (D, EOS)))


def test_tokenizer_without_bos() -> None:
    rows = [Demonstration("r", "c", "d"), Demonstration("r", "", "d")]
    (tree, empty), _ = trees_of(rows, merging(bos=None))
    assert (tree.prompt, tree.completions) == ((C,), ((D, EOS),))
    assert (empty.prompt, empty.completions) == ((EOS,), ((D, EOS),))


def test_eos_is_trained_iff_the_text_ends_though_pad_is_eos() -> None:
    tokenizer = merging(pad="</s>")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    row = pair("c", "a", "d", chosen_ends=True, rejected_ends=False)
    (tree,), report = trees_of([row], tokenizer)
    assert tree.completions == ((A, EOS), (D,))
    assert totals_of([tree]).tokens == 3
    assert report.ended == 1


def test_eos_written_by_the_author_is_not_doubled() -> None:
    (tree,), _ = trees_of([Demonstration("r", "c", "d</s>")])
    assert tree.completions == ((D, EOS),)


@pytest.mark.parametrize(
    ("prompt", "completion", "reason"),
    [
        ("c", "a</s>b", "end-of-text token inside the completion"),
        ("c", "</s>", "completion has no token"),
        ("c<s>", "a", "beginning-of-text token inside the text"),
    ],
)
def test_special_tokens_in_plain_text_are_refused(
    prompt: str, completion: str, reason: str
) -> None:
    refusals = RowReport("rows", seen=2)
    rows = [Demonstration("bad", prompt, completion), Demonstration("good", "c", "a")]
    trees = tokenise(rows, merging(), refusals)
    assert [tree.id for tree in trees] == ["good"]
    assert refusals.by_reason == {reason: ["bad"]}


def test_tokenizer_without_eos_says_so() -> None:
    with pytest.raises(ConfigError, match="no end-of-text token"):
        trees_of([Demonstration("r", "c", "d")], merging(eos=None))


# ---------------------------------------------------------------- training on prompts


def test_train_on_prompt_counts_all_but_the_first_token() -> None:
    rows = [Demonstration("r", "ca", "d"), Demonstration("r", "", "d", ends=False)]
    (tree, empty), report = trees_of(rows, train_on_prompt=True)
    assert (tree.prompt, tree.completions) == ((BOS,), ((C, A, D, EOS),))
    assert (empty.prompt, empty.completions) == ((BOS,), ((D,),))
    assert tree.loss_masks is None
    assert report.tokens == totals_of([tree, empty]).tokens == 5
    (bare,), _ = trees_of(rows[:1], merging(bos=None), train_on_prompt=True)
    assert (bare.prompt, bare.completions) == ((C,), ((A, D, EOS),))


def test_train_on_prompt_counts_the_users_turns() -> None:
    tokenizer = merging()
    tokenizer.chat_template = BARE
    turns = (Turn("user", "c"), Turn("assistant", "d"), Turn("user", "a"), Turn("assistant", "c"))
    row = Demonstration("r", turns[:1], turns[1:])
    (whole,), _ = trees_of([row], tokenizer, train_on_prompt=True)
    assert (whole.prompt, whole.completions) == ((BOS,), ((C, D, A, C, EOS),))
    assert whole.loss_masks is None
    (tree,), _ = trees_of([row], tokenizer)
    assert tree.loss_masks == ((True, False, True, True),)


@pytest.mark.parametrize("truncation", ["keep_start", "keep_end"])
@pytest.mark.parametrize("max_length", [3, 5, 7])
def test_train_on_prompt_cuts_the_same_tokens(truncation: Truncation, max_length: int) -> None:
    rows = [Demonstration(str(k), "cdad"[: k + 1], "dacc"[k:]) for k in range(4)]
    cut, _ = trees_of(rows, max_length=max_length, truncation=truncation)
    whole, _ = trees_of(rows, max_length=max_length, truncation=truncation, train_on_prompt=True)
    joined = [(t.id, *t.prompt, *t.completions[0]) for t in cut]
    assert [(t.id, *t.prompt, *t.completions[0]) for t in whole] == joined


# ---------------------------------------------------------------- truncation


def random_pairs(n: int, seed: int) -> list[PreferencePair]:
    draw = random.Random(seed)

    def text() -> str:
        return "".join(draw.choices("abcd ", k=draw.randint(1, 12)))

    return [
        PreferencePair(str(k), text(), text() + "c", text() + "d", draw.random() < 0.8)
        for k in range(n)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_drop_keeps_exactly_the_short_rows(seed: int) -> None:
    rows = random_pairs(60, seed)
    whole, _ = trees_of(rows)
    kept, report = trees_of(rows, max_length=14)
    short = [tree for tree in whole if tree.longest <= 14]
    assert [t.completions for t in kept] == [t.completions for t in short]
    assert report.counts == {"longer than max_length": 60 - len(short)}
    assert report.truncated == 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_length", [4, 6, 9, 14])
def test_keep_start_cuts_only_the_completions_end(seed: int, max_length: int) -> None:
    rows = random_pairs(60, seed)
    whole = {tree.id: tree for tree in trees_of(rows)[0]}
    trees, report = trees_of(rows, max_length=max_length, truncation="keep_start")
    for tree in trees:
        before = whole[tree.id]
        assert tree.longest <= max_length
        assert tree.prompt == before.prompt
        for got, full in zip(tree.completions, before.completions, strict=True):
            assert len(got) >= 1
            assert full[: len(got)] == got
            assert (got[-1] == EOS) == (full[-1] == EOS and len(got) == len(full))
    cut = sum(tree.longest < whole[tree.id].longest for tree in trees)
    assert report.truncated == cut
    assert report.ended == sum(ids[-1] == EOS for tree in trees for ids in tree.completions)
    assert report.count == 60 - len(trees)


@pytest.mark.parametrize("bos", ["<s>", None])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_length", [2, 5, 9, 14])
def test_keep_end_cuts_the_prompts_beginning_first(
    bos: str | None, seed: int, max_length: int
) -> None:
    rows, tokenizer = random_pairs(60, seed), merging(bos=bos)
    whole = {tree.id: tree for tree in trees_of(rows, tokenizer)[0]}
    trees, _ = trees_of(rows, tokenizer, max_length=max_length, truncation="keep_end")
    for tree in trees:
        before, head = whole[tree.id], 1 if bos else 0
        assert tree.longest <= max_length
        assert tree.prompt[:head] == before.prompt[:head]
        tail = tree.prompt[head:]
        assert before.prompt[len(before.prompt) - len(tail) :] == tail
        shortest_prompt = len(tree.prompt) == 1
        for got, full in zip(tree.completions, before.completions, strict=True):
            assert full[: len(got)] == got
            assert len(got) == len(full) or shortest_prompt
            assert (got[-1] == EOS) == (full[-1] == EOS and len(got) == len(full))
        assert tree.longest == min(max_length, before.longest)


def test_completion_is_never_emptied_silently() -> None:
    rows = [Demonstration("long", "cacacaca", "d"), Demonstration("short", "c", "d")]
    trees, report = trees_of(rows, max_length=5, truncation="keep_start")
    assert [tree.id for tree in trees] == ["short"]
    assert report.by_reason == {"no completion token left after truncation": ["long"]}


def test_pair_that_differs_only_past_the_cut_is_refused() -> None:
    rows = [pair("c", "aaaab", "aaaac"), pair("c", "ad", "aa")]
    trees, report = trees_of(rows, max_length=5, truncation="keep_start")
    assert len(trees) == 1
    assert report.counts == {"chosen and rejected are identical as tokens": 1}


def test_prompt_alone_is_cut_at_the_named_end() -> None:
    rows = [Prompt("r", "abcd")]
    (start,), _ = trees_of(rows, max_length=3, truncation="keep_start")
    (end,), report = trees_of(rows, max_length=3, truncation="keep_end")
    assert (start.prompt, end.prompt) == ((BOS, A, B), (BOS, C, D))
    assert report.truncated == 1
    with pytest.raises(DataError, match="longer than max_length"):
        trees_of(rows, max_length=3)


def test_refuse_error_names_row_and_reason() -> None:
    refusals = RowReport("rows.jsonl", refuse="error", seen=1)
    with pytest.raises(DataError, match=r"rows\.jsonl:7: longer than max_length: 6 > 4 tokens"):
        tokenise([Demonstration("rows.jsonl:7", "cd", "ad")] * 1, merging(), refusals, max_length=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 1}, "max_length must be at least 2"),
        ({"truncation": "middle"}, "truncation must be drop"),
    ],
)
def test_impossible_settings(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trees_of([Prompt("r", "a")], **settings)


def test_indices_count_up_from_the_first() -> None:
    trees = tokenise([Prompt("r", "a")] * 3, merging(), RowReport("r", seen=3), first_index=5)
    assert [tree.index for tree in trees] == [5, 6, 7]


# ---------------------------------------------------------------- texts


def test_text_is_cut_in_blocks_and_ends_once() -> None:
    report = RowReport("texts", seen=1)
    trees = tokenise_texts([LabelledText("r", "abcdabcd")], merging(), report, max_length=4)
    assert [tree.prompt for tree in trees] == [(BOS,)] * 3
    assert [tree.completions for tree in trees] == [((A, B, C),), ((D, A, B),), ((C, D, EOS),)]
    assert [tree.id for tree in trees] == ["r#0", "r#1", "r#2"]
    assert (report.trees, report.ended, report.tokens) == (3, 1, 9)


@pytest.mark.parametrize("length", range(1, 20))
def test_no_block_is_a_lone_end_of_text(length: int) -> None:
    text = "acd" * 10
    rows = [LabelledText("r", text[:length])]
    trees = tokenise_texts(rows, merging(), RowReport("texts", seen=1), max_length=4)
    joined = [i for tree in trees for i in tree.completions[0]]
    assert joined == [*({"a": A, "c": C, "d": D}[x] for x in text[:length]), EOS]
    assert all(1 <= len(tree.completions[0]) <= 3 for tree in trees)
    assert all(tree.completions[0] != (EOS,) for tree in trees)


def test_text_without_bos_starts_with_eos() -> None:
    rows, refusals = [LabelledText("r", "ab")], RowReport("texts", seen=1)
    (tree,) = tokenise_texts(rows, merging(bos=None), refusals, max_length=8)
    assert (tree.prompt, tree.completions) == ((EOS,), ((A, B, EOS),))


@pytest.mark.parametrize(
    ("truncation", "completions", "truncated"),
    [
        ("blocks", ((A, B, C), (D, EOS)), 0),
        ("keep_start", ((A, B, C),), 1),
        ("keep_end", ((C, D, EOS),), 1),
    ],
)
def test_long_labelled_text(truncation, completions, truncated: int) -> None:
    rows, report = [LabelledText("r", "abcd", 1.0)], RowReport("texts", seen=1)
    (tree,) = tokenise_labelled(rows, merging(), report, max_length=4, truncation=truncation)
    assert tree.completions == completions
    assert tree.labels == (1.0,) * len(completions)
    assert report.truncated == truncated
    assert report.ended == (truncation != "keep_start")


def test_labelled_text_refusals() -> None:
    rows = [LabelledText("a", "abcd", 1.0), LabelledText("b", "ab"), LabelledText("c", "ab", 0.0)]
    refusals = RowReport("texts", seen=3)
    trees = tokenise_labelled(rows, merging(), refusals, max_length=4, truncation="drop")
    assert [tree.id for tree in trees] == ["c"]
    assert refusals.by_reason == {
        "longer than max_length": ["a"],
        "missing column 'label'": ["b"],
    }


def test_summary_tells_what_became_of_the_rows() -> None:
    rows = [pair("ca", " b", " d"), pair("c", "a", "d", rejected_ends=False), pair("c", "a", "a")]
    _, report = trees_of(rows)
    assert report.summary().splitlines() == [
        "rows: 2 of 3 rows kept: 2 trees, 4 completions, 9 tokens",
        "  refused 1 x chosen and rejected are identical as tokens: r",
        "  0 rows truncated; 1 with a token across the border of prompt and completion; 75.0% of "
        "completions end in a trained EOS",
    ]
