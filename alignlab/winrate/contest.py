"""A contest: policies against opponents on held-out prompts, over temperatures, by one judge."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

from alignlab.data.texts import CompletionText
from alignlab.errors import ConfigError, DataError
from alignlab.files import check_writable
from alignlab.functional.sampling import SamplingSpec
from alignlab.report.win_rates import (
    DIFFERENCES,
    TEXTS,
    VERDICTS,
    WIN_RATES,
    draw_win_rates,
    write_win_page,
)
from alignlab.results.csv_tables import write_table
from alignlab.results.tables import SHORT, WinRate, write_rows
from alignlab.winrate.differences import differences
from alignlab.winrate.matches import Judge, Match, Verdict
from alignlab.winrate.memo import NAME, Memo
from alignlab.winrate.policies import COLUMNS, Contender, paired
from alignlab.winrate.prompts import HeldOut, read_held_out
from alignlab.winrate.questions import shown_prompt
from alignlab.winrate.rates import Decided, decided, win_rates
from alignlab.winrate.sampling import Settings, Stream, completions, fitting, stream_of

TEMPERATURES = (0.0, 0.25, 0.5, 0.75, 1.0)
SHOWN_PROMPTS = 8  # whose texts are on the page
Texts = Sequence[Sequence[CompletionText]]  # of each prompt


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Which policies are compared with which opponents, on which prompts.

    Args:
        policies: At least one.
        against: Opponents: policies, or columns of the prompts' file. None: the policies meet each
            other.
        prompts: File or hub id of pairs, demonstrations or prompts.
        split: Of it.
        limit: How many different prompts, from the start; ``None`` takes all.
        temperatures: Of the policies.
        against_temperature: Of opponents that are policies; that of the policy if ``None``.
        sampling: How completions are sampled.
    """

    policies: Sequence[Contender]
    against: Sequence[Contender | str]
    prompts: str
    split: str | None = None
    limit: int | None = 256
    temperatures: Sequence[float] = TEMPERATURES
    against_temperature: float | None = None
    sampling: Settings

    def __post_init__(self) -> None:
        names = [each.name for each in self.policies]
        others = [each if isinstance(each, str) else each.name for each in self.against]
        for kind, given in (("policies", names), ("opponents", others)):
            if len({*given}) < len(given):
                raise ConfigError(f"{kind} need different names, got {', '.join(given)}.")
        if not self.policies or (not self.against and len(self.policies) < 2):
            raise ConfigError("give two policies, or one policy and an opponent.")
        if clash := {*names} & {*COLUMNS}:
            raise ConfigError(f"{clash.pop()!r} is a column's name. Give the policy another name.")
        if not self.temperatures or len({*self.temperatures}) < len(self.temperatures):
            raise ConfigError("temperatures must be different numbers, at least one.")
        for temperature in (*self.temperatures, self.against_temperature or 0.0):
            SamplingSpec(temperature)

    @property
    def columns(self) -> list[str]:
        """The opponents that the file has."""
        return [each for each in self.against if isinstance(each, str)]

    def opposing(self, temperature: float) -> float:
        """The temperature of an opponent that is sampled, where the policy has ``temperature``."""
        return temperature if self.against_temperature is None else self.against_temperature

    def bouts(self) -> Iterator[tuple[Contender, Contender | str]]:
        """Every policy with every opponent."""
        if not self.against:
            yield from combinations(self.policies, 2)
        for other in self.against:
            yield from ((policy, other) for policy in self.policies)


def hold(contest: Contest, judge: Judge, out: Path, *, memo: Path | None = None) -> list[WinRate]:
    """Sample, judge, and write every file; returns the rows of ``winrates.csv``.

    ``verdicts.csv`` has a row for each decided match, ``winrate_differences.csv`` the differences
    between policies and temperatures, ``winrate_texts.csv`` the texts of some, and the figure and
    ``winrate.html`` are made of these tables. A stopped call is continued.

    Args:
        contest: What is compared.
        judge: Who decides.
        out: Folder to write.
        memo: File of earlier samples and verdicts; in ``out`` when left out.

    Raises:
        ConfigError: A setting, a model or a folder that cannot be used.
        DataError: Prompts or scores that cannot be used, or no match has a verdict.
    """
    check_writable(out)
    with Memo(memo or out / NAME) as known:
        columns, split = contest.columns, contest.split
        held = read_held_out(contest.prompts, columns, split=split, limit=contest.limit)
        matches = _matches(contest, held, known)
        verdicts = judge.judge(matches, known)
    return write_results(out, matches, verdicts, judge)


@dataclass(frozen=True)
class _Meeting:
    """A policy and an opponent: the streams of their seeds, side by side; no stream of a column."""

    policy: str
    against: str
    pairs: Sequence[tuple[Stream, Stream | None]]


