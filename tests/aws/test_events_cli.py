"""`submit events` as people type it, with the rights that the stack gives them: all but the searches themselves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.aws.fixtures import Deployed, deploy, expect, run_submit
from tests.aws.standin.cloud import Cloud
from tests.aws.test_standin_edges import wait_until

SPEC = """\
name: nightly
data: {builtin: digits}
cv: 3
candidates: [{estimator: sklearn.linear_model.LogisticRegression, grid: {C: [0.1, 1.0]}}]
scoring: accuracy
"""
ODD = "jobs/a b+%2F\x1b[31mü/../x.yaml"


@dataclass(frozen=True)
class People:
    """Who builds the stack, and who submits with the two policies that it gives."""

    stack: Deployed

    def build(self, *arguments: object) -> Any:
        """Run `submit events` as the builder, and return its answer."""
        environment = {**self.stack.cloud.admin, "FOLDFLEET_STACK": self.stack.name}
        return json.loads(expect(run_submit(self.stack.home, environment, "events", *arguments, "--json")).stdout)

    def submit(self, *arguments: object) -> Any:
        """Run `submit events` as the submitter, and return its answer."""
        return json.loads(expect(self.stack.submit("events", *arguments, "--json")).stdout)


@pytest.fixture(scope="module")
def people(bare: Cloud, tmp_path_factory: pytest.TempPathFactory) -> People:
    """Deploy a stack: searches start, and wait for an image."""
    stack = deploy(bare, tmp_path_factory.mktemp("events") / "home")
    (stack.home / "spec.yaml").write_text(SPEC)
    (stack.home / "table.yaml").write_text(SPEC.replace("{builtin: digits}", "{path: x.csv, target: y}"))
    return People(stack)


def test_uploads_and_schedules_from_enable_to_disable(people: People) -> None:
    stack, cloud = people.stack, people.stack.cloud
    refused = expect(stack.submit("events", "schedule", "rate(1 day)", "spec.yaml"), 5)
    assert "submit events enable" in refused.stderr

    native = people.stack.home / "native.yaml"
    native.write_text((people.stack.home / "table.yaml").read_text() + "numerics: native\n")
    for command in (("template", "letters"), ("schedule", "rate(1 day)")):
        assert "numerics: portable" in expect(stack.submit("events", *command, "native.yaml"), 2).stderr

    made = people.build("enable", "--prefix", "jobs", "--data-prefix", "retrain", "--max-cells", 500, "--yes")
    assert made["state"] == "updated"
    assert made["parameters"]["UploadMaxCells"] == "500"
    assert "submit image push" in " ".join(made["warnings"])
    assert people.build("enable", "--yes")["state"] == "unchanged"
    cloud.client("iam").attach_user_policy(UserName="desk", PolicyArn=made["stack"]["events_policy_arn"])

    assert people.submit("template", "letters", "table.yaml")["watched"].endswith("/retrain/letters/")
    assert people.submit("schedule", "rate(1 day)", "spec.yaml")["state"] == "created"
    assert people.submit("schedule", "rate(1 day)", "spec.yaml")["state"] == "unchanged"
    assert people.submit("schedule", "cron(0 3 * * ? *)", "spec.yaml")["state"] == "updated"
    assert [one["name"] for one in people.submit("schedules")["schedules"]] == ["nightly"]
    assert [one["name"] for one in people.submit("templates")["templates"]] == ["letters"]

    s3, bucket = cloud.client("s3"), stack.outputs["BucketName"]
    for key in (ODD, "jobs/table.csv", "retrain/letters/a.csv", "elsewhere/x.yaml"):
        s3.put_object(Bucket=bucket, Key=key, Body=SPEC.encode())
    cloud.fire_schedule("nightly", "2030-01-01T03:00:00Z", group="foldfleet", copies=2)
    # Each look is a process.
    arrived = wait_until(lambda: found if len(found := people.submit("list")["arrivals"]) == 4 else None, 300)
    assert {(one["kind"], one["name"]) for one in arrived} == {
        ("schedule", "nightly"),
        ("spec", f"s3://{bucket}/{ODD}"),
        ("spec", f"s3://{bucket}/jobs/table.csv"),
        ("data", f"s3://{bucket}/retrain/letters/a.csv"),
    }
    assert "\x1b" not in expect(stack.submit("events", "list")).stdout

    gone = people.build("disable", "--yes")
    assert [one["name"] for one in gone["schedules_removed"]] == ["nightly"]
    assert len(people.submit("list")["arrivals"]) == 3
    expect(stack.submit("events", "unschedule", "nightly"), 5)
