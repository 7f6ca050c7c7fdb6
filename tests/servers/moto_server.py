"""moto's S3, a second reading of the protocol, as a process of its own: forked children reach it as they reach any."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.servers.process import serving_at_free_ports
from tests.servers.s3server import BUCKET, S3Server

_RUN = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
"""
# One request at a time: moto's own server runs a thread for each, and of eight conditional writes two may win.


@contextlib.contextmanager
def running_moto(folder: Path) -> Iterator[S3Server]:
    """Run a server with one bucket until the block ends."""

    def prepare(ports: list[int]) -> list[str]:
        return [sys.executable, "-c", _RUN, str(ports[0])]

    with serving_at_free_ports(1, prepare, folder / "moto.log") as [port]:
        server = S3Server("moto", f"http://127.0.0.1:{port}", "TESTING", "testing")
        server.client().create_bucket(Bucket=BUCKET)
        yield server
