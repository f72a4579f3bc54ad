"""Tokenised rows in a file: what it is named by, how it is checked, what comes out of it."""

from tests.mutation_lists.mutation import Mutation

STORED = "data/test_stored.py::"
SAME = STORED + "test_trees_reports_and_batches_are_those_in_memory"
DAMAGED = STORED + "test_a_damaged_file_is_written_again_with_a_line"
OWN = STORED + "test_other_rows_tokenizer_template_length_or_code_have_a_file_of_their_own"

MUTATIONS = (
    Mutation(
        "all records of a large file are held at once",
        "data/sources.py",
        "if files is None or not are_large(files):",
        "if True:",
        STORED + "test_memory_does_not_grow_with_the_file",
    ),
    Mutation(
        "a file of tokenised rows is trusted by its size and time",
        "data/stored.py",
        "if was is None or not is_as_stamped(path, was, thorough=True):",
        "if was is None:",
        DAMAGED,
    ),
    Mutation(
        "nobody hears that a file of tokenised rows was damaged",
        "data/stored.py",
        "        if path.exists():\n",
        "        if False:\n",
        DAMAGED,
    ),
    Mutation(
        "another chat template finds the rows of the one before",
        "data/stored.py",
        '        "template": tokenizer.chat_template,\n',
        "",
        OWN,
    ),
    Mutation(
        "changed rows find the tokens of those before",
        "data/stored.py",
        "content = [(name, sha256(file)) for file, name in named(files)]",
        "content = [name for file, name in named(files)]",
        OWN,
    ),
    Mutation(
        "another end-of-text token finds the rows of the one before",
        "data/stored.py",
        '        "special": tokenizer.special_tokens_map,\n'
        '        "ends": [tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)],\n',
        "",
        OWN,
    ),
    Mutation(
        "rows of other code are taken for those of this",
        "data/stored.py",
        "json.dumps([settings, content, own, code, versions], default=str)",
        "json.dumps([settings, content, own, versions], default=str)",
        OWN,
    ),
    Mutation(
        "another held-out share finds the split of the one before",
        "data/modules.py",
        '"seed": self.validation_share and self.seed}',
        '"seed": 0}',
        OWN,
    ),
    Mutation(
        "every process that wants the rows tokenises them",
        "data/stored.py",
        "        if (notes := _sound(path)) is not None:\n            return notes\n",
        "",
        STORED + "test_one_writes_and_others_wait",
    ),
    Mutation(
        "zeros for rows without labels are forgotten in a file",
        "data/stored.py",
        "if labels is None and labelled:",
        "if False:",
        SAME,
    ),
    Mutation(
        "a validation part gets the zeros of the training part's labels",
        "data/stored.py",
        "any(index in places for places in self._labelled)",
        "bool(self._labelled)",
        SAME,
    ),
    Mutation(
        "loss masks are left out of the file",
        "data/stored.py",
        '"mask": [t.loss_masks and list(chain.from_iterable(t.loss_masks)) for t in trees],',
        '"mask": [None for t in trees],',
        SAME,
    ),
    Mutation(
        "the place of a tree counts from its part",
        "data/modules.py",
        "places = range(first, first := first + count)",
        "places = range(0, count)",
        SAME,
    ),
    Mutation(
        "refusals of tokenising stand before those of reading",
        "data/rows/report.py",
        "reasons = dict.fromkeys((*reading.refused, *self.refused))",
        "reasons = dict.fromkeys((*self.refused, *reading.refused))",
        SAME,
    ),
    Mutation(
        "a full disk ends a run that could go on in memory",
        "data/stored.py",
        "        except OSError as problem:\n            why",
        "        except FileNotFoundError as problem:\n            why",
        STORED + "test_a_disk_that_fills_up_means_memory_and_leaves_nothing",
    ),
    Mutation(
        "other people's rows are kept though their code may change",
        "data/modules.py",
        'if not all(own.__module__.startswith("alignlab.") for own in (type(self), self.kind)):',
        "if False:",
        STORED + "test_small_files_and_other_peoples_rows_stay_in_memory",
    ),
    Mutation(
        "the bounds of the last trees of a file are not seen",
        "data/stored.py",
        "self.bounds = TreeBounds(*map(max, self.bounds, bounds_of(trees)))",
        "self.bounds = bounds_of(trees)",
        STORED + "test_a_file_knows_its_longest_tree_and_its_largest_id",
    ),
    Mutation(
        "rows of a Parquet file are numbered anew in every piece",
        "data/files.py",
        "                number += 1\n",
        "                number = number % ROWS_AT_ONCE + 1\n",
        "data/test_files.py::test_pieces_of_a_table_are_one_table",
    ),
    Mutation(
        "a byte that is no text is counted from its line",
        "data/files.py",
        "{problem.reason} at byte {read + problem.start}. ",
        "{problem.reason} at byte {problem.start}. ",
        "data/test_files.py::test_a_byte_that_is_no_text_is_named_by_its_place_in_the_file",
    ),
    Mutation(
        "a checkpoint skips the batches that were made ahead",
        "data/loader.py",
        "        for batch, self._epoch, self._position in made:\n",
        "        for batch, epoch, place in made:\n"
        "            self._epoch, self._position = epoch, min(place + self.prefetch, self._end)\n",
        "data/test_loader.py::test_stop_and_resume_anywhere_gives_exactly_what_is_left",
    ),
)
