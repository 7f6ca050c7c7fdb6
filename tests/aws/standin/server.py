"""The process of the stand-in: moto behind a guard, the S3 gate, the registry's gate, Batch's core and the controls.

``python -m tests.aws.standin.server CONFIG``; `tests.aws.standin.cloud` starts it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import socket
import sys
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server

from tests.aws.standin import account, executions, machines, resources, updates
from tests.aws.standin.answers import Answer, make_error
from tests.aws.standin.changesets import Deployments
from tests.aws.standin.controls import Controls, answer_json
from tests.aws.standin.ecr import Catalogue
from tests.aws.standin.edges import Edges
from tests.aws.standin.events import Bus
from tests.aws.standin.guard import Guard
from tests.aws.standin.identity import ADMIN, DESK, REGION, RefusedIdentity
from tests.aws.standin.metrics import SERVICE as METRICS
from tests.aws.standin.metrics import Metrics
from tests.aws.standin.registry import RegistryGate, Shelf, Tokens
from tests.aws.standin.rights import read_call
from tests.aws.standin.s3gate import S3Gate, Upstream, ask_seaweed, remove_bucket
from tests.aws.standin.schedules import Scheduler
from tests.aws.standin.signing import Head, read_signature
from tests.servers.faulty import Request

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_UNGUARDED = {"batch", "states"}
"""Services that lock for themselves, or whose calls come back in while one of theirs is being answered."""


@dataclass(frozen=True)
class Settings:
    """Ports and folders, chosen by who starts the process."""

    port: int
    s3_port: int
    ecr_port: int
    folder: str
    seaweed_host: str
    seaweed_port: int
    seaweed_key: str
    seaweed_secret: str
    registry_port: int
    registry_images: str
    containers: bool

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Return what leads a process here without saying who it is."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{self.s3_port}",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }


class Door:
    """The WSGI application before moto's: it knows who calls, decides, records, and fails on demand."""

    def __init__(self, moto: WsgiApp, guard: Guard, edges: Edges, controls: Controls, images: Path) -> None:
        self.moto = moto
        self.guard = guard
        self.edges = edges
        self.controls = controls
        self.images = images
        self.metrics = controls.metrics
        self._locks: dict[str, Any] = defaultdict(threading.RLock)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        environ["wsgi.input"] = io.BytesIO(body)
        if path.startswith("/_"):
            return _send(self._answer_own(path, body), start)
        head = read_environ(environ)
        if read_signature(head) is None:
            return _send(answer_json({"stand-in": "foldfleet"}), start)  # the question whether it is up
        return self._admit(environ, start, head, body)

    def _answer_own(self, path: str, body: bytes) -> Answer:
        if path.startswith("/_credentials/"):
            try:
                found = self.edges.hand_out(path)
            except RefusedIdentity as error:
                return answer_json({"code": error.code, "message": str(error)}, 400)
            return answer_json(found or {"code": "NoIdForPath"}, 200 if found else 404)
        if path.startswith("/_layers/"):
            name, _, digest = path.removeprefix("/_layers/").rpartition("/")
            layer = Shelf(self.images, name).blob(digest)
            return Answer(200, [("Content-Type", "application/octet-stream")], layer)
        return self.controls.answer(path.removeprefix("/_standin/"), json.loads(body or b"{}"))

    def _admit(self, environ: dict[str, Any], start: Callable[..., Any], head: Head, body: bytes) -> Iterable[bytes]:
        signature = read_signature(head)
        assert signature is not None
        target = head.headers.get("x-amz-target", "")
        call = read_call(signature.service, head.method, environ["PATH_INFO"], target, body, head.query)
        protocol = call.protocol if call else "query"
        key = self.guard.identify(head, hashlib.sha256(body).hexdigest(), protocol)
        if isinstance(key, Answer):
            return _send(key, start)
        if call is None:
            told = f"The stand-in has no {signature.service} at this address."
            return _send(make_error(protocol, 400, "UnknownService", told), start)
        refusal, cut = self.guard.admit(key.principal, call.rights, protocol)
        if refusal is not None:
            return _send(refusal, start)
        if cut == "reset_before":
            return _hang_up(environ)
        if signature.service == METRICS:  # moto does not speak the JSON that botocore sends
            answer = self.metrics.answer(call)
        else:
            answer = self._ask_moto(environ, signature.service)
        return _hang_up(environ) if cut == "lost_ack" else _send(answer, start)

    def _ask_moto(self, environ: dict[str, Any], service: str) -> Answer:
        if service in _UNGUARDED:
            return run_app(self.moto, environ)
        with self._locks[service]:  # moto's own server takes no care of its threads
            return run_app(self.moto, environ)

    def ask_settings(self, request: Request, body: bytes) -> Answer:
        """Answer an S3 request about a bucket's settings from moto."""
        path, _, query = request.target.partition("?")
        environ = {
            "REQUEST_METHOD": request.method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "RAW_URI": request.target,
            "REQUEST_URI": request.target,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.url_scheme": "http",
            "wsgi.version": (1, 0),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "CONTENT_LENGTH": str(len(body)),
            **{
                f"HTTP_{name.upper().replace('-', '_')}": value
                for name, value in request.headers
                if name.lower() not in {"content-length", "expect", "transfer-encoding"}
            },
        }
        return self._ask_moto(environ, "s3")


