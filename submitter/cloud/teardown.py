"""`submit infra down`: stop what runs, remove the stack, keep the data unless told otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jobspec.errors import AccessError, TryLaterError, UsageError
from jobspec.stores.s3errors import code_of
from submitter.cloud import bucket as buckets
from submitter.cloud.changes import Sleep
from submitter.cloud.clients import Clients
from submitter.cloud.definitions import ENGINE_TAG, STEPS, planner_name
from submitter.cloud.errors import explained, message_of
from submitter.cloud.following import Follower, Tell, explain_failure
from submitter.cloud.infra import check_ours, parameters_of
from submitter.cloud.stack import check_stack_name, describe_stack

if TYPE_CHECKING:
    from mypy_boto3_batch.literals import JobStatusType
    from mypy_boto3_cloudformation.type_defs import StackTypeDef

ACTIVE: tuple[JobStatusType, ...] = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
"""States of a request that has not ended."""

_REASON = "submit infra down"
_IMAGES_A_CALL = 100
_POLL_S = 5.0
_MAX_POLLS = 24
"""Two minutes: tasks have 30 s to end, and CloudFormation waits for the rest by itself."""


@dataclass(frozen=True)
class Request:
    """A request to Batch that has not ended."""

    request_id: str
    name: str
    status: str


@dataclass(frozen=True)
class Definition:
    """An active job definition of a stack, and the image that it starts."""

    arn: str
    engine_id: str
    image: str


@dataclass(frozen=True)
class Holder:
    """A user, group or role to whom a policy of the stack is attached."""

    kind: Literal["user", "group", "role"]
    name: str
    policy: str
    """The policy's ARN."""


@dataclass(frozen=True)
class Doomed:
    """What `down` would remove; ``stack_id`` is None if there is no stack.

    ``holders`` lose the stack's policies: IAM deletes none that is attached to anybody. ``tells_events``: the bucket
    has EventBridge told of its new objects.
    """

    name: str
    region: str
    account: str
    stack_id: str | None
    status: str
    queue: str
    bucket: str
    store_prefix: str
    bucket_exists: bool
    bucket_is_ours: bool
    requests: tuple[Request, ...]
    definitions: tuple[str, ...]
    num_images: int
    holders: tuple[Holder, ...] = ()
    tells_events: bool = False

    @property
    def data(self) -> str:
        """Return where the data lie that `--delete-data` removes: the bucket if foldfleet made it, else the store."""
        return f"s3://{self.bucket}" if self.bucket_is_ours else f"s3://{self.bucket}/{self.store_prefix}"


def survey(clients: Clients, name: str) -> Doomed:
    """Look at what there is; changes nothing.

    Raises:
        UsageError: the stack is another program's.
        TryLaterError: it is being changed.
    """
    described = describe_stack(clients, check_stack_name(name))
    if described is not None:
        check_ours(described, name)
        if described["StackStatus"].endswith("_IN_PROGRESS") and "CLEANUP" not in described["StackStatus"]:
            raise TryLaterError(
                f"The stack {name!r} is being changed ({described['StackStatus']}). Run the same command again when "
                "that is done."
            )
    parameters = parameters_of(described)
    bucket = parameters.get("BucketName") or buckets.default_bucket(clients, name)
    there = buckets.exists(clients, bucket)
    return Doomed(
        name=name,
        region=clients.region,
        account=clients.account,
        stack_id=described["StackId"] if described else None,
        status=described["StackStatus"] if described else "",
        queue=name,
        bucket=bucket,
        store_prefix=parameters.get("StorePrefix") or "foldfleet",
        bucket_exists=there,
        bucket_is_ours=there and buckets.is_ours(clients, bucket),
        requests=tuple(active_requests(clients, name)) if described else (),
        definitions=tuple(definition.arn for definition in definitions_of(clients, name)),
        num_images=sum(1 for _ in _images(clients, name)),
        holders=tuple(holder for policy in _policies_of(described) for holder in _holders(clients, policy)),
        tells_events=there and _tells_events(clients, bucket),
    )


