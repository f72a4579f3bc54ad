import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignlab.errors import ConfigError, DataError
from alignlab.winrate import endpoint
from alignlab.winrate.endpoint import Endpoint, EndpointJudge
from alignlab.winrate.matches import TIE, Verdict
from alignlab.winrate.memo import Memo
from alignlab.winrate.rates import win_rates
from tests.winrate.made import round_of
from tests.winrate.server import Served, served

QUESTION = "{prompt}\nA: {a}\nB: {b}"
KEY = "sk-not-a-real-one"


@pytest.fixture(autouse=True)
def directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no long pauses."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(endpoint, "PAUSES", (0.01, 0.02, 0.03))


def texts_in(message: str) -> tuple[str, str]:
    found = re.search(r"\nA: (.*)\nB: (.*)", message)
    assert found is not None
    return found[1], found[2]


def longer(message: str) -> str:
    a, b = texts_in(message)
    return "Preferred: " + ("tie" if len(a) == len(b) else "A" if len(a) > len(b) else "B")


def judge(server: Served, **given) -> EndpointJudge:
    settings = {"model": "m", "question": QUESTION, "key": KEY} | given
    return EndpointJudge(Endpoint(url=server.url, **settings), lambda: True)


@pytest.fixture
def memo(tmp_path: Path) -> Iterator[Memo]:
    with Memo(tmp_path / "memo.jsonl") as opened:
        yield opened


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    with served(getattr(request, "param", longer)) as running:
        yield running


def test_each_match_is_asked_in_both_orders_with_the_key(server: Served, memo: Memo) -> None:
    matches = round_of([("long one", "short"), ("s", "long"), ("same", "four"), ("eq", " eq")])
    own = judge(server, request={"max_tokens": None, "seed": 7})
    assert own.judge(matches, memo) == [Verdict(1, 1), Verdict(0, 0), TIE, TIE]
    assert len(server.asked) == 6  # equal texts cost nothing
    assert sorted(map(texts_in, server.asked)) == sorted(
        [("long one", "short"), ("short", "long one"), ("s", "long"), ("long", "s"),
         ("same", "four"), ("four", "same")]
    )  # fmt: skip
    assert {*server.keys} == {f"Bearer {KEY}"}
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["seed"]) == ("m", 0, 7)
    assert "max_tokens" not in body
    assert "url" not in body


@pytest.mark.parametrize("server", [lambda _: "Preferred: A"], indirect=True)
def test_a_judge_that_always_says_a_scores_exactly_one_half(server: Served, memo: Memo) -> None:
    matches = round_of([(f"own {k}", f"theirs {k}" * (k + 1)) for k in range(7)])
    own = judge(server)
    verdicts = own.judge(matches, memo)
    (row,) = win_rates(matches, verdicts, judge="m", both_orders=own.both_orders)
    assert (row.rate, row.lo, row.hi) == (0.5, 0.5, 0.5)
    assert (row.wins, row.ties, row.losses) == (0, 7, 0)
    assert (row.consistency, row.first_position) == (0.0, 1.0)


def fickle(message: str) -> str:
    """A choice that depends on the texts in no sensible way, and on their order."""
    a, b = texts_in(message)
    return "Preferred: " + "AB"[hash_of(a + "|" + b) % 2]


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode()) % 1_000_003


@pytest.mark.parametrize("server", [fickle], indirect=True)
def test_swapped_sides_mirror_the_rate_and_cost_no_call(server: Served, memo: Memo) -> None:
    texts = [(f"own {k * k}", f"theirs {k}") for k in range(9)]
    own = judge(server)
    found = []
    for given in (texts, [(b, a) for a, b in texts]):
        matches = round_of(given)
        (row,) = win_rates(matches, own.judge(matches, memo), judge="m", both_orders=True)
        found.append(row)
    assert found[0].rate + found[1].rate == 1
    assert found[0].rate != 0.5
    assert len(server.asked) == 18


