"""`submit infra` by the real command line, against a stand-in of its own: up, up again, status, down, up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from submitter.cloud.permissions import make_policies
from submitter.cloud.preflight import SPOT_QUOTA
from tests.aws.fixtures import forget_linked_roles, run_submit
from tests.aws.standin.cloud import ACCOUNT, REGION, Cloud

BUCKET = f"foldfleet-{ACCOUNT}-{REGION}"


@pytest.fixture
def away(bare: Cloud, tmp_path: Path) -> Iterator[Cloud]:
    """Give the stand-in; afterwards nothing of the default stack is left in it."""
    yield bare
    bare.no_faults()
    bare.quota(SPOT_QUOTA, 256)
    ask(bare, tmp_path, "down", "--yes", "--delete-data")


def ask(cloud: Cloud, home: Path, *arguments: str, env: dict[str, str] | None = None) -> CompletedProcess[str]:
    return run_submit(home, {**(env or cloud.admin)}, "infra", *arguments)


def told(done: CompletedProcess[str], code: int = 0) -> Any:
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_up_twice_then_status_down_and_up_again(away: Cloud, tmp_path: Path) -> None:
    forget_linked_roles(away)
    first = told(ask(away, tmp_path, "up", "--yes", "--json"))
    assert first["state"] == "created"
    assert first["stack"]["store_url"] == f"s3://{BUCKET}/foldfleet"
    assert {change["action"] for change in first["changes"]} == {"Add"}
    assert "AWSServiceRoleForEC2Spot" in {change["resource"] for change in first["changes"]}

    again = ask(away, tmp_path, "up", "--yes", "--json")
    assert told(again)["state"] == "unchanged"
    assert "nothing to change" in again.stderr

    status = told(ask(away, tmp_path, "status", "--json"))
    assert status["state"] == "CREATE_COMPLETE"
    assert status["queue"]["state"] == "ENABLED"
    assert [environment["maximum"] for environment in status["environments"]] == [64]
    assert status["images"] == []

    away.client("s3").put_object(Bucket=BUCKET, Key="foldfleet/runs/r/views/best.json", Body=b"{}")
    down = told(ask(away, tmp_path, "down", "--yes", "--json"))
    assert down["removed"]
    assert any(BUCKET in sentence for sentence in down["remains"])
    assert ask(away, tmp_path, "status").returncode == 5

    back = told(ask(away, tmp_path, "up", "--yes", "--json"))
    assert back["state"] == "created"
    assert back["parameters"]["MakeBucket"] == "no"
    kept = away.client("s3").get_object(Bucket=BUCKET, Key="foldfleet/runs/r/views/best.json")
    assert kept["Body"].read() == b"{}"


def test_without_a_terminal_changes_are_shown_and_not_made(away: Cloud, tmp_path: Path) -> None:
    done = ask(away, tmp_path, "up")
    assert done.returncode == 2
    assert "SpotEnvironment" in done.stdout
    assert "--yes" in done.stderr
    assert ask(away, tmp_path, "status").returncode == 5


def test_flags_change_what_they_name_and_the_rest_stays(away: Cloud, tmp_path: Path) -> None:
    told(ask(away, tmp_path, "up", "--yes", "--json", "--max-vcpus", "16", "--instance-types", "m5,c5.4xlarge"))
    done = told(ask(away, tmp_path, "up", "--yes", "--json", "--on-demand"))
    assert done["state"] == "updated"
    assert done["stack"]["max_vcpus"] == 16
    assert done["stack"]["instance_types"] == ["m5", "c5.4xlarge"]
    assert done["stack"]["on_demand_environment_arn"]
    kinds = [environment["kind"] for environment in told(ask(away, tmp_path, "status", "--json"))["environments"]]
    assert kinds == ["spot", "on demand"]


def test_a_bucket_of_ones_own_keeps_its_policy_and_its_other_objects(away: Cloud, tmp_path: Path) -> None:
    s3 = away.client("s3")
    s3.create_bucket(Bucket="mine-and-others")
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:PutObject",
                "Resource": "arn:aws:s3:::mine-and-others/public/*",
            }
        ],
    }
    s3.put_bucket_policy(Bucket="mine-and-others", Policy=json.dumps(policy))
    s3.put_object(Bucket="mine-and-others", Key="other/object", Body=b"theirs")
    done = ask(away, tmp_path, "up", "--yes", "--json", "--bucket", "mine-and-others")
    assert told(done)["stack"]["store_url"] == "s3://mine-and-others/foldfleet"
    assert "policy of its own" in done.stderr
    assert json.loads(s3.get_bucket_policy(Bucket="mine-and-others")["Policy"]) == policy
    s3.put_object(Bucket="mine-and-others", Key="foldfleet/runs/r/views/best.json", Body=b"{}")
    told(ask(away, tmp_path, "down", "--yes", "--delete-data", "--json"))
    assert [item["Key"] for item in s3.list_objects_v2(Bucket="mine-and-others")["Contents"]] == ["other/object"]


def test_traps_of_a_new_account_are_told(away: Cloud, tmp_path: Path) -> None:
    away.quota(SPOT_QUOTA, 8)
    done = ask(away, tmp_path, "up", "--yes", "--json")
    assert told(done)["state"] == "created"
    assert "8 spot vCPUs" in done.stderr
    assert "request-service-quota-increase" in done.stderr


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--instance-types", "c5,t9z"], 2, "t9z"),
        (["--instance-types", "m7g"], 2, "arm64"),
        (["--subnets", "subnet-0123456789abcdef0"], 5, "describe-subnets"),
        (["--bucket", "nobody-made-this-one"], 5, "aws s3 mb"),
        (["--max-vcpus", "0"], 2, "1 to 10000"),
        (["--keep-hosts-minutes", "5"], 2, "20 minutes"),
        (["--kms-key", "alias/mine"], 2, "arn:aws:kms"),
        (["--stack", "Fold_Fleet"], 2, "lower-case"),
    ],
)
def test_wishes_that_cannot_be_granted(bare: Cloud, tmp_path: Path, flags: list[str], code: int, words: str) -> None:
    done = ask(bare, tmp_path, "up", "--yes", *flags)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_right_is_named(bare: Cloud, tmp_path: Path) -> None:
    done = ask(bare, tmp_path, "up", "--yes", env=bare.environment)
    assert done.returncode == 4, done.stderr
    assert "cloudformation:DescribeStacks" in done.stderr


def test_the_shown_permissions_suffice(away: Cloud, tmp_path: Path) -> None:
    iam = away.client("iam")
    shown = ask(away, tmp_path, "up", "--show-permissions")
    policies = json.loads(shown.stdout)
    assert policies == make_policies("foldfleet")
    iam.create_user(UserName="builder")
    for name, policy in policies.items():
        made = iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(policy, separators=(",", ":")))
        iam.attach_user_policy(UserName="builder", PolicyArn=made["Policy"]["Arn"])
    key = iam.create_access_key(UserName="builder")["AccessKey"]
    builder = {
        **away.admin,
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }
    for arguments in (["up", "--yes"], ["status"], ["down", "--yes", "--delete-data"]):
        done = ask(away, tmp_path, *arguments, env=builder)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"


def test_a_first_making_that_failed_is_cleared_and_made_again(away: Cloud, tmp_path: Path) -> None:
    away.client("sqs")  # the stand-in answers for it, too
    away.client("ecr").create_repository(repositoryName="foldfleet")  # in the way of the stack's own
    failed = ask(away, tmp_path, "up", "--yes")
    assert failed.returncode == 2, failed.stderr
    assert "ROLLBACK_COMPLETE" in failed.stderr
    refused = ask(away, tmp_path, "up")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    away.client("ecr").delete_repository(repositoryName="foldfleet")
    done = ask(away, tmp_path, "up", "--yes", "--json")
    assert told(done)["state"] == "created"
    assert "failed" in done.stderr


def test_another_programs_stack_is_left_alone(bare: Cloud, tmp_path: Path) -> None:
    template = {"Resources": {"Theirs": {"Type": "AWS::Logs::LogGroup"}}}
    bare.client("cloudformation").create_stack(StackName="theirs", TemplateBody=json.dumps(template))
    for command in (["up", "--yes"], ["down", "--yes"], ["status"]):
        done = ask(bare, tmp_path, *command, "--stack", "theirs")
        assert done.returncode == 2, done.stderr
        assert "not foldfleet's" in done.stderr


def test_down_terminates_what_runs(away: Cloud, tmp_path: Path) -> None:
    told(ask(away, tmp_path, "up", "--yes", "--json"))
    batch = away.client("batch")
    away.hold()
    try:
        definition = batch.register_job_definition(
            jobDefinitionName="foldfleet-work-abc",
            type="container",
            containerProperties={
                "image": "busybox",
                "command": ["true"],
                "resourceRequirements": [{"type": "VCPU", "value": "2"}, {"type": "MEMORY", "value": "512"}],
            },
        )["jobDefinitionArn"]
        batch.submit_job(jobName="waits", jobQueue="foldfleet", jobDefinition=definition, arrayProperties={"size": 3})
        status = told(ask(away, tmp_path, "status", "--json"))
        assert sum(status["active"].values()) == 3
        done = ask(away, tmp_path, "down", "--yes")
        assert done.returncode == 0, done.stderr
        assert "waits" in done.stderr
    finally:
        away.release()
    assert all(one["status"] in {"FAILED", "SUCCEEDED"} for one in away.jobs())
    assert batch.describe_job_definitions(status="ACTIVE")["jobDefinitions"] == []
