"""What a container on an ECS instance can ask over HTTP: its task's metadata, and the instance's (IMDS)."""

from __future__ import annotations

import json
import secrets
import threading
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .hosts import Host
from .runner import Task

TOKEN_TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"


class _Server(ThreadingHTTPServer):
    """As many tasks as start at once may ask at once."""

    request_queue_size = 128
    daemon_threads = True


class Endpoints:
    """One loopback server for all hosts and tasks of a stand-in; each finds its own under a path of its own."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.tasks: dict[str, tuple[Task, str]] = {}
        self.tokens: set[tuple[str, str]] = set()
        endpoints = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                answer(self, endpoints.get(self.path, self.headers.get(TOKEN)))

            def do_PUT(self) -> None:
                answer(self, endpoints.put(self.path, self.headers.get(TOKEN_TTL)))

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Say nothing."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="batch-endpoints", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """The server's base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def of_host(self, host: Host) -> str:
        """Give the address of a host's instance metadata (``AWS_EC2_METADATA_SERVICE_ENDPOINT``)."""
        self.hosts[host.instance_id] = host
        return f"{self.address}/imds/{host.instance_id}"

    def of_task(self, task: Task) -> str:
        """Give the address of a task's metadata (``ECS_CONTAINER_METADATA_URI_V4``)."""
        self.tasks[task.task_id] = (task, datetime.now(UTC).isoformat().replace("+00:00", "Z"))
        return f"{self.address}/v4/{task.task_id}"

    def get(self, path: str, token: str | None) -> tuple[int, str]:
        """Answer a GET."""
        _, kind, name, *rest = [*path.split("?", maxsplit=1)[0].split("/"), "", "", ""]
        inner = "/".join(rest).strip("/")
        if kind == "v4" and name in self.tasks:
            task, since = self.tasks[name]
            found = {"": container_metadata(task, since), "task": task_metadata(task, since)}.get(inner)
            return (HTTPStatus.OK, json.dumps(found)) if found else (HTTPStatus.NOT_FOUND, "")
        host = self.hosts.get(name) if kind == "imds" else None
        if host is None:
            return HTTPStatus.NOT_FOUND, ""
        # Launch templates ask for version 2 alone: without a token nothing is told.
        if token is None or (name, token) not in self.tokens:
            return HTTPStatus.UNAUTHORIZED, ""
        told = instance_metadata(host).get(inner)
        return (HTTPStatus.NOT_FOUND, "") if told is None else (HTTPStatus.OK, told)

    def put(self, path: str, ttl: str | None) -> tuple[int, str]:
        """Answer a PUT: the request for a session token."""
        _, kind, name, *rest = [*path.split("/"), "", "", ""]
        if kind != "imds" or name not in self.hosts or "/".join(rest).strip("/") != "latest/api/token":
            return HTTPStatus.NOT_FOUND, ""
        if not ttl or not ttl.isdigit() or not 1 <= int(ttl) <= 21_600:
            return HTTPStatus.BAD_REQUEST, ""
        token = secrets.token_urlsafe(32)
        self.tokens.add((name, token))
        return HTTPStatus.OK, token

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def answer(handler: BaseHTTPRequestHandler, result: tuple[int, str]) -> None:
    """Send an answer."""
    status, text = result
    body = text.encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json" if text.startswith("{") else "text/plain")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def instance_metadata(host: Host) -> dict[str, str | None]:
    """Give what an instance tells of itself; there are no credentials, its role being empty of rights."""
    zone = f"{host.region}a"
    document = {"instanceId": host.instance_id, "instanceType": host.size.name, "region": host.region}
    told: dict[str, str | None] = {
        "latest/meta-data/instance-id": host.instance_id,
        "latest/meta-data/instance-type": host.size.name,
        "latest/meta-data/instance-life-cycle": "spot" if host.spot else "on-demand",
        "latest/meta-data/placement/region": host.region,
        "latest/meta-data/placement/availability-zone": zone,
        "latest/dynamic/instance-identity/document": json.dumps({**document, "availabilityZone": zone}),
    }
    if host.notice_at is not None and host.spot:
        moment = datetime.fromtimestamp(host.notice_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        told["latest/meta-data/spot/instance-action"] = json.dumps({"action": "terminate", "time": moment})
        told["latest/meta-data/spot/termination-time"] = moment
    return told


def container_metadata(task: Task, since: str) -> dict[str, Any]:
    """Give the agent's answer about a container, version 4."""
    cluster = task.task_arn.split(":task/")[1].split("/")[0]
    return {
        "DockerId": task.task_id,
        "Name": "default",
        "DockerName": f"ecs-{task.family}-{task.revision}-default-{task.task_id[:20]}",
        "Image": task.image,
        "Labels": {
            "com.amazonaws.ecs.cluster": cluster,
            "com.amazonaws.ecs.container-name": "default",
            "com.amazonaws.ecs.task-arn": task.task_arn,
            "com.amazonaws.ecs.task-definition-family": task.family,
            "com.amazonaws.ecs.task-definition-version": str(task.revision),
        },
        "DesiredStatus": "RUNNING",
        "KnownStatus": "RUNNING",
        "Limits": {"CPU": task.vcpus * 1024, "Memory": task.memory_mib},
        "CreatedAt": since,
        "StartedAt": since,
        "Type": "NORMAL",
        "LogDriver": "awslogs",
        "LogOptions": {
            "awslogs-group": task.log_group,
            "awslogs-region": task.region,
            "awslogs-stream": task.log_stream,
        },
        "ContainerARN": f"arn:aws:ecs:{task.region}:{task.account}:container/{cluster}/{task.task_id}/default",
    }


def task_metadata(task: Task, since: str) -> dict[str, Any]:
    """Give the agent's answer about a task, version 4."""
    return {
        "Cluster": task.task_arn.split(":task/")[1].split("/")[0],
        "TaskARN": task.task_arn,
        "Family": task.family,
        "Revision": str(task.revision),
        "DesiredStatus": "RUNNING",
        "KnownStatus": "RUNNING",
        "PullStartedAt": since,
        "PullStoppedAt": since,
        "AvailabilityZone": f"{task.region}a",
        "LaunchType": "EC2",
        "Containers": [container_metadata(task, since)],
    }
