"""What cannot be meant, found before anything is made."""

from tests.mutation_lists.mutation import Mutation

OVERLAY = "pipeline/test_overlay.py::"
BAD_FILE = f"{OVERLAY}test_a_bad_file_is_named_with_what_is_wrong"
PLAN = "pipeline/test_plan.py::"
MUTATIONS = (
    Mutation(
        "dates and numbers to base 8 are taken for what they are not",
        "pipeline/overlay.py",
        "if kind in MISREAD and pattern.fullmatch(node.value):",
        "if False:",
        BAD_FILE,
    ),
    Mutation(
        "an alias of the YAML is one object in two places",
        "pipeline/overlay.py",
        "written_out: dict[str, Any] = _written_out(content, 0, itertools.count(1))",
        "_written_out(written_out := content, 0, itertools.count(1))",
        f"{OVERLAY}test_a_change_of_one_place_leaves_its_alias_alone",
    ),
    Mutation(
        "a key that a merge overrides is given twice",
        "pipeline/overlay.py",
        "if id(node) not in self._checked:",
        "if True:",
        f"{OVERLAY}test_merge_keys_put_in_what_is_not_there",
    ),
    Mutation(
        "a not-a-number is taken",
        "pipeline/overlay.py",
        "return NAN.fullmatch(word) is not None or",
        "return",
        BAD_FILE,
    ),
    Mutation(
        "aliases are written out without end",
        "pipeline/overlay.py",
        "LARGEST_TREE = 100_000  #",
        "LARGEST_TREE = 1_000_000  #",
        BAD_FILE,
    ),
    Mutation(
        "a scale may be a path",
        "pipeline/plan.py",
        "if scale is not None and not re.fullmatch(SCALE, scale):",
        "if not scale and scale is not None:",
        f"{PLAN}test_a_scale_is_a_name_and_no_path",
    ),
    Mutation(
        "a cache that the run writes changes its hash",
        "pipeline/content.py",
        "key: item if key in WRITTEN else by_content(item, experiment)",
        "key: by_content(item, experiment)",
        f"{PLAN}test_what_a_run_writes_is_none_of_its_inputs",
    ),
    Mutation(
        "the working directory is an input where a text is a slash",
        "pipeline/content.py",
        'or ("/" in value and path.is_dir() and not _holds_all(path)):',
        'or ("/" in value and path.is_dir()):',
        f"{PLAN}test_text_that_is_a_path_by_chance_is_text",
    ),
    Mutation(
        "an overlay drops a stage that is not there",
        "pipeline/plan.py",
        "if name not in stages and not new:",
        "if name not in stages and not new and entry is not None:",
        f"{PLAN}test_an_overlay_of_a_stage_that_is_not_there",
    ),
    Mutation(
        "seeds that no stage uses are passed over",
        "pipeline/plan.py",
        "if key in given and not used:",
        'if key in given and not used and key != "seeds":',
        f"{PLAN}test_what_no_stage_uses_is_noted",
    ),
    Mutation(
        "seeds do not count among a stage's runs",
        "pipeline/plan.py",
        "check_count(len(points) * len(seeds), MOST_RUNS,",
        "check_count(len(points), MOST_RUNS,",
        f"{PLAN}test_runs_are_counted_before_they_are_listed",
    ),
    Mutation(
        "a sweep's int range of any length is listed",
        "sweep/space.py",
        "return (d.high - d.low) // d.step + 1",
        "return min((d.high - d.low) // d.step + 1, 10_000)",
        "sweep/test_bad_input.py::test_what_is_too_much_is_counted_and_not_listed",
    ),
    Mutation(
        "an empty --results is the working directory",
        "cli.py",
        'if not text.strip() or "\\0" in text:',
        'if "\\0" in text:',
        "test_cli.py::test_an_empty_path_is_not_the_working_directory",
    ),
    Mutation(
        "calls do not wait for the check",
        "pipeline/foreman.py",
        "behind = [replace(job, needs={**job.needs, CHECK: (CHECK,)}) for job in jobs]",
        "behind = list(jobs)",
        "pipeline/test_run.py::test_wrong_configs_are_all_told_before_anything_is_done",
    ),
    Mutation(
        "bounds of a call's numbers are not looked at",
        "pipeline/calls.py",
        "for bound in bounds if value is not None and not bound.fits(value))",
        "for bound in bounds if False)",
        "pipeline/test_calls.py::test_what_it_does_not_take_is_one_sentence",
    ),
    Mutation(
        "a null for a number reaches the function",
        "pipeline/calls.py",
        "if not _takes_null(hint):",
        "if False:",
        "pipeline/test_calls.py::test_what_it_does_not_take_is_one_sentence",
    ),
    Mutation(
        "a text in quotes is a number all the same",
        "pipeline/meaning.py",
        "elif isinstance(given, str) and not isinstance(parsed, str):",
        "elif False:",
        "pipeline/test_meaning.py",
    ),
    Mutation(
        "a key that holds nothing is passed over",
        "pipeline/meaning.py",
        "if key not in parsed:",
        "if key not in parsed and value:",
        "pipeline/test_stand_ins.py::test_the_trainer_and_its_callbacks_are_asked_too",
    ),
    Mutation(
        "the trainer is first built behind the inputs",
        "fit.py",
        "try_trainer(parsed, here=here, evaluated=evaluated)",
        "pass",
        "pipeline/test_stand_ins.py::test_the_trainer_and_its_callbacks_are_asked_too",
    ),
    Mutation(
        "5e-7 in quotes is written without them",
        "pipeline/overlay.py",
        "for _words in (_Loader, _Dumper):",
        "for _words in (_Loader,):",
        f"{OVERLAY}test_text_that_looks_like_something_else_is_written_in_quotes",
    ),
)
