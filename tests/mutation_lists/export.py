"""Exported folders: what they hold, what they are compared with, and what is refused."""

from tests.mutation_lists.mutation import Mutation

MERGED = "test_export.py::test_merged_weights_are_those_of_base_and_adapters"

MUTATIONS = (
    Mutation(
        "an exported folder is kept whatever it computes",
        "export.py",
        "if not (gap <= TOLERANCE or rounded):",
        "if False:",
        "test_export.py::test_what_was_exported_and_is_not_the_runs_is_not_kept",
    ),
    Mutation(
        "a merged model is compared with itself",
        "export.py",
        'gap = check.gap(check.read(merged), "merging the adapters changes the model:")',
        "gap = 0.0",
        "test_export.py::test_merging_that_changes_the_model_is_refused",
    ),
    Mutation(
        "what was not kept is left behind",
        "export.py",
        "        shutil.rmtree(out)\n        raise",
        "        raise",
        "test_export.py::test_what_was_exported_and_is_not_the_runs_is_not_kept",
    ),
    Mutation(
        "adapters are merged in float32",
        "export.py",
        'self.wide: Any = "float64" if self.exact else dtype',
        "self.wide: Any = dtype",
        MERGED,
    ),
    Mutation(
        "a merged model forgets the tokens that end a completion",
        "export.py",
        'if (source / "generation_config.json").exists():',
        "if False:",
        MERGED,
    ),
    Mutation(
        "--merge of a checkpoint merges the finished adapters",
        "export.py",
        "source = run.model if ckpt is None else Path(temporary)",
        "source = run.model",
        MERGED + "[2-2]",
    ),
    Mutation(
        "a checkpoint's weights are not loaded",
        "export.py",
        "unknown = model.load_state_dict(state, strict=False).unexpected_keys",
        "unknown = []",
        "test_export.py::test_a_checkpoint_of_a_step_is_exported",
    ),
    Mutation(
        "a checkpoint of another run is taken",
        "export.py",
        "if run.path.resolve() not in ckpt.resolve().parents:",
        "if False:",
        "test_export.py::test_what_cannot_be_exported_is_said",
    ),
    Mutation(
        "weights that a checkpoint lacks are left as they were drawn",
        "export.py",
        "if unknown or trained - state.keys():",
        "if False:",
        "test_export.py::test_weights_of_another_model_are_refused",
    ),
    Mutation(
        "a base that is only in the run's folder stays there",
        "export.py",
        "            _bring_base(source, out)\n",
        "",
        "test_export.py::test_adapters_bring_a_base_that_is_nowhere_else",
    ),
    Mutation(
        "the copied base is not named",
        "export.py",
        'settings["base_model_name_or_path"] = str(base.resolve())',
        "pass",
        "test_export.py::test_adapters_bring_a_base_that_is_nowhere_else",
    ),
    Mutation(
        "pickled weights are loaded",
        "export.py",
        'if not any(run.model.glob("*.safetensors")):',
        "if False:",
        "test_export.py::test_pickled_weights_are_refused",
    ),
    Mutation(
        "a pickle in a checkpoint is run",
        "callbacks/checkpoints.py",
        "content = torch.load(path, weights_only=True",
        "content = torch.load(path, weights_only=False",
        "test_export.py::test_a_pickle_is_refused_and_not_run",
    ),
    Mutation(
        "a folder with files is written into",
        "export.py",
        "if out.is_file() or (out.is_dir() and any(out.iterdir())):",
        "if out.is_file():",
        "test_export.py::test_what_cannot_be_exported_is_said",
    ),
    Mutation(
        "a stage's half model is exported",
        "results/model_card.py",
        "finished = own.done is not None if stage else model.is_dir()",
        "finished = model.is_dir()",
        "test_export.py::test_a_job_of_a_pipeline_is_exported",
    ),
    Mutation(
        "the card of a checkpoint has the evaluation of a later step",
        "results/model_card.py",
        "if e.is_whole and (step is None or e.step <= step)",
        "if e.is_whole",
        "test_export.py::test_a_checkpoint_of_a_step_is_exported",
    ),
    Mutation(
        "a scorer's shift is left out of the comparison",
        "export.py",
        "found.append((logits - self.shift) / self.scale)",
        "found.append(logits)",
        "test_export.py::test_a_scorers_unit_is_in_its_card",
    ),
    Mutation(
        "an exported folder is not sealed",
        "export.py",
        "    seal(out)\n",
        "",
        "test_export.py::test_the_card_is_what_the_run_recorded",
    ),
)
