"""What a person asks of the stack, and the parameters that follow from it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobspec.errors import UsageError
from submitter.cloud.stack import check_stack_name

if TYPE_CHECKING:
    from submitter.cloud.bucket import Home
    from submitter.cloud.network import Network

_KEY = re.compile(r"arn:[\w-]+:kms:[\w-]+:\d{12}:key/[\w-]+")
_POLICY = re.compile(r"arn:[\w-]+:iam::(?:\d{12}|aws):policy/\S+")
_TYPE = re.compile(r"[a-z][a-z0-9-]*(?:\.[a-z0-9-]+)?")
_DATA = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[^\s,*?\"\\$]+)?/?")
"""Places are put into the JSON of a definition letter by letter, and policies have variables: no such sign."""

_PREFIX = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)+")
"""Stricter than S3: what has no meaning in patterns of EventBridge, in ARNs, in URLs, in file systems."""

_MAX_PREFIX = 256

_NO_SPOT_HOST_BELOW = 20
"""Batch takes 20 minutes or more."""

_OTHER_CPUS = re.compile(r"(?:a1|g5g|im4gn|is4gen|x2gd|t4g|hpc7g|[a-z]+\d+g[a-z]*)(?:\..*)?")
"""Families with Graviton processors: the image is for x86_64."""


@dataclass(frozen=True)
class Wishes:
    """What was typed; None keeps what the stack has, or else the default.

    ``spec_prefix`` and ``data_prefix`` are watched if ``events`` are on; an empty ``data_prefix`` or ``notify_topic``
    takes back an earlier one. ``upload_...`` bound what a spec may ask for that no person started from a desk.
    """

    stack: str
    max_vcpus: int | None = None
    instance_types: tuple[str, ...] | None = None
    max_price_percent: int | None = None
    subnets: tuple[str, ...] | None = None
    s3_endpoint: bool | None = None
    root_volume_gib: int | None = None
    bucket: str | None = None
    data: tuple[str, ...] | None = None
    kms_key: str | None = None
    permissions_boundary: str | None = None
    on_demand: bool | None = None
    keep_hosts_minutes: int | None = None
    log_days: int | None = None
    events: bool | None = None
    spec_prefix: str | None = None
    data_prefix: str | None = None
    notify_topic: str | None = None
    upload_max_cells: int | None = None
    upload_max_task_vcpus: int | None = None
    upload_max_task_memory_gib: int | None = None
    upload_max_hours: int | None = None
    upload_max_vcpu_hours: int | None = None

    def check(self, template: Mapping[str, Any]) -> None:
        """Refuse what AWS would refuse after minutes.

        Raises:
            UsageError: a value cannot be one.
        """
        check_stack_name(self.stack)
        for flag, name, value in (
            ("--max-vcpus", "MaxVcpus", self.max_vcpus),
            ("--max-price-percent", "MaxPricePercent", self.max_price_percent),
            ("--root-volume-gib", "RootVolumeGib", self.root_volume_gib),
            ("--keep-hosts-minutes", "KeepHostsMinutes", self.keep_hosts_minutes),
            ("--log-days", "LogDays", self.log_days),
            ("--max-cells", "UploadMaxCells", self.upload_max_cells),
            ("--max-task-vcpus", "UploadMaxTaskVcpus", self.upload_max_task_vcpus),
            ("--max-task-memory-gib", "UploadMaxTaskMemoryGib", self.upload_max_task_memory_gib),
            ("--max-hours", "UploadMaxHours", self.upload_max_hours),
            ("--max-vcpu-hours", "UploadMaxVcpuHours", self.upload_max_vcpu_hours),
        ):
            if value is not None:
                _check_number(flag, value, template["Parameters"][name])
        if self.keep_hosts_minutes is not None and 0 < self.keep_hosts_minutes < _NO_SPOT_HOST_BELOW:
            raise UsageError(
                f"--keep-hosts-minutes {self.keep_hosts_minutes} cannot be: Batch keeps idle hosts for 20 minutes or "
                "more. Type --keep-hosts-minutes 20, or 0 to leave it to Batch."
            )
        _check_form("--kms-key", self.kms_key, _KEY, "a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID (no alias)")
        _check_form("--permissions-boundary", self.permissions_boundary, _POLICY, "a policy's ARN, arn:aws:iam::...")
        for place in self.data or ():
            _check_form("--data", place, _DATA, "s3://BUCKET/PREFIX without wildcards")
        for kind in self.instance_types or ():
            _check_type(kind)
        _check_prefix("--prefix", self.spec_prefix, may_be_empty=False)
        _check_prefix("--data-prefix", self.data_prefix, may_be_empty=True)

    def check_topic(self, partition: str, region: str, account: str) -> None:
        """Refuse a topic to which the search machine could not publish.

        Raises:
            UsageError: it is another account's or region's, or of the kind that wants groups of messages.
        """
        form = re.compile(rf"arn:{re.escape(partition)}:sns:{region}:{account}:[\w-]{{1,256}}")
        allowed = f"a standard topic of this account and region, arn:{partition}:sns:{region}:{account}:NAME"
        _check_form("--notify", self.notify_topic, form, allowed)


def _check_number(flag: str, value: int, parameter: Mapping[str, Any]) -> None:
    if allowed := parameter.get("AllowedValues"):
        if value not in allowed:
            raise UsageError(f"{flag} {value} cannot be; allowed are {', '.join(map(str, allowed))}.")
    elif not parameter["MinValue"] <= value <= parameter["MaxValue"]:
        raise UsageError(f"{flag} {value} cannot be; allowed are {parameter['MinValue']} to {parameter['MaxValue']}.")


def _check_form(flag: str, value: str | None, form: re.Pattern[str], allowed: str) -> None:
    if value and not form.fullmatch(value):
        raise UsageError(f"{flag} {value!r} cannot be used; it must be {allowed}.")


def _check_prefix(flag: str, prefix: str | None, *, may_be_empty: bool) -> None:
    if prefix is None or (may_be_empty and not prefix):
        return
    if not _PREFIX.fullmatch(prefix) or len(prefix) > _MAX_PREFIX:
        raise UsageError(
            f"{flag} {prefix!r} cannot be watched; it must end with '/' and hold nothing but letters, digits, '_', "
            f"'-', '.' and '/', such as 'incoming/': no wildcards, and at most {_MAX_PREFIX} characters."
        )


def check_apart(parameters: Mapping[str, str]) -> None:
    """Refuse watched prefixes that lie in one another or in the store: its own output would start searches.

    Raises:
        UsageError: two of them meet.
    """
    places = [("the store's prefix", f"{parameters['StorePrefix']}/"), ("--prefix", parameters["SpecPrefix"])]
    if parameters["DataPrefix"]:
        places.append(("--data-prefix", parameters["DataPrefix"]))
    for (one, first), (other, second) in itertools.combinations(places, 2):
        if first.startswith(second) or second.startswith(first):
            raise UsageError(
                f"{other} {second!r} and {one} {first!r} lie in one another, and every object would start two searches "
                "or search the results themselves. Name a prefix beside it, such as 'incoming/' or 'nightly/'."
            )


def _check_type(kind: str) -> None:
    if not _TYPE.fullmatch(kind) or kind == "optimal":
        raise UsageError(
            f"--instance-types names {kind!r}; name families or types, such as m6i,c6a.4xlarge, with commas between."
        )
    if _OTHER_CPUS.fullmatch(kind):
        raise UsageError(
            f"--instance-types names {kind!r}, whose processors are arm64. The image is for x86_64: name other "
            "families, such as m6i,m6a,c6i,c6a,r6i."
        )


def make_parameters(
    wishes: Wishes, before: Mapping[str, str], standard: Mapping[str, str], network: Network, home: Home
) -> dict[str, str]:
    """Return every parameter of the template with its value; what was not asked for stays as it is.

    Args:
        wishes: what was typed.
        before: the parameters of the deployed stack, empty for a new one.
        standard: the template's defaults.
        network: where hosts start.
        home: the bucket.

    Raises:
        UsageError: prefixes of the bucket lie in one another.
    """
    given = {
        "MaxVcpus": wishes.max_vcpus,
        "InstanceTypes": None if wishes.instance_types is None else ",".join(wishes.instance_types),
        "MaxPricePercent": wishes.max_price_percent,
        "RootVolumeGib": wishes.root_volume_gib,
        "KmsKeyArn": wishes.kms_key,
        "PermissionsBoundaryArn": wishes.permissions_boundary,
        "OnDemand": None if wishes.on_demand is None else _yes(wishes.on_demand),
        "KeepHostsMinutes": wishes.keep_hosts_minutes,
        "LogDays": wishes.log_days,
        "DataArns": ",".join(_data_arn(place, home.partition) for place in wishes.data or ()) or None,
        "Events": None if wishes.events is None else _yes(wishes.events),
        "SpecPrefix": wishes.spec_prefix,
        "DataPrefix": wishes.data_prefix,
        "NotifyTopicArn": wishes.notify_topic,
        "UploadMaxCells": wishes.upload_max_cells,
        "UploadMaxTaskVcpus": wishes.upload_max_task_vcpus,
        "UploadMaxTaskMemoryGib": wishes.upload_max_task_memory_gib,
        "UploadMaxHours": wishes.upload_max_hours,
        "UploadMaxVcpuHours": wishes.upload_max_vcpu_hours,
    }
    settled = {
        "DataArns": f"arn:{home.partition}:s3:::{home.bucket}/incoming/*",
        **standard,
        **{name: value for name, value in before.items() if name in standard or name == "DataArns"},
        **{name: str(value) for name, value in given.items() if value is not None},
    }
    check_apart(settled)
    return {**settled, **_data_places(settled["DataArns"]), **network.parameters(), **home.parameters()}


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _data_places(arns: str) -> dict[str, str]:
    """Return the buckets and the keys of places apart, as a right to list them wants it."""
    places = [arn.strip().partition("/")[::2] for arn in arns.split(",")]
    buckets, keys = dict.fromkeys(bucket for bucket, _ in places), dict.fromkeys(key for _, key in places)
    return {"DataBucketArns": ",".join(buckets), "DataKeys": ",".join(keys)}


def _data_arn(place: str, partition: str) -> str:
    bucket, _, prefix = place.removeprefix("s3://").rstrip("/").partition("/")
    return f"arn:{partition}:s3:::{bucket}/{prefix}/*" if prefix else f"arn:{partition}:s3:::{bucket}/*"
