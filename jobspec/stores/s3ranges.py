"""Read pieces of one version of an object straight into the caller's memory.

The SDK copies every body and holds the interpreter while it does; the standard library's connections fill the caller's
memory as the bytes arrive. The SDK signs the URL, and takes over whenever an answer is not plain.
"""

from __future__ import annotations

import functools
import http.client
import os
import ssl
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from jobspec.errors import TryLaterError
from jobspec.stores.base import Checksum
from jobspec.stores.s3checksums import find_checksum

if TYPE_CHECKING:
    from jobspec.stores.s3requests import S3Requests

_SIGNED_FOR_S = 900
_SIGN_AGAIN_S = 60
"""Long before the end of a signature, and of temporary credentials, which the SDK renews 10 to 15 minutes ahead."""


class S3Ranges:
    """One version of an object, pinned by its ETag; threads may read at once, until it is closed."""

    def __init__(self, requests: S3Requests, key: str, size: int, tag: str) -> None:
        self.size = size
        self.streams = num_streams()
        self._requests = requests
        self._key = key
        self.tag = tag
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._signed: tuple[float, str] | None = None
        self._by_sdk = False

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill ``target`` with the object's bytes from ``offset`` on; what arrives damaged is fetched again.

        Raises:
            DataError: the object ends before that, or was replaced since it was opened.
            TryLaterError: S3 did not answer, or kept cutting its answers short.
        """
        target = target.cast("B")
        if offset + len(target) > self.size:
            raise self._requests.cut_short(self._key, offset, len(target), max(0, self.size - offset))
        if not target:
            return
        reason = ""
        for _ in self._requests.settings.pauses():
            try:
                if self._by_sdk:
                    raise _AskTheSdk
                self._read_once(offset, target)
            except _Again as again:
                reason = str(again)
            except _AskTheSdk:
                self._by_sdk = True  # a proxy, a certificate, a server's ways: the next piece would meet them, too
                self._read_by_sdk(offset, target)
                return
            else:
                return
        raise TryLaterError(
            f"{self._requests.address.url}/{self._key} could not be read from byte {offset} on after "
            f"{self._requests.settings.attempts} tries: {reason}. What is finished is kept: run the same command again."
        )

    def checksum(self) -> Checksum | None:
        """Return what S3 keeps of the bytes, if it can be compared here; costs one to three requests."""
        return find_checksum(self._requests, self._key, self.size, self.tag, self.streams)

    def close(self) -> None:
        """Close the connections; no thread may be reading any more."""
        with self._lock:
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    def _read_once(self, offset: int, target: memoryview) -> None:
        url = urlsplit(self._url())
        if _proxied(url.scheme, url.hostname or ""):
            raise _AskTheSdk
        connection, used = self._take(url.scheme, url.netloc)
        done = False
        try:
            try:
                self._fill(connection, f"{url.path}?{url.query}", offset, target)
            except (OSError, http.client.HTTPException):
                # A connection that lay idle may have been closed by the server: that says nothing about the object.
                if not used:
                    raise
                connection.close()
                self._fill(connection, f"{url.path}?{url.query}", offset, target)
            done = True
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, ssl.SSLCertVerificationError):
                raise _AskTheSdk from error
            raise _Again(f"{type(error).__name__} {error}".strip()) from error
        finally:
            if done:
                with self._lock:
                    self._idle.append(connection)
            else:
                connection.close()

    def _fill(self, connection: http.client.HTTPConnection, path: str, offset: int, target: memoryview) -> None:
        wanted = {"Range": f"bytes={offset}-{offset + len(target) - 1}", "If-Match": self.tag}
        connection.request("GET", path, headers=wanted)
        with connection.getresponse() as answer:
            if answer.status in {404, 412, 416}:
                raise self._requests.replaced(self._key)
            if answer.status == 429 or answer.status >= 500:
                raise _Again(f"the answer was {answer.status} {answer.reason}")
            if answer.status != 206:
                raise _AskTheSdk  # an expired signature, another region, a server without ranges
            if answer.length != len(target) or answer.headers.get("ETag", self.tag) != self.tag:
                raise _Again(f"{answer.length} bytes were offered, {len(target)} were asked for")
            filled = 0
            while filled < len(target):
                count = answer.readinto(target[filled:])
                if not count:
                    raise _Again(f"the answer ended after {filled} of {len(target)} bytes")
                filled += count

    def _read_by_sdk(self, offset: int, target: memoryview) -> None:
        with self._lock:
            self._signed = None
        body = self._requests.fetch(self._key, offset, len(target), self.tag)
        if body is None:
            raise self._requests.replaced(self._key)
        target[:] = body.content

    def _url(self) -> str:
        """Return a signed URL; it is signed again every minute, so that renewed credentials are used."""
        with self._lock:
            now = time.monotonic()
            if self._signed is None or now - self._signed[0] > _SIGN_AGAIN_S:
                with self._requests.explained("GetObject", self._key):
                    url = self._requests.client().generate_presigned_url(
                        "get_object", Params=cast("Any", self._requests.at(self._key)), ExpiresIn=_SIGNED_FOR_S
                    )
                self._signed = now, url
            return self._signed[1]

    def _take(self, scheme: str, netloc: str) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), True
        settings = self._requests.settings
        if scheme == "https":
            # As botocore chooses: AWS_CA_BUNDLE or the configuration, then what other programs are told.
            chosen = self._requests.certificates() or os.environ.get("REQUESTS_CA_BUNDLE")
            try:
                context = _trust(chosen)
            except OSError as error:  # no such file, or none that holds certificates
                raise _AskTheSdk from error
            return http.client.HTTPSConnection(netloc, timeout=settings.read_timeout_s, context=context), False
        return http.client.HTTPConnection(netloc, timeout=settings.read_timeout_s), False


class _Again(Exception):
    """The answer was lost or damaged; another try may do."""


class _AskTheSdk(Exception):
    """The answer needs what only the SDK knows: other credentials, another region, a proxy, a reason."""


def num_streams() -> int:
    """Return how many reads at once pay off.

    One connection to AWS carries 85 to 90 MB/s, so that 10 Gb/s need at least 15; on few CPUs more threads only wait
    for one another.
    """
    return max(4, min(16, 4 * len(os.sched_getaffinity(0))))


@functools.cache
def _trust(certificates: str | None) -> ssl.SSLContext:
    """Return what decides which servers are trusted: the user's authorities, else those that the SDK brings."""
    from botocore.httpsession import get_cert_path

    return ssl.create_default_context(cafile=certificates or get_cert_path(True))


def _proxied(scheme: str, host: str) -> bool:
    return scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)
