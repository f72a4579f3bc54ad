"""What is said before and after a training: values, constructors, the hub, accumulation, resume."""

from tests.mutation_lists.mutation import Mutation

MUTATIONS = [
    Mutation(
        "a null passes for a number",
        "before_start.py",
        "if null and parameter.default is not None and not _takes_none(hint):",
        "if False:",
        "test_before_start.py::test_a_null_for_a_value_is_told_by_its_whole_key",
    ),
    Mutation(
        "a null is refused where the type allows it",
        "before_start.py",
        "    return any(each in (None, NoneType, Any) for each in get_args(hint))",
        "    return False",
        "test_before_start.py::test_nulls_pass_where_the_type_or_the_default_allows_them",
    ),
    Mutation(
        "the parser's own words instead of the constructor's",
        "before_start.py",
        "    root = next(e for e in reversed(list(_chain(error))) if isinstance(e, Exception))",
        "    root = error",
        "test_before_start.py::test_a_constructors_error_names_key_class_and_cause",
    ),
    Mutation(
        "a full disk counts as a wrong config",
        "before_start.py",
        "    if full or isinstance(root,",
        "    if isinstance(root,",
        "test_before_start.py::test_our_own_words_and_the_machines_troubles_are_passed_on",
    ),
    Mutation(
        "the first validation is counted an epoch late",
        "before_start.py",
        "first = interval if every is None else (every - 1) * batches + interval",
        "first = interval if every is None else every * batches + interval",
        "test_before_start.py::test_validation_that_never_comes_is_said",
    ),
    Mutation(
        "steps are taken for micro-batches",
        "before_start.py",
        "if (off or first > epochs * batches + steps * each) and",
        "if (off or first > trainer.max_steps) and",
        "test_before_start.py::test_validation_that_never_comes_is_said",
    ),
    Mutation(
        "the hub is asked again for every name",
        "hub.py",
        "        constants.HF_HUB_OFFLINE = True\n",
        "",
        "test_hub.py::test_no_answer_is_told_in_one_sentence_and_soon",
    ),
    Mutation(
        "micro-batches of the data are not accumulated",
        "fit.py",
        "            trainer.accumulate_grad_batches = found\n",
        "",
        "test_cli.py::test_micro_batches_are_set_in_one_place",
    ),
    Mutation(
        "a resumed run gets a new folder",
        "fit.py",
        "            logger._version = folder.resolve().name",
        "            logger._name = logger.name",
        "test_cli.py::test_resume_goes_on_in_the_same_folder",
    ),
    Mutation(
        "the report of the rows is not shown",
        "callbacks/journal.py",
        "            said.append(data.report())\n",
        "",
        "test_cli.py::test_fit_says_what_became_of_the_rows_and_keeps_the_table",
    ),
    Mutation(
        "classes in the working directory are not found",
        "cli.py",
        "        sys.path.append(os.getcwd())",
        "        pass",
        "test_cli.py::test_classes_in_the_working_directory_are_found",
    ),
    Mutation(
        "the nearest name is not told",
        "parser_errors.py",
        '    return f", did you mean {found[0]}?" if found else ""',
        '    return ""',
        "test_parser_errors.py::test_what_was_told_as_a_dump_is_one_sentence",
    ),
]
