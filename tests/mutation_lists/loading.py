"""How models are loaded, read and referred to: adapters, modes, norms, rows that do not fit."""

from tests.mutation_lists.mutation import Mutation

STARTS = (
    "objectives/test_referenced.py::"
    "test_however_it_was_loaded_the_reference_is_the_policy_at_its_start"
)

MUTATIONS = (
    Mutation(
        "trained adapters are switched off for the reference",
        "objectives/referenced.py",
        "if not adapted or change_nothing(model):",
        "if not adapted or True:",
        STARTS,
    ),
    Mutation(
        "the copy of trained adapters is left as it was drawn",
        "models/adapters.py",
        'state[".".join(START if part == OWN else part for part in parts)].copy_(tensor)',
        "pass",
        STARTS,
    ),
    Mutation(
        "the reference reads the policy's own adapters",
        "models/reference.py",
        "with reading(self.policy), switched_to(self.policy.model, START):",
        "with reading(self.policy):",
        STARTS,
    ),
    Mutation(
        "trained biases are part of the reference",
        "objectives/referenced.py",
        "return StartReference(policy) if are_all_that_trains(model) else FrozenReference(policy)",
        "return StartReference(policy)",
        "objectives/test_referenced.py::"
        "test_biases_that_train_beside_adapters_need_a_copy_of_the_model",
    ),
    Mutation(
        "new adapters are put on the base without the old ones",
        "models/loading.py",
        "return adapted.merge_and_unload() if merge else adapted",
        "return adapted.unload() if merge else adapted",
        "models/test_adapters.py::test_new_adapters_go_on_the_old_ones_merged",
    ),
    Mutation(
        "a merged base is not saved",
        "models/policy.py",
        "self._saves_base = fresh and (source is None or is_adapter(source))",
        "self._saves_base = False",
        "models/test_adapters.py::test_what_was_put_on_adapters_comes_back",
    ),
    Mutation(
        "a relative model is looked for in the working directory alone",
        "models/adapters.py",
        "groups = [[place / path for place in (*around, Path.cwd())]]",
        "groups = [[Path.cwd() / path]]",
        "models/test_adapters.py::test_a_folder_loads_from_any_working_directory",
    ),
    Mutation(
        "the first of several models is taken",
        "models/adapters.py",
        "if len(found) > 1:",
        "if False:",
        "models/test_adapters.py::test_a_model_that_is_gone_or_not_one_is_named",
    ),
    Mutation(
        "adapters whose weights are missing are loaded as they were drawn",
        "models/loading.py",
        'warnings.filterwarnings("error", "Found missing adapter keys")',
        'warnings.filterwarnings("ignore", "Found missing adapter keys")',
        "models/test_adapters.py::test_adapters_without_some_of_their_weights_are_refused",
    ),
    Mutation(
        "a language model's head is drawn where the folder has none",
        "models/loading.py",
        "    if absent:\n",
        "    if False:\n",
        "models/test_adapters.py::test_a_scorers_folder_is_no_policy",
    ),
    Mutation(
        "a scorer starts from the base without the adapters",
        "models/loading.py",
        "    scorer.base_model.load_state_dict(lm.base_model.state_dict())\n",
        "",
        "models/test_adapters.py::test_a_scorer_starts_from_adapters",
    ),
    Mutation(
        "the dropout of saved adapters stays on",
        "models/loading.py",
        "        peft.lora_dropout = dropout\n",
        "        pass\n",
        "models/test_adapters.py::test_dropout_of_saved_adapters_is_overridden_like_the_models_own",
    ),
    Mutation(
        "stop tokens are lost with adapters",
        "models/adapters.py",
        "    model.generation_config.save_pretrained(path)\n",
        "",
        "models/test_adapters.py::test_stop_tokens_stay_with_the_adapters",
    ),
    Mutation(
        "exact norms take the weight as it is",
        "models/precise.py",
        "return PreciseRMSNorm(norm.weight, eps, offset)",
        "return PreciseRMSNorm(norm.weight, eps)",
        "models/test_precise.py::test_log_probs_in_float64_are_those_of_the_library",
    ),
    Mutation(
        "a norm is replaced without a comparison",
        "models/precise.py",
        "if torch.allclose(found, wanted.double(), rtol=1e-5, atol=1e-6):",
        "if True:",
        "models/test_precise.py::test_other_norms_stay_and_a_line_says_so",
    ),
    Mutation(
        "norms are compared at their own weight, where two formulas agree",
        "models/precise.py",
        "trial.weight.detach().clone().normal_(generator=generator)",
        "trial.weight.detach().clone()",
        "models/test_precise.py::test_other_norms_stay_and_a_line_says_so",
    ),
)
