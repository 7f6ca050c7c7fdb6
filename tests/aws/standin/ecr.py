"""ECR's API as answered from what the registry really holds, in the place of moto's invented images."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.ecr.exceptions import ImageNotFoundException, RepositoryNotEmptyException
from moto.ecr.models import ECRBackend, Repository
from moto.ecr.responses import ECRResponse

from tests.aws.standin.identity import ACCOUNT, Identities, Principal
from tests.aws.standin.patching import replace
from tests.aws.standin.registry import Shelf, Tokens

_PAGE = 100


class Catalogue:
    """Answers of ECR about the images on the registry's disk; ``host`` is where engines push to and pull from."""

    def __init__(self, images: Path, host: str, tokens: Tokens, identities: Identities, own_url: str) -> None:
        self.images = images
        self.host = host
        self.tokens = tokens
        self.identities = identities
        self.own_url = own_url

    def install(self) -> None:
        """Put these answers in the place of moto's."""
        handlers: dict[str, Any] = {
            "describe_images": self.describe_images,
            "list_images": self.list_images,
            "batch_get_image": self.batch_get_image,
            "batch_delete_image": self.batch_delete_image,
            "get_authorization_token": self.get_authorization_token,
            "get_download_url_for_layer": self.get_download_url,
            "batch_check_layer_availability": self.check_layers,
        }
        replace(ECRResponse, **{name: _as_method(answer) for name, answer in handlers.items()})
        self._install_repositories()

    def _install_repositories(self) -> None:
        make = Repository.__init__
        make_deployed = Repository.create_from_cloudformation_json.__func__  # type: ignore[attr-defined]

        def make_here(repository: Any, *given: Any, **named: Any) -> None:
            make(repository, *given, **named)
            repository.uri = f"{self.host}/{repository.name}"
            repository.empty_on_delete = False

        def make_deployed_here(cls: Any, name: str, document: Any, *given: Any, **named: Any) -> Any:
            repository = make_deployed(cls, name, document, *given, **named)
            repository.empty_on_delete = bool(document["Properties"].get("EmptyOnDelete"))
            return repository

        def delete_here(backend: Any, repository_name: str, registry_id: str | None = None, force: bool = False) -> Any:
            repository = backend._get_repository(repository_name, registry_id)
            shelf = Shelf(self.images, repository_name)
            if shelf.digests() and not force:
                raise RepositoryNotEmptyException(repository_name, ACCOUNT)
            shelf.clear()
            backend.tagger.delete_all_tags_for_resource(repository.arn)
            return backend.repositories.pop(repository_name)

        def delete_deployed(repository: Any, account_id: str, region_name: str) -> None:
            from moto.ecr.models import ecr_backends

            backend = ecr_backends[account_id][region_name]
            backend.delete_repository(repository.name, force=repository.empty_on_delete)

        replace(
            Repository,
            __init__=make_here,
            create_from_cloudformation_json=classmethod(make_deployed_here),
            delete=delete_deployed,
        )
        replace(ECRBackend, delete_repository=delete_here)

    def _shelf(self, response: Any) -> Shelf:
        name = response._get_param("repositoryName")
        response.ecr_backend._get_repository(name)
        return Shelf(self.images, name)

    def describe_images(self, response: Any) -> dict[str, Any]:
        shelf = self._shelf(response)
        wanted = response._get_param("imageIds") or []
        found = [self._find(shelf, one) for one in wanted]
        for one, digest in zip(wanted, found, strict=True):
            if digest is None:
                shown = f"{{imageDigest:'{one.get('imageDigest', 'null')}', imageTag:'{one.get('imageTag', 'null')}'}}"
                raise ImageNotFoundException(shown, shelf.name, ACCOUNT)
        status = (response._get_param("filter") or {}).get("tagStatus", "ANY")
        chosen = _with_status(status, found or shelf.digests(), set(shelf.tags().values()))
        return _page(response, "imageDetails", [self._detail(shelf, digest) for digest in chosen])

    def list_images(self, response: Any) -> dict[str, Any]:
        shelf = self._shelf(response)
        status = (response._get_param("filter") or {}).get("tagStatus", "ANY")
        tagged = shelf.tags()
        ids: list[dict[str, str]] = []
        for digest in _with_status(status, shelf.digests(), set(tagged.values())):
            tags = [tag for tag, of in tagged.items() if of == digest]
            ids += [{"imageDigest": digest, "imageTag": tag} for tag in tags] or [{"imageDigest": digest}]
        return _page(response, "imageIds", ids)

    def batch_get_image(self, response: Any) -> dict[str, Any]:
        shelf = self._shelf(response)
        images, failures = [], []
        for one in response._get_param("imageIds"):
            digest = self._find(shelf, one)
            if digest is None:
                failures.append(_failure(one))
                continue
            manifest = shelf.blob(digest).decode()
            images.append(
                {
                    "registryId": ACCOUNT,
                    "repositoryName": shelf.name,
                    "imageId": {"imageDigest": digest, **({"imageTag": one["imageTag"]} if "imageTag" in one else {})},
                    "imageManifest": manifest,
                    "imageManifestMediaType": json.loads(manifest).get("mediaType", ""),
                }
            )
        return {"images": images, "failures": failures}

    def batch_delete_image(self, response: Any) -> dict[str, Any]:
        shelf = self._shelf(response)
        deleted, failures = [], []
        for one in response._get_param("imageIds"):
            digest = self._find(shelf, one)
            if digest is None:
                failures.append(_failure(one))
                continue
            if "imageDigest" in one:
                shelf.remove(digest)
            else:
                shelf.remove_tag(one["imageTag"])
            deleted.append({**one, "imageDigest": digest})
        return {"imageIds": deleted, "failures": failures}

    def get_authorization_token(self, response: Any) -> dict[str, Any]:
        key = self.identities.keys.get(response.get_access_key())
        principal = key.principal if key else Principal("user", "unknown")
        password, expires = self.tokens.make(principal, dt.datetime.now(dt.UTC))
        token = base64.b64encode(f"AWS:{password}".encode()).decode()
        return {
            "authorizationData": [
                {"authorizationToken": token, "expiresAt": expires, "proxyEndpoint": f"http://{self.host}"}
            ]
        }

    def get_download_url(self, response: Any) -> dict[str, Any]:
        digest = response._get_param("layerDigest")
        shelf = self._shelf(response)
        shelf.blob(digest)
        return {"downloadUrl": f"{self.own_url}/_layers/{shelf.name}/{digest}", "layerDigest": digest}

    def check_layers(self, response: Any) -> dict[str, Any]:
        shelf = self._shelf(response)
        layers = []
        for digest in response._get_param("layerDigests"):
            try:
                size = len(shelf.blob(digest))
            except FileNotFoundError:
                layers.append({"layerDigest": digest, "layerAvailability": "UNAVAILABLE"})
            else:
                layers.append({"layerDigest": digest, "layerAvailability": "AVAILABLE", "layerSize": size})
        return {"layers": layers, "failures": []}

    def _find(self, shelf: Shelf, one: Mapping[str, str]) -> str | None:
        tagged = shelf.tags().get(one["imageTag"]) if "imageTag" in one else None
        digest = one.get("imageDigest", tagged)
        if digest not in shelf.digests() or ("imageTag" in one and tagged != digest):
            return None
        return digest

    def _detail(self, shelf: Shelf, digest: str) -> dict[str, Any]:
        manifest = json.loads(shelf.blob(digest))
        tags = sorted(tag for tag, of in shelf.tags().items() if of == digest)
        return {
            "registryId": ACCOUNT,
            "repositoryName": shelf.name,
            "imageDigest": digest,
            **({"imageTags": tags} if tags else {}),
            "imageSizeInBytes": sum(layer["size"] for layer in manifest.get("layers", [])),
            "imagePushedAt": shelf.digests()[digest],
            "imageManifestMediaType": manifest.get("mediaType", ""),
            "artifactMediaType": manifest.get("config", {}).get("mediaType", ""),
        }


def _as_method(answer: Callable[[Any], Any]) -> Callable[[Any], ActionResult]:
    return lambda response: ActionResult(answer(response))


def _failure(one: Mapping[str, str]) -> dict[str, Any]:
    return {"imageId": dict(one), "failureCode": "ImageNotFound", "failureReason": "Requested image not found"}


def _with_status(status: str, digests: Iterable[str | None], tagged: set[str]) -> list[str]:
    known = [digest for digest in digests if digest is not None]
    return [digest for digest in known if status == "ANY" or (digest in tagged) == (status == "TAGGED")]


def _page(response: Any, name: str, entries: list[Any]) -> dict[str, Any]:
    start = int(response._get_param("nextToken") or 0)
    stop = start + int(response._get_param("maxResults") or _PAGE)
    return {name: entries[start:stop], **({"nextToken": str(stop)} if stop < len(entries) else {})}