def _tells_events(clients: Clients, bucket: str) -> bool:
    try:
        return buckets.tells_events(clients, bucket)
    except AccessError:  # a bucket of one's own, of which the builder's policy knows nothing
        return False


def _policies_of(described: StackTypeDef | None) -> list[str]:
    outputs = described.get("Outputs", []) if described else []
    wanted = {"SubmitterPolicyArn", "EventsPolicyArn"}
    return [str(one["OutputValue"]) for one in outputs if one.get("OutputKey") in wanted]


def _holders(clients: Clients, policy: str) -> Iterator[Holder]:
    from botocore.exceptions import ClientError

    with explained("Looking who has the policies of the stack"):
        try:
            for page in clients.iam.get_paginator("list_entities_for_policy").paginate(PolicyArn=policy):
                yield from (Holder("user", str(one["UserName"]), policy) for one in page["PolicyUsers"])
                yield from (Holder("group", str(one["GroupName"]), policy) for one in page["PolicyGroups"])
                yield from (Holder("role", str(one["RoleName"]), policy) for one in page["PolicyRoles"])
        except ClientError as error:
            if code_of(error) != "NoSuchEntity":
                raise


def _detach(clients: Clients, doomed: Doomed) -> None:
    with explained("Detaching the policies of the stack"):
        for holder in doomed.holders:
            if holder.kind == "user":
                clients.iam.detach_user_policy(UserName=holder.name, PolicyArn=holder.policy)
            elif holder.kind == "group":
                clients.iam.detach_group_policy(GroupName=holder.name, PolicyArn=holder.policy)
            else:
                clients.iam.detach_role_policy(RoleName=holder.name, PolicyArn=holder.policy)


def active_requests(clients: Clients, queue: str) -> Iterator[Request]:
    """Yield what of a queue has not ended; arrays are one each. Costs five requests, or pages of them."""
    from botocore.exceptions import ClientError

    with explained("Listing what runs"):
        try:
            for status in ACTIVE:
                pages = clients.batch.get_paginator("list_jobs").paginate(jobQueue=queue, jobStatus=status)
                for page in pages:
                    for item in page["jobSummaryList"]:
                        yield Request(item["jobId"], item["jobName"], item.get("status", status))
        except ClientError as error:
            if not _is_absent(error):
                raise


def definitions_of(clients: Clients, stack: str) -> Iterator[Definition]:
    """Yield a stack's active job definitions; costs a request for each hundred definitions of the account."""
    prefixes = tuple(f"{stack}-{step}-" for step in STEPS)
    with explained("Listing the job definitions"):
        for page in clients.batch.get_paginator("describe_job_definitions").paginate(status="ACTIVE"):
            for told in page["jobDefinitions"]:
                name, image = told["jobDefinitionName"], told.get("containerProperties", {}).get("image", "")
                if name == planner_name(stack):
                    yield Definition(told["jobDefinitionArn"], told.get("tags", {}).get(ENGINE_TAG, ""), image)
                elif prefix := next((prefix for prefix in prefixes if name.startswith(prefix)), ""):
                    yield Definition(told["jobDefinitionArn"], name.removeprefix(prefix), image)


def remove(clients: Clients, doomed: Doomed, *, delete_data: bool, tell: Tell, sleep: Sleep) -> list[str]:
    """Remove a stack, and return what remains of it, one sentence each.

    May be called again after any failure.

    Raises:
        FoldfleetError: CloudFormation could not remove something.
        InterruptedRun: Ctrl-C; AWS goes on.
    """
    _detach(clients, doomed)  # first: whoever builds may lack this right, and then nothing has been removed
    if doomed.requests:
        _stop(clients, doomed, tell, sleep)
    with explained("Removing the job definitions"):
        for arn in doomed.definitions:
            clients.batch.deregister_job_definition(jobDefinition=arn)
    if doomed.num_images:
        tell(f"Emptying the repository {doomed.name}")
        _delete_images(clients, doomed.name)
    if doomed.stack_id is not None:
        _delete_stack(clients, doomed, tell, sleep)
    if delete_data and doomed.bucket_exists:
        _delete_data(clients, doomed, tell)
    return list(_remains(doomed, deleted=delete_data))


