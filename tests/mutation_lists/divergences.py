"""Objectives with other divergences or absolute rewards: signs, shifts, bounds."""

from tests.mutation_lists.mutation import Mutation

OPTIMA = "conformance/test_divergence_optima.py::"
MUTATIONS = (
    Mutation(
        "the forward KL is taken of the ratio the wrong way round",
        "functional/divergences.py",
        "return -_expm1(-log_ratio)\n",
        "return _expm1(log_ratio)\n",
        OPTIMA + "test_f_dpo_ends_where_the_reward_is_beta_times_the_divergences_slope",
    ),
    Mutation(
        "an alpha-divergence forgets to divide by alpha",
        "functional/divergences.py",
        "return -_expm1(-self.alpha * log_ratio) / self.alpha",
        "return -_expm1(-self.alpha * log_ratio)",
        "functional/test_divergences.py::test_a_slope_is_the_divergences_derivative_in_the_policy",
    ),
    Mutation(
        "ratios beyond the edge overflow",
        "functional/divergences.py",
        "torch.expm1(x.clamp(max=EDGE))",
        "torch.expm1(x)",
        "functional/test_divergences.py::test_slopes_rise_and_are_finite_wherever_a_float32_is",
    ),
    Mutation(
        "a ratio beyond the edge has no gradient",
        "functional/divergences.py",
        " + math.exp(EDGE) * (x - EDGE).clamp(min=0)",
        "",
        "functional/test_divergences.py::test_beyond_its_edge_exp_is_a_line",
    ),
    Mutation(
        "f-DPO scales the divergence's ratio instead of its slope",
        "objectives/f_dpo.py",
        "chosen = beta * divergence.slope(policy_chosen_logps - ref_chosen_logps)",
        "chosen = divergence.slope(beta * (policy_chosen_logps - ref_chosen_logps))",
        "objectives/test_f_dpo.py::test_value_worked_by_hand",
    ),
    Mutation(
        "chi-PO's margins are bounded on one side only",
        "objectives/f_dpo.py",
        "margins.clamp(-max_margin, max_margin)",
        "margins.clamp(max=max_margin)",
        "objectives/test_f_dpo.py::"
        "test_a_margin_beyond_its_bound_counts_as_the_bound_and_teaches_nothing",
    ),
    Mutation(
        "EXO's label is turned round",
        "objectives/exo.py",
        "- math.log1p(-label_smoothing)",
        "- math.log(label_smoothing)",
        "objectives/test_exo.py::test_a_pair_that_agrees_with_its_label_costs_nothing",
    ),
    Mutation(
        "EXO takes the divergence DPO's way round",
        "objectives/exo.py",
        "losses = margins.sigmoid() * won + (-margins).sigmoid() * lost",
        "losses = -(1 - label_smoothing) * won - label_smoothing * lost",
        OPTIMA + "test_exo_ends_at_its_smoothed_labels_log_odds_times_how_sure_they_are",
    ),
    Mutation(
        "NCA counts noise twice",
        "objectives/nca.py",
        "(F.logsigmoid(-chosen) + F.logsigmoid(-rejected)) / 2",
        "F.logsigmoid(-chosen) + F.logsigmoid(-rejected)",
        OPTIMA + "test_nca_ends_at_the_log_of_twice_the_win_rate",
    ),
    Mutation(
        "BCO shifts rejected completions the other way",
        "objectives/bco.py",
        "F.logsigmoid(delta - rejected)",
        "F.logsigmoid(-delta - rejected)",
        "objectives/test_bco.py::test_value_and_slopes_worked_by_hand",
    ),
    Mutation(
        "BCO's shift is that of one rank",
        "objectives/bco.py",
        'step = self.trainer.strategy.reduce(step, reduce_op="sum")',
        "pass",
        "objectives/test_bco.py::test_all_ranks_count_and_a_step_that_is_not_finite_does_not",
    ),
    Mutation(
        "BCO's shift is lost with the process",
        "objectives/bco.py",
        "torch.zeros(2, dtype=torch.float64))",
        "torch.zeros(2, dtype=torch.float64), persistent=False)",
        "objectives/test_training.py::test_stopping_between_any_two_steps_changes_no_bit[bco]",
    ),
    Mutation(
        "one bad step makes BCO's shift NaN for good",
        "objectives/bco.py",
        "if bool(torch.isfinite(step).all()):",
        "if True:",
        "objectives/test_bco.py::test_all_ranks_count_and_a_step_that_is_not_finite_does_not",
    ),
    Mutation(
        "SPPO asks 1 / beta of a log-ratio",
        "objectives/sppo.py",
        "target = (chance - 0.5) / beta",
        "target = (2 * chance - 1) / beta",
        "objectives/test_sppo.py::test_value_and_slope_worked_by_hand",
    ),
    Mutation(
        "SPPO's soft label is the margin itself",
        "objectives/sppo.py",
        "split_pairs(trees.labels)[0].sigmoid()",
        "split_pairs(trees.labels)[0]",
        "objectives/test_sppo.py::test_soft_labels_are_the_margins_of_the_data",
    ),
    Mutation(
        "APO-down raises what is chosen",
        "objectives/apo.py",
        "losses = chosen.sigmoid() + (rejected - chosen).sigmoid()",
        "losses = (-chosen).sigmoid() + (rejected - chosen).sigmoid()",
        "objectives/test_apo.py::test_value_and_slopes_worked_by_hand",
    ),
    Mutation(
        "APO-zero raises what is rejected",
        "objectives/apo.py",
        "losses = (-chosen).sigmoid() + rejected.sigmoid()",
        "losses = (-chosen).sigmoid() + (-rejected).sigmoid()",
        OPTIMA + "test_apo_takes_the_side_of_the_majority",
    ),
)
