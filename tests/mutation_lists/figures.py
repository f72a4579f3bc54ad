"""Figures and tables for papers, and folders that are drawn again without their pool."""

from tests.mutation_lists.mutation import Mutation

FIGURE = "report/test_figure.py::"
TABLE = "report/test_table_command.py::"
BOLD = TABLE + "test_a_cell_is_bold_only_if_its_interval_lies_above_all_others"

MUTATIONS = (
    Mutation(
        "a band runs on where seeds drop out",
        "report/curve.py",
        "for _, own in itertools.groupby(self.seeds):",
        "for own in [self.seeds]:",
        FIGURE + "test_a_band_is_cut_where_seeds_drop_out_and_the_line_is_not",
    ),
    Mutation(
        "a figure's fonts are outlines of type 3",
        "report/figure.py",
        '"pdf.fonttype": 42,',
        '"pdf.fonttype": 3,',
        FIGURE + "test_all_curves_are_named_and_files_repeat",
    ),
    Mutation(
        "a pdf says when it was made",
        "report/figure.py",
        '"pdf": ("CreationDate", "Creator", "Producer"),',
        '"pdf": ("Creator", "Producer"),',
        FIGURE + "test_all_curves_are_named_and_files_repeat",
    ),
    Mutation(
        "numbers below a panel of a wide range overlap",
        "report/figure.py",
        "if tick <= right and apart > 0.09 * _sqrt(right):",
        "if tick <= right:",
        FIGURE + "test_numbers_below_panels_do_not_overlap",
    ),
    Mutation(
        "one objective that goes far makes all panels small",
        "report/figure.py",
        "    right, start = end_of_panels(rows, look), start_of(rows)",
        "    right, start = right_end(rows, look), start_of(rows)",
        FIGURE + "test_a_panel_says_how_far_its_curve_goes_on",
    ),
    Mutation(
        "a share starts at the reference's reward",
        "report/figure.py",
        "curve = curve_of(shares, name, right, None)",
        "curve = curve_of(shares, name, right, start_of(rows))",
        FIGURE + "test_the_second_panel_has_the_shares_of_all_that_have_some",
    ),
    Mutation(
        "arms that are left out take the reference's start with them",
        "report/figure.py",
        "    right, start = right_end(rows, look), start_of(rows)\n"
        "    rows, points = look.shown(rows), look.shown(points)\n"
        "    names = sorted(",
        "    right, start = right_end(rows, look), start_of(look.shown(rows))\n"
        "    rows, points = look.shown(rows), look.shown(points)\n"
        "    names = sorted(",
        FIGURE + "test_arms_are_drawn_in_their_order_up_to_the_largest_budget_chosen",
    ),
    Mutation(
        "the higher mean is bold",
        "report/table.py",
        "return best.objective if low > others else None",
        "return best.objective",
        BOLD + "[touching]",
    ),
    Mutation(
        "one seed can be bold",
        "report/table.py",
        "row.n_seeds == 1 and row.objective not in CURVES_WITHOUT_TRAINING",
        "row.n_seeds == 0 and row.objective not in CURVES_WITHOUT_TRAINING",
        BOLD + "[one seed]",
    ),
    Mutation(
        "the optimum is a rival",
        "report/table.py",
        "if row.objective not in BOUNDS], share=share)",
        "], share=share)",
        BOLD + "[apart]",
    ),
    Mutation(
        "the share's cells are bold by the reward",
        "report/table.py",
        "value, low, high = three\n    return",
        "value, low, high = row.reward, row.reward_lo, row.reward_hi\n    return",
        TABLE + "test_markdown_to_the_character",
    ),
    Mutation(
        "a name is read as LaTeX",
        "report/table_command.py",
        '"&%$#_{}"',
        '"&%$#{}"',
        TABLE + "test_latex_to_the_character",
    ),
    Mutation(
        "a folder is drawn from tables of fewer seeds",
        "report/read.py",
        "if own and row.n_seeds != sum(",
        "if own and row.n_seeds < sum(",
        "report/test_read.py::test_tables_that_were_drawn_from_other_points_are_not_used",
    ),
    Mutation(
        "a budget that was never computed is left out without a word",
        "report/look.py",
        "if budget not in known]",
        "if not known]",
        "report/test_look.py::test_what_the_results_do_not_have_is_refused",
    ),
    Mutation(
        "the page's bands run on where seeds drop out",
        "report/traces.py",
        "    for piece in curve.pieces():  # a polygon each, with a gap behind it",
        "    for piece in [slice(None)]:",
        "report/test_traces.py::"
        "test_curves_start_at_the_reference_and_bands_are_cut_where_seeds_drop_out",
    ),
    Mutation(
        "a name is markup for the figure's library",
        "report/traces.py",
        'html.escape(text, quote=False).replace("%{", "%&#123;")',
        'text.replace("%{", "%&#123;")',
        "report/test_traces.py::test_names_have_no_meaning_for_the_figures_library",
    ),
    Mutation(
        "arms that are not shown are compared all the same",
        "report/sections.py",
        "if {row.objective, row.other} <= shown]",
        "]",
        "report/test_sections.py::test_a_frontier_has_a_row_per_objective_and_a_column_per_budget",
    ),
    Mutation(
        "numbers far apart are on a linear scale",
        "report/parallel.py",
        "log = low > 0 and high / low >= WIDE",
        "log = False",
        "report/test_parallel.py::"
        "test_numbers_far_apart_are_on_a_logarithmic_scale_and_others_are_not",
    ),
    Mutation(
        "a run without a setting stands among those that have it",
        "report/parallel.py",
        '        at: Places = [\n            (None, "not set")',
        '        at: Places = [\n            (0.0, "not set")',
        "report/test_parallel.py::"
        "test_numbers_far_apart_are_on_a_logarithmic_scale_and_others_are_not",
    ),
    Mutation(
        "the live page replaces the call's own report",
        "report/live.py",
        "if found is not None and ours == _changed(page):",
        "if found is not None:",
        "report/test_live.py::test_the_calls_own_report_is_left_alone",
    ),
    Mutation(
        "the frontier is built again though no run has ended",
        "report/live.py",
        "if changed != seen:",
        "if True:",
        "report/test_live.py::test_points_that_did_not_change_are_not_gathered_again",
    ),
    Mutation(
        "a dead process counts as at work",
        "results/progress.py",
        "        except ProcessLookupError:\n            return False",
        "        except ProcessLookupError:\n            return True",
        "results/test_progress.py::test_a_note_of_a_living_process_comes_back_and_others_do_not",
    ),
    Mutation(
        "the note of a call outlives it",
        "pipeline/scheduler.py",
        "        progress_file(self._plan.results).unlink(missing_ok=True)\n",
        "",
        "pipeline/test_scheduler.py::test_how_far_a_call_is_stands_in_a_file_until_it_ends",
    ),
    Mutation(
        "a table without rows ends the page",
        "report/sections.py",
        " if self.rows else [()] * len(self.columns)",
        "",
        "report/test_catalogue.py::test_folders_without_runs_are_listed",
    ),
)
