"""Reward models: where a score is read, rankings and ties, figures, normalisation."""

from tests.mutation_lists.mutation import Mutation

MUTATIONS = (
    Mutation(
        "a score is read in the last column",
        "models/score.py",
        "trees.completion_lengths - 1] = True",
        "real.shape[1] - 1] = True",
        "models/test_score.py::"
        "test_scores_are_read_after_the_last_real_token_and_values_before_each",
    ),
    Mutation(
        "a score's place is found by the pad id",
        "models/score.py",
        "trees.completion_lengths - 1] = True",
        "(trees.completion_ids != self.tokenizer.pad_token_id).sum(1) - 1] = True",
        "models/test_score.py::test_no_token_is_taken_for_padding",
    ),
    Mutation(
        "a reward scores texts without the end they were trained with",
        "rewards/model.py",
        "ids = [*ids, tokenizer.eos_token_id]",
        "pass",
        "rewards/test_model.py::test_scores_are_those_of_one_text_at_a_time",
    ),
    Mutation(
        "a batch of one loses its dimension",
        "models/score.py",
        "            return scores.squeeze(-1) if scores.shape[-1] == 1 else scores\n        "
        "values",
        "            return scores.squeeze()\n        values",
        "models/test_score.py::test_a_batch_of_one_keeps_its_dimension",
    ),
    Mutation(
        "the shift is added",
        "models/score.py",
        ".T - self.shift",
        ".T + self.shift",
        "models/test_score.py::test_the_shift_is_subtracted_and_saved",
    ),
    Mutation(
        "the worse completion of a ranking is preferred",
        "functional/ranking.py",
        "bradley_terry(scores[better], scores[worse])",
        "bradley_terry(scores[worse], scores[better])",
        "functional/test_ranking.py::test_kwise_worked_by_hand",
    ),
    Mutation(
        "a prompt with more completions weighs more",
        "functional/ranking.py",
        " / pairs.clamp(min=1)",
        "",
        "objectives/test_kwise_rm.py::"
        "test_prompts_weigh_the_same_whatever_their_number_of_completions",
    ),
    Mutation(
        "tied completions are compared",
        "functional/ranking.py",
        "        (member[:, None] == member) & (rank[:, None] < rank), as_tuple=True",
        "        (member[:, None] == member) & (rank[:, None] <= rank), as_tuple=True",
        "objectives/test_kwise_rm.py::test_the_order_of_tied_completions_does_not_matter",
    ),
    Mutation(
        "Plackett-Luce: the order of tied completions matters",
        "functional/ranking.py",
        "    beaten = (member[:, None] == member) & (rank[:, None] < rank)",
        "    beaten = (member[:, None] == member) & (rank[:, None] <= rank).triu()",
        "objectives/test_plackett_luce.py::test_the_order_of_tied_completions_does_not_matter",
    ),
    Mutation(
        "Plackett-Luce: the chosen one is not among its rivals",
        "functional/ranking.py",
        "beaten.fill_diagonal_(True)",
        "beaten.fill_diagonal_(False)",
        "objectives/test_plackett_luce.py::test_three_worked_by_hand",
    ),
    Mutation(
        "a pair of equal scores does not count",
        "functional/ranking.py",
        "torch.ones_like(losses))",
        "(scores[better] != scores[worse]).to(losses.dtype))",
        "objectives/test_kwise_rm.py::test_equal_scores_are_still_pairs",
    ),
    Mutation(
        "equal scores count as right in training",
        "objectives/rankings.py",
        "(weights * (margins.sign() + 1) / 2).sum()",
        "(weights * (margins >= 0)).sum()",
        "objectives/test_rm.py::test_identical_scores_are_half_right",
    ),
    Mutation(
        "equal scores count as right in evaluation",
        "stages/reward_models.py",
        "hits.append((float(agree) + 1) / 2)",
        "hits.append(float(agree >= 0))",
        "stages/test_reward_models.py::test_accuracy_worked_by_hand",
    ),
    Mutation(
        "a margin helps",
        "objectives/rm.py",
        "chosen_scores - margin",
        "chosen_scores + margin",
        "objectives/test_rm.py::test_a_margin_must_be_exceeded",
    ),
    Mutation(
        "centring pulls the two scores together",
        "objectives/rm.py",
        "(chosen_scores + rejected_scores).square()",
        "(chosen_scores - rejected_scores).square()",
        "objectives/test_rm.py::test_centring_costs_the_squared_sum_of_scores",
    ),
    Mutation(
        "normalising ignores the scale that is stored",
        "stages/normalise.py",
        "scorer.shift += scorer.scale * mean",
        "scorer.shift += mean",
        "stages/test_normalise.py::test_what_is_stored_already_is_reckoned_with",
    ),
    Mutation(
        "regression's target has the wrong sign",
        "objectives/regression.py",
        "(scores - ratings).square()",
        "(scores + ratings).square()",
        "conformance/test_reward_models.py::"
        "test_ratings_with_noise_of_mean_zero_recover_the_reward_itself",
    ),
    Mutation(
        "a score is held against another completion's rating",
        "objectives/regression.py",
        "_ratings(trees).to(scores.dtype)",
        "_ratings(trees).to(scores.dtype).flip(0)",
        "objectives/test_regression.py::test_each_completion_is_held_against_its_own_rating",
    ),
    Mutation(
        "a batch of similar lengths is one completion short",
        "data/trees.py",
        "if places and size + counts[i] > batch_size:",
        "if places and size + counts[i] >= batch_size:",
        "data/test_trees.py::"
        "test_batches_in_length_order_fill_up_to_their_size_and_never_cut_a_tree",
    ),
)
