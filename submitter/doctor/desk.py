"""Which checks a backend needs, in an order in which the first that is wrong explains those behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobspec.errors import ExitCode, FoldfleetError, UsageError
from jobspec.names import closest
from jobspec.settings import DEFAULT_STORE, Settings
from jobspec.stores.base import Store, open_store
from submitter.backends.docker.engine import Connect, connect
from submitter.cloud.clients import make_clients
from submitter.doctor import account, engine, machine, network, stack
from submitter.doctor.findings import Finding, Level, examine, from_error, ok, wrong
from submitter.images.build import default_tag

if TYPE_CHECKING:
    from submitter.cloud.clients import Clients
    from submitter.cloud.stack import Stack

PLACES = ("local", "docker", "aws", "stepfunctions")


@dataclass(frozen=True)
class Patient:
    """What is looked at, and how it is reached; ``open_store`` refuses a store that cannot be one.

    ``store`` is what a person named by flag, None without one.
    """

    settings: Settings
    store: str | None
    stack_name: str
    open_store: Callable[[], Store]
    connect: Connect = connect
    clients: Callable[[], Clients] = make_clients
    now: Callable[[], float] = time.time


def check_place(on: str) -> None:
    """Refuse a backend that does not exist.

    Raises:
        UsageError: it names those that do.
    """
    if on not in PLACES:
        raise UsageError(f"There is no backend {on!r}; allowed are {', '.join(PLACES)}.{closest(on, PLACES)}")


def diagnose(on: str, patient: Patient) -> Iterator[Finding]:
    """Yield what is found, one by one: looking at a stack takes some seconds."""
    settings = patient.settings
    yield from examine("python", machine.check_versions)
    yield from examine("settings", lambda: machine.check_settings(settings))
    yield from examine("cache", lambda: machine.check_cache(settings.cache))
    if on in ("aws", "stepfunctions"):  # executions send their arrays to the same queue
        yield from _diagnose_aws(patient)
        return
    yield from examine("store", lambda: machine.check_store(patient.open_store()))
    if on == "local":
        yield from examine("workers", lambda: machine.check_workers(settings))
    else:
        yield from _diagnose_docker(patient)


def _diagnose_docker(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    try:
        reached = patient.connect()
    except FoldfleetError as error:
        yield from_error("engine", error)
        return
    yield from examine("engine", lambda: engine.check_engine(reached))
    image = settings.image or default_tag()
    yield from examine("image", lambda: engine.check_image(reached, image, settings.cache))


def _diagnose_aws(patient: Patient) -> Iterator[Finding]:
    try:
        clients = patient.clients()
        found = list(account.check_identity(clients, patient.now))
    except FoldfleetError as error:  # without credentials nothing else can be asked
        yield from_error("credentials", error)
        return
    yield from found
    try:
        deployed = stack.find(clients, patient.stack_name)
    except FoldfleetError as error:
        yield from_error("stack", error)
        deployed = None
    yield from examine("roles", lambda: account.check_linked_roles(clients), optional=True)
    ceiling = stack.DEFAULT_MAX_VCPUS if deployed is None else deployed.max_vcpus
    on_demand = deployed is not None and deployed.on_demand_environment_arn is not None
    yield from examine("quota", lambda: account.check_quota(clients, ceiling, on_demand=on_demand), optional=True)
    if deployed is not None:
        yield from _diagnose_stack(patient, clients, deployed)


def _diagnose_stack(patient: Patient, clients: Clients, deployed: Stack) -> Iterator[Finding]:
    yield stack.tell(deployed)
    yield from examine("store", lambda: _check_url(patient, deployed))
    store = open_store(deployed.store_url)
    bucket = examine("bucket", lambda: (_renamed(one) for one in machine.check_store(store)))
    yield from bucket
    yield from examine("queue", lambda: stack.check_queue(clients, deployed))
    yield from examine("environments", lambda: stack.check_environments(clients, deployed))
    yield from examine("network", lambda: network.check_network(clients, deployed), optional=True)
    if all(one.level is not Level.WRONG for one in bucket):  # the records lie there
        yield from examine("images", lambda: stack.check_images(clients, deployed, store))
    yield from examine("waiting", lambda: stack.check_waiting(clients, deployed, patient.now), optional=True)


def _renamed(finding: Finding) -> Finding:
    return Finding("bucket", finding.level, finding.text, finding.remedy, finding.exit_code)


def _check_url(patient: Patient, deployed: Stack) -> Iterator[Finding]:
    """Compare the store that a run would use with the one that the stack's roles can reach."""
    given = patient.store or (None if patient.settings.store == DEFAULT_STORE else patient.settings.store)
    inside = given is not None and f"{given.rstrip('/')}/".startswith(f"{deployed.store_url}/")
    if given is None:
        yield ok("store", f"none is named, so that `submit run --on aws` uses the stack's: {deployed.store_url}")
    elif inside:
        yield ok("store", f"{given} lies in the stack's")
    else:
        text = f"{given} lies outside of what the stack's roles may reach"
        yield wrong("store", text, f"`export FOLDFLEET_STORE={deployed.store_url}`", ExitCode.SPEC)