def test_what_is_known_is_not_asked_again(
    server: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    matches = round_of([("a", "bb"), ("ccc", "d"), ("e", "ff")])
    for part in (matches[:2], matches, matches):
        with Memo(tmp_path / "memo.jsonl") as memo:
            judge(server).judge(part, memo)
    assert len(server.asked) == len({*server.asked}) == 6
    assert "2 calls (4 replies are known)" in capsys.readouterr().out
    with Memo(tmp_path / "memo.jsonl") as memo:
        judge(server, model="another").judge(matches[:1], memo)
    assert len(server.asked) == 8


def test_cost_is_printed_first_and_nothing_is_asked_without_a_yes(
    server: Served, memo: Memo, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Endpoint(url=server.url, model="m", question=QUESTION, prices=(2.0, 10.0))
    matches = round_of([("a" * 400_000, "b")])
    with pytest.raises(ConfigError, match="not confirmed, so no judge was asked"):
        EndpointJudge(asked, lambda: False).judge(matches, memo)
    assert server.asked == []
    said = capsys.readouterr().out
    assert re.search(r"2 calls, about 200,0\d\d tokens in .* at most 512 out: \$0\.41", said)
    EndpointJudge(asked, lambda: True).judge(matches, memo)
    assert "2 replies; the server counted 12 tokens in, 6 out: $0.00" in capsys.readouterr().out


class Flaky:
    """Fails each message's first requests as told, then answers."""

    def __init__(self, *failures: tuple[int, dict[str, str], str]) -> None:
        self.failures, self.seen = failures, dict[str, int]()

    def __call__(self, message: str):
        self.seen[message] = number = self.seen.get(message, 0) + 1
        return self.failures[number - 1] if number <= len(self.failures) else longer(message)


BUSY = (429, {"Retry-After": "0.05"}, "slow down")


def test_busy_servers_are_asked_again_with_growing_pauses(
    memo: Memo, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(Flaky(BUSY, (500, {}, "oops"), (201, {}, "no JSON"))) as server:
        started = time.monotonic()
        verdicts = judge(server, concurrency=1).judge(round_of([("long", "s")]), memo)
    assert verdicts == [Verdict(1, 1)]
    assert time.monotonic() - started > 2 * (0.05 + 0.02)
    said = capsys.readouterr().err
    assert "HTTP 429: slow down. Trying again in 0.05 s." in said
    assert "HTTP 500: oops. Trying again in 0.02 s." in said


def test_a_server_that_stays_away_ends_the_call_and_keeps_the_replies(memo: Memo) -> None:
    with served(lambda m: longer(m) if "Question 0" in m else (503, {}, "down")) as server:
        with pytest.raises(ConnectionError, match=r"HTTP 503: down\. Replies are kept: call again"):
            judge(server, concurrency=1).judge(round_of([("a", "bb"), ("c", "dd")]), memo)
        assert len(memo) == 2
        assert len(server.asked) == 2 + 4  # the fourth failure of one call was the last
    with pytest.raises(ConnectionError, match="refused"):  # the server is gone
        judge(server).judge(round_of([("c", "dd")]), memo)


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_a_refusal_is_reported_at_once_without_the_key(
    memo: Memo, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    elsewhere = {"Location": "http://127.0.0.1:9/steal"} if status == 302 else {}
    refusal = rf"HTTP {status}: wrong key Bearer \*\*\*\."
    with (
        served(lambda _: (status, elsewhere, f"wrong key Bearer {KEY}")) as server,
        pytest.raises(ConfigError, match=refusal) as told,
    ):
        judge(server, concurrency=1).judge(round_of([("a", "bb")]), memo)
    assert len(server.asked) == 1
    said = capsys.readouterr()
    assert KEY not in str(told.value) + repr(judge(server)._endpoint) + said.out + said.err


def test_the_key_is_in_no_file(server: Served, tmp_path: Path) -> None:
    with Memo(tmp_path / "memo.jsonl") as memo:
        judge(server).judge(round_of([("a", "bb")]), memo)
    assert KEY not in (tmp_path / "memo.jsonl").read_text()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="begins with http"):
        Endpoint(url="localhost", model="m", question=QUESTION)
    with pytest.raises(ConfigError, match="a character that no key can have") as told:
        Endpoint(url="http://x", model="m", question=QUESTION, key="sk\nb")
    assert "sk" not in str(told.value)


@pytest.mark.parametrize("server", [lambda _: "I cannot decide that."], indirect=True)
def test_replies_that_nobody_can_read_are_shown(server: Served, memo: Memo) -> None:
    with pytest.raises(DataError, match=r"no reply ends in a line .* 'I cannot decide that\.'"):
        judge(server).judge(round_of([("a", "bb")]), memo)


def test_an_unreadable_reply_leaves_its_match_out(memo: Memo) -> None:
    with served(lambda m: longer(m) if "Question 1" in m else "??") as half:
        verdicts = judge(half).judge(round_of([("a", "bb"), ("c", "dd")]), memo)
    assert verdicts == [Verdict(None, None), Verdict(0, 0)]


def test_calls_run_side_by_side(memo: Memo) -> None:
    """The server answers only when four requests are there."""
    together = threading.Barrier(4, timeout=20)

    def rule(message: str) -> str:
        together.wait()
        return longer(message)

    with served(rule) as server:
        judge(server, concurrency=4).judge(round_of([("a", "bb"), ("c", "dd")]), memo)
    assert len(server.answered) == 4


CALL = """
import sys
from pathlib import Path
from alignlab.winrate.endpoint import Endpoint, EndpointJudge
from alignlab.winrate.memo import Memo
from tests.winrate.made import round_of
from tests.winrate.test_endpoint import QUESTION, TEXTS

asked = Endpoint(url=sys.argv[1], model="m", question=QUESTION, concurrency=3)
with Memo(Path(sys.argv[2])) as memo:
    EndpointJudge(asked, lambda: True).judge(round_of(TEXTS), memo)
"""
TEXTS = [(f"own {k}", f"theirs {k}") for k in range(12)]


def test_a_killed_call_goes_on_without_asking_twice(tmp_path: Path) -> None:
    """Killed with -9 while three requests wait: no reply that was given is asked for again."""
    stuck, go_on = threading.Semaphore(0), threading.Event()
    count = iter(range(1000))

    def rule(message: str) -> str:
        if next(count) >= 10 and not go_on.is_set():
            stuck.release()
            go_on.wait(60)
            raise ConnectionAbortedError  # the one who asked is gone
        return longer(message)

    with served(rule) as server:
        words = [sys.executable, "-c", CALL, server.url, str(tmp_path / "memo.jsonl")]
        with subprocess.Popen(words, env={**os.environ, "NO_PROXY": "127.0.0.1"}) as call:
            stopped = [stuck.acquire(timeout=60) for _ in range(3)]
            kept = (tmp_path / "memo.jsonl").read_bytes().count(b"\n")
            call.send_signal(signal.SIGKILL)
        assert all(stopped)
        assert kept == len(server.answered) == 10
        go_on.set()
        with Memo(tmp_path / "memo.jsonl") as memo:
            verdicts = judge(server, key=None, concurrency=3).judge(round_of(TEXTS), memo)
        assert verdicts == [Verdict(0, 0)] * 12
        assert len(server.answered) == len({*server.answered}) == 24
        assert len(server.asked) == 24 + 3  # those that were never answered
