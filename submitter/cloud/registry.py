"""The stack's container registry: what is in it, the login to it, and whether a record still holds."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from jobspec.errors import NotFoundError, TryLaterError, UsageError
from submitter.cloud.clients import Clients
from submitter.cloud.definitions import inactive
from submitter.cloud.errors import explained
from submitter.cloud.record import ImageRecord
from submitter.cloud.stack import Stack

PLATFORM = "linux/amd64"
"""What the machines of a stack are; an image of another architecture ends there with "exec format error"."""

_SINGLE = ("application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json")
_INDEX = ("application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.oci.image.index.v1+json")
_FETCH_SECONDS = 60


@dataclass(frozen=True)
class RemoteImage:
    """An image in the registry: its digest, and the manifest or index behind it."""

    digest: str
    manifest: dict[str, Any]

    @property
    def config(self) -> str:
        """Return the digest of the image's configuration, "" where there are several images behind the digest."""
        return str(self.manifest.get("config", {}).get("digest", ""))


def find_image(clients: Clients, stack: Stack, *, tag: str = "", digest: str = "") -> RemoteImage | None:
    """Return an image of the stack's repository by its tag or its digest, None if it is not there.

    Raises:
        NotFoundError: the repository itself is gone.
        AccessError: ecr:BatchGetImage is missing.
    """
    from botocore.exceptions import ClientError

    wanted: Any = {"imageDigest": digest} if digest else {"imageTag": tag}
    with explained(f"Looking for the image in the repository {stack.repository_name}"):
        try:
            answer = clients.ecr.batch_get_image(
                registryId=stack.account,
                repositoryName=stack.repository_name,
                imageIds=[wanted],
                acceptedMediaTypes=[*_SINGLE, *_INDEX],
            )
        except ClientError as error:
            if error.response["Error"]["Code"] == "RepositoryNotFoundException":
                raise no_repository(stack) from None
            raise
    for image in answer["images"]:
        return RemoteImage(image["imageId"]["imageDigest"], json.loads(image["imageManifest"]))
    return None


def platforms_of(clients: Clients, stack: Stack, image: RemoteImage) -> frozenset[str]:
    """Return the platforms of an image in the registry, such as ``linux/amd64``.

    Costs a request and a download of some kilobytes unless the manifest is an index, which tells them itself.

    Raises:
        TryLaterError: the configuration cannot be fetched.
    """
    import requests

    if "manifests" in image.manifest:
        found = (entry.get("platform", {}) for entry in image.manifest["manifests"])
        return frozenset(f"{one.get('os')}/{one.get('architecture')}" for one in found)
    with explained("Asking the registry for the image's configuration"):
        url = clients.ecr.get_download_url_for_layer(
            registryId=stack.account, repositoryName=stack.repository_name, layerDigest=image.config
        )["downloadUrl"]
    try:
        answer = requests.get(url, timeout=_FETCH_SECONDS)
        answer.raise_for_status()
        config = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise TryLaterError(
            f"The configuration of the image {image.digest} cannot be fetched from the registry ({error}). Type the "
            "same command again."
        ) from None
    return frozenset({f"{config.get('os')}/{config.get('architecture')}"})


def login(clients: Clients) -> dict[str, str]:
    """Return what the Docker engine needs to push and pull; it lasts twelve hours, and is written down nowhere.

    Raises:
        AccessError: ecr:GetAuthorizationToken is missing, or the credentials have expired.
    """
    with explained("Logging in to the container registry"):
        token = clients.ecr.get_authorization_token()["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(token).decode().partition(":")
    return {"username": user, "password": password}


def check_pushed(clients: Clients, stack: Stack, record: ImageRecord) -> None:
    """Refuse to send tasks whose image could not be pulled, could not run, or has no job definitions; two requests.

    Raises:
        NotFoundError: image or definitions are gone.
        UsageError: the image is made for other machines.
    """
    remedy = f"`submit image push --image {record.tag}` puts it there again."
    if record.platform != PLATFORM:
        raise UsageError(
            f"The image {record.tag} is made for {record.platform}, and the machines of the stack are {PLATFORM}. "
            f"`submit image build --platform {PLATFORM}` and `submit image push` make one that runs there."
        )
    if not record.image.startswith(f"{stack.repository_uri}@"):
        raise NotFoundError(
            f"The image {record.image} lies in another repository than that of the stack {stack.name} "
            f"({stack.repository_uri}). {remedy}"
        )
    if find_image(clients, stack, digest=record.image_digest) is None:
        raise NotFoundError(f"The image {record.image} is no longer in the registry. {remedy}")
    if gone := inactive(clients, record.definitions):
        raise NotFoundError(f"The image {record.tag} has job definitions no longer: {', '.join(gone)}. {remedy}")


def no_repository(stack: Stack) -> NotFoundError:
    """Return the error for a stack whose repository somebody took away."""
    return NotFoundError(
        f"The repository {stack.repository_name} of the stack {stack.name} is not there in {stack.region} of account "
        f"{stack.account}. `submit infra down` and `submit infra up` make the stack anew; its bucket is kept."
    )
