"""Over-optimisation: fits, peaks, their intervals, and what is measured beside them."""

from tests.mutation_lists.mutation import Mutation

FITS = "evaluation/test_overoptimisation.py::"
TABLES = "stages/test_overoptimisation.py::"

MUTATIONS = (
    Mutation(
        "the square root of a KL that is rounded to below zero is not a number",
        "evaluation/overoptimisation.py",
        "np.sqrt(np.maximum(kl, 0.0))",
        "np.sqrt(kl)",
        "evaluation/test_overoptimisation.py::"
        "test_a_kl_that_is_rounded_to_below_zero_is_zero_and_equal_gains_explain_nothing",
    ),
    Mutation(
        "the curve of training bends like that of best-of-n",
        "evaluation/overoptimisation.py",
        'bend = d * d if form == "best_of_n" else xlogy(d, d)',
        "bend = d * d",
        FITS + "test_the_numbers_that_made_the_data_are_found",
    ),
    Mutation(
        "curves are fitted over KL instead of its root",
        "evaluation/overoptimisation.py",
        "x = terms(form, distance(weights @ run.kl.T / 2))",
        "x = terms(form, weights @ run.kl.T / 2)",
        FITS + "test_the_numbers_that_made_the_data_are_found",
    ),
    Mutation(
        "the peak of best-of-n is where its curve crosses 0",
        "evaluation/overoptimisation.py",
        "return ratio / 2",
        "return ratio",
        FITS + "test_peaks_by_hand",
    ),
    Mutation(
        "the peak of training is a factor e too far",
        "evaluation/overoptimisation.py",
        "math.exp(ratio - 1) if",
        "math.exp(ratio) if",
        FITS + "test_peaks_by_hand",
    ),
    Mutation(
        "seeds count as known",
        "evaluation/overoptimisation.py",
        "        if n > 1:\n",
        "        if n > 1000:\n",
        FITS + "test_an_interval_of_a_single_seed_counts_prompts_alone",
    ),
    Mutation(
        "alpha and beta of a peak are taken as independent",
        "evaluation/overoptimisation.py",
        "b = alpha * beta - squares[0, 1]",
        "b = alpha * beta",
        FITS + "test_a_ratio_by_hand",
    ),
    Mutation(
        "a bend that may be nothing gives a peak two ends",
        "evaluation/overoptimisation.py",
        "return (b - math.sqrt(root)) / a, math.inf",
        "return (b - math.sqrt(root)) / a, (b + math.sqrt(root)) / a",
        FITS + "test_a_bend_that_may_be_nothing_leaves_the_peak_open",
    ),
    Mutation(
        "the best checkpoint is read on the prompts that chose it",
        "evaluation/overoptimisation.py",
        "best = [own.argmax(1)[:, None] for own in gains]",
        "best = [own.argmax(1)[:, None] for own in gains[::-1]]",
        FITS + "test_a_decline_is_read_on_the_prompts_that_did_not_choose_the_best",
    ),
    Mutation(
        "gains are taken over the reference of other prompts",
        "stages/overoptimisation.py",
        "return self.ordered(table, own) - self.ordered(start, before)",
        "return self.ordered(table, own) - before[::-1]",
        TABLES + "test_the_curves_that_made_the_runs_are_found",
    ),
    Mutation(
        "curves are compared beyond what one of them reached",
        "stages/overoptimisation.py",
        "d = min(one.reached, other.reached)",
        "d = max(one.reached, other.reached)",
        TABLES + "test_curves_are_compared_where_both_have_been",
    ),
    Mutation(
        "the samples shown are those whose reward rose most",
        "stages/overoptimisation.py",
        "key=lambda pair: pair[1].reward - pair[0].reward)",
        "key=lambda pair: pair[0].reward - pair[1].reward)",
        TABLES + "test_samples_stand_side_by_side_and_tables_without_them_are_drawn_again",
    ),
    Mutation(
        "best-of-n by a proxy is ranked by gold",
        "stages/best_of_n.py",
        "best = best_of_n(ranking, gold, n)",
        "best = best_of_n(gold, gold, n)",
        "stages/test_best_of_n.py::test_what_a_proxy_picks_is_told_by_gold",
    ),
    Mutation(
        "a watchdog's gain is its level",
        "stages/best_of_n.py",
        "gain = best_of_n(ranking, values, n).reward - values.mean(1)",
        "gain = best_of_n(ranking, values, n).reward",
        "stages/test_best_of_n.py::test_what_a_proxy_picks_is_told_by_gold",
    ),
    Mutation(
        "n-grams run from one text into the next",
        "stages/texts.py",
        "grams = [gram for words in split for gram in _grams(words, n)]",
        "grams = _grams([word for words in split for word in words], n)",
        "stages/test_texts.py::test_varieties_by_hand",
    ),
    Mutation(
        "weights of half of the prompts do not sum to 1",
        "results/statistics.py",
        "np.vstack([np.ones(len(half)), counts]) / len(half)",
        "np.vstack([np.ones(len(half)), counts]) / n",
        "results/test_statistics.py::test_halves_are_resampled_apart",
    ),
)
