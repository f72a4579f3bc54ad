"""Adapters and what they stand on: weights in 4 bits, the record of the base, added tokens."""

from tests.mutation_lists.mutation import Mutation

QUANTISED = "models/test_quantised.py::"
STEP_0 = QUANTISED + "test_policy_and_reference_are_one_model_at_step_0"
SAYS = QUANTISED + "test_a_folder_says_what_its_base_was"
REFUSED = QUANTISED + "test_what_cannot_be_is_refused_in_a_sentence"
SCORER = QUANTISED + "test_a_scorer_trains_adapters_and_its_head"
TOKENS = "models/test_chat_format.py::test_adapters_learn_added_tokens"

MUTATIONS = (
    Mutation(
        "bitsandbytes repacks codes, and later gradients stop there",
        "models/quantised.py",
        "        layer.support_avx512bf16_for_cpu = False\n",
        "",
        QUANTISED + "test_codes_are_never_repacked",
    ),
    Mutation(
        "the backward decodes to the type that the weights had",
        "models/quantised.py",
        "            layer.weight.quant_state.dtype = dtype",
        "            pass",
        SAYS,
    ),
    Mutation(
        "the head is kept in 4 bits, too",
        "models/quantised.py",
        "if type(layer) is nn.Linear and all(layer is not head for head in kept)",
        "if type(layer) is nn.Linear",
        QUANTISED + "test_codes_are_those_of_the_paper",
    ),
    Mutation(
        "scales are always quantised",
        "models/quantised.py",
        '{"compress_statistics": how.double, "quant_type": "nf4"}',
        '{"compress_statistics": True, "quant_type": "nf4"}',
        QUANTISED + "test_bytes_of_a_weight",
    ),
    Mutation(
        "another code of 4 bits",
        "models/quantised.py",
        '"quant_type": "nf4"}',
        '"quant_type": "fp4"}',
        QUANTISED + "test_codes_are_those_of_the_paper",
    ),
    Mutation(
        "checkpoints hold the scales of frozen weights",
        "objectives/base.py",
        '("reference.", "reward.", *with_scales)',
        '("reference.",)',
        QUANTISED + "test_checkpoints_hold_no_codes",
    ),
    Mutation(
        "DoRA's lengths are those of weights in bfloat16",
        "models/adapters.py",
        "            module.lora_magnitude_vector[OWN].weight.data = _row_lengths(module)\n",
        "            pass\n",
        STEP_0,
    ),
    Mutation(
        "new DoRA counts as trained",
        "models/adapters.py",
        'rest = ("lora_A", "lora_magnitude_vector", "trainable_tokens_delta")',
        'rest = ("lora_A",)',
        STEP_0,
    ),
    Mutation(
        "DoRA's lengths may have moved in a model that is taken as its base",
        "models/adapters.py",
        "            if not torch.equal(module.lora_magnitude_vector[OWN].weight, "
        "_row_lengths(module)):\n                return False\n",
        "            pass\n",
        "models/test_adapters.py::test_adapters_that_moved_in_any_part_are_no_base",
    ),
    Mutation(
        "rows of tokens may have moved in a model that is taken as its base",
        "models/adapters.py",
        "            if not torch.equal(module.trainable_tokens_delta[OWN], rows):\n"
        "                return False\n",
        "            pass\n",
        "models/test_adapters.py::test_adapters_that_moved_in_any_part_are_no_base",
    ),
    Mutation(
        "adapters are read on a base in full precision, though it was in 4 bits",
        "models/loading.py",
        "    return Quantised(**known) if known else None",
        "    return None",
        SAYS,
    ),
    Mutation(
        "the base is quantised from weights in the precision of the evaluation",
        "models/loading.py",
        'dtype=record.get("dtype", dtype),',
        "dtype=dtype,",
        QUANTISED + "test_codes_do_not_depend_on_the_precision_of_an_evaluation",
    ),
    Mutation(
        "quantisation other than the recorded one is accepted",
        "models/loading.py",
        "if given is not None and vars(given) != known:",
        "if False:",
        SAYS,
    ),
    Mutation(
        "another base is accepted",
        "models/adapters.py",
        "if None not in (wanted, found) and wanted != found:",
        "if False:",
        QUANTISED + "test_another_base_is_refused",
    ),
    Mutation(
        "a base with another vocabulary is accepted",
        "models/loading.py",
        'if record and embedded(model) != record["vocabulary"]:',
        "if False:",
        QUANTISED + "test_another_base_is_refused",
    ),
    Mutation(
        "a merge is not checked",
        "models/loading.py",
        "    error = beyond_rounding(before, after, merged.dtype)\n",
        "    error = None\n",
        QUANTISED + "test_a_merge_that_changes_log_probs_is_refused",
    ),
    Mutation(
        "merged into codes of 4 bits",
        "models/loading.py",
        "    if merge and how is not None:\n        dequantise(model)\n",
        "",
        QUANTISED + "test_merged_weights_are_the_decoded_ones_plus_adapters",
    ),
    Mutation(
        "a policy's weights in 4 bits are trained",
        "models/policy.py",
        "if quantised is not None and (source is None or not (fresh or is_adapter(source))):",
        "if False:",
        REFUSED,
    ),
    Mutation(
        "a scorer's weights in 4 bits are trained",
        "models/score.py",
        "if quantised is not None and lora is None and not adapted:",
        "if False:",
        REFUSED,
    ),
    Mutation(
        "a target that no layer has is dropped",
        "models/adapters.py",
        "    if wrong or not targets:\n",
        "    if False:\n",
        REFUSED,
    ),
    Mutation(
        "a scorer's head is that under its adapters",
        "models/score.py",
        'return head.modules_to_save[OWN] if hasattr(head, "modules_to_save") else head',
        'return head.original_module if hasattr(head, "modules_to_save") else head',
        SCORER,
    ),
    Mutation(
        "shift and scale are lost with a scorer's adapters",
        "models/loading.py",
        '    model.config.update(record.get("config", {}))\n',
        "",
        SCORER,
    ),
    Mutation(
        "the value function's token rows stay as they are",
        "models/value.py",
        'if self.adapted and VALUE in name.split(".")]',
        'if self.adapted and f".{VALUE}." in name]',
        TOKENS,
    ),
    Mutation(
        "added tokens are not trained under adapters",
        "models/policy.py",
        'self.model = add_lora(self.model, lora, base["tokens"])',
        "self.model = add_lora(self.model, lora)",
        TOKENS,
    ),
    Mutation(
        "an untied head does not learn added tokens",
        "models/adapters.py",
        "        tables.append(head)\n",
        "        pass\n",
        TOKENS,
    ),
    Mutation(
        "the head's own rows for added tokens are not read",
        "models/heads.py",
        "output.weight.to(dtype), bias)",
        "linear.weight.to(dtype), bias)",
        TOKENS,
    ),
    Mutation(
        "a scorer on a model with added tokens has no room for them",
        "models/loading.py",
        "    if embedded(scorer) != embedded(lm):",
        "    if False:",
        TOKENS,
    ),
    Mutation(
        "what peft froze when it switched adapters stays frozen",
        "models/adapters.py",
        """            model.set_adapter(OWN)
        for parameter, flag in trained:
            parameter.requires_grad_(flag)
""",
        """            model.set_adapter(OWN)
""",
        "models/test_value.py::test_values_still_learn_after_the_reference_was_read",
    ),
    Mutation(
        "new adapters depend on what was drawn before",
        "models/adapters.py",
        "        torch.manual_seed((torch.initial_seed() + offset) % 2**63)\n",
        "",
        "models/test_adapters.py::test_new_adapters_depend_on_the_seed_alone",
    ),
    Mutation(
        "values and policy start from the same adapters",
        "models/value.py",
        "with drawn_by_seed(1):",
        "with drawn_by_seed():",
        "models/test_adapters.py::test_new_adapters_depend_on_the_seed_alone",
    ),
    Mutation(
        "optimizers that cannot update shards are accepted under FSDP2",
        "distributed.py",
        'if type(optimizer).__module__.startswith("bitsandbytes."):',
        "if False:",
        "test_distributed.py::test_an_optimizer_that_cannot_update_shards_is_refused",
    ),
    Mutation(
        "export reads adapters on a base in full precision, though it was in 4 bits",
        "export.py",
        "        if adapted and self.quantised is not None:",
        "        if False:",
        "test_export.py::test_adapters_on_weights_in_4_bits",
    ),
    Mutation(
        "bytes are counted as weights",
        "callbacks/journal.py",
        "    total += coded - sum(layer.weight.numel() for layer in layers)",
        "    total += 0",
        QUANTISED + "test_weights_are_counted_and_not_their_bytes",
    ),
    Mutation(
        "a value function may have another tokenizer",
        "models/value.py",
        "if own is not None and (odd := other_id(policy.tokenizer, own)):",
        "if own is not None and (odd := None):",
        "models/test_value.py::test_a_network_with_another_tokenizer_is_refused",
    ),
    Mutation(
        "a policy may have a tokenizer with other ids",
        "models/policy.py",
        "    if odd := other_id(own, tokenizer):",
        "    if odd := None:",
        "models/test_policy.py::test_a_tokenizer_that_is_not_the_models_is_refused",
    ),
    Mutation(
        "activations are computed again with the adapters that are in use by then",
        "models/adapters.py",
        'if name == getattr(model, "active_adapter", None):',
        "if True:",
        "models/test_modes.py::"
        "test_activations_are_computed_again_with_the_adapters_of_their_forward",
    ),
    Mutation(
        "a scorer keeps all its activations",
        "models/score.py",
        "if activation_checkpointing:",
        "if False:",
        "models/test_modes.py::test_activations_that_are_computed_again_give_the_same_gradients",
    ),
    Mutation(
        "the bias of a head that adapters trained in full is the old one",
        "models/heads.py",
        'bias = getattr(output, "bias", linear.bias)',
        "bias = linear.bias",
        "models/test_adapters.py::test_a_head_that_others_trained_in_full_has_its_own_bias",
    ),
    Mutation(
        "a value head is as wide as the layers, not as the states",
        "models/value.py",
        "nn.Linear(policy.width, 1",
        "nn.Linear(policy.model.config.hidden_size, 1",
        "models/test_value.py::test_a_head_is_as_wide_as_the_states_that_it_reads",
    ),
    Mutation(
        "a value network may have several outputs",
        "models/value.py",
        "if self.network is not None and self.network.outputs != 1:",
        "if False:",
        "models/test_value.py::test_a_network_of_several_outputs_is_refused",
    ),
    Mutation(
        "an evaluation leaves layers in 4 bits at the training's precision",
        "models/quantised.py",
        "layer.compute_dtype = layer.weight.quant_state.dtype = torch.float32",
        "pass",
        QUANTISED + "test_an_evaluation_computes_in_float32_with_the_codes_of_a_bfloat16_model",
    ),
    Mutation(
        "a model in float32 is exact whatever its layers in 4 bits compute in",
        "models/policy.py",
        "return coarsest(self.model, coarser)",
        "return coarser",
        QUANTISED + "test_layers_that_compute_coarsely_make_a_model_coarse",
    ),
)
