"""Checks of the tokenised rows: what was lost, what is learned, and what differs in a pair."""

from collections import Counter

from alignlab.data.rows import LabelledText, PreferencePair
from alignlab.doctor.finding import Verdict, ok, warning
from alignlab.doctor.patient import Patient, some_of
from alignlab.rewards.base import checked_rewards
from alignlab.rollouts.samples import Samples

LOST = 0.05  # share of rows that may be refused, cut, or have a token across the border
BARE = 0.01  # share of rows of whose prompt nothing may be left
LONGER = 1.3  # times the shorter completions' tokens
SCORED = 64  # pairs that the probe's reward reads


def refused(patient: Patient) -> Verdict | None:
    """Rows that cannot be used."""
    report = patient.report
    if report is None or not report.seen:
        return None
    said = f"{report.count:,} of {report.seen:,} rows refused"
    if report.count <= LOST * report.seen:
        return ok(said)
    reason, most = next(iter(report.counts.items()))
    return warning(
        f"{said}, {most:,} of them: {reason} (e.g. {report.examples(reason)}). Repair them, or "
        "change the setting that refuses them."
    )


def truncated(patient: Patient) -> Verdict | None:
    """Rows that are cut to ``max_length``, and prompts of which nothing is left."""
    report = patient.report
    if report is None or not report.trees:
        return None
    said = f"{report.truncated:,} of {report.trees:,} rows truncated"
    whole = patient.data is not None and patient.data.train_on_prompt
    bare = 0 if whole or not report.truncated else _share_of_bare_prompts(patient)
    if bare > BARE:
        return warning(
            f"{said}; in {bare:.0%} of rows nothing is left of the prompt. Raise "
            "data.init_args.max_length, or set truncation to keep_start or drop."
        )
    if report.truncated > LOST * report.trees:
        return warning(
            f"{said}: cut completions do not teach the policy to stop. Raise "
            "data.init_args.max_length, or set truncation to drop."
        )
    return ok(said)


def _share_of_bare_prompts(patient: Patient) -> float:
    bare = sum(len(tree.prompt) == 1 for tree in patient.rows)
    return bare / max(1, len(patient.rows))


def ends(patient: Patient) -> Verdict | None:
    """Completions that end in a token that stops sampling, and is trained on."""
    if patient.policy is None:
        return None
    stops, last = set(patient.policy.stop_ids), Counter[bool]()
    for tree in patient.rows:
        for k, ids in enumerate(tree.completions):
            last[ids[-1] in stops and (tree.loss_masks is None or tree.loss_masks[k][-1])] += 1
    if not last:
        return None
    if last[True] or getattr(patient.data, "kind", None) is LabelledText:
        return ok(f"EOS is trained in {last[True] / last.total():.1%} of completions")
    return warning(
        f"EOS is trained in none of {last.total():,} completions, so the policy never learns to "
        f"stop. Complete rows end in {patient.policy.tokenizer.eos_token!r}: check the chat "
        "template, and the columns that say whether a completion is complete."
    )


def begins(patient: Patient) -> Verdict | None:
    """Beginning-of-text tokens at the start of rows: one, if the tokenizer has one."""
    bos = patient.objective.tokenizer.bos_token_id
    if bos is None or not patient.rows:
        return None
    counts = Counter(_leading(tree.prompt + (tree.completions or ((),))[0], bos)
                     for tree in patient.rows)  # fmt: skip
    if counts.keys() == {1}:
        return ok("one BOS at the start of every row")
    listed = ", ".join(f"{n} in {counts[n]:,} rows" for n in sorted(counts))
    return warning(
        f"BOS tokens at the start of rows: {listed}. Each row needs exactly one. Remove BOS from "
        "the chat template or the texts where they add a second one."
    )


def _leading(ids: tuple[int, ...], token: int) -> int:
    return next((k for k, each in enumerate(ids) if each != token), len(ids))


def border(patient: Patient) -> Verdict | None:
    """Tokens that contain the end of a prompt and the start of its completion."""
    report = patient.report
    if report is None or not report.completions:
        return None
    said = f"{report.straddling:,} of {report.trees:,} rows have a token across the border"
    if report.straddling <= LOST * report.trees:
        return ok(said)
    return warning(
        f"{said} of prompt and completion, which sampling from the prompt never gives. Move the "
        "space at the end of prompts to the start of completions."
    )


def lengths(patient: Patient) -> Verdict | None:
    """Tokens of chosen and rejected completions."""
    if getattr(patient.data, "kind", None) is not PreferencePair or not patient.rows:
        return None
    pairs = [[len(ids) for ids in tree.completions] for tree in patient.rows]
    chosen, rejected = (sum(side) / len(pairs) for side in zip(*pairs, strict=True))
    said = f"{chosen:.1f} tokens in chosen completions and {rejected:.1f} in rejected ones"
    if max(chosen, rejected) <= LONGER * min(chosen, rejected):
        return ok(said)
    return warning(
        f"{said}: length alone tells them apart, and will be learned. Balance the pairs, or use "
        "an objective that corrects for length (rdpo, lndpo, simpo)."
    )


def order(patient: Patient) -> Verdict | None:
    """Whether the probe's reward prefers what the pairs call chosen."""
    kind = getattr(patient.data, "kind", None)
    if kind is not PreferencePair or patient.probe is None:
        return None
    trees = some_of(patient.rows, SCORED)
    texts = Samples(trees, [], []).texts(patient.objective.tokenizer)
    scores = checked_rewards(patient.probe.reward, *texts).view(-1, 2)
    won = float(
        ((scores[:, 0] > scores[:, 1]).double() + (scores[:, 0] == scores[:, 1]) / 2).mean()
    )
    said = f"the probe's reward prefers the chosen completion in {won:.0%} of {len(trees)} pairs"
    if won >= 0.5 - len(trees) ** -0.5:  # two standard errors of a coin
        return ok(said)
    return warning(f"{said}. Are the columns chosen and rejected exchanged?")