def run_app(app: WsgiApp, environ: dict[str, Any]) -> Answer:
    """Return the whole answer of a WSGI application."""
    told: list[Any] = []
    pieces = app(environ, lambda status, headers, _error=None: told.extend([status, headers]))
    body = b"".join(pieces)
    headers = [(name, value) for name, value in told[1] if name.lower() != "content-length"]
    return Answer(int(told[0].split()[0]), headers, body)


def _send(answer: Answer, start: Callable[..., Any]) -> Iterable[bytes]:
    headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
    if "x-amzn-requestid" not in {name.lower() for name, _ in headers}:  # Step Functions puts it into causes
        headers.append(("x-amzn-RequestId", str(uuid.uuid4())))
    start(f"{answer.status} -", headers)
    return [answer.body]


def _hang_up(environ: dict[str, Any]) -> Iterable[bytes]:
    """Close the connection without an answer."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


def read_environ(environ: dict[str, Any]) -> Head:
    """Return a request's head as signatures see it."""
    path, _, query = environ.get("RAW_URI", environ["PATH_INFO"]).partition("?")
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.replace("_", "-").lower()] = environ[name]
    return Head(environ["REQUEST_METHOD"], path, query, headers)


def build(settings: Settings) -> Door:
    """Patch moto, start the gates and return the application to serve."""
    guard = Guard()
    bus = Bus(guard)
    machines.install(guard, settings.url, settings.environment["AWS_ENDPOINT_URL_S3"])
    executions.install(bus.emit)
    account.install()
    quotas = account.Quotas()
    quotas.install()
    upstream = Upstream(settings.seaweed_host, settings.seaweed_port, settings.seaweed_key, settings.seaweed_secret)
    resources.install(
        lambda bucket: _expect(ask_seaweed(upstream, "PUT", f"/{bucket}")[0], bucket),
        lambda bucket: remove_bucket(upstream, bucket),
    )
    updates.install()
    Deployments().install()
    bus.install()
    scheduler = Scheduler(guard, bus)
    scheduler.install()
    tokens, images = Tokens(), Path(settings.registry_images)
    ecr_host = f"127.0.0.1:{settings.ecr_port}"
    Catalogue(images, ecr_host, tokens, guard.identities, settings.url).install()
    edges = Edges(guard, tokens, images, ecr_host, settings.url, settings.environment, bus.emit)
    batch = make_batch(edges, settings)
    for user in (ADMIN, DESK):
        guard.identities.make_user(user)
    controls = Controls(guard, bus, quotas, batch, settings.environment, scheduler, Metrics())

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    door = Door(DomainDispatcherApplication(create_backend_app), guard, edges, controls, images)
    S3Gate(guard, upstream, door.ask_settings, bus.emit).make_proxy(settings.s3_port).start()
    RegistryGate(guard, tokens, settings.registry_port, images).make_proxy(settings.ecr_port).start()
    return door


def _expect(status: int, bucket: str) -> None:
    if status not in {200, 409}:
        raise OSError(f"SeaweedFS answered {status} to a new bucket {bucket}")


def make_batch(edges: Edges, settings: Settings) -> Any:
    """Put the Batch core in the place of moto's, with real containers where there is an engine."""
    from tests.aws.standin.batch import SimulatedRunner, install

    hooks = edges.hooks()
    if not settings.containers:
        return install(hooks, SimulatedRunner())
    from tests.aws.standin.batch.docker_runner import DockerRunner

    return install(hooks, DockerRunner(hooks, Path(settings.folder) / "hosts"))


class _Handler(WSGIRequestHandler):
    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Say nothing of single requests: the recorder does."""


def main(path: str) -> None:
    """Serve until the process is ended."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    settings = Settings(**json.loads(Path(path).read_text()))
    door = build(settings)
    server = make_server("127.0.0.1", settings.port, door, threaded=True, request_handler=_Handler)
    server.daemon_threads = True  # type: ignore[attr-defined]
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
