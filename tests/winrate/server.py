"""A real HTTP server on this machine that answers as an OpenAI-compatible API does."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Rule = Callable[[str], Any]  # the message -> the reply; or (status, headers, text) of a failure


@dataclass
class Served:
    """A running server.

    Args:
        url: To ask.
        asked: Message of every request, in order of arrival.
        answered: Message of every reply that was sent whole.
        bodies: Every request.
        keys: The header with the key, of every request.
    """

    url: str = ""
    asked: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def served(rule: Rule) -> Iterator[Served]:
    """Answer with what ``rule`` makes of the message; usage is one token a word."""
    seen = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            message = body["messages"][-1]["content"]
            seen.asked.append(message)
            seen.bodies.append(body)
            seen.keys.append(self.headers["Authorization"])
            try:
                reply = rule(message)
            except ConnectionAbortedError:  # no reply
                return
            status, headers, text = reply if isinstance(reply, tuple) else (200, {}, reply)
            if status == 200:
                usage = {"prompt_tokens": len(message.split()), "completion_tokens": 3}
                choice = {"message": {"role": "assistant", "content": text}}
                text = json.dumps({"choices": [choice], "usage": usage})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())
            self.wfile.flush()
            if status == 200:
                seen.answered.append(message)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    seen.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
