"""How the S3 store reaches its bucket: the address, the settings of every request, one client for each process."""

from __future__ import annotations

import functools
import ipaddress
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from jobspec.errors import UsageError

if TYPE_CHECKING:
    from botocore.loaders import Loader
    from botocore.session import Session
    from mypy_boto3_s3 import S3Client

_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]")
_MAX_PREFIX_BYTES = 700
"""A key holds 1,024 bytes; the store's own keys need the rest."""


@dataclass(frozen=True)
class S3Settings:
    """Set how requests are sent; the defaults suit AWS."""

    attempts: int = 8
    """Tries of one request, the first included; the user's ``AWS_MAX_ATTEMPTS`` goes first."""

    connect_timeout_s: float = 10
    read_timeout_s: float = 60
    connections: int = 32
    part_bytes: int = 16 << 20
    """Length of one part of a multipart upload; a file of up to two parts is sent in one request."""

    upload_streams: int = 8
    page_size: int = 1000
    hasty: bool = False
    """Whether the user's ``AWS_MAX_ATTEMPTS`` may lower the attempts, but not raise them."""

    sleep: Callable[[float], object] = time.sleep

    def pauses(self) -> Iterator[None]:
        """Yield once for every try, after a growing pause with jitter before all but the first."""
        yield
        for number in range(self.attempts - 1):
            self.sleep(random.uniform(0.5, 1) * min(20.0, 0.25 * 2**number))  # noqa: S311 - jitter is no secret
            yield


HASTY = S3Settings(attempts=3, connect_timeout_s=5, read_timeout_s=10, hasty=True)
"""For whoever can do without an answer for a while, and not without its signals."""


@dataclass(frozen=True)
class S3Address:
    """Name a bucket and the prefix in it; ``prefix`` is empty or ends in a slash."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> S3Address:
        """Read ``s3://bucket/prefix``; slashes too many are dropped, so that one prefix has one spelling.

        Raises:
            UsageError: no such bucket can exist, or the prefix climbs.
        """
        bucket, _, rest = url.removeprefix("s3://").partition("/")
        names = [name for name in rest.split("/") if name]
        if not _BUCKET.fullmatch(bucket) or _is_ip(bucket):
            raise UsageError(
                f"The store {url!r} names the bucket {bucket!r}. A bucket's name has 3 to 63 lower-case letters, "
                "digits, dots and hyphens: use --store s3://BUCKET/PREFIX."
            )
        prefix = "".join(f"{name}/" for name in names)
        if {".", ".."} & set(names) or not prefix.isprintable() or len(prefix.encode()) > _MAX_PREFIX_BYTES:
            raise UsageError(
                f"The store {url!r} has a prefix that cannot be used: it must hold neither '.' nor '..' as a part nor "
                f"control characters, and at most {_MAX_PREFIX_BYTES} bytes. Use --store s3://BUCKET/PREFIX."
            )
        return cls(bucket, prefix)

    @property
    def url(self) -> str:
        """Return the one spelling of this address."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def _is_ip(bucket: str) -> bool:
    try:
        ipaddress.ip_address(bucket)
    except ValueError:
        return False
    return True


_lock = threading.RLock()
# A fork waits for a client that is being made, and no child inherits a lock that nobody will release.
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class S3Connection:
    """Give each process a client of its own: a socket shared with a parent would mix two answers.

    Credentials, region, endpoint, proxies and certificates come from where every AWS tool takes them. The session,
    with the credentials it has fetched, is inherited by children; it holds no socket.
    """

    def __init__(self, settings: S3Settings, bucket: str) -> None:
        self._wanted = settings
        self._bucket = bucket
        self._session: Session | None = None
        self._client: tuple[int, S3Client] | None = None

    @functools.cached_property
    def settings(self) -> S3Settings:
        """Return the settings with what the user set for every AWS tool."""
        try:
            told = self.session().get_config_variable("max_attempts")
            told = None if told is None else int(told)
        except ValueError as error:
            raise UsageError(f"AWS_MAX_ATTEMPTS (or max_attempts of the profile) is no number: {error}.") from None
        if told is None:
            return self._wanted
        attempts = max(1, int(told))
        return replace(self._wanted, attempts=min(attempts, self._wanted.attempts) if self._wanted.hasty else attempts)

    def session(self) -> Session:
        """Return the session; it reads the user's settings when they are first asked for."""
        if self._session is None:
            import botocore.session

            session = botocore.session.Session()
            session.register_component("data_loader", _loader())
            self._session = session
        return self._session

    def client(self) -> S3Client:
        """Return this process's client; threads may share it."""
        held = self._client
        if held is not None and held[0] == os.getpid():
            return held[1]
        settings = self.settings
        with _lock:
            if self._client is None or self._client[0] != os.getpid():
                try:
                    self._client = os.getpid(), _make_client(self.session(), settings, self._bucket)
                except ValueError as error:
                    raise UsageError(
                        f"The AWS settings in use cannot be used: {error}. AWS_ENDPOINT_URL must be a whole URL, such "
                        "as http://localhost:8333; check it, AWS_REGION and ~/.aws/config."
                    ) from None
            return self._client[1]

    def certificates(self) -> str | None:
        """Return the file of certificate authorities that the user wants to be trusted, if there is one."""
        return self.session().get_config_variable("ca_bundle") or None


@functools.cache
def _loader() -> Loader:
    """Return the reader of botocore's tables; what it has read is kept for all clients, children's among them."""
    from botocore.loaders import create_loader

    return create_loader()


def _make_client(session: Session, settings: S3Settings, bucket: str) -> S3Client:
    chosen = session.get_scoped_config().get("s3")
    if isinstance(chosen, dict) and "addressing_style" in chosen:
        return _make_styled(session, settings, chosen["addressing_style"])
    # Told by name, since signed URLs otherwise lead to the global endpoint, which redirects; certificates cover no
    # bucket with a dot in its name.
    client = _make_styled(session, settings, "auto" if "." in bucket else "virtual")
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    if ".amazonaws." in f"{host}.":
        return client
    # bucket.localhost or bucket.some-server has no address: servers other than AWS take the bucket in the path.
    client.close()
    return _make_styled(session, settings, "path")


def _make_styled(session: Session, settings: S3Settings, style: str) -> S3Client:
    from botocore.config import Config

    s3: Any = {"addressing_style": style}
    config = Config(
        signature_version="s3v4",  # the default signs URLs the old way in some regions
        retries={"mode": "standard", "total_max_attempts": settings.attempts},
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        max_pool_connections=settings.connections,
        tcp_keepalive=True,
        user_agent_extra="foldfleet",
        s3=s3,
    )
    # The command line of AWS and its other SDKs take AWS_REGION, botocore itself AWS_DEFAULT_REGION or the profile's.
    region = os.environ.get("AWS_REGION") or None
    return cast("S3Client", session.create_client("s3", region_name=region, config=config))
