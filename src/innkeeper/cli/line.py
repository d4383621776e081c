"""The line to the daemon: HTTP over its UNIX socket. Answers are read by httptools, as the daemon reads our requests.

A command must start fast, and most of what it does is starting: what fuller clients import costs more than all the
rest of `inn list` (docs/decisions has the measurement). One request a connection: a local one costs next to nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import httptools

DATA = "/var/lib/innkeeper"
_CHUNK = 1 << 18
_LOOK_S = 0.5


class CannotGoOn(Exception):
    """Ends the command with a message, a hint and an exit code."""

    def __init__(self, reason: str, hint: str = "", code: int = 1) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.code = code


@contextlib.contextmanager
def in_words(kinds: tuple[type[Exception], ...], hint: str) -> Iterator[None]:
    """These errors end a command with their own words, also out of groups, as those of tasks come."""
    try:
        yield
    except (Exception, BaseExceptionGroup) as error:
        first = first_of(error)
        if isinstance(first, kinds):
            raise CannotGoOn(str(first), hint) from error
        raise


def first_of(error: BaseException) -> BaseException:
    """What went wrong first of all that went wrong together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def say(problem: CannotGoOn) -> None:
    """Line by line; within a line nothing is but text, for it may be a guest's own."""
    text = f"inn: {problem.reason}\n" + (f"     {problem.hint}\n" if problem.hint else "")
    sys.stderr.write("".join(f"{printable(line)}\n" for line in text.splitlines()))


def printable(text: str) -> str:
    """What somebody wrote, such as a label, must not steer the reader's terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def default_socket() -> str:
    return os.environ.get("INN_SOCKET") or os.path.join(os.environ.get("INN_DATA") or DATA, "api.sock")


def no_daemon(path: str, error: OSError) -> CannotGoOn:
    """What to say when nobody answers at the socket."""
    if isinstance(error, PermissionError):
        hint = "Members of the group innkeeper may: usermod -aG innkeeper YOU (as root), then log in again"
        return CannotGoOn(f"you may not speak to the daemon at {path}", hint, 3)
    if isinstance(error, TimeoutError):
        return CannotGoOn(f"the daemon at {path} does not answer in time", "Look at its log", 3)
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return CannotGoOn(f"the daemon at {path} went away in the middle of its answer", "Look at its log", 3)
    hint = "Start it: inn serve (as root); or name its socket: --socket, INN_SOCKET"
    return CannotGoOn(f"no daemon answers at {path}", hint, 3)


def at(*words: str) -> str:
    """A path of the API from words that people wrote.

    Raises:
        CannotGoOn: a word cannot be part of a path, so nothing has it as its name.
    """
    for word in words:
        if not word or word in (".", "..") or "/" in word:
            raise CannotGoOn(f"{word!r} is the name of nothing", "Names have letters, digits and hyphens", 2)
    return "/v1/" + "/".join(quote(word, safe=":", errors="surrogateescape") for word in words)


class _Answer:
    """What the parser finds."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


class Line:
    """Errors leave as CannotGoOn, with the daemon's own words."""

    def __init__(self, socket_path: str = "", project: str = "", patience_s: float = 60.0) -> None:
        self.path = socket_path or default_socket()
        self._project = project or os.environ.get("INN_PROJECT") or "default"
        self._patience_s = patience_s

    def get(self, path: str, **query: Any) -> Any:
        """`timeout_s` in the query is how long the daemon may take; the line waits a little longer."""
        return self._value("GET", self.target(path, **query), patience_s=query.get("timeout_s", 0) + self._patience_s)

    def every(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """The items of all pages of a list."""
        cursor = None
        while True:
            page = self.get(path, cursor=cursor, **query)
            yield from page["items"]
            cursor = page["next"]
            if cursor is None:
                return

    def text(self, path: str) -> bytes:
        return self._ask("GET", self.target(path))

    def post(self, path: str, body: object = None, key: str | None = None) -> Any:
        """Under its key a request may be sent again when its answer was lost."""
        headers = {"idempotency-key": key or new_key()}
        return self._value("POST", self.target(path), body, headers)

    def patch(self, path: str, body: object, key: str | None = None) -> Any:
        return self._value("PATCH", self.target(path), body, {"idempotency-key": key or new_key()})

    def delete(self, path: str, key: str | None = None, **query: Any) -> Any:
        return self._value("DELETE", self.target(path, **query), None, {"idempotency-key": key or new_key()})

    def target(self, path: str, **query: Any) -> str:
        """Path and query as they go over the wire, for streams too. Of a list each is said."""
        asked = {"project": self._project, **{k: v for k, v in query.items() if v is not None}}
        return f"{path}?{urlencode(asked, doseq=True, errors='surrogateescape')}"

    def _value(
        self,
        method: str,
        target: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        patience_s: float | None = None,
    ) -> Any:
        content = None if body is None else json.dumps(body).encode()
        data = self._ask(method, target, content, headers, patience_s)
        return json.loads(data) if data else None

    def _ask(
        self,
        method: str,
        target: str,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        patience_s: float | None = None,
    ) -> bytes:
        request = _request(method, target, content, headers or {})
        try:
            status, data = _exchanged(self.path, request, patience_s or self._patience_s)
        except OSError as error:
            raise no_daemon(self.path, error) from error
        except httptools.HttpParserError as error:
            raise CannotGoOn(f"what answers at {self.path} does not speak HTTP: {error}", "", 3) from error
        if status >= 400:
            raise problem(status, data)
        return data


def new_key() -> str:
    return os.urandom(16).hex()


def _request(method: str, target: str, content: bytes | None, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "host: innkeeper", "connection: close", "accept: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if content is not None:
        lines += ["content-type: application/json", f"content-length: {len(content)}"]
    elif method == "POST":
        lines.append("content-length: 0")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (content or b"")


def _exchanged(path: str, request: bytes, patience_s: float) -> tuple[int, bytes]:
    """One request, one answer: its status and its body."""
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patience_s)
        try:
            sock.connect(path)
        except OSError as error:
            if "too long" in str(error):
                raise FileNotFoundError(f"{path} is longer than the path of a socket can be") from error
            raise
        sock.sendall(request)
        sock.settimeout(_LOOK_S)
        while not answer.complete:
            data = _received(sock, patience_s)
            if not data:
                raise ConnectionResetError("the answer ended before its end")
            feed(parser, data)
    return parser.get_status_code(), bytes(answer.body)


def _received(sock: socket.socket, patience_s: float) -> bytes:
    """What comes next. Python hears a signal that came just before a wait only after it, so waits are short."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return sock.recv(_CHUNK)
        except TimeoutError:
            if time.monotonic() > deadline:
                raise


def feed(parser: httptools.HttpResponseParser, data: bytes) -> None:
    """A Ctrl-C while the parser calls us back leaves as what it is, not as a fault of the answer."""
    try:
        parser.feed_data(data)
    except httptools.HttpParserCallbackError as error:
        raise error.__context__ or error from None


def problem(status: int, data: bytes) -> CannotGoOn:
    """An error in the daemon's words."""
    try:
        said = json.loads(data)
        return CannotGoOn(said["detail"], said.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        return CannotGoOn(f"the daemon answered {status}: {data[:200].decode(errors='replace')}", "Look at its log")
