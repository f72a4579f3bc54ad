"""Which model is in the row: layouts, readings of the sampler, and what compares them."""

from tests.mutation_lists.mutation import Mutation

MUTATIONS = (
    Mutation(
        "no dropout is the float 0.0 even where a config counts in whole numbers",
        "models/loading.py",
        "kind(dropout) if dropout == 0 else dropout",
        "dropout",
        "models/test_loading.py::test_a_dropout_that_the_config_counts_in_whole_numbers",
    ),
    Mutation(
        "samples are never compared with the training forward",
        "objectives/on_policy.py",
        "check_drawn(drawn, scored[trees.loss_mask]",
        "check_drawn(drawn, torch.cat([x for row in drawn.token_logps for x in row])",
        "objectives/test_on_policy.py::test_a_temperature_in_one_place_only_is_refused",
    ),
    Mutation(
        "an evaluation trusts what the sampler says",
        "evaluation/points.py",
        "check_drawn(drawn, kl.token_logps, type(policy.model).__name__, policy.precision)",
        "",
        "rollouts/test_comparison.py::"
        "test_evaluations_and_pools_refuse_a_sampler_of_another_distribution",
    ),
    Mutation(
        "a pool trusts what the sampler says",
        "stages/pool_sampling.py",
        "check_samples(policy, block, spec)",
        "pass",
        "rollouts/test_comparison.py::"
        "test_evaluations_and_pools_refuse_a_sampler_of_another_distribution",
    ),
    Mutation(
        "drawn log-probs are compared on average",
        "rollouts/comparison.py",
        "beyond_rounding(sampled, scored, dtype)",
        "beyond_rounding(sampled.mean(), scored.mean(), dtype)",
        "rollouts/test_comparison.py::test_the_token_that_is_off_is_named",
    ),
    Mutation(
        "the longest completions are never read again",
        "rollouts/comparison.py",
        "chosen = every[:: -max(",
        "chosen = every[:: max(",
        "rollouts/test_comparison.py::test_some_completions_are_read_again_the_longest_among_them",
    ),
    Mutation(
        "windows that a config names are not looked for",
        "models/backbone.py",
        'return f"{name} {width} bounds what a token sees"',
        "continue",
        "models/test_layouts.py::test_models_that_look_at_a_window_stay_flat",
    ),
    Mutation(
        "layers of any kind are taken for full attention",
        "models/backbone.py",
        "if _LAYERS.search(name) and (others := _words(value) - _FULL):",
        "if _LAYERS.search(name) and (others := _words(value) - _words(value)):",
        "models/test_rows.py::test_layers_of_an_unknown_kind_stay_flat",
    ),
    Mutation(
        "a probe is shorter than the window",
        "models/backbone.py",
        "(max(windows) - max(windows) // 2 + 8,)",
        "(8,)",
        "models/test_rows.py::test_windows_that_a_config_names",
    ),
    Mutation(
        "a model that looks ahead is taken for a decoder",
        "models/backbone.py",
        "self._check_causal(trees, flat)",
        "pass",
        "models/test_rows.py::test_a_model_that_looks_ahead_is_refused",
    ),
    Mutation(
        "a scorer is never held against its own forward",
        "models/score.py",
        "return relative_error(ours[kept], wanted[kept], coarsest(self.model, states.dtype))",
        "return 0.0",
        "models/test_rows.py::test_scores_are_those_of_the_scorers_own_forward",
    ),
    Mutation(
        "every model is sampled with a cache",
        "models/decoding.py",
        "<= (1e-3 if exact else 0.1)",
        "<= (1e3 if exact else 0.1)",
        "models/test_decoding.py::test_samples_have_the_log_probs_of_the_training_forward",
    ),
    Mutation(
        "prompts of several lengths stand together whatever the model",
        "rollouts/sampler.py",
        'if decoding == "by length":',
        'if decoding == "never":',
        "models/test_decoding.py::test_a_cache_that_is_wrong_is_not_used",
    ),
    Mutation(
        "without a cache the next token is read in the wrong place",
        "models/decoding.py",
        "self.length = self.length + 1",
        "self.length = self.length + 0",
        "models/test_decoding.py::test_samples_have_the_log_probs_of_the_training_forward",
    ),
    Mutation(
        "recurrent states stay behind when rows are dropped",
        "models/cache.py",
        "layer.reorder_cache(rows)",
        "layer.reorder_cache(torch.zeros_like(rows))",
        "models/test_decoding.py::test_samples_do_not_depend_on_company",
    ),
    Mutation(
        "rows may be longer than what sparse attention keeps",
        "models/backbone.py",
        "if columns > most:",
        "if columns > 2 * most:",
        "models/test_rows.py::test_rows_longer_than_sparse_attention_keeps_are_refused",
    ),
    Mutation(
        "samples may be longer than what sparse attention keeps",
        "models/decoding.py",
        "check_sparse(policy.model, max(map(len, prompts)) + new)",
        "",
        "models/test_rows.py::test_rows_longer_than_sparse_attention_keeps_are_refused",
    ),
    Mutation(
        "RWKV is saved with the weights of its eval mode",
        "models/backbone.py",
        "self.model.config.rescale_every = 0",
        "pass",
        "models/test_rows.py::test_weights_do_not_change_with_the_mode_that_they_are_saved_in",
    ),
)
