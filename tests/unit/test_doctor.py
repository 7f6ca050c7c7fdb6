from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from jobspec.errors import AccessError, ExitCode, TryLaterError
from jobspec.settings import load_settings
from jobspec.stores.base import Store, open_store
from submitter.backends.docker.engine import DockerEngine
from submitter.cloud.record import save_record
from submitter.doctor import desk, engine, machine
from submitter.doctor.desk import Patient, diagnose
from submitter.doctor.findings import Finding, Level, examine, exit_code_of
from submitter.doctor.stack import decode_invalid
from tests.conftest import Submit
from tests.unit.cloudy import make_parts, make_record, make_stack
from tests.unit.fakeaws import DATE, ENVIRONMENT, NOW, FakeAws, client_error, denied
from tests.unit.fakedocker import GIB, FakeApi, FakeClient

Diagnose = Callable[[], list[Finding]]


def bad(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level is not Level.OK]


def texts(findings: list[Finding], check: str) -> str:
    return "; ".join(finding.text for finding in findings if finding.check == check)


# --- findings -------------------------------------------------------------------------------------------------


def test_an_error_becomes_a_finding_with_its_remedy_and_exit_code() -> None:
    def look() -> list[Finding]:
        raise AccessError("Reading was denied: s3:GetObject is missing. Allow s3:GetObject on arn:x.")

    (found,) = examine("bucket", look)
    assert found == Finding(
        "bucket", Level.WRONG, "Reading was denied: s3:GetObject is missing", "Allow s3:GetObject on arn:x.", 4
    )
    (found,) = examine("bucket", look, optional=True)
    assert found.level is Level.WARNING and found.text.startswith("not looked at: ") and found.exit_code == 0


def test_what_was_found_before_an_error_is_kept() -> None:
    def look() -> Any:
        yield Finding("x", Level.OK, "fine")
        raise TryLaterError("Busy. Again.")

    assert [finding.level for finding in examine("x", look)] == [Level.OK, Level.WRONG]


def test_the_exit_code_is_that_of_the_first_thing_that_is_wrong() -> None:
    found = [Finding("a", Level.WARNING, ""), Finding("b", Level.WRONG, "", exit_code=5)]
    assert exit_code_of([*found, Finding("c", Level.WRONG, "", exit_code=4)]) == 5
    assert exit_code_of(found[:1]) == 0


# --- this machine ---------------------------------------------------------------------------------------------


def test_this_machine_is_of_a_version_that_is_supported() -> None:
    assert not bad(list(machine.check_versions()))


def test_a_python_that_nobody_tested_is_a_warning() -> None:
    (found,) = bad(list(machine.check_versions("3.99.1")))
    assert found.level is Level.WARNING and "3.11, 3.12, 3.13" in found.text and "-m venv" in found.remedy


@pytest.mark.parametrize(
    ("requirement", "remedy"),
    [
        ("numpy>=99", "`python -m pip install 'numpy>=99'`"),
        ("scikit-learn<1.10,>=1.99", "`python -m pip install 'scikit-learn<1.10,>=1.99'`"),
        ("nowhere-to-be-found>=1", "`python -m pip install 'nowhere-to-be-found>=1'`"),
    ],
)
def test_a_library_of_another_version_is_wrong(requirement: str, remedy: str) -> None:
    (found,) = bad(list(machine._check_libraries([requirement])))
    assert found.remedy == remedy and found.exit_code == ExitCode.NOT_FOUND


def test_libraries_that_are_extras_are_not_looked_for() -> None:
    assert not bad(list(machine._check_libraries(['h2o<3.46.0.12,>=3.46.0.10; extra == "h2o"', "numpy>=2.2"])))


def test_a_store_is_probed_and_nothing_stays_in_it(tmp_path: Path) -> None:
    (tmp_path / "store" / "runs").mkdir(parents=True)
    store = open_store(str(tmp_path / "store"))
    assert not bad(list(machine.check_store(store)))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_store_that_does_not_exist_is_not_made_by_looking(tmp_path: Path) -> None:
    (found,) = machine.check_store(open_store(str(tmp_path / "new" / "store")))
    assert found.level is Level.OK and "will be made by the first run" in found.text
    assert not list(tmp_path.iterdir())


