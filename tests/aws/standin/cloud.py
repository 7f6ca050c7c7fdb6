"""The stand-in as tests hold it: a cloud that starts with a `with`, environments that lead there, and its controls."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.aws.standin.recorder import Call
from tests.aws.standin.registry import running_registry
from tests.servers.process import serving_at_free_ports
from tests.servers.seaweed import running_seaweed

REPOSITORY = Path(__file__).resolve().parents[3]
REGION = "us-east-1"
ACCOUNT = "123456789012"
RUNNING: list[Cloud] = []
"""Every stand-in of this process that runs now."""

_PATIENCE_S = 120
_RUN = (
    f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); from tests.aws.standin.server import main; main(sys.argv[1])"
)


class Refused(Exception):
    """A control refused; the message is the stand-in's."""


@dataclass(frozen=True)
class Cloud:
    """A running stand-in."""

    url: str
    registry_host: str
    folder: Path

    def ask(self, control: str, **given: Any) -> Any:
        """Turn or read a control (`controls.Controls`)."""
        body = json.dumps(given).encode()
        request = urllib.request.Request(f"{self.url}/_standin/{control}", data=body, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
                return json.loads(answer.read())["answer"]
        except urllib.error.HTTPError as error:
            raise Refused(json.loads(error.read()).get("error", str(error))) from None

    @cached_property
    def _environments(self) -> dict[str, dict[str, str]]:
        return dict(self.ask("environments"))

    @property
    def environment(self) -> dict[str, str]:
        """Return what leads a process here as the user who submits."""
        return dict(self._environments["desk"])

    @property
    def admin(self) -> dict[str, str]:
        """Return what leads a process here as the user who sets up the cloud."""
        return dict(self._environments["admin"])

    def client(self, service: str, environment: dict[str, str] | None = None, **options: Any) -> Any:
        """Return a boto3 client; the administrator's unless another environment is given."""
        import boto3
        from botocore.config import Config

        given = environment or self.admin
        endpoint = given["AWS_ENDPOINT_URL_S3" if service == "s3" else "AWS_ENDPOINT_URL"]
        make: Any = boto3.client
        return make(
            service,
            region_name=REGION,
            endpoint_url=endpoint,
            aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=given.get("AWS_SESSION_TOKEN"),
            config=Config(retries={"total_max_attempts": 1}, **options),
        )

    def read_log(self) -> str:
        """Return what the process of the stand-in wrote."""
        return (self.folder / "cloud.log").read_text(errors="replace")

    # --- what happened ---------------------------------------------------------------------------------------------

    def calls(self, start: int = 0) -> list[Call]:
        """Return every right that was asked for, in order."""
        return [
            Call(**{**call, "context": tuple((name, value) for name, value in call["context"])})
            for call in self.ask("calls", start=start)
        ]

    def forget_calls(self) -> None:
        """Begin a new record."""
        self.ask("forget_calls")

    def undelivered(self) -> list[dict[str, str]]:
        """Return the events that did not reach their target, and why."""
        return list(self.ask("undelivered"))

    def may(self, principal: str, action: str, resource: str, **context: str) -> str:
        """Return IAM's decision as deployed: ``allowed``, ``denied`` or ``not allowed``; ``role/NAME`` asks."""
        return str(self.ask("may", principal=principal, action=action, resource=resource, context=context))

    # --- what is to happen -----------------------------------------------------------------------------------------

    def fault(self, action: str, kind: str, times: int = 1, after: int = 0, **where: str) -> None:
        """Let requests fail (`faults.Fault`): ``cloud.fault("batch:SubmitJob", "lost_ack")``."""
        self.ask("fault", action=action, kind=kind, times=times, after=after, **where)

    def no_faults(self) -> None:
        """Let nothing fail any more."""
        self.ask("no_faults")

    def expire(self, role: str) -> int:
        """Let the credentials of a role's containers expire now; return how many."""
        return int(self.ask("expire", role=role))

    def quota(self, code: str, value: float) -> None:
        """Set a quota of EC2's, such as `account.SPOT_VCPUS`."""
        self.ask("quota", code=code, value=value)

    def events(self, **given: Any) -> None:
        """Hold events back (``hold=True``), let them go, or deliver each several times (``copies=2``)."""
        self.ask("events", **given)

    def emit(self, event: dict[str, Any]) -> None:
        """Let an AWS service emit an event."""
        self.ask("emit", **event)

    def published(self, start: int = 0) -> list[dict[str, Any]]:
        """Return every event that somebody put by PutEvents, in order."""
        return list(self.ask("published", start=start))

    def metrics(self) -> list[dict[str, Any]]:
        """Return what PutMetricData was told: namespace, name, value, dimensions."""
        return list(self.ask("metrics"))

    def notices(self) -> list[dict[str, str]]:
        """Return what was published to SNS topics."""
        return list(self.ask("notices"))

    def fire_schedule(self, name: str, time: str, group: str = "default", copies: int = 1) -> None:
        """Let a schedule's moment come, such as ``2026-01-01T03:00:00Z``; ``copies``: it may come more than once."""
        self.ask("fire_schedule", name=name, time=time, group=group, copies=copies)

    # --- Batch -----------------------------------------------------------------------------------------------------

    def hosts(self, *, gone: bool = False) -> list[dict[str, Any]]:
        """Return the instances that are up."""
        return list(self.ask("hosts", gone=gone))

    def reclaim(self, instance_id: str, notice_s: float = 0.0) -> None:
        """Take an instance away, at once or after a notice."""
        self.ask("reclaim", instance_id=instance_id, notice_s=notice_s)

    def simulate(self, on: bool) -> None:
        """Run tasks without containers, each ending at once with exit code 0; or with containers again."""
        self.ask("simulate", on=on)

    def options(self, **values: Any) -> None:
        """Set options of the fleet (`batch.fleet.Options`), or ``wait_scale``: the length of a machine's seconds."""
        self.ask("options", **values)

    def hold(self) -> None:
        """Keep RUNNABLE requests from starting."""
        self.ask("hold")

    def release(self) -> None:
        """Let them start again."""
        self.ask("release")

    def jobs(self) -> list[dict[str, Any]]:
        """Return every request, parents and children, as DescribeJobs would tell it."""
        return list(self.ask("jobs"))

    def forget_ended(self) -> int:
        """Forget what has ended, as the service does after about seven days."""
        return int(self.ask("forget_ended"))


@contextlib.contextmanager
def running_cloud(folder: Path, *, containers: bool = True) -> Iterator[Cloud]:
    """Run a stand-in until the block ends, with nothing deployed.

    Args:
        folder: for data, logs and the disks of hosts.
        containers: whether tasks are real containers; without, no Docker engine is needed.
    """
    with contextlib.ExitStack() as stack:
        for part in ("weed", "registry", "cloud"):
            (folder / part).mkdir(parents=True)
        seaweed = stack.enter_context(running_seaweed(folder / "weed"))
        registry_port, images = stack.enter_context(running_registry(folder / "registry"))
        host, _, port = seaweed.endpoint.removeprefix("http://").partition(":")
        settings = {
            "folder": str(folder / "cloud"),
            "seaweed_host": host,
            "seaweed_port": int(port),
            "seaweed_key": seaweed.access_key,
            "seaweed_secret": seaweed.secret_key,
            "registry_port": registry_port,
            "registry_images": str(images),
            "containers": containers,
        }
        cloud = _start(stack, folder / "cloud", settings)
        stack.callback(_close, cloud)
        RUNNING.append(cloud)
        stack.callback(RUNNING.remove, cloud)
        yield cloud


def _start(stack: contextlib.ExitStack, folder: Path, settings: dict[str, Any]) -> Cloud:
    config = folder / "config.json"

    def prepare(ports: list[int]) -> list[str]:
        named = dict(zip(("port", "s3_port", "ecr_port"), ports, strict=True))
        config.write_text(json.dumps({**settings, **named}))
        return [sys.executable, "-c", _RUN, str(config)]

    own, _, ecr = stack.enter_context(serving_at_free_ports(3, prepare, folder / "cloud.log"))
    return Cloud(f"http://127.0.0.1:{own}", f"127.0.0.1:{ecr}", folder)


def _close(cloud: Cloud) -> None:
    """Let the stand-in remove its containers before it is killed; its end may cut its answer off."""
    with contextlib.suppress(OSError, http.client.HTTPException, Refused):
        cloud.ask("close")
