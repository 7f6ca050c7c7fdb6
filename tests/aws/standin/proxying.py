"""An HTTP proxy that decides on every request's head, and passes bodies on in pieces: hundreds of MB take no memory.

It keeps the client's connection, and opens one to the server behind for each request: one that is kept may be closed
by the server at the wrong moment, which would be a fault that nobody planned.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from tests.aws.standin.answers import Answer
from tests.servers.faulty import PIECE, Request, make_head, read_body, read_head

_LOG = logging.getLogger(__name__)
_OWN = {"content-length", "transfer-encoding", "connection", "keep-alive"}
_BODYLESS = (204, 304)


@dataclass(frozen=True)
class Forward:
    """Send the request on, with these headers and this target.

    ``cut``: ``lost_ack`` lets it take effect and closes the connection. ``check`` may put another answer in the place
    of the server's, by its status. ``after`` is told the status and the headers of a request that has been answered.
    ``edit`` changes the whole body of an answer.
    """

    target: str
    headers: Sequence[tuple[str, str]]
    cut: str | None = None
    check: Callable[[int], Answer | None] = lambda _status: None
    after: Callable[[int, Sequence[tuple[str, str]]], None] = lambda _status, _headers: None
    edit: Callable[[bytes], bytes] | None = None


Decide = Callable[[Request, Callable[[], bytes]], Forward | Answer | None]
"""Takes a request's head and a function that reads its body; None closes the connection without a word."""


class Proxy:
    """Listen on a free port of the loopback and pass requests on to ``upstream`` (host, port)."""

    def __init__(self, upstream: tuple[str, int], decide: Decide, port: int = 0) -> None:
        self.upstream = upstream
        self.decide = decide
        self._server = _Server(("127.0.0.1", port), self._serve)
        self.port = int(self._server.server_address[1])
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve until the process ends."""
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="proxy", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, http.client.HTTPException), client, client.makefile("rb") as reader:
            while (request := read_head(reader)) is not None:
                if not self._answer(client, reader, request):
                    return

    def _answer(self, client: socket.socket, reader: IO[bytes], request: Request) -> bool:
        """Answer one request; return whether the connection may be used again."""
        if (request.header("expect") or "").lower() == "100-continue":
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = _Body(reader, request)
        decision = self.decide(request, body.read_all)
        if decision is None:
            return False
        if isinstance(decision, Answer):
            body.drain()
            client.sendall(pack(request, decision))
            return True
        return self._forward(client, request, decision, body)

    def _forward(self, client: socket.socket, request: Request, decision: Forward, body: _Body) -> bool:
        with contextlib.closing(http.client.HTTPConnection(*self.upstream)) as upstream:
            upstream.putrequest(request.method, decision.target, skip_host=True, skip_accept_encoding=True)
            for name, value in decision.headers:
                upstream.putheader(name, value)
            upstream.endheaders()
            for piece in body.pieces():
                upstream.send(piece)
            response = upstream.getresponse()
            if decision.cut == "lost_ack":
                response.read()
                decision.after(response.status, response.getheaders())
                return False
            if (answer := decision.check(response.status)) is not None:
                response.read()
                client.sendall(pack(request, answer))
                return True
            decision.after(response.status, response.getheaders())
            return _relay(client, request, response, decision.edit)


def _relay(
    client: socket.socket,
    request: Request,
    response: http.client.HTTPResponse,
    edit: Callable[[bytes], bytes] | None = None,
) -> bool:
    if edit is not None:
        headers = [(name, value) for name, value in response.getheaders() if name.lower() not in _OWN]
        client.sendall(pack(request, Answer(response.status, headers, edit(response.read()))))
        return True
    headers = [(name, value) for name, value in response.getheaders() if name.lower() not in _OWN]
    has_body = request.method != "HEAD" and response.status not in _BODYLESS
    whole = response.read() if has_body and response.length is None else b""
    if request.method == "HEAD":  # the length is the object's, no body follows
        headers.append(("Content-Length", response.getheader("Content-Length") or "0"))
    elif response.status != 204:
        headers.append(("Content-Length", str(len(whole) if response.length is None else response.length)))
    client.sendall(make_head(response.status, response.reason, headers))
    if whole:
        client.sendall(whole)
    while has_body and (piece := response.read(PIECE)):
        client.sendall(piece)
    return True


class _Body:
    """A request's body on the wire, read once."""

    def __init__(self, reader: IO[bytes], request: Request) -> None:
        self._reader = reader
        self._request = request
        self._whole: bytes | None = None

    def read_all(self) -> bytes:
        if self._whole is None:
            self._whole = read_body(self._reader, self._request)
        return self._whole

    def pieces(self) -> Iterator[bytes]:
        if self._whole is not None or (self._request.header("transfer-encoding") or "").lower() == "chunked":
            yield self.read_all()
            return
        left = int(self._request.header("content-length") or 0)
        while left:
            piece = self._reader.read(min(PIECE, left))
            if not piece:
                raise ConnectionError("the client closed its connection within a body")
            left -= len(piece)
            yield piece

    def drain(self) -> None:
        for _ in self.pieces():
            pass


def pack(request: Request, answer: Answer) -> bytes:
    """Return an answer as it goes on the wire; one to HEAD has no body, so that its code cannot be told."""
    headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
    head = make_head(answer.status, http.client.responses.get(answer.status, ""), headers)
    return head + (b"" if request.method == "HEAD" else answer.body)


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 256
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handle: Callable[[socket.socket], None]) -> None:
        super().__init__(address, socketserver.BaseRequestHandler)
        self._handle_client = handle

    def finish_request(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        self._handle_client(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that was killed; whatever else it is, is the proxy's own."""
        if not isinstance(sys.exception(), OSError):
            _LOG.exception("a connection was given up")
