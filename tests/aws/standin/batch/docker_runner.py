"""Runs tasks as real containers, as the ECS agent does on a host: host networking, shares of CPU, a limit of memory."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
import requests

from .endpoints import Endpoints
from .hooks import Hooks, LogLine
from .hosts import Host
from .runner import Reports, Task

logger = logging.getLogger(__name__)

LABEL = "foldfleet.standin"
"""Carries the process id of the stand-in that made a container."""

OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
MIB = 1024 * 1024
_ENGINE_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException)
"""What comes of an engine that refuses, is too busy to answer, or is gone."""


@dataclass(eq=False)
class Live:
    """A container from the request for it to its end."""

    task: Task
    reports: Reports
    lock: threading.Lock = field(default_factory=threading.Lock)
    container_id: str | None = None
    pending: list[str] = field(default_factory=list)


class DockerRunner:
    """Runs tasks in containers of the local Docker engine.

    Args:
        hooks: The edges: images, credentials, endpoints, logs.
        folder: Where the disks of hosts lie: ``{folder}/{instance id}/...``; emptied at the end.
        vcpu_quota: How many vCPUs the stand-in's account may have, unless a test says otherwise: what runs at once
            runs on this machine.
    """

    def __init__(self, hooks: Hooks, folder: Path, *, vcpu_quota: int | None = 8) -> None:
        self.vcpu_quota = vcpu_quota
        self._hooks = hooks
        self._folder = folder
        self.endpoints = Endpoints()
        self._live: dict[str, Live] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False
        remove_leftovers()

    def start(self, task: Task, reports: Reports) -> None:
        """Run a task in a thread of its own."""
        live = Live(task, reports)
        self._live[task.task_id] = live
        thread = threading.Thread(target=self._run, args=(live,), name=f"task-{task.job_id}", daemon=True)
        self._threads = [known for known in self._threads if known.is_alive()] + [thread]
        thread.start()

    def signal(self, task: Task, name: str) -> None:
        """Send a signal; a container that is being made gets it as soon as it runs."""
        live = self._live.get(task.task_id)
        if live is None:
            return
        with live.lock:
            if live.container_id is None:
                live.pending.append(name)
                return
        send(live.container_id, name)

    def host_gone(self, host: Host) -> None:
        """Delete a host's disks."""
        shutil.rmtree(self._folder / host.instance_id, ignore_errors=True)
        self.endpoints.hosts.pop(host.instance_id, None)

    def close(self) -> None:
        """Kill all containers and wait until they are gone."""
        self._closed = True
        for live in list(self._live.values()):
            self.signal(live.task, "SIGKILL")
        for thread in self._threads:
            thread.join(30)
        self.endpoints.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, live: Live) -> None:
        try:
            self._run_container(live)
        except Exception as error:
            # A hook that fails is no reason for a job to stay STARTING forever.
            logger.exception("task_lost job=%s", live.task.job_id)
            self._live.pop(live.task.task_id, None)
            live.reports.not_started(live.task, f"CannotCreateContainerError: {error}"[:255])

    def _run_container(self, live: Live) -> None:
        task, reports = live.task, live.reports
        reason = self._hooks.pull(task.image)
        if reason is not None:
            self._live.pop(task.task_id, None)
            reports.not_started(task, reason)
            return
        client = docker.APIClient(version="auto")
        container_id = None
        try:
            container_id = self._create(client, task)
            client.start(container_id)
        except (docker.errors.APIError, requests.exceptions.RequestException) as error:
            remove(client, container_id)
            client.close()
            self._live.pop(task.task_id, None)
            reports.not_started(task, refusal(error, container_id))
            return
        reports.started(task)
        with live.lock:
            live.container_id = container_id
            pending = live.pending[:]
        for name in pending:
            send(container_id, name)
        exit_code, told = self._follow(client, container_id, task)
        remove(client, container_id)
        client.close()
        self._live.pop(task.task_id, None)
        if not self._closed:
            reports.ended(task, exit_code, told)

    def _create(self, client: docker.APIClient, task: Task) -> str:
        properties = task.container
        linux = properties.get("linuxParameters") or {}
        host_config = client.create_host_config(
            network_mode="host",
            binds=self._binds(task),
            read_only=bool(properties.get("readonlyRootFilesystem")),
            privileged=bool(properties.get("privileged")),
            init=bool(linux.get("initProcessEnabled")),
            # Shares, not a quota: a container sees and may use all cores of its host.
            cpu_shares=task.vcpus * 1024,
            mem_limit=task.memory_mib * MIB,
            memswap_limit=task.memory_mib * MIB,
            shm_size=int(linux["sharedMemorySize"]) * MIB if linux.get("sharedMemorySize") else None,
            tmpfs={mount["containerPath"]: tmpfs_options(mount) for mount in linux.get("tmpfs") or ()} or None,
            ulimits=[
                docker.types.Ulimit(name=entry["name"], soft=entry["softLimit"], hard=entry["hardLimit"])
                for entry in properties.get("ulimits") or ()
            ],
            log_config=docker.types.LogConfig(type=docker.types.LogConfig.types.JSON),
        )
        made = client.create_container(
            self._hooks.local_image(task.image),
            command=list(task.command) or None,
            environment=self._environment(task),
            user=properties.get("user"),
            labels={
                LABEL: str(os.getpid()),
                "com.amazonaws.ecs.task-arn": task.task_arn,
                "foldfleet.instance": task.host.instance_id,
                **task.tags,
            },
            host_config=host_config,
            name=f"ecs-{task.family[:40]}-{task.revision}-default-{task.task_id[:20]}",
        )
        return str(made["Id"])

    def _environment(self, task: Task) -> dict[str, str]:
        agent = {
            "AWS_EXECUTION_ENV": "AWS_ECS_EC2",
            "ECS_CONTAINER_METADATA_URI_V4": self.endpoints.of_task(task),
            "ECS_CONTAINER_METADATA_URI": self.endpoints.of_task(task).replace("/v4/", "/v3/"),
            # On AWS it is a fixed address, and every host has its own behind it.
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.endpoints.of_host(task.host),
        }
        if task.role_arn is not None:
            address = self._hooks.credentials_uri(task.role_arn, task.task_id)
            if address is not None:
                agent["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = address
        return {**self._hooks.container_environment(), **agent, **task.environment}

    def _binds(self, task: Task) -> list[str]:
        # Host volumes that the user data did not make are made by Docker: as root, not writable for others.
        root = self._folder / task.host.instance_id
        for path, uid in task.host.prepared.items():
            if not on_disk(root, path).exists():
                on_disk(root, path).mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(PermissionError):
                    os.chown(on_disk(root, path), uid, uid)
        volumes = {volume["name"]: volume.get("host") or {} for volume in task.container.get("volumes") or ()}
        binds = []
        for mount in task.container.get("mountPoints") or ():
            source = volumes[mount["sourceVolume"]].get("sourcePath") or f"/volumes/{task.task_id}"
            folder = on_disk(root, source)
            folder.mkdir(parents=True, exist_ok=True)
            binds.append(f"{folder}:{mount['containerPath']}:{'ro' if mount.get('readOnly') else 'rw'}")
        return binds

    def _follow(self, client: docker.APIClient, container_id: str, task: Task) -> tuple[int | None, str | None]:
        try:
            stream = client.logs(container_id, stream=True, follow=True, timestamps=True)
            for lines in log_lines(stream):
                self._hooks.put_log(task.log_group, task.log_stream, lines)
            code = int(client.wait(container_id)["StatusCode"])
            state = client.inspect_container(container_id)["State"]
        except (docker.errors.APIError, requests.exceptions.RequestException) as error:
            return None, f"CannotInspectContainerError: {error}"
        return code, OUT_OF_MEMORY if state.get("OOMKilled") else None


def on_disk(root: Path, path: str) -> Path:
    """Give where a path of a host lies here."""
    return root / path.lstrip("/")


def tmpfs_options(mount: Mapping[str, Any]) -> str:
    """Give Docker's options of a tmpfs mount."""
    return ",".join([f"size={mount['size']}m", *mount.get("mountOptions", ())])


def log_lines(stream: Iterator[bytes]) -> Iterator[list[LogLine]]:
    """Cut Docker's stamped output into lines, in the portions in which it comes."""
    rest = b""
    for chunk in stream:
        *whole, rest = (rest + chunk).split(b"\n")
        if whole:
            yield [stamped(line) for line in whole]
    if rest:
        yield [stamped(rest)]


def stamped(line: bytes) -> LogLine:
    """Take the time off a line; Docker writes nanoseconds, which Python's parser does not know."""
    moment, _, text = line.decode("utf-8", "replace").partition(" ")
    seconds, _, fraction = moment.rstrip("Z").partition(".")
    at = datetime.fromisoformat(f"{seconds}+00:00").timestamp()
    return int(at * 1000) + int((fraction + "000")[:3]), text.rstrip("\r")


def refusal(error: Exception, container_id: str | None) -> str:
    """Give the agent's words for a container that could not be made or started."""
    text = str(getattr(error, "explanation", None) or error)
    if container_id is not None:
        return f"CannotStartContainerError: Error response from daemon: {text}"[:255]
    if isinstance(error, docker.errors.ImageNotFound):
        return f"CannotPullContainerError: Error response from daemon: {text}"[:255]
    return f"CannotCreateContainerError: Error response from daemon: {text}"[:255]


def send(container_id: str, name: str) -> None:
    """Send a signal to a container; one that has ended does not mind."""
    refused = contextlib.suppress(docker.errors.APIError)
    try:
        with contextlib.closing(docker.APIClient(version="auto")) as client, refused:
            client.kill(container_id, name)
    except _ENGINE_ERRORS:
        logger.exception("signal_lost container=%s signal=%s", container_id, name)


def remove(client: docker.APIClient, container_id: str | None) -> None:
    """Remove a container, whatever its state."""
    if container_id is not None:
        with contextlib.suppress(*_ENGINE_ERRORS):
            client.remove_container(container_id, force=True, v=True)


def remove_leftovers() -> None:
    """Remove containers of stand-ins that are no more."""
    client = docker.APIClient(version="auto")
    try:
        for entry in client.containers(all=True, filters={"label": LABEL}):
            owner = entry["Labels"].get(LABEL, "")
            if not Path(f"/proc/{owner}").exists():
                remove(client, entry["Id"])
    finally:
        client.close()
