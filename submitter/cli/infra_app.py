"""The commands of ``submit infra``."""

from __future__ import annotations

from typing import Annotated

import typer

from submitter.cli.infra_options import (
    BucketName,
    DataPlaces,
    InstanceTypes,
    KeepHostsMinutes,
    KmsKey,
    LogDays,
    MaxPricePercent,
    MaxVcpus,
    OnDemand,
    PermissionsBoundary,
    RootVolumeGib,
    S3Endpoint,
    ShowPermissions,
    Subnets,
    Yes,
)
from submitter.cli.options import AsJson, StackName

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def infra(context: typer.Context) -> None:
    """Make, show and remove the cloud side: one CloudFormation stack on AWS."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command()
def up(
    stack: StackName = None,
    max_vcpus: MaxVcpus = None,
    instance_types: InstanceTypes = None,
    on_demand: OnDemand = None,
    max_price_percent: MaxPricePercent = None,
    keep_hosts_minutes: KeepHostsMinutes = None,
    root_volume_gib: RootVolumeGib = None,
    subnets: Subnets = None,
    s3_endpoint: S3Endpoint = None,
    bucket: BucketName = None,
    data: DataPlaces = None,
    kms_key: KmsKey = None,
    permissions_boundary: PermissionsBoundary = None,
    log_days: LogDays = None,
    show_permissions: ShowPermissions = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Make the stack, or change it to what is asked for; shows what would change, then asks.

    Without options an existing stack keeps its settings and gets this version's template.
    """
    from submitter.cli.infra_commands import UpFlags, make_wishes, print_permissions, raise_stack

    if show_permissions:
        return print_permissions(stack)
    wishes = make_wishes(
        stack,
        max_vcpus=max_vcpus,
        instance_types=instance_types,
        on_demand=on_demand,
        max_price_percent=max_price_percent,
        keep_hosts_minutes=keep_hosts_minutes,
        root_volume_gib=root_volume_gib,
        subnets=subnets,
        s3_endpoint=s3_endpoint,
        bucket=bucket,
        data=data,
        kms_key=kms_key,
        permissions_boundary=permissions_boundary,
        log_days=log_days,
    )
    return raise_stack(wishes, UpFlags(yes=yes, as_json=as_json))


@app.command()
def status(stack: StackName = None, as_json: AsJson = False) -> int:
    """Show the stack, its queue, hosts and images, and what runs."""
    from submitter.cli.infra_commands import show_stack

    return show_stack(stack, as_json=as_json)


@app.command()
def down(
    stack: StackName = None,
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Delete the bucket, too: all results of all runs.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Terminate what runs and remove the stack; the data stay, and the next `up` finds them."""
    from submitter.cli.infra_commands import DownFlags, lower_stack

    return lower_stack(stack, DownFlags(delete_data=delete_data, yes=yes, as_json=as_json))


@app.command()
def template() -> int:
    """Print the CloudFormation template that `up` deploys."""
    from submitter.cli.talk import write
    from submitter.cloud.template import render_template

    write(render_template())
    return 0
