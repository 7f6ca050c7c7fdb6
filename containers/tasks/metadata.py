"""What a host of AWS tells the processes on it: plain HTTP to a link-local address, in a fraction of a second or never.

The parent of a task asks between its other duties, so every question has a short time, and no connection is kept: a
worker that is forked later must not inherit one.
"""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

Ask = Callable[[str, str, Mapping[str, str]], tuple[int, bytes]]
"""(method, URL, headers) -> (status, body); raises OSError where nobody answers."""

TIMEOUT_SECONDS = 1.0
"""Of connecting and of each read: what answers at all does so within milliseconds."""

MAX_BYTES = 1 << 20

_ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
_DISABLED = "AWS_EC2_METADATA_DISABLED"
_ADDRESS = "http://169.254.169.254"
_TOKEN_SECONDS = 6 * 3600
_TOKEN_MARGIN_SECONDS = 60
_TTL = "X-aws-ec2-metadata-token-ttl-seconds"
_TOKEN = "X-aws-ec2-metadata-token"  # noqa: S105 - a header's name


def ask(method: str, url: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """Send one request, past every proxy, and return status and body.

    Raises:
        OSError: nobody answers there, or not as a server does.
    """
    try:
        place = urlsplit(url)
        kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
        connection = kind(place.hostname or "", place.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, place.path + (f"?{place.query}" if place.query else ""), headers=dict(headers))
            with connection.getresponse() as response:
                return response.status, response.read(MAX_BYTES)
        finally:
            connection.close()
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"{type(error).__name__} {error}".strip()) from error


class InstanceMetadata:
    """The instance metadata service in its second version: every question carries a token that was asked for before."""

    def __init__(self, address: str, asks: Ask = ask, now: Callable[[], float] = time.monotonic) -> None:
        self._address = address.rstrip("/")
        self._ask = asks
        self._now = now
        self._token: tuple[float, str] | None = None

    @staticmethod
    def find(environment: Mapping[str, str] | None = None) -> InstanceMetadata | None:
        """Return the service of this host as AWS's tools find it, or None if the user wants none to be asked."""
        told = os.environ if environment is None else environment
        if told.get(_DISABLED, "").lower() == "true":
            return None
        return InstanceMetadata(told.get(_ENDPOINT) or _ADDRESS)

    def get(self, path: str) -> str | None:
        """Return what lies at a path below ``/latest/meta-data/``, or None if there is nothing.

        Raises:
            OSError: the service is not there, or refuses.
        """
        status, body = self._get(path)
        if status == 401:  # the token ended early, as after a host was stopped and started
            self._token = None
            status, body = self._get(path)
        if status == 404:
            return None
        if status != 200:
            raise OSError(f"{self._address} answered {status}")
        return body.decode("utf-8", "replace")

    def _get(self, path: str) -> tuple[int, bytes]:
        return self._ask("GET", f"{self._address}/latest/meta-data/{path}", {_TOKEN: self._valid_token()})

    def _valid_token(self) -> str:
        now = self._now()
        if self._token is None or now >= self._token[0]:
            url = f"{self._address}/latest/api/token"
            status, body = self._ask("PUT", url, {_TTL: str(_TOKEN_SECONDS)})
            if status != 200:
                raise OSError(f"{self._address} gives no token: it answered {status}")
            until = now + _TOKEN_SECONDS - _TOKEN_MARGIN_SECONDS
            self._token = until, body.decode("ascii", "replace").strip()
        return self._token[1]
