"""The stack that a desk works with, looked up once for each process."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobspec.errors import UsageError
from jobspec.settings import Settings
from submitter.cloud.clients import Clients, make_clients
from submitter.cloud.stack import find_stack

if TYPE_CHECKING:
    from jobspec.stores.base import Store
    from submitter.cloud.stack import Stack


@dataclass(frozen=True)
class World:
    """A stack and the clients that reach it."""

    clients: Clients
    stack: Stack


@functools.cache
def shared_clients() -> Clients:
    """Return the clients of this process."""
    return make_clients()


@functools.cache
def open_world(stack_name: str) -> World:
    """Return the stack of this name; asks CloudFormation once for each process.

    Raises:
        NotFoundError: there is no such stack.
        AccessError: there are no credentials, or they do not suffice.
    """
    clients = shared_clients()
    return World(clients, find_stack(clients, stack_name))


def default_store(settings: Settings) -> str:
    """Return the store of the stack."""
    return open_world(settings.stack).stack.store_url


def check_store(store: Store, stack: Stack) -> None:
    """Refuse a store that the roles of the stack cannot use: their rights name its folders one by one.

    Raises:
        UsageError: it is not the stack's.
    """
    given, allowed = store.url.rstrip("/"), stack.store_url.rstrip("/")
    if given != allowed:
        raise UsageError(
            f"The store is {store.url}, and what runs in the stack {stack.name!r} may use {allowed} alone. "
            f"Leave --store out, or type --store {allowed}; FOLDFLEET_STORE and `store` in the configuration file "
            "count, too."
        )
