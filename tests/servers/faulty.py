"""An HTTP proxy in front of an S3 server that fails by a plan: the n-th request of a kind, or one drawn from a seed.

It forwards every byte of a request, its Host header included (signatures cover it), and never sleeps.
"""

from __future__ import annotations

import collections
import contextlib
import fnmatch
import http.client
import random
import re
import socket
import socketserver
import struct
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

PIECE = 1 << 18

REFUSALS = {
    "conflict": (409, "ConditionalRequestConflict", "A conflicting operation occurred during the upload."),
    "storm": (503, "SlowDown", "Please reduce your request rate."),
    "internal": (500, "InternalError", "We encountered an internal error. Please try again."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "denied": (403, "AccessDenied", "Access Denied"),
}
"""Faults that are answers, with the status and the code of S3's table of errors."""

CUTS = ("lost_ack", "reset_before", "truncated", "short", "flipped")
"""The others. ``lost_ack``: the request takes effect, its connection is closed without an answer. ``reset_before``:
it never reaches the server. ``truncated``: fewer bytes come than the answer's length says. ``short``: fewer bytes
come, and the length says so. ``flipped``: one bit of the body is another."""

KINDS = (*REFUSALS, *CUTS)

_ABLE: dict[str, tuple[str, ...]] = dict.fromkeys(("truncated", "short", "flipped"), ("get", "get_range", "list"))
_ABLE["conflict"] = ("put", "complete")


@dataclass(frozen=True)
class Rule:
    """Which requests fail, and how.

    Args:
        kind: one of `KINDS`.
        operation: what the request does, as `name_operation` says, with wildcards.
        key: the path of the request, bucket first, with wildcards.
        after: so many matching requests pass first.
        times: so many then fail.
        chance: with a chance, a matching request fails by a draw, up to ``times`` in all.
    """

    kind: str
    operation: str = "*"
    key: str = "*"
    after: int = 0
    times: int = 1
    chance: float = 1.0

    def matches(self, request: Request) -> bool:
        """Say whether this rule is about a request that can fail in this way."""
        return (
            request.operation in _ABLE.get(self.kind, (request.operation,))
            and fnmatch.fnmatchcase(request.operation, self.operation)
            and fnmatch.fnmatchcase(request.key, self.key)
        )


@dataclass(frozen=True)
class Seen:
    """A request that came: ``status`` is what the client was told (0: nothing), ``fault`` what was done to it."""

    operation: str
    key: str
    status: int
    fault: str | None


@dataclass(frozen=True)
class Request:
    """A request's head, as it came."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> str | None:
        """Return a header, or None."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def key(self) -> str:
        """Return the path, bucket first."""
        return urllib.parse.unquote(self.target.partition("?")[0]).lstrip("/")

    @property
    def operation(self) -> str:
        """Return what the request does."""
        return name_operation(self)


def name_operation(request: Request) -> str:
    """Return what a request does: get, get_range, head, list, put, part, begin, complete, abort or delete."""
    query = urllib.parse.parse_qs(request.target.partition("?")[2], keep_blank_values=True)
    if request.method == "GET":
        if "list-type" in query or "uploads" in query:
            return "list"
        return "get_range" if request.header("range") else "get"
    if request.method == "PUT":
        return "part" if "partNumber" in query else "put"
    if request.method == "POST":
        return "begin" if "uploads" in query else "complete" if "uploadId" in query else "delete"
    if request.method == "DELETE":
        return "abort" if "uploadId" in query else "delete"
    return request.method.lower()


class FaultyProxy:
    """Forward to ``upstream`` (a URL) and fail by ``rules``; a context manager.

    Draws depend on the seed, the operation, the key without its tokens and how often that came, not on the threads'
    order. ``rules`` may be exchanged while it runs. Without ``checksums`` those of answers are left out, as by a server
    that keeps none: what is damaged then arrives like anything else.
    """

    def __init__(self, upstream: str, rules: Sequence[Rule] = (), seed: int = 0, *, checksums: bool = True) -> None:
        place = urllib.parse.urlsplit(upstream)
        self.upstream = (place.hostname or "127.0.0.1", place.port or 80)
        self.seed = seed
        self.checksums = checksums
        self.seen: list[Seen] = []
        self._lock = threading.Lock()
        self._matched: collections.Counter[int] = collections.Counter()
        self._failed: collections.Counter[int] = collections.Counter()
        self._times: collections.Counter[str] = collections.Counter()
        self._open: set[socket.socket] = set()
        self._closing = False
        self.rules = rules
        self._server = _Server(("127.0.0.1", 0), self._handle)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="faulty-proxy")

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Return the plan."""
        return self._rules

    @rules.setter
    def rules(self, rules: Sequence[Rule]) -> None:
        with self._lock:
            self._rules = tuple(rules)
            self._matched.clear()
            self._failed.clear()

    @property
    def faults(self) -> list[Seen]:
        """Return the requests that something was done to."""
        return [seen for seen in self.seen if seen.fault is not None]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        with self._lock:
            self._closing = True
            for client in self._open:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()

    def choose(self, request: Request) -> tuple[str | None, random.Random]:
        """Return the fault of a request, if any, and what to draw its details from."""
        name = f"{request.operation} {re.sub('[0-9a-f]{16,}', '#', request.key)}"
        with self._lock:
            self._times[name] += 1
            chance = random.Random(f"{self.seed} {name} {self._times[name]}")
            for number, rule in enumerate(self._rules):
                if not rule.matches(request):
                    continue
                self._matched[number] += 1
                due = self._matched[number] > rule.after and self._failed[number] < rule.times
                if chance.random() < rule.chance and due:
                    self._failed[number] += 1
                    return rule.kind, chance
        return None, chance

    def note(self, request: Request, status: int, fault: str | None) -> None:
        """Record what became of a request."""
        with self._lock:
            self.seen.append(Seen(request.operation, request.key, status, fault))

    def _handle(self, client: socket.socket) -> None:
        with self._lock:
            if self._closing:  # it was accepted, and nobody would end it any more
                return
            self._open.add(client)
        try:
            with contextlib.suppress(OSError, http.client.HTTPException), _Session(self, client) as session:
                session.serve()
        finally:
            with self._lock:
                self._open.discard(client)


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handle: Callable[[socket.socket], None]) -> None:
        super().__init__(address, socketserver.BaseRequestHandler)
        self._handle_client = handle

    def finish_request(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        self._handle_client(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that was killed."""


