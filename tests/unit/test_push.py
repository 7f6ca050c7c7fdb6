from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from jobspec.errors import AccessError, FoldfleetError, NotFoundError, TryLaterError, UsageError
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from submitter.cli.image_commands import print_push
from submitter.cloud import push as pushing
from submitter.cloud.definitions import STEPS
from submitter.cloud.push import LocalImage, PushReport, check_local, push_image
from submitter.cloud.record import list_records
from submitter.cloud.registry import check_pushed
from tests.unit.cloudy import REPOSITORY, definition_arn, make_parts, make_record, make_stack
from tests.unit.fakedocker import refusal

IMAGE_ID = "sha256:" + "12" * 32
OTHER_ID = "sha256:" + "34" * 32
STACK = make_stack()
ME, ARN = "arn:aws:iam::1:user/me", "arn:aws:ecr:eu-west-1:1:repository/foldfleet"


class Killed(BaseException):
    """What kill -9 is to a test."""


def client_error(code: str, words: str, operation: str, status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": words}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


@dataclass
class Registry:
    """ECR and Batch as far as a push asks them; ``fails`` raises at the n-th call of everything that is asked."""

    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    definitions: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    fails: dict[str, BaseException] = field(default_factory=dict)
    dies_after: int | None = None

    def hear(self, call: str) -> None:
        self.calls.append(call)
        if call in self.fails:
            raise self.fails[call]

    def heard(self) -> None:
        """Die, if the time has come, once the call has had its effect."""
        if self.dies_after is not None and len(self.calls) >= self.dies_after:
            raise Killed

    @property
    def clients(self) -> Any:
        return type("Clients", (), {"ecr": self, "batch": self})()

    def get_authorization_token(self) -> dict[str, Any]:
        self.hear("login")
        token = base64.b64encode(b"AWS:secret").decode()
        self.heard()
        return {"authorizationData": [{"authorizationToken": token}]}

    def batch_get_image(self, **asked: Any) -> dict[str, Any]:
        self.hear("look")
        assert asked["registryId"] == STACK.account and asked["repositoryName"] == "foldfleet"
        (wanted,) = asked["imageIds"]
        found = [
            {"imageId": {"imageDigest": image["digest"]}, "imageManifest": json.dumps(image["manifest"])}
            for tag, image in self.images.items()
            if wanted in ({"imageTag": tag}, {"imageDigest": image["digest"]})
        ]
        self.heard()
        return {"images": found, "failures": [] if found else [{"failureCode": "ImageNotFound"}]}

    def get_paginator(self, operation: str) -> Any:
        assert operation == "describe_job_definitions"
        return type("Pages", (), {"paginate": self._pages})()

    def _pages(self, **asked: Any) -> Iterator[dict[str, Any]]:
        self.hear("definitions")
        assert asked["status"] == "ACTIVE"
        self.heard()
        name = asked["jobDefinitionName"]
        yield {"jobDefinitions": [one for one in self.definitions if one["jobDefinitionName"] == name]}

    def register_job_definition(self, **sent: Any) -> dict[str, Any]:
        self.hear("register")
        number = 1 + sum(one["jobDefinitionName"] == sent["jobDefinitionName"] for one in self.definitions)
        arn = definition_arn(sent["jobDefinitionName"], number)
        self.definitions.append({**sent, "jobDefinitionArn": arn, "revision": number, "status": "ACTIVE"})
        self.heard()
        return {"jobDefinitionArn": arn}

    def describe_job_definitions(self, **asked: Any) -> dict[str, Any]:
        return {
            "jobDefinitions": [one for one in self.definitions if one["jobDefinitionArn"] in asked["jobDefinitions"]]
        }


@dataclass
class Engine:
    """The low-level client of the Docker SDK, as far as a push asks it."""

    registry: Registry
    found: dict[str, Any] = field(default_factory=dict)
    arch: str = "amd64"
    timeout: float = 60
    words: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    login: list[dict[str, str]] = field(default_factory=list)
    base_url: str = "http+docker://here"

    @property
    def client(self) -> Any:
        return type("Client", (), {"api": self})()

    def version(self) -> dict[str, str]:
        return {"Arch": self.arch, "KernelVersion": "6"}

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self.found:
            raise refusal(404, f"No such image: {name}")
        return cast("dict[str, Any]", self.found[name])

    def tag(self, image: str, repository: str, *, tag: str) -> bool:
        self.registry.hear("tag")
        self.tags.add(f"{repository}:{tag}")
        self.registry.heard()
        return True

    def remove_image(self, name: str, *, noprune: bool) -> None:
        self.tags.discard(name)

    def push(self, repository: str, *, tag: str, stream: bool, decode: bool, auth_config: dict[str, str]) -> Any:
        assert stream and decode and self.timeout > 60 and f"{repository}:{tag}" in self.tags
        self.login.append(auth_config)
        self.registry.hear("push")
        yield {"status": f"The push refers to repository [{repository}]"}
        yield {"status": "Preparing", "id": "one"}
        yield {"status": "Preparing", "id": "two"}
        yield {"status": "Pushing", "id": "one", "progressDetail": {"current": 1, "total": 2}, "progress": "[=> ]"}
        yield {"status": "Pushed", "id": "one"}
        config = IMAGE_ID if tag.endswith("12" * 6) else OTHER_ID
        image = {"digest": digest_of(config), "manifest": {"config": {"digest": config}, "layers": []}}
        if self.words:
            words = self.words.pop(0)
            if "already exists" in words:
                self.registry.images[tag] = image
            yield {"errorDetail": {"message": words}, "error": words}
            return
        yield {"status": "Layer already exists", "id": "two"}
        self.registry.images[tag] = image
        self.registry.heard()
        yield {"aux": {"Tag": tag, "Digest": digest_of(config), "Size": 1}}


def digest_of(image_id: str) -> str:
    return "sha256:" + image_id[-32:] * 2


def local_image(image_id: str = IMAGE_ID) -> LocalImage:
    return LocalImage("foldfleet:0.1.0", image_id, make_parts())


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


class Desk:
    """A person who pushes."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.registry = Registry()
        self.engine = Engine(self.registry)
        self.said: list[str] = []
        self.clock = 1000.0

    def push(self, image_id: str = IMAGE_ID, store: Store | None = None) -> PushReport:
        self.clock += 1
        return push_image(
            self.engine.client,
            self.registry.clients,
            local_image(image_id),
            STACK,
            store or self.store,
            self.said.append,
            now=lambda: self.clock,
        )


def planners(desk: Desk) -> list[str]:
    """Return the images of the revisions of the planner, the oldest first."""
    found = [one for one in desk.registry.definitions if one["jobDefinitionName"] == "foldfleet-plan"]
    return [one["containerProperties"]["image"] for one in found]


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


def test_a_push_ends_with_image_definitions_and_record(desk: Desk, store: Store) -> None:
    report = desk.push()
    record = report.record
    assert report.sent and report.recorded
    assert record.image == f"{REPOSITORY}@{digest_of(IMAGE_ID)}" and record.tag == "foldfleet:0.1.0"
    assert list(desk.registry.images) == [f"{record.engine_id}-{'12' * 6}"]
    assert {one["containerProperties"]["image"] for one in desk.registry.definitions} == {record.image}
    *of_image, planner = desk.registry.definitions
    assert {one["jobDefinitionArn"] for one in of_image} == set(record.definitions.values())
    assert planner["jobDefinitionName"] == "foldfleet-plan"
    assert report.planner == planner["jobDefinitionArn"]
    assert list_records(store) == [record]
    assert set(record.parts.kernel) == {"portable"}
    assert desk.said == [
        f"Pushing foldfleet:0.1.0 to {REPOSITORY}",
        "1 of 2 layers are in the registry",
        "2 of 2 layers are in the registry",
        *(f"Registering the job definition foldfleet-{step}-{record.engine_id}" for step in STEPS),
        "Registering the job definition foldfleet-plan",
    ]


def test_every_definition_that_was_registered_is_told(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    report = desk.push()
    registered = {one["jobDefinitionArn"] for one in desk.registry.definitions}
    assert set(report.to_json()["definitions"].values()) == registered
    assert report.to_json()["definitions"]["plan"] == report.planner
    print_push(report)
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines[-4:]} == {arn.rpartition("/")[2] for arn in registered}
    assert lines[-1].split()[0] == "plan" and "foldfleet-plan" in lines[-1]


def test_the_login_is_an_argument_and_the_name_in_the_registry_is_taken_away_again(desk: Desk) -> None:
    desk.push()
    assert desk.engine.login == [{"username": "AWS", "password": "secret"}]
    assert not desk.engine.tags and desk.engine.timeout == 60


def test_a_second_push_has_nothing_to_do(desk: Desk, store: Store) -> None:
    first = desk.push()
    desk.registry.calls.clear()
    desk.said.clear()
    again = desk.push()
    assert not again.sent and not again.recorded and again.record == first.record and not desk.said
    assert not {"push", "login", "register"} & set(desk.registry.calls)
    assert len(list(store.keys(Layout.images()))) == 1


def test_another_build_of_the_same_engine_is_used_by_new_runs_alone(desk: Desk, store: Store) -> None:
    first = desk.push().record
    second = desk.push(OTHER_ID).record
    assert second.engine_id == first.engine_id and second.definitions != first.definitions
    assert list_records(store) == [second, first]
    assert len(desk.registry.definitions) == 8
    back = desk.push()
    assert planners(desk) == [first.image, second.image, first.image]  # the newest is the one that plans
    assert back.recorded and not back.sent and back.record.definitions == first.definitions


@pytest.mark.parametrize("dies_after", range(1, 15))
def test_a_push_that_was_killed_anywhere_is_completed_by_the_next(desk: Desk, store: Store, dies_after: int) -> None:
    desk.registry.dies_after = dies_after
    killed = False
    try:
        desk.push()
    except Killed:
        killed = True
    desk.registry.dies_after = None
    assert killed == (dies_after <= 13)
    report = desk.push()
    assert len(desk.registry.definitions) == 4 and planners(desk) == [report.record.image]
    assert len(desk.registry.images) == 1
    assert list_records(store) == [report.record]
    assert sorted(report.record.definitions.values()) == sorted(
        one["jobDefinitionArn"] for one in desk.registry.definitions[:3]
    )
    again = desk.push()
    assert not again.sent and not again.recorded and not desk.engine.tags


def test_a_push_that_was_killed_while_it_recorded_is_completed_by_the_next(desk: Desk, store: Store) -> None:
    class Dying:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def create(self, key: str, body: bytes) -> bool:
            store.create(key, body)
            raise Killed

    with pytest.raises(Killed):
        desk.push(store=cast("Store", Dying()))
    report = desk.push()
    assert not report.recorded and list_records(store) == [report.record]


def test_a_login_that_ends_on_the_way_is_renewed_once(desk: Desk) -> None:
    desk.engine.words = ["denied: Your authorization token has expired. Reauthenticate and try again."]
    assert desk.push().sent
    assert desk.registry.calls.count("login") == 2
    assert "The login has expired; logging in again" in desk.said


def test_credentials_that_expire_on_the_way_are_told_and_nothing_is_recorded(desk: Desk, store: Store) -> None:
    desk.engine.words = ["denied: Your authorization token has expired. Reauthenticate and try again."] * 2
    with pytest.raises(AccessError, match=r"expired while the image was being pushed.*not sent twice"):
        desk.push()
    assert not list_records(store) and not desk.engine.tags
    assert desk.push().recorded


def test_expired_credentials_at_the_second_login_are_told(desk: Desk) -> None:
    desk.engine.words = ["denied: Your authorization token has expired. Reauthenticate and try again."]
    tries = iter(
        [None, client_error("ExpiredTokenException", "The security token is expired", "GetAuthorizationToken")]
    )

    def login() -> dict[str, Any]:
        if (error := next(tries)) is not None:
            raise error
        return {"authorizationData": [{"authorizationToken": base64.b64encode(b"AWS:x").decode()}]}

    desk.registry.get_authorization_token = login  # type: ignore[method-assign]
    with pytest.raises(AccessError, match=r"credentials have expired.*aws sso login"):
        desk.push()


def test_an_image_that_another_process_pushed_meanwhile_is_taken(desk: Desk) -> None:
    words = "tag invalid: The image tag 'e-1' already exists in the 'foldfleet' repository and cannot be overwritten"
    desk.engine.words = [f"{words} because the repository is immutable."]
    assert desk.push().record.image_digest == digest_of(IMAGE_ID)


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        (
            f"denied: User: {ME} is not authorized to perform: ecr:PutImage on resource: {ARN} because no policy",
            AccessError,
            rf"ecr:PutImage is missing\. Allow ecr:PutImage on {ARN} to",
        ),
        ("no basic auth credentials", AccessError, "ecr:GetAuthorizationToken, .*ecr:PutImage"),
        ("denied: requested access to the resource is denied", AccessError, "ecr:PutImage"),
        ("name unknown: The repository with name 'foldfleet' does not exist", NotFoundError, "`submit infra up`"),
        ("write /var/lib/docker/tmp/x: no space left on device", TryLaterError, "docker image prune"),
        ("dial tcp 10.0.0.1:443: i/o timeout", TryLaterError, "Check the network"),
        ("EOF", TryLaterError, "not sent twice"),
        ("An image does not exist locally with the tag: x", TryLaterError, "Another process"),
    ],
)
def test_what_a_registry_refuses_is_told_in_one_paragraph(
    desk: Desk, store: Store, words: str, kind: type[FoldfleetError], told: str
) -> None:
    desk.engine.words = [words]
    with pytest.raises(kind, match=told) as refused:
        desk.push()
    assert type(refused.value) is kind and "\n" not in refused.value.message
    assert not list_records(store) and not desk.registry.definitions


@pytest.mark.parametrize(
    ("call", "operation", "action"),
    [
        ("look", "BatchGetImage", "ecr:BatchGetImage"),
        ("login", "GetAuthorizationToken", "ecr:GetAuthorizationToken"),
        ("definitions", "DescribeJobDefinitions", "batch:DescribeJobDefinitions"),
        ("register", "RegisterJobDefinition", "iam:PassRole"),
    ],
)
def test_a_missing_right_is_named(desk: Desk, store: Store, call: str, operation: str, action: str) -> None:
    words = f"User: arn:aws:iam::1:user/me is not authorized to perform: {action} on resource: arn:aws:x"
    desk.registry.fails[call] = client_error("AccessDeniedException", words, operation, 403)
    with pytest.raises(AccessError, match=rf"{action} is missing\. Allow {action} on arn:aws:x"):
        desk.push()
    assert not list_records(store)


def test_a_stack_whose_repository_is_gone(desk: Desk) -> None:
    desk.registry.fails["look"] = client_error("RepositoryNotFoundException", "no", "BatchGetImage")
    with pytest.raises(NotFoundError, match="`submit infra up` make the stack anew"):
        desk.push()


def test_an_image_behind_an_index_must_hold_the_platform_of_the_stack(desk: Desk) -> None:
    def index(architecture: str) -> dict[str, Any]:
        unknown = {"platform": {"os": "unknown", "architecture": "unknown"}}
        return {"manifests": [{"platform": {"os": "linux", "architecture": architecture}}, unknown]}

    tag = local_image().remote_tag
    desk.registry.images[tag] = {"digest": "sha256:" + "9" * 64, "manifest": index("arm64")}
    with pytest.raises(UsageError, match=r"made for linux/arm64, .*--platform linux/amd64"):
        desk.push()
    desk.registry.images[tag]["manifest"] = index("amd64")
    assert desk.push().record.image_digest == "sha256:" + "9" * 64


# --- the image of the Docker engine ---------------------------------------------------------------------------


def described(**changes: Any) -> dict[str, Any]:
    labels = {
        "org.opencontainers.image.title": "foldfleet",
        "org.opencontainers.image.version": make_parts().foldfleet,
        "foldfleet.engine_id": make_parts().whole_engine("portable").engine_id,
    }
    whole = {"Id": IMAGE_ID, "Os": "linux", "Architecture": "amd64", "Config": {"Labels": labels}}
    return whole | changes


Check = Callable[..., LocalImage]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Return a function that checks an image of which the engine says these things."""
    monkeypatch.setattr(pushing, "image_parts", lambda *_: make_parts())
    monkeypatch.setattr(pushing, "describe_image", lambda *_, **__: make_parts().model_dump(mode="json"))

    def run(arch: str = "amd64", **changes: Any) -> LocalImage:
        engine = Engine(Registry(), {"mine:1": described(**changes)}, arch)
        return check_local(engine.client, "mine:1", tmp_path)

    return run


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_an_image_for_the_stack_passes_on_either_kind_of_laptop(check: Check, arch: str) -> None:
    assert check(arch) == LocalImage("mine:1", IMAGE_ID, make_parts())


def test_an_image_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="has no image mine:2"):
        check_local(Engine(Registry()).client, "mine:2", tmp_path)


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({"Architecture": "arm64"}, UsageError, r'linux/arm64.*"exec format error".*--platform linux/amd64'),
        ({"Config": {"Labels": None}}, UsageError, "none of foldfleet's"),
        ({"Config": {"Labels": {"org.opencontainers.image.title": "nginx"}}}, UsageError, "none of foldfleet's"),
        ({"label": ("org.opencontainers.image.version", "0.0.9")}, NotFoundError, r"holds foldfleet 0\.0\.9"),
        ({"label": ("foldfleet.engine_id", "e-other")}, UsageError, "changed after it was built"),
    ],
)
def test_an_image_that_a_stack_cannot_run_is_refused(
    check: Check, changes: dict[str, Any], kind: type[FoldfleetError], told: str
) -> None:
    if "label" in changes:
        name, value = changes.pop("label")
        changes["Config"] = {"Labels": described()["Config"]["Labels"] | {name: value}}
    with pytest.raises(kind, match=told) as refused:
        check(**changes)
    assert "submit image build" in refused.value.message


# --- before a run ---------------------------------------------------------------------------------------------


def test_what_was_pushed_may_run(desk: Desk) -> None:
    check_pushed(desk.registry.clients, STACK, desk.push().record)


def test_what_was_taken_away_since_may_not(desk: Desk) -> None:
    record = desk.push().record
    definition = desk.registry.definitions.pop(2)  # the last of the image; the planner is not of its run
    with pytest.raises(NotFoundError, match=f"{definition['jobDefinitionArn']}.*`submit image push --image foldfl"):
        check_pushed(desk.registry.clients, STACK, record)
    desk.registry.images.clear()
    with pytest.raises(NotFoundError, match="no longer in the registry"):
        check_pushed(desk.registry.clients, STACK, record)


def test_an_image_of_another_kind_or_place_may_not() -> None:
    clients = Registry().clients
    with pytest.raises(UsageError, match="made for linux/arm64"):
        check_pushed(clients, STACK, make_record(platform="linux/arm64"))
    with pytest.raises(NotFoundError, match="in another repository"):
        check_pushed(clients, STACK, make_record(image="elsewhere/foldfleet@sha256:1"))
