"""All checks of one call, in the order in which rows are read."""

from alignlab.check_data.overlap import Runs, overlap
from alignlab.check_data.show import Check
from alignlab.check_data.survey import Source, survey
from alignlab.check_data.tokens import load, plain_examples, tokenised
from alignlab.data.repeats import CYCLIC, OPPOSED

JUDGED = {OPPOSED: "another row says the opposite", CYCLIC: "in a cycle of preferences"}


def checked(
    source: Source,
    test: Source | None = None,
    tokenizer: str | None = None,
    chat_format: str | None = None,
) -> Check:
    """Read the rows once, the test rows before them.

    Raises:
        ConfigError: No such tokenizer or chat format, or it lacks what the rows need.
        DataError: A source cannot be read, or no row of it can be used.
    """
    tokens = None
    coder = load(tokenizer, chat_format) if tokenizer else None
    if test is None:
        data = survey(source)
        held_out = shared = None
    else:
        runs = Runs()
        held_out = survey(test, runs.hold)
        data = survey(source, runs.look)
        shared = overlap(data.repeats, held_out.repeats, runs)
    if coder is not None:
        tokens = tokenised(data, coder)
    examples = plain_examples(data.sample) if tokens is None else tokens.examples
    return Check(data, examples, tokens, tokenizer or "", held_out, shared)


def reasons(check: Check) -> dict[str, list[str]]:
    """Why each usable row needs a person: it contradicts others, or cannot be tokenised."""
    found: dict[str, list[str]] = {}
    places = check.data.repeats.found()
    for what, why in JUDGED.items():
        for name in check.data.named(places[what]):
            found.setdefault(name, [why])
    if check.tokens is not None:
        for name, why in check.tokens.refused.items():
            found.setdefault(name, []).append(why)
    return found


def is_clean(check: Check) -> bool:
    """Whether no row is refused, contradicted or in a cycle, and no test prompt is trained on."""
    shared = check.overlap is not None and len(check.overlap.prompts)
    surveys = [check.data, *([check.test] if check.test else [])]
    return not (shared or reasons(check) or any(survey.report.count for survey in surveys))
