"""Figures and tables for papers, and folders that are drawn again without their pool."""

from tests.mutation_lists.mutation import Mutation

FIGURE = "report/test_figure.py::"
TABLE = "report/test_table_command.py::"
BOLD = TABLE + "test_a_cell_is_bold_only_if_its_interval_lies_above_all_others"

MUTATIONS = (
    Mutation(
        "a band runs on where seeds drop out",
        "report/figure.py",
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
        "a share starts at the reference's reward",
        "report/figure.py",
        "curve = _curve(own, name, right, None)",
        "curve = _curve(own, name, right, _start(rows))",
        FIGURE + "test_the_second_panel_has_the_shares_of_all_that_have_some",
    ),
    Mutation(
        "arms that are left out take the reference's start with them",
        "report/figure.py",
        "    right, start = _right(rows, look), _start(rows)\n"
        "    rows, points = look.shown(rows), look.shown(points)\n"
        "    names = sorted(",
        "    right, start = _right(rows, look), _start(look.shown(rows))\n"
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
)