def _meetings(contest: Contest) -> list[_Meeting]:
    found = []
    for policy, other in contest.bouts():
        if isinstance(other, str):
            own_streams = [stream_of(policy, k) for k in range(len(policy.sources))]
            found.append(_Meeting(policy.name, other, [(own, None) for own in own_streams]))
            continue
        pairs = []
        for k in range(len(paired(policy, other))):
            own, theirs = stream_of(policy, k), stream_of(other, k)
            second = int(own.identity == theirs.identity)  # a model that meets itself
            pairs.append((own, theirs._replace(number=second)))
        found.append(_Meeting(policy.name, other.name, pairs))
    return found


def _matches(contest: Contest, held: Sequence[HeldOut], memo: Memo) -> list[Match]:
    """Every pair of completions, the cells of the table one after another."""
    meetings = _meetings(contest)
    wanted: dict[Stream, set[float]] = {}
    for own, theirs in (pair for meeting in meetings for pair in meeting.pairs):
        wanted.setdefault(own, set()).update(contest.temperatures)
        if theirs is not None:
            wanted.setdefault(theirs, set()).update(map(contest.opposing, contest.temperatures))
    asked = list(dict.fromkeys((stream.source, stream.before) for stream in wanted))
    held = fitting(held, asked, contest.sampling.max_new_tokens)
    drawn = {
        stream: completions(stream, held, sorted(temperatures), contest.sampling, memo)
        for stream, temperatures in wanted.items()
    }
    matches = []
    for meeting, temperature in product(meetings, contest.temperatures):
        for pair, (own, theirs) in enumerate(meeting.pairs):
            texts = drawn[own][temperature]
            others = (
                [[one.columns[meeting.against]] for one in held]
                if theirs is None
                else drawn[theirs][contest.opposing(temperature)]
            )
            matches += _of_pair(meeting, temperature, pair, held, texts, others)
    return matches


def _of_pair(
    meeting: _Meeting,
    temperature: float,
    pair: int,
    held: Sequence[HeldOut],
    own: Texts,
    theirs: Texts,
) -> list[Match]:
    """The matches of two models at one temperature; a single completion meets all of the other."""
    return [
        Match(
            policy=meeting.policy,
            against=meeting.against,
            temperature=temperature,
            pair=pair,
            place=one.place,
            prompt_id=one.row.id,
            sample=k,
            prompt=one.text,
            own=mine[k % len(mine)],
            theirs=other[k % len(other)],
        )
        for one, mine, other in zip(held, own, theirs, strict=True)
        for k in range(max(len(mine), len(other)))
    ]


def write_results(
    out: Path,
    matches: Sequence[Match],
    verdicts: Sequence[Verdict | None],
    judge: Judge,
) -> list[WinRate]:
    """Write the tables, the figure and the page.

    Raises:
        DataError: No match has a verdict.
    """
    known = decided(matches, verdicts, both_orders=judge.both_orders)
    if not known:
        raise DataError(f"{judge.name} decided none of {len(matches):,} matches.")
    write_table(out / VERDICTS, [_verdict_row(one) for one in known], numbers=SHORT)
    rows = win_rates(matches, verdicts, judge=judge.name, both_orders=judge.both_orders)
    write_rows(out / WIN_RATES, WinRate, rows)
    if compared := [each._asdict() for each in differences(known)]:
        write_table(out / DIFFERENCES, compared, numbers=SHORT)
    shown = sorted({one.match.place for one in known})[:SHOWN_PROMPTS]
    texts = [one for one in known if one.match.place in shown and not one.match.pair]
    texts = [one for one in texts if not one.match.sample]
    write_table(out / TEXTS, [_text_row(one) for one in texts], numbers=SHORT)
    draw_win_rates(rows, out)
    write_win_page(out)
    return rows


def _verdict_row(one: Decided) -> dict[str, object]:
    match, verdict, value = one
    return {
        **_names(match),
        "seed": match.pair,
        "place": match.place,
        "prompt_id": match.prompt_id,
        "sample": match.sample,
        "shown_first": verdict.first,
        "shown_second": verdict.second,
        "value": value,
        "length": len(match.own.strip()),
        "against_length": len(match.theirs.strip()),
    }


def _text_row(one: Decided) -> dict[str, object]:
    match, _, value = one
    texts = {"prompt": shown_prompt(match.prompt), "completion": match.own.strip()}
    other = {"other": match.theirs.strip(), "value": value}
    return {"place": match.place, **texts, **_names(match), **other}


def _names(match: Match) -> dict[str, object]:
    return {name: getattr(match, name) for name in ("policy", "against", "temperature")}