def test_a_store_in_a_folder_of_others_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    (found,) = machine.check_store(open_store(str(tmp_path / "store")))
    assert found.level is Level.WRONG and found.exit_code == ExitCode.ACCESS and "--store DIR" in found.remedy


@pytest.mark.parametrize(("gib", "level"), [(0.1, Level.WRONG), (2, Level.WARNING), (50, Level.OK)])
def test_the_room_for_folds_is_told(tmp_path: Path, gib: float, level: Level) -> None:
    (found,) = machine.check_cache(tmp_path / "cache", lambda _: int(gib * GIB))
    assert found.level is level
    assert found.exit_code == (ExitCode.TRY_LATER if level is Level.WRONG else 0)


def test_more_workers_than_cpus_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDFLEET_WORKERS", "9")
    (found,) = machine.check_workers(load_settings(), cpus=4)
    assert found.level is Level.WARNING and found.remedy.startswith("Set FOLDFLEET_WORKERS=4")


# --- a Docker engine ------------------------------------------------------------------------------------------


def test_an_engine_and_its_image_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parts = make_parts(packages=machine_packages())
    monkeypatch.setattr(engine, "image_parts", lambda *_: parts)
    reached = DockerEngine(cast("Any", FakeClient(FakeApi())))
    found = [*engine.check_engine(reached), *engine.check_image(reached, "mine:1", tmp_path)]
    assert not bad(found)
    assert "4 CPUs, 16.0 GiB" in texts(found, "engine") and "mine:1 answers: Python 3.11.2" in texts(found, "image")


def test_a_small_engine_and_an_image_of_other_versions_are_warnings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "image_parts", lambda *_: make_parts(packages=machine_packages() | {"numpy": "1.0"}))
    reached = DockerEngine(cast("Any", FakeClient(FakeApi(memory_bytes=GIB))))
    found = bad([*engine.check_engine(reached), *engine.check_image(reached, "mine:1", tmp_path)])
    assert [one.check for one in found] == ["memory", "versions"]
    assert "numpy 1.0 there" in found[1].text


def machine_packages() -> dict[str, str]:
    from jobspec.engine import current_engine

    return current_engine("portable").packages


# --- a stack in AWS -------------------------------------------------------------------------------------------


@pytest.fixture
def aws() -> FakeAws:
    return FakeAws()


