"""What people who did not build it found."""

from tests.mutation_lists.mutation import Mutation

MUTATIONS = (
    Mutation(
        "a prompt is taken off a completion in the middle of a word",
        "data/formats.py",
        r'return not isinstance(whole, str) or not re.match(r"\w\w", whole[len(prompt) - 1 :])',
        "return True",
        "data/test_formats.py::"
        "test_a_prompt_is_taken_off_completions_as_whole_words_and_said_to_be",
    ),
    Mutation(
        "prompts are taken off completions without a word",
        "data/formats.py",
        '        report.notes.append(f"prompts are removed from',
        '        str(f"prompts are removed from',
        "data/test_formats.py::"
        "test_a_prompt_is_taken_off_completions_as_whole_words_and_said_to_be",
    ),
    Mutation(
        "the copy of trained adapters wants biases, too",
        "models/adapters.py",
        'start.bias = "none"',
        "pass",
        "objectives/test_reference.py::"
        "test_adapters_that_would_train_biases_of_a_model_without_any_have_a_start",
    ),
    Mutation(
        "a file of weights that ends too soon is a raw error",
        "models/loading.py",
        "except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as problem:",
        "except (OSError, ValueError, RuntimeError, ImportError) as problem:",
        "models/test_loading.py::test_weights_that_end_too_soon_are_named",
    ),
    Mutation(
        "an output is first looked at when everything is sampled",
        "rollouts/command.py",
        "    check_writable(args.out.parent)  #",
        "    #",
        "rollouts/test_command.py::"
        "test_an_output_that_cannot_be_written_is_told_before_the_model_loads",
    ),
    Mutation(
        "a null for an argument of an argument is the text None",
        "training/fit.py",
        "        if nested:",
        "        if False:",
        "test_cli.py::test_a_null_for_an_argument_of_an_argument_is_none",
    ),
    Mutation(
        "a null inside a group passes",
        "parser_errors.py",
        "wrong = inner and isinstance(hint, type) and null_for_value(hint, inner)",
        "wrong = None",
        "test_parser_errors.py::test_a_null_inside_a_group_is_told_by_its_key",
    ),
    Mutation(
        "rows that sparse attention cuts are found at the first of them",
        "models/backbone.py",
        "check_sparse(self.model, longest - 1 + more)",
        "longest",
        "models/test_rows.py::test_rows_longer_than_sparse_attention_keeps_are_refused",
    ),
    Mutation(
        "a full disk is reported as a library's error",
        "errors.py",
        "return own or any(words in str(error) for words in said)",
        "return own",
        "test_cli.py::test_status_follows_from_the_kind_of_error",
    ),
    Mutation(
        "a cache that cannot be written is found by the operating system",
        "models/reference.py",
        '        check_writable(folder, "model.init_args.reference_cache ")\n',
        "",
        "models/test_reference.py::test_a_cache_that_is_no_folder_is_named",
    ),
    Mutation(
        "a changed config stays beside its results",
        "pipeline/records.py",
        "if known == _title(job) and sha != hashlib.sha256(text).hexdigest():",
        "if False:",
        "pipeline/test_damage.py::test_configs_and_times_that_were_changed_are_written_again",
    ),
    Mutation(
        "nobody says that an empty cell is no text",
        "data/formats.py",
        "if empty := found.empty_cells[read.columns]:",
        "if empty := 0:",
        "data/test_files.py::test_pairs_with_nulls_truth_values_numbers_and_odd_characters",
    ),
    Mutation(
        "settings without an effect are not told",
        "training/before_start.py",
        "notes += [] if acts(given[other]) else",
        "notes += [] if True else",
        "training/test_before_start.py::test_settings_that_act_only_beside_others_are_told",
    ),
    Mutation(
        "two runs of one number in two folders are one",
        "training/lone_run.py",
        "        run_id=name,\n",
        "        run_id=folder.name,\n",
        "training/test_lone_run.py::test_fit_and_then_frontier",
    ),
)