class _Session:
    """The requests of one client's connection, one after the other.

    Each goes on over a connection of its own: one that is kept may be closed by the server, an unplanned fault.
    """

    def __init__(self, proxy: FaultyProxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader: IO[bytes] = client.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._client.close()

    def serve(self) -> None:
        """Answer until either side closes the connection."""
        while (request := read_head(self._reader)) is not None:
            fault, chance = self._proxy.choose(request)
            if not self._answer(request, fault, chance):
                return

    def _answer(self, request: Request, fault: str | None, chance: random.Random) -> bool:
        """Answer one request; return whether the connection may be used again."""
        if fault == "reset_before":
            self._proxy.note(request, 0, fault)
            self._reset()
            return False
        if (request.header("expect") or "").lower() == "100-continue":
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = read_body(self._reader, request)
        if fault in REFUSALS:
            self._proxy.note(request, REFUSALS[fault][0], fault)
            self._client.sendall(make_refusal(request, *REFUSALS[fault]))
            return True
        with contextlib.closing(http.client.HTTPConnection(*self._proxy.upstream)) as upstream:
            response = forward(upstream, request, body)
            if fault == "lost_ack":
                response.read()
                self._proxy.note(request, 0, fault)
                if chance.random() < 0.5:
                    self._reset()
                return False
            if fault is not None and (response.status >= 300 or not response.length):
                fault = None  # nothing there to damage
            self._proxy.note(request, response.status, fault)
            return self._relay(request, response, fault, chance)

    def _relay(
        self, request: Request, response: http.client.HTTPResponse, fault: str | None, chance: random.Random
    ) -> bool:
        has_body = request.method != "HEAD" and response.status not in (204, 304)
        length = response.length
        whole = response.read() if has_body and length is None else b""
        told = len(whole) if length is None else length
        kept = chance.randrange(told) if fault in ("truncated", "short") else told
        headers = [
            (name, value)
            for name, value in response.getheaders()
            if name.lower() not in {"content-length", "transfer-encoding", "connection"}
            and (self._proxy.checksums or not name.lower().startswith("x-amz-checksum"))
        ]
        if request.method == "HEAD":  # the length is the object's, no body follows
            headers.append(("Content-Length", response.getheader("Content-Length") or "0"))
        elif has_body:
            headers.append(("Content-Length", str(kept if fault == "short" else told)))
        self._client.sendall(make_head(response.status, response.reason, headers))
        flip = chance.randrange(told * 8) if fault == "flipped" else None
        pieces = iter([whole]) if whole else _pieces(response)
        for start, piece in _until(kept if has_body else 0, pieces):
            self._client.sendall(flip_bit(piece, start, flip))
        return fault != "truncated"

    def _reset(self) -> None:
        """Let the client see a reset connection, not an end."""
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def forward(upstream: http.client.HTTPConnection, request: Request, body: bytes) -> http.client.HTTPResponse:
    """Send a request as it came, without the header that asked for leave to send the body."""
    upstream.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
    for name, value in request.headers:
        if name.lower() != "expect":
            upstream.putheader(name, value)
    upstream.endheaders()
    if body:
        upstream.send(body)
    return upstream.getresponse()


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := response.read(PIECE):
        yield piece


def _until(stop: int, pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield (start, piece) up to a length."""
    start = 0
    for piece in pieces:
        yield start, piece[: stop - start]
        start += len(piece)
        if start >= stop:
            return


def flip_bit(piece: bytes, start: int, bit: int | None) -> bytes:
    """Turn a bit, counted over the whole body, if it lies in the piece from ``start`` on."""
    if bit is None or not start <= bit // 8 < start + len(piece):
        return piece
    damaged = bytearray(piece)
    damaged[bit // 8 - start] ^= 1 << bit % 8
    return bytes(damaged)


def read_head(reader: IO[bytes]) -> Request | None:
    """Read a request's head; None if the client has closed the connection."""
    line = reader.readline().decode("latin-1").split()
    if len(line) != 3:
        return None
    headers = []
    while text := reader.readline().decode("latin-1").rstrip("\r\n"):
        name, _, value = text.partition(":")
        headers.append((name, value.strip()))
    return Request(line[0], line[1], tuple(headers))


def read_body(reader: IO[bytes], request: Request) -> bytes:
    """Read a request's body as it lies on the wire, frames of chunks and trailers included."""
    if (request.header("transfer-encoding") or "").lower() != "chunked":
        return reader.read(int(request.header("content-length") or 0))
    lines = []
    while True:
        lines.append(size := reader.readline())
        if not int(size.split(b";")[0], 16):
            break
        lines.append(reader.read(int(size.split(b";")[0], 16) + 2))
    while (line := reader.readline()).strip():
        lines.append(line)
    return b"".join([*lines, line])


def make_head(status: int, reason: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """Return the head of an answer."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def make_refusal(request: Request, status: int, code: str, message: str) -> bytes:
    """Return an answer in S3's form; one to HEAD has no body, so that its code cannot be told."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))]
    return make_head(status, code, headers) + (b"" if request.method == "HEAD" else text.encode())
