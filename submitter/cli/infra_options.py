"""Options of `submit infra`; each is a parameter of the template."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Yes: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")]
MaxVcpus: TypeAlias = Annotated[
    int | None, typer.Option("--max-vcpus", metavar="N", help="Ceiling of each compute environment. [default: 64]")
]
InstanceTypes: TypeAlias = Annotated[
    str | None, typer.Option("--instance-types", metavar="M6I,C6I,...", help="Families or types of x86_64 hosts.")
]
OnDemand: TypeAlias = Annotated[
    bool | None,
    typer.Option("--on-demand/--spot-only", help="Whether on-demand hosts help out. [default: --spot-only]"),
]
MaxPricePercent: TypeAlias = Annotated[
    int | None,
    typer.Option("--max-price-percent", metavar="N", help="Highest spot price, of the on-demand price; 0: any."),
]
KeepHostsMinutes: TypeAlias = Annotated[
    int | None,
    typer.Option("--keep-hosts-minutes", metavar="N", help="How long idle hosts wait, from 20; 0: Batch decides."),
]
RootVolumeGib: TypeAlias = Annotated[
    int | None, typer.Option("--root-volume-gib", metavar="N", help="Disk of a host. [default: 100]")
]
Subnets: TypeAlias = Annotated[
    str | None,
    typer.Option("--subnets", metavar="ID,ID", help="Where hosts start. [default: those of the default VPC]"),
]
S3Endpoint: TypeAlias = Annotated[
    bool | None,
    typer.Option("--s3-endpoint/--no-s3-endpoint", help="Whether the network gets an S3 gateway endpoint."),
]
BucketName: TypeAlias = Annotated[
    str | None,
    typer.Option("--bucket", metavar="NAME", help="A bucket of yours. [default: one is made, or found again]"),
]
DataPlaces: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="URL", help="s3://BUCKET/PREFIX that specs may read; may be given again."),
]
KmsKey: TypeAlias = Annotated[
    str | None, typer.Option("--kms-key", metavar="ARN", help="Encrypts the bucket; '' for S3's own key.")
]
PermissionsBoundary: TypeAlias = Annotated[
    str | None, typer.Option("--permissions-boundary", metavar="ARN", help="Bounds every role of the stack.")
]
LogDays: TypeAlias = Annotated[
    int | None, typer.Option("--log-days", metavar="N", help="How long logs are kept. [default: 30]")
]
ShowPermissions: TypeAlias = Annotated[
    bool, typer.Option("--show-permissions", help="Print the IAM policies that this needs, and do nothing.")
]
