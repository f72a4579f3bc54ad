"""A served model as a judge, over the protocol that OpenAI's servers, vLLM and others share.

Each match is asked in both orders. A reply is kept as soon as it arrives and is never asked for
again. Its choice is read from the text in each call, so a reply of unusual form is not lost.
"""

import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from http.client import HTTPException
from threading import Event
from typing import Any

from alignlab.errors import ConfigError, DataError, in_a_line
from alignlab.files import sha_of
from alignlab.winrate.matches import TIE, Match, Verdict
from alignlab.winrate.memo import Memo
from alignlab.winrate.questions import asked, read_choice

KEY = "OPENAI_API_KEY"  # environment variable
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before the second to the last try
TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504)
PATIENCE = 120.0  # seconds for one reply
LONGEST_PAUSE = 60.0  # seconds, whatever the server asks for
CHARACTERS_PER_TOKEN = 4  # of English, for the estimate
SHOWN = 200  # characters of a server's message
TOLD = 100  # replies between two lines of progress


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: the key goes to the named server alone."""

    def redirect_request(self, *args: Any, **given: Any) -> None:
        """Refuse."""
        return


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where to ask, and how.

    Args:
        url: Base of the API, such as ``https://api.openai.com/v1``.
        model: The judge's name there.
        question: Text with ``{prompt}``, ``{a}`` and ``{b}``.
        key: Of the API, if it needs one; shown nowhere.
        request: What else the request holds, over temperature 0 and ``max_tokens``; ``None`` as a
            value leaves a key out.
        max_tokens: Bound on a reply.
        concurrency: Requests at a time.
        prices: Dollars for a million tokens in and out, if they are known.
    """

    url: str
    model: str
    question: str
    key: str | None = field(default=None, repr=False)
    request: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int = 256
    concurrency: int = 8
    prices: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"endpoint {self.url!r}: expected a URL that begins with http.")
        if self.key and not re.fullmatch("[!-~]+", self.key):
            raise ConfigError("the API key holds a character that no key can have. Set it again.")

    def body(self, message: str) -> dict[str, Any]:
        """The request for one reply."""
        plain = {
            "model": self.model,
            "messages": [{"role": "user", "content": message}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        return {k: v for k, v in (plain | dict(self.request)).items() if v is not None}

    def post(self, body: Mapping[str, Any], stop: Event) -> dict[str, Any]:
        """The reply's text and its counts of tokens, after retries where they may help.

        Args:
            body: Of the request.
            stop: Set when another request has failed for good: then nothing is tried again.

        Raises:
            ConfigError: The server refuses the request.
            ConnectionError: It does not answer, or not as it should.
        """
        pauses = iter(PAUSES)
        while True:
            wanted = 0.0
            try:
                return self._try(body)
            except urllib.error.HTTPError as error:
                with error:
                    problem = (
                        f"HTTP {error.code}: {in_a_line(error.read().decode(errors='replace'))}"
                    )
                wanted = _seconds(error.headers.get("Retry-After"))
                if error.code not in TRANSIENT:
                    raise ConfigError(self._told(problem)) from None
            except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
                problem = f"{type(error).__name__}: {in_a_line(error)}"
            wait = next(pauses, None)
            if wait is None or stop.is_set():
                raise ConnectionError(self._told(problem))
            wait = min(max(wait, wanted), LONGEST_PAUSE)
            print(f"{self._told(problem)} Trying again in {wait:g} s.", file=sys.stderr, flush=True)
            stop.wait(wait)

    def _try(self, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
        )
        with urllib.request.build_opener(NoRedirect).open(request, timeout=PATIENCE) as answer:
            content = json.load(answer)
        text = content["choices"][0]["message"]["content"]
        usage = content.get("usage") or {}
        tokens = [int(usage.get(f"{name}_tokens") or 0) for name in ("prompt", "completion")]
        return {"reply": str(text or ""), "tokens": tokens}

    def _told(self, problem: str) -> str:
        """A server may repeat what it was sent, so the key is cut out of its message."""
        if self.key:
            problem = problem.replace(self.key, "***")
        return f"judge {self.model} at {self.url}: {problem[:SHOWN].rstrip('. ')}."


def _seconds(text: str | None) -> float:
    try:
        return max(0.0, float(text or 0))
    except ValueError:  # a date
        return 0.0


class EndpointJudge:
    """Asks about every match in both orders.

    Args:
        endpoint: Where the judge is served.
        confirm: Asked after calls and cost are printed; whether to make the calls.
    """

    both_orders = True

    def __init__(self, endpoint: Endpoint, confirm: Callable[[], bool]) -> None:
        self.name, self._endpoint, self._confirm = endpoint.model, endpoint, confirm

    def judge(self, matches: Sequence[Match], memo: Memo) -> list[Verdict | None]:
        """Verdicts; identical completions are a tie that costs no call.

        Raises:
            ConfigError: The server refuses, or there was no confirmation.
            ConnectionError: It does not answer.
            DataError: No reply can be read.
        """
        questions = [self._questions(match) for match in matches]
        bodies = {sha_of(q): q for both in questions for q in both}
        absent = {key: body for key, body in bodies.items() if key not in memo}
        if absent:
            print(self._estimate(absent, len(bodies)), flush=True)
            if not self._confirm():
                raise ConfigError("not confirmed, so no judge was asked.")
            self._ask(absent, memo)
            print(self._spent([memo[key] for key in absent]), flush=True)
        found: list[Verdict | None] = []
        for both in questions:
            first, second = (read_choice(memo[sha_of(q)]["reply"]) for q in both) if both else TIE
            found.append(Verdict(first, _turned(second)))
        if bodies and not any(read_choice(memo[key]["reply"]) is not None for key in bodies):
            reply = memo[next(iter(bodies))]["reply"]
            raise DataError(
                f"judge {self.name}: no reply ends in a line with A, B or tie, e.g. "
                f"{reply[-SHOWN:]!r}. Ask another model, or write the question into a file."
            )
        return found

    def _questions(self, match: Match) -> list[dict[str, Any]]:
        """The requests with the policy's completion first and second; none for equal ones."""
        own, theirs = match.own.strip(), match.theirs.strip()
        orders = [] if own == theirs else [(own, theirs), (theirs, own)]
        return [
            {"url": self._endpoint.url, **self._endpoint.body(
                asked(self._endpoint.question, match.prompt, a, b))}
            for a, b in orders
        ]  # fmt: skip

    def _ask(self, absent: Mapping[str, Mapping[str, Any]], memo: Memo) -> None:
        """Ask and keep; a thread asks its next question when its last reply is on the disk."""
        stop = Event()

        def ask(key: str, question: Mapping[str, Any]) -> None:
            if stop.is_set():
                return
            try:
                body = {name: value for name, value in question.items() if name != "url"}
                memo.keep({key: self._endpoint.post(body, stop)})
            except BaseException:
                stop.set()
                raise

        pool = ThreadPoolExecutor(self._endpoint.concurrency)
        try:
            running = [pool.submit(ask, *each) for each in absent.items()]
            for number, done in enumerate(as_completed(running), start=1):
                done.result()
                if number % TOLD == 0:
                    print(f"{number:,} of {len(running):,} replies", file=sys.stderr, flush=True)
        except ConnectionError as error:
            raise ConnectionError(f"{error} Replies are kept: call again to continue.") from None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)  # waits for what is under way

    def _estimate(self, absent: Mapping[str, Mapping[str, Any]], wanted: int) -> str:
        characters = sum(len(str(body["messages"])) for body in absent.values())
        tokens = characters // CHARACTERS_PER_TOKEN, len(absent) * self._endpoint.max_tokens
        known = wanted - len(absent)
        return (
            f"judge {self.name} at {self._endpoint.url}: {len(absent):,} calls"
            f"{f' ({known:,} replies are known)' if known else ''}, about {tokens[0]:,} tokens in "
            f"({CHARACTERS_PER_TOKEN} characters a token) and at most {tokens[1]:,} out"
            f"{self._cost(*tokens)}"
        )

    def _spent(self, answers: Sequence[Mapping[str, Any]]) -> str:
        tokens = [sum(answer["tokens"][side] for answer in answers) for side in (0, 1)]
        counted = f"{tokens[0]:,} tokens in, {tokens[1]:,} out{self._cost(*tokens)}"
        return f"judge {self.name}: {len(answers):,} replies; the server counted {counted}"

    def _cost(self, tokens_in: int, tokens_out: int) -> str:
        if self._endpoint.prices is None:
            return ""
        price_in, price_out = self._endpoint.prices
        return f": ${(tokens_in * price_in + tokens_out * price_out) / 1e6:,.2f}"


def _turned(value: float | None) -> float | None:
    """A choice between A and B as the score of B."""
    return None if value is None else 1 - value