def _stop(clients: Clients, doomed: Doomed, tell: Tell, sleep: Sleep) -> None:
    """Terminate what runs: nothing new starts on a queue that is closed."""
    tell(f"Terminating {len(doomed.requests)} requests")
    with explained("Terminating what runs"):
        clients.batch.update_job_queue(jobQueue=doomed.queue, state="DISABLED")
        for request in doomed.requests:
            clients.batch.terminate_job(jobId=request.request_id, reason=_REASON)
    for _ in range(_MAX_POLLS):
        if not any(active_requests(clients, doomed.queue)):
            return
        sleep(_POLL_S)


def _images(clients: Clients, repository: str) -> Iterator[dict[str, str]]:
    """Yield the images of a repository by their digests; none where there is no repository."""
    from botocore.exceptions import ClientError

    with explained(f"Listing the images of {repository!r}"):
        try:
            for page in clients.ecr.get_paginator("list_images").paginate(repositoryName=repository):
                yield from ({"imageDigest": image["imageDigest"]} for image in page["imageIds"])
        except ClientError as error:
            if code_of(error) != "RepositoryNotFoundException":
                raise


def _delete_images(clients: Clients, repository: str) -> None:
    found: list[Any] = list({image["imageDigest"]: image for image in _images(clients, repository)}.values())
    with explained(f"Removing the images of {repository!r}"):
        for start in range(0, len(found), _IMAGES_A_CALL):
            clients.ecr.batch_delete_image(repositoryName=repository, imageIds=found[start : start + _IMAGES_A_CALL])


def _delete_stack(clients: Clients, doomed: Doomed, tell: Tell, sleep: Sleep) -> None:
    follower = Follower(clients, str(doomed.stack_id), doomed.name, tell, sleep)
    follower.begin()
    with explained(f"Removing the stack {doomed.name!r}"):
        clients.cloudformation.delete_stack(StackName=doomed.name)
    status = follower.wait()
    if status != "DELETE_COMPLETE":
        raise explain_failure(doomed.name, status, follower.failures, "run the same command again")


def _delete_data(clients: Clients, doomed: Doomed, tell: Tell) -> None:
    tell(f"Deleting {doomed.data}")
    if doomed.bucket_is_ours:
        num_deleted = buckets.empty(clients, doomed.bucket, "")
        buckets.delete(clients, doomed.bucket)
    else:
        num_deleted = buckets.empty(clients, doomed.bucket, f"{doomed.store_prefix}/")
    tell(f"Deleted {num_deleted:,} objects")


def _remains(doomed: Doomed, *, deleted: bool) -> Iterator[str]:
    if doomed.bucket_exists and not deleted:
        yield (
            f"the data: s3://{doomed.bucket}/{doomed.store_prefix} (billed by S3; the next `submit infra up` finds it, "
            "`submit infra down --delete-data` removes it)"
        )
    elif doomed.bucket_exists and not doomed.bucket_is_ours:
        yield f"the bucket s3://{doomed.bucket}, which foldfleet did not make; its store is gone"
    if doomed.tells_events and not (deleted and doomed.bucket_is_ours):
        yield (
            f"a setting of the bucket {doomed.bucket}: it tells EventBridge of new objects, which nothing of foldfleet "
            "hears any more (other programs may; S3 charges nothing for it)"
        )
    yield "service-linked roles of AWS, which other programs may use (they cost nothing)"


def _is_absent(error: Exception) -> bool:
    words = message_of(error).lower()
    return "does not exist" in words or "not found" in words


def check_name_typed(doomed: Doomed, typed: str) -> None:
    """Make sure that whoever deletes data has read whose.

    Raises:
        UsageError: another name was typed.
    """
    if typed.strip() != doomed.bucket:
        raise UsageError(
            f"{typed.strip()!r} is not {doomed.bucket!r}: nothing was removed. Type the bucket's name, or leave out "
            "--delete-data to keep the data."
        )
