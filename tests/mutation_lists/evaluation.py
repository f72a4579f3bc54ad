"""What is measured: KL, the exact optimum, best-of-n, agreement."""

from tests.mutation_lists.mutation import Mutation

MUTATIONS = (
    Mutation(
        "entropy is that of the first completions alone",
        "evaluation/points.py",
        "ends - lengths.astype(np.int64)",
        "np.zeros_like(ends)",
        "evaluation/test_points.py::test_estimates_agree_with_enumeration_of_every_completion",
    ),
    Mutation(
        "log-probs of held-out pairs go to prompts as if each had one pair",
        "evaluation/points.py",
        "np.cumsum([len(own) for own in pairs])[:-1]",
        "np.arange(1, len(pairs))",
        "evaluation/test_points.py::"
        "test_log_probs_of_held_out_pairs_are_means_over_each_prompts_pairs[1]",
    ),
    Mutation(
        "held-out pairs are known by their own tokens, which are cut elsewhere",
        "evaluation/prompts.py",
        'max_length=max_length, truncation="keep_end"\n    )\n    found',
        'max_length=None, truncation="keep_end"\n    )\n    found',
        "evaluation/test_prompts.py::test_held_out_pairs_belong_to_the_prompt_with_the_same_tokens",
    ),
    Mutation(
        "what was not measured by all seeds is the mean of those that have it",
        "report/study.py",
        "zip(OF_TEXTS, measured.mean(0), strict=True)",
        "zip(OF_TEXTS, np.nanmean(measured, 0), strict=True)",
        "report/test_study.py::test_texts_lie_on_the_hull_between_checkpoints",
    ),
    Mutation(
        "KL is that of the reference to the policy",
        "evaluation/scoring.py",
        "kl_full(log_p, log_q)",
        "kl_full(log_q, log_p)",
        "evaluation/test_points.py::test_kl_is_the_sum_over_steps_of_a_double_loop",
    ),
    Mutation(
        "the log-ratio along completions has its sign turned",
        "evaluation/scoring.py",
        "kl_k1(drawn, ref_drawn)",
        "kl_k1(ref_drawn, drawn)",
        "evaluation/test_points.py::test_kl_is_the_sum_over_steps_of_a_double_loop",
    ),
    Mutation(
        "every mean gets the standard error of the KL",
        "results/prompt_tables.py",
        "clustered_se(getattr(self, name))",
        "clustered_se(self.kl)",
        "results/test_prompt_tables.py::test_point_is_the_mean_over_prompts_with_clustered_errors",
    ),
    Mutation(
        "the reference's side of the KL is at temperature 1",
        "evaluation/scoring.py",
        "log_q = reference.log_softmax_at(batch.to(reference.device), spec)",
        "log_q = reference.log_softmax_at(batch.to(reference.device))",
        "evaluation/test_points.py::test_kl_is_the_sum_over_steps_of_a_double_loop",
    ),
    Mutation(
        "the exact optimum multiplies the reward by beta",
        "worlds/enumerable.py",
        "(self.ref_logps + self.rewards / beta)",
        "(self.ref_logps + self.rewards * beta)",
        "worlds/test_enumerable.py::test_optimum_worked_by_hand",
    ),
    Mutation(
        "best-of-n is as likely to keep any of n",
        "worlds/enumerable.py",
        "level = (up_to**n - below**n) / (up_to - below)",
        "level = (up_to - below) ** 0",
        "worlds/test_enumerable.py::test_best_of_n_equals_listing_all_draws",
    ),
    Mutation(
        "best-of-n by the learned reward reports the learned reward",
        "evaluation/best_of_n.py",
        "weights=mass * rewards",
        "weights=mass * ranking",
        "evaluation/test_best_of_n.py::test_ranking_by_the_learned_reward_reports_the_gold_one",
    ),
    Mutation(
        "pairs of one prompt count as independent",
        "results/statistics.py",
        "n = len(x) / max(1.0, (together / alone) ** 2)",
        "n = len(x)",
        "stages/test_agreement.py::test_pairs_that_always_agree_count_as_one",
    ),
    Mutation(
        "the report takes texts for markup",
        "report/page.py",
        "autoescape=True",
        "autoescape=False",
        "report/test_sections.py::test_tables_say_the_same_as_text",
    ),
    Mutation(
        "a completion can end the report's data",
        "report/page.py",
        "data=htmlsafe_json_dumps(data, ensure_ascii=False, allow_nan=False)",
        'data=__import__("markupsafe").Markup(__import__("json").dumps(data))',
        "report/test_sections.py::test_completions_stand_beside_the_references_and_cannot_run",
    ),
)
