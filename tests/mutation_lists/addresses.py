"""Bases of stage files, addresses of stages, and the probe's own key."""

from tests.mutation_lists.mutation import Mutation

ADDRESS = "plan/address.py"
TEST = "plan/test_address.py::"
OVERLAY = "plan/test_overlay.py::"
PLAN = "plan/test_experiment.py::"
STAND_INS = "training/test_stand_ins.py::"
CLI = "test_cli.py::"
LONE = "training/test_lone_run.py::"
MUTATIONS = (
    Mutation(
        "a base without a class loses its arguments",
        "plan/overlay.py",
        'base.get("class_path") not in (None, over["class_path"])',
        'base.get("class_path") != over["class_path"]',
        OVERLAY + "test_a_base_without_a_class_keeps_its_arguments_for_whichever_is_named",
    ),
    Mutation(
        "another class inherits arguments",
        "plan/overlay.py",
        'base.get("class_path") not in (None, over["class_path"])',
        "False",
        OVERLAY + "test_another_class_does_not_inherit_arguments",
    ),
    Mutation(
        "no merge keys in a YAML file",
        "plan/overlay.py",
        '("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")',
        '("tag:yaml.org,2002:str",)',
        OVERLAY + "test_merge_keys_put_in_what_is_not_there",
    ),
    Mutation(
        "a probe changes the hash of its run",
        "plan/experiment.py",
        '        spec = {**spec, "config": _with_callback(spec["config"])}',
        "        spec = dict(spec)",
        PLAN + "test_a_probe_has_the_hash_of_the_first_callback",
    ),
    Mutation(
        "a probe is hashed as the last callback",
        "plan/experiment.py",
        '"callbacks": [probe, *callbacks]',
        '"callbacks": [*callbacks, probe]',
        PLAN + "test_a_probe_has_the_hash_of_the_first_callback",
    ),
    Mutation(
        "a KL bound goes before the probe",
        "callbacks/kl_bound.py",
        "key=lambda each: not isinstance(each, FrontierProbe)",
        "key=lambda each: isinstance(each, FrontierProbe)",
        STAND_INS + "test_the_probe_goes_before_a_bound_on_kl_however_they_are_written",
    ),
    Mutation(
        "the probe is parsed and not used",
        "training/fit.py",
        "in_order(built.probe, ",
        "in_order(None, ",
        CLI + "test_the_probe_has_a_key_of_its_own_and_goes_first",
    ),
    Mutation(
        "settings of the probe's old place are an unknown key",
        "parser_errors.py",
        'if key == "trainer.callbacks.init_args.0":',
        "if False:",
        STAND_INS + "test_the_place_where_the_probe_was_is_told_the_new_one",
    ),
    Mutation(
        "a pool outlives the probe that it was drawn for",
        "training/lone_run.py",
        'for key in ("model", "probe") if',
        'for key in ("model",) if',
        LONE + "test_fit_and_then_frontier",
    ),
    Mutation(
        "an address takes another seed's run",
        ADDRESS,
        "if job.seed in (None, plan.seeds[0])]",
        "]",
        TEST + "test_the_config_is_the_pipelines",
    ),
    Mutation(
        "--point is not read",
        ADDRESS,
        "return points[point]",
        "return points[0]",
        TEST + "test_the_config_is_the_pipelines",
    ),
    Mutation(
        "a negative point is the last one",
        ADDRESS,
        "if not 0 <= point < len(points):",
        "if not point < len(points):",
        TEST + "test_what_is_not_there_is_said",
    ),
    Mutation(
        "inputs of other settings are taken",
        "plan/state.py",
        'if done["config_sha"] != job.config_sha:',
        "if False:",
        TEST + "test_inputs_of_other_settings_or_another_seed_are_not_there",
    ),
    Mutation(
        "missing inputs are not noticed",
        ADDRESS,
        "if not standing.done(need.name)",
        "if False",
        TEST + "test_what_is_not_there_is_said",
    ),
    Mutation(
        "an input that an option replaces is asked for",
        ADDRESS,
        'overlay.set_dotted(config, word[2:].partition("=")[0], None)',
        "pass",
        TEST + "test_an_input_that_an_option_replaces_is_not_asked_for",
    ),
    Mutation(
        "a lone run writes into the pipeline's folder",
        ADDRESS,
        'if name == "out":',
        "if False:",
        TEST + "test_the_folder_of_the_pipelines_run_is_not_written_into",
    ),
    Mutation(
        "the smoke overlay counts as a scale",
        ADDRESS,
        '"." not in path.stem and path.stem != SMOKE',
        "path.stem != SMOKE",
        TEST + "test_what_is_not_there_is_said",
    ),
    Mutation(
        "the command that makes an input leaves its seed out",
        ADDRESS,
        "if each.seed is not None}",
        "if False}",
        TEST + "test_inputs_of_other_settings_or_another_seed_are_not_there",
    ),
    Mutation(
        "a stage's file of the installed package is not found",
        "plan/address.py",
        'str(found(Path(word))) if before == "--config" and word else word',
        "word",
        "plan/test_address.py::test_a_file_of_an_installed_experiment_is_used_where_there_is_none",
    ),
)