@pytest.fixture
def bucket(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return the store of the stack: a folder; an image was pushed to it."""
    store = open_store(store_url)
    save_record(store, make_record(parts=make_parts(packages=machine_packages())))
    monkeypatch.setattr(desk, "open_store", lambda _url: store)
    return store


@pytest.fixture
def look(aws: FakeAws, bucket: Store) -> Diagnose:
    """Return a function that looks at everything of a stack."""

    def run(store: str | None = None, now: float = NOW) -> list[Finding]:
        patient = Patient(
            load_settings(),
            store,
            "foldfleet",
            lambda: bucket,
            clients=lambda: cast("Any", aws),
            now=lambda: now,
        )
        return list(diagnose("aws", patient))

    return run


def test_a_healthy_stack(look: Diagnose) -> None:
    found = look()
    assert not bad(found) and exit_code_of(found) == 0
    checks = list(dict.fromkeys(one.check for one in found))
    assert checks == [
        *("python", "libraries", "settings", "cache", "credentials", "region", "clock", "roles", "quota", "stack"),
        *("store", "bucket", "queue", "environments", "network", "images", "waiting"),
    ]
    assert "8 of 64 vCPUs in use" in texts(found, "environments")


CHANGES: dict[str, tuple[str, str, Any]] = {
    "root user": ("get_caller_identity", "Arn", "arn:aws:iam::123456789012:root"),
    "clock": ("get_caller_identity", "ResponseMetadata.HTTPHeaders.date", DATE.replace("15:06", "15:11")),
    "clock a bit": ("get_caller_identity", "ResponseMetadata.HTTPHeaders.date", DATE.replace("15:06", "15:08")),
    "no quota": ("get_service_quota", "Quota.Value", 0.0),
    "low quota": ("get_service_quota", "Quota.Value", 32.0),
    "stack changing": ("describe_stacks", "Stacks.0.StackStatus", "UPDATE_IN_PROGRESS"),
    "stack failed": ("describe_stacks", "Stacks.0.StackStatus", "ROLLBACK_COMPLETE"),
    "queue disabled": ("describe_job_queues", "jobQueues.0.state", "DISABLED"),
    "queue invalid": ("describe_job_queues", "jobQueues.0.status", "INVALID"),
    "queue gone": ("describe_job_queues", "jobQueues", []),
    "queue changing": ("describe_job_queues", "jobQueues.0.status", "UPDATING"),
    "environment disabled": ("describe_compute_environments", "computeEnvironments.0.state", "DISABLED"),
    "environment invalid": ("describe_compute_environments", "computeEnvironments.0.status", "INVALID"),
    "subnet gone": ("describe_subnets", "Subnets", []),
    "no address": ("describe_subnets", "Subnets.0.MapPublicIpOnLaunch", False),
    "few addresses": ("describe_subnets", "Subnets.0.AvailableIpAddressCount", 3),
    "no way out": ("describe_route_tables", "RouteTables.0.Routes", []),
    "black hole": ("describe_route_tables", "RouteTables.0.Routes.0.State", "blackhole"),
    "no s3 endpoint": ("describe_vpc_endpoints", "VpcEndpoints", []),
    "image gone": ("batch_get_image", "images", []),
    "definition gone": ("describe_job_definitions", "jobDefinitions.0.status", "INACTIVE"),
}

EXPECTED: dict[str, tuple[Level, int, str]] = {
    "root user": (Level.WARNING, 0, "Make a user or role"),
    "clock": (Level.WRONG, 4, "`timedatectl set-ntp true`"),
    "clock a bit": (Level.WARNING, 0, "`timedatectl set-ntp true`"),
    "no quota": (Level.WRONG, 7, "`aws service-quotas request-service-quota-increase .* --desired-value 64`"),
    "low quota": (Level.WARNING, 0, "--quota-code L-34B43A08 --desired-value 64`"),
    "stack changing": (Level.WRONG, 75, "`submit infra status` shows how far"),
    "stack failed": (Level.WRONG, 2, "`submit infra up` mends it"),
    "queue disabled": (Level.WRONG, 5, "`aws batch update-job-queue --job-queue foldfleet-queue --state ENABLED`"),
    "queue invalid": (Level.WRONG, 5, "`submit infra up`"),
    "queue gone": (Level.WRONG, 5, "`submit infra up`"),
    "queue changing": (Level.WARNING, 0, "Wait a minute"),
    "environment disabled": (Level.WRONG, 5, "`aws batch update-compute-environment .*spot-1 --state ENABLED`"),
    "environment invalid": (Level.WRONG, 5, "`submit infra up`"),
    "subnet gone": (Level.WRONG, 5, "`submit infra up --subnets"),
    "no address": (Level.WRONG, 5, "`aws ec2 modify-subnet-attribute --subnet-id subnet-1 --map-public-ip-on-launch`"),
    "few addresses": (Level.WARNING, 0, "--subnets"),
    "no way out": (Level.WRONG, 5, "`submit infra up --subnets .* route to the internet"),
    "black hole": (Level.WRONG, 5, "`submit infra up --subnets"),
    "no s3 endpoint": (Level.WARNING, 0, "`submit infra up --s3-endpoint`"),
    "image gone": (Level.WRONG, 5, "`submit image push --image foldfleet:0.1.0`"),
    "definition gone": (Level.WRONG, 5, "`submit image push --image foldfleet:0.1.0`"),
}


@pytest.mark.parametrize("trap", CHANGES)
def test_each_trap_is_one_finding_with_one_remedy(aws: FakeAws, look: Diagnose, trap: str) -> None:
    operation, path, value = CHANGES[trap]
    aws.change(operation, path, value)
    findings = look()
    (found,) = bad(findings)
    level, exit_code, remedy = EXPECTED[trap]
    assert (found.level, exit_code_of(findings)) == (level, exit_code), found
    assert re.search(remedy, found.remedy), found
    assert "\n" not in found.text + found.remedy


def test_missing_linked_roles_are_each_told(aws: FakeAws, look: Diagnose) -> None:
    aws.answers["get_role"] = client_error("NoSuchEntity", "no such role", "GetRole", 404)
    found = bad(look())
    assert [one.remedy.rpartition(" ")[2] for one in found] == [
        *("spot.amazonaws.com`", "batch.amazonaws.com`", "ecs.amazonaws.com`")
    ]


@pytest.mark.parametrize(
    ("operation", "action", "level"),
    [
        ("get_role", "iam:GetRole", Level.WARNING),
        ("get_service_quota", "servicequotas:GetServiceQuota", Level.WARNING),
        ("describe_subnets", "ec2:DescribeSubnets", Level.WARNING),
        ("describe_route_tables", "ec2:DescribeRouteTables", Level.WARNING),
        ("list_jobs", "batch:ListJobs", Level.WARNING),
        ("describe_job_queues", "batch:DescribeJobQueues", Level.WRONG),
        ("batch_get_image", "ecr:BatchGetImage", Level.WRONG),
        ("describe_stacks", "cloudformation:DescribeStacks", Level.WRONG),
    ],
)
def test_a_denied_call_is_a_finding_and_the_rest_is_looked_at(
    aws: FakeAws, look: Diagnose, operation: str, action: str, level: Level
) -> None:
    aws.answers[operation] = denied(action)
    (found,) = bad(look())
    assert found.level is level and action in found.text and f"Allow {action}" in found.remedy
    assert found.exit_code == (4 if level is Level.WRONG else 0)
    assert operation == "describe_stacks" or "list_jobs" in aws.calls


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (client_error("ExpiredToken", "expired", "GetCallerIdentity", 403), "aws sso login"),
        (client_error("InvalidClientTokenId", "no", "GetCallerIdentity", 403), "AWS_PROFILE"),
    ],
)
def test_without_credentials_nothing_else_is_asked(aws: FakeAws, look: Diagnose, error: Exception, remedy: str) -> None:
    aws.answers["get_caller_identity"] = error
    findings = look()
    (found,) = bad(findings)
    assert found.check == "credentials" and remedy in found.remedy and exit_code_of(findings) == 4
    assert aws.calls == ["get_caller_identity"]


def test_without_a_stack_the_account_is_still_looked_at(aws: FakeAws, look: Diagnose) -> None:
    aws.answers["describe_stacks"] = client_error("ValidationError", "Stack foldfleet does not exist", "DescribeStacks")
    aws.change("get_service_quota", "Quota.Value", 5.0)
    findings = look()
    assert [one.check for one in bad(findings)] == ["stack", "quota"] and exit_code_of(findings) == 5
    assert "Make it with `submit infra up`" in bad(findings)[0].remedy


@pytest.mark.parametrize(
    ("store", "level"),
    [
        ("s3://fleet/foldfleet", Level.OK),
        ("s3://fleet/foldfleet/mine", Level.OK),
        ("s3://fleet/foldfleet-2", Level.WRONG),
        ("s3://other", Level.WRONG),
        ("./foldfleet", Level.WRONG),
    ],
)
def test_the_store_must_lie_in_the_stacks(look: Callable[..., list[Finding]], store: str, level: Level) -> None:
    (found,) = [one for one in look(store) if one.check == "store"]
    assert found.level is level
    assert level is Level.OK or (found.remedy, found.exit_code) == (
        "`export FOLDFLEET_STORE=s3://fleet/foldfleet`",
        ExitCode.SPEC,
    )


def test_a_bucket_without_the_right_to_list_is_told_and_images_are_left_out(
    look: Diagnose, bucket: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_key: str) -> None:
        raise AccessError("S3 answered 'access denied'. Allow s3:ListBucket on arn:aws:s3:::fleet.")

    monkeypatch.setattr(bucket, "get_or_none", refuse)
    findings = look()
    (found,) = bad(findings)
    assert found.check == "bucket" and "s3:ListBucket" in found.remedy and exit_code_of(findings) == 4
    assert not texts(findings, "images")


def test_a_stack_without_an_image_is_told_to_push(look: Diagnose, bucket: Store) -> None:
    for key in list(bucket.keys("images/")):
        bucket.delete(key)
    (found,) = bad(look())
    assert "none yet" in found.text and found.remedy.startswith("`submit image push`") and found.exit_code == 5


def test_images_of_another_version_are_told(look: Diagnose, bucket: Store) -> None:
    for key in list(bucket.keys("images/")):
        bucket.delete(key)
    save_record(bucket, make_record(parts=make_parts(foldfleet="0.0.9")))
    (found,) = bad(look())
    assert "only of foldfleet 0.0.9" in found.text


def test_an_older_image_that_is_gone_is_a_warning(aws: FakeAws, look: Diagnose, bucket: Store) -> None:
    whole = aws.answers["batch_get_image"]
    old = "sha256:" + "cd" * 32
    newest = make_record().image_digest
    for key in list(bucket.keys("images/")):
        bucket.delete(key)
    save_record(bucket, make_record(old, 1.0, parts=make_parts(packages=machine_packages()), tag="old:1"))
    save_record(bucket, make_record(newest, 2.0, parts=make_parts(packages=machine_packages())))
    aws.answers["batch_get_image"] = lambda **asked: (
        {"images": []} if asked["imageIds"] == [{"imageDigest": old}] else whole
    )
    (found,) = bad(look())
    assert found.level is Level.WARNING and "old:1" in found.text and "`submit run SPEC`" in found.remedy


def test_an_image_of_other_versions_than_the_desk_is_a_warning(look: Diagnose, bucket: Store) -> None:
    save_record(bucket, make_record(pushed_at=9e9, parts=make_parts(packages=machine_packages() | {"scipy": "1.0"})))
    (found,) = bad(look())
    assert found.check == "versions" and "scipy 1.0 there" in found.text


def waiting(reason: str = "", status: str = "RUNNABLE", **more: Any) -> dict[str, Any]:
    created = (NOW - 60) * 1000
    job = {"jobId": "j1", "jobName": "r", "status": status, "statusReason": reason, "createdAt": created}
    return {**job, "parameters": {"run": "letters-1"}, **more}


def put(aws: FakeAws, *jobs: dict[str, Any], child: str = "") -> None:
    def list_jobs(**asked: Any) -> dict[str, Any]:
        if "arrayJobId" in asked:
            return {"jobSummaryList": [{"jobId": "j1:0", "statusReason": child}]}
        return {"jobSummaryList": [{"jobId": job["jobId"]} for job in jobs if job["status"] == asked["jobStatus"]]}

    aws.answers["list_jobs"] = list_jobs
    aws.answers["describe_jobs"] = {"jobs": list(jobs)}


def test_requests_that_wait_in_vain_are_told_with_what_helps(aws: FakeAws, look: Diagnose) -> None:
    reason = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is higher"
    put(aws, waiting(reason), waiting(reason))
    (found,) = bad(look())
    assert found.level is Level.WARNING and found.text.startswith("2 requests wait: no instance")
    assert "`submit cancel letters-1`" in found.remedy


def test_an_array_that_waits_is_told_by_its_first_child(aws: FakeAws, look: Diagnose) -> None:
    array = {"size": 100, "statusSummary": {"RUNNABLE": 100, "RUNNING": 0}}
    put(aws, waiting(status="PENDING", arrayProperties=array), child="CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY")
    (found,) = bad(look())
    assert found.text.startswith("1 request waits: EC2 has no spot instances")


def test_an_array_that_runs_and_one_that_waits_for_others_are_left_alone(aws: FakeAws, look: Diagnose) -> None:
    array = {"size": 100, "statusSummary": {"RUNNABLE": 90, "RUNNING": 10}}
    put(aws, waiting(status="PENDING", arrayProperties=array), waiting(status="PENDING"))
    findings = look()
    assert not bad(findings) and texts(findings, "waiting") == "no request waits"


def test_a_request_that_waits_for_a_host_is_left_alone_for_half_an_hour(
    aws: FakeAws, look: Callable[..., list[Finding]]
) -> None:
    put(aws, waiting())
    assert "1 request waits for a host" in texts(look(), "waiting")
    put(aws, waiting(createdAt=(NOW - 3600) * 1000))
    (found,) = bad(look())
    assert "more than 30 minutes" in found.text and "`submit infra status`" in found.remedy


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("CLIENT_ERROR - User: arn:x is not authorized to perform: ec2:RunInstances", "denies ec2:RunInstances"),
        ("CLIENT_ERROR - The subnet ID 'subnet-1' does not exist", "--subnets"),
        ("CLIENT_ERROR - The security group 'sg-1' does not exist", "`submit infra down`"),
        ("CLIENT_ERROR - Launch Template lt-1 not found", "`submit infra down`"),
        ("The Spot service-linked role is missing", "spot.amazonaws.com"),
        ("CLIENT_ERROR - ECS cluster is INACTIVE", "`submit infra down`"),
        ("INTERNAL_ERROR - try again", "`submit infra up`"),
        ("", "`submit infra up`"),
    ],
)
def test_an_invalid_environment_is_decoded(reason: str, remedy: str) -> None:
    text, told = decode_invalid(reason)
    assert remedy in told and (not reason or reason in text)


def test_both_environments_are_looked_at(aws: FakeAws, look: Diagnose) -> None:
    outputs = aws.answers["describe_stacks"]["Stacks"][0]["Outputs"]
    outputs.append({"OutputKey": "OnDemandEnvironmentArn", "OutputValue": ENVIRONMENT.replace("spot", "demand")})
    aws.change("get_service_quota", "Quota.Value", 10.0)
    spot, demand, environment = bad(look())
    assert "10 vCPUs of spot hosts" in spot.text and "10 vCPUs of on-demand hosts" in demand.text
    assert "demand-1 is gone" in environment.text


def test_a_quota_that_a_region_lacks_is_a_warning(aws: FakeAws, look: Diagnose) -> None:
    aws.answers["get_service_quota"] = client_error("NoSuchResourceException", "none", "GetServiceQuota", 404)
    (found,) = bad(look())
    assert found.level is Level.WARNING and "not known" in found.text


# --- the command ----------------------------------------------------------------------------------------------


def test_the_command_says_what_it_finds_and_makes_nothing(submit: Submit, tmp_path: Path) -> None:
    done = submit("doctor")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok"] * len(done.stdout.splitlines())
    assert "`submit run --on local` can work" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_command_says_it_as_json(submit: Submit) -> None:
    done = submit("doctor", "--json", "--on", "aws", env={"AWS_EC2_METADATA_DISABLED": "true"})
    document = json.loads(done.stdout)
    assert done.returncode == 4 and document["healthy"] is False
    last = document["findings"][-1]
    assert (last["check"], last["level"]) == ("credentials", "wrong") and "AWS_REGION" in last["remedy"]


def test_settings_that_cannot_be_read_are_a_finding(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("stroe = 'x'\n")
    done = submit("doctor", env={"FOLDFLEET_CONFIG": str(tmp_path / "config.toml")})
    assert done.returncode == 2
    assert done.stdout.startswith("wrong    settings") and "stroe" in done.stdout


def test_a_backend_that_does_not_exist_is_refused(submit: Submit) -> None:
    done = submit("doctor", "--on", "asw")
    assert done.returncode == 2 and "Did you mean 'aws'?" in done.stderr


def test_a_stack_of_the_tests_is_one() -> None:
    assert make_stack().environments == (ENVIRONMENT,)
