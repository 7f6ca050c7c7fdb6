"""The template: every linter's findings have a reason, every right is scoped, and the user data do what they should."""

from __future__ import annotations

import ast
import email
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]

from submitter.cloud.permissions import make_policies
from submitter.cloud.stack import Stack, _snake
from submitter.cloud.template import (
    MAX_PARAMETER_BYTES,
    MAX_PARAMETERS,
    MAX_TEMPLATE_BYTES,
    load_template,
    pack_template,
    render_template,
)
from tests.aws.rules import (
    actions_of,
    check_batch,
    check_machine,
    check_statement,
    listed,
    machine_of,
    resolve,
    statements_of,
    tasks_of,
)

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
BIN = Path(sys.executable).parent
TEMPLATE = load_template()
RESOURCES = TEMPLATE["Resources"]
REASONS = tomllib.loads((HERE / "suppressions.toml").read_text(encoding="utf-8"))
STORE = "arn:aws:s3:::BucketName/StorePrefix/"
MACHINES = {"SearchMachine": "SearchRole", "IntakeMachine": "IntakeRole", "ConcludeMachine": "ConcludeRole"}
SENT = pack_template()


def rendered(folder: Path) -> Path:
    """Write the template as people get it; cfn-lint knows ARNs of aws alone in the definitions, and no holes."""
    path = folder / "template.json"
    path.write_text(render_template().replace("${Partition}", "aws"), encoding="utf-8")
    return path


def sent(folder: Path) -> Path:
    path = folder / "sent.json"
    path.write_text(SENT.body, encoding="utf-8")
    return path


def compare(linter: str, found: set[str]) -> None:
    """Fail on a finding without a reason, and on a reason without a finding."""
    reasons = set(REASONS[linter])
    assert not found - reasons, f"{linter}: found, and tests/aws/suppressions.toml has no reason for it"
    assert not reasons - found, f"{linter}: nothing needs these reasons any more"


# --- linters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [rendered, sent])
def test_cfn_lint_finds_nothing_without_a_reason(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    done = subprocess.run(
        [BIN / "cfn-lint", "-r", "us-east-1", "-f", "json", write(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = {finding["Message"] for finding in json.loads(done.stdout)}
    if write is rendered:
        compare("cfn-lint", found)
    else:  # in what is sent the definitions are parameters
        assert not found


def find_checkov() -> str | None:
    """Return checkov's program; it needs an environment of its own, since it wants an old boto3."""
    return os.environ.get("CHECKOV") or shutil.which("checkov", path=str(REPOSITORY / ".checkov" / "bin"))


@pytest.mark.slow
def test_checkov_finds_nothing_without_a_reason(tmp_path: Path) -> None:
    program = find_checkov()
    if program is None:
        told = "THE TEMPLATE IS NOT CHECKED BY checkov: `.ci/checkov` installs it."
        if os.environ.get("CI"):
            pytest.fail(told)
        pytest.skip(told)
    path = rendered(tmp_path)
    done = subprocess.run(
        [program, "-f", path, "--framework", "cloudformation", "--compact", "--quiet", "-o", "json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    told = json.loads(done.stdout)
    failed = told["results"]["failed_checks"]
    compare("checkov", {f"{check['resource'].rpartition('.')[2]}.{check['check_id']}" for check in failed})


@pytest.mark.slow
def test_bandit_finds_nothing_without_a_reason() -> None:
    done = subprocess.run(
        [BIN / "bandit", "-q", "-r", "jobspec", "containers", "submitter", "-f", "json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    compare("bandit", {finding["test_id"] for finding in json.loads(done.stdout)["results"]})


DANGEROUS = {"joblib.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "yaml.load", "eval", "exec", "os.system"}
"""Calls that run what they read."""


def dangers_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in DANGEROUS:
            yield f"{node.lineno}: {name}"
        if options.get("shell") == "True":
            yield f"{node.lineno}: {name} through a shell"
        if name.rpartition(".")[2] == "load" and options.get("allow_pickle", "False") != "False":
            yield f"{node.lineno}: {name} reads pickles"
        if options.get("typ") in {"'unsafe'", "'base'"}:
            yield f"{node.lineno}: {name} makes any object of YAML"


@pytest.mark.parametrize("package", ["jobspec", "containers", "submitter"])
def test_nothing_runs_what_it_reads(package: str) -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{danger}"
        for path in sorted((REPOSITORY / package).rglob("*.py"))
        for danger in dangers_in(ast.parse(path.read_bytes()))
    ]
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "joblib.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "pickle.loads(body)",
        "yaml.load(text)",
        "subprocess.run(text, shell=True)",
        "eval(text)",
        "YAML(typ='unsafe')",
    ],
)
def test_the_rule_for_the_code_finds_each_danger(text: str) -> None:
    assert list(dangers_in(ast.parse(text)))


# --- rules of our own ---------------------------------------------------------------------------------------------


def test_batch_and_the_state_machine_keep_the_rules() -> None:
    assert check_batch(TEMPLATE) == []
    machines = [name for name, resource in RESOURCES.items() if resource["Type"].endswith("::StateMachine")]
    assert set(machines) == set(MACHINES)
    for name in machines:
        assert check_machine(machine_of(TEMPLATE, name)) == []


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"RetryStrategy": {"Attempts": 12}}, "Attempts 12"),
        ({"Timeout": {"AttemptDurationSeconds": 30}}, "30 s"),
        ({"Environment": [{"Name": "AWS_BATCH_JOB_X", "Value": "1"}]}, "Batch's own"),
        ({"JobStateTimeLimitActions": [{"MaxTimeSeconds": 60, "Reason": "X"}]}, "60 s"),
        ({"JobStateTimeLimitActions": [{"Reason": "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"}]}, "capacity"),
    ],
)
def test_the_rules_for_batch_find_what_cfn_lint_does_not(properties: dict[str, Any], words: str) -> None:
    found = check_batch({"Resources": {"X": {"Type": "AWS::Batch::JobDefinition", "Properties": properties}}})
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ({"A": {"Type": "Pass", "Next": "B"}}, "no state"),
        ({"A": {"Type": "Pass"}}, "neither Next nor End"),
        ({"A": {"Type": "Pass", "End": True}, "B": {"Type": "Pass", "End": True}}, "nothing leads here"),
        ({"A": {"Type": "Task", "End": True, "Resource": "batch:submitJob", "Parameters": {"JobName": "$.x"}}}, ".$"),
        ({"A": {"Type": "Choice", "Default": "A", "Choices": [{"Next": "Z"}]}}, "no state"),
    ],
)
def test_the_rules_for_state_machines_find_what_is_wrong(states: dict[str, Any], words: str) -> None:
    assert any(words in found for found in check_machine({"StartAt": "A", "States": states}))


def test_it_fits_into_a_request_and_leaves_space() -> None:
    assert len(SENT.body.encode()) < 0.96 * MAX_TEMPLATE_BYTES
    assert len(json.loads(SENT.body)["Parameters"]) < MAX_PARAMETERS / 2


def test_what_is_sent_is_what_is_printed() -> None:
    """Definitions travel as parameters, whose values CloudFormation takes whole; nothing of them may get lost."""
    body = json.loads(SENT.body)
    given = SENT.parameters
    for name, value in given.items():
        assert len(value.encode()) <= MAX_PARAMETER_BYTES
        assert value == value.strip()
        assert body["Parameters"].pop(name) == {"Type": "String"}
    for name in MACHINES:
        properties = body["Resources"][name]["Properties"]
        pieces = properties["DefinitionString"]["Fn::Join"]
        properties["DefinitionString"] = pieces[0].join(given[piece["Ref"]] for piece in pieces[1])
    assert body == TEMPLATE


@pytest.mark.parametrize("name", MACHINES)
def test_every_hole_of_a_definition_is_filled(name: str) -> None:
    properties = RESOURCES[name]["Properties"]
    holes = set(re.findall(r"\$\{(.*?)\}", properties["DefinitionString"]))
    assert holes == set(properties["DefinitionSubstitutions"])
    assert properties["StateMachineName"] == {"Fn::Sub": f"${{AWS::StackName}}-{name.removesuffix('Machine').lower()}"}


def test_the_outputs_are_what_the_code_reads() -> None:
    wanted = {field.name for field in fields(Stack)} - {"name", "region", "account"}
    assert {_snake(name) for name in TEMPLATE["Outputs"]} == wanted


def test_environments_are_replaced_by_nobody() -> None:
    for name in ("SpotEnvironment", "OnDemandEnvironment"):
        properties = RESOURCES[name]["Properties"]
        assert properties["ReplaceComputeEnvironment"] is False
        assert "ComputeEnvironmentName" not in properties
        assert "ServiceRole" not in properties
        assert properties["ComputeResources"]["MinvCpus"] == 0
    spot = RESOURCES["SpotEnvironment"]["Properties"]["ComputeResources"]
    assert spot["AllocationStrategy"] == "SPOT_PRICE_CAPACITY_OPTIMIZED"
    assert spot["BidPercentage"]["Fn::If"][0] == "HasMaxPrice"


def test_the_data_outlive_the_stack_and_nothing_else_does() -> None:
    kept = {name for name, resource in RESOURCES.items() if resource.get("DeletionPolicy") == "Retain"}
    assert kept == {"Bucket"}
    assert RESOURCES["Bucket"]["UpdateReplacePolicy"] == "Retain"


# --- rights -------------------------------------------------------------------------------------------------------

GRANTS = [(name, statement) for name, kind, statement in statements_of(TEMPLATE) if kind == "grant"]


@pytest.mark.parametrize(("name", "statement"), GRANTS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_grant_is_one_that_iam_knows_and_is_scoped(name: str, statement: dict[str, Any]) -> None:
    assert check_statement(name, statement) == []
    for resource in map(resolve, listed(statement["Resource"])):
        if resource != "*":
            place = resource.split(":", 5)[5]
            assert place.strip("*/"), f"{name} {statement.get('Sid')}: {resource} is everything"


@pytest.mark.parametrize("stack", ["foldfleet", "x" * 32])
def test_the_policies_for_whoever_builds_are_such_that_iam_knows(stack: str) -> None:
    policies = make_policies(stack, partition="aws-us-gov", region="ap-southeast-2", account="123456789012")
    assert list(policies) == [f"{stack}-builder-stack", f"{stack}-builder-parts"]
    for policy in policies.values():
        found = [words for statement in policy["Statement"] for words in check_statement(statement["Sid"], statement)]
        # Some actions share a statement with others, whose resources these do not know.
        assert [words for words in found if "is of the form" not in words] == []
        assert len(json.dumps(policy, separators=(",", ":"))) <= 6_144


FOREIGN_RIGHTS = (
    "eks:*", "kms:*", "vpc-lattice:*", "vpce:*", "firehose:*", "batch:setcapacitytags",  # other kinds of hosts and keys
    "iam:*user*", "iam:*group*",  # policies here are for roles
    "ec2:*ingress", "ecr:*repositorypolicy", "logs:put*", "logs:createlogdelivery", "s3:*", "s3tables:*",  # not set
)  # fmt: skip
"""What CloudFormation declares for properties that the template does not set. Of S3's, see `_bucket_grants`."""


@pytest.mark.parametrize("kind", sorted({resource["Type"] for resource in RESOURCES.values()}))
def test_whoever_builds_may_do_what_cloudformation_declares(kind: str) -> None:
    handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema["handlers"]
    steps = [handlers.get(step, {}) for step in ("create", "read", "delete")]
    declared = {action.lower() for step in steps for action in step.get("permissions", ())}
    statements = [one for policy in make_policies("foldfleet").values() for one in policy["Statement"]]
    granted = {action.lower() for statement in statements for action in statement["Action"]}
    missing = sorted(declared - granted)
    assert [action for action in missing if not any(fnmatch.fnmatchcase(action, one) for one in FOREIGN_RIGHTS)] == []


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ({"Action": "s3:*", "Resource": "*"}, "wildcard"),
        ({"Action": "s3:PutObjekt", "Resource": "*"}, "no such action"),
        ({"Action": "s3:PutObject", "Resource": "*"}, "could name a resource"),
        ({"Action": "s3:ListBucket", "Resource": "arn:aws:sqs:us-east-1:1:x"}, "is of the form"),
        (
            {"Action": "batch:ListJobs", "Resource": "*", "Condition": {"StringEquals": {"s3:prefix": "x"}}},
            "unknown to it",
        ),
    ],
)
def test_the_rules_for_policies_find_what_is_wrong(statement: dict[str, Any], words: str) -> None:
    assert any(words in found for found in check_statement("X", statement))


def test_services_act_for_this_account_alone() -> None:
    bare = {
        f"{name}.{statement['Action']}"
        for name, kind, statement in statements_of(TEMPLATE)
        if kind == "trust" and "aws:SourceAccount" not in json.dumps(statement.get("Condition", {}))
    }
    compare("policies", bare)


@pytest.mark.parametrize(("machine", "role"), MACHINES.items())
def test_a_machine_may_do_what_its_states_ask_for_and_nothing_else(machine: str, role: str) -> None:
    granted = {action for name, statement in GRANTS if name == role for action in listed(statement["Action"])}
    assert granted == actions_of(machine_of(TEMPLATE, machine))


@pytest.mark.parametrize(("machine", "role"), MACHINES.items())
def test_a_machine_writes_and_reads_what_its_role_allows(machine: str, role: str) -> None:
    for state in tasks_of(machine_of(TEMPLATE, machine)):
        action = {"getObject": "s3:GetObject", "putObject": "s3:PutObject"}.get(state["Resource"].rpartition(":")[2])
        key = state["Parameters"].get("Key.$", "")
        if action is None or not key.startswith("States.Format('${StorePrefix}/"):
            continue  # the plan's key is in the order
        example = key.split("'")[1].replace("${StorePrefix}/", STORE).replace("{}", "x")
        allowed = [
            resolve(resource)
            for name, statement in GRANTS
            if name == role and action in listed(statement["Action"])
            for resource in listed(statement["Resource"])
        ]
        assert any(fnmatch.fnmatchcase(example, pattern) for pattern in allowed), (example, allowed)


def test_services_act_for_one_source_each() -> None:
    """Which resource of which service may use a role: no other machine, rule or schedule of the account."""
    place = "us-east-1:123456789012"
    sources = {
        name: resolve(statement["Condition"]["ArnLike"]["aws:SourceArn"])
        for name, kind, statement in statements_of(TEMPLATE)
        if kind == "trust" and "ArnLike" in statement.get("Condition", {}) and name != "ScheduleRole"
    }
    assert sources == {
        "SearchRole": f"arn:aws:states:{place}:stateMachine:foldfleet-search",
        "IntakeRole": f"arn:aws:states:{place}:stateMachine:foldfleet-intake",
        "ConcludeRole": f"arn:aws:states:{place}:stateMachine:foldfleet-conclude",
        "EventsRole": f"arn:aws:events:{place}:rule/foldfleet-*",
    }
    tasks = {
        name: resolve(statement["Condition"]["ArnLikeIfExists"]["aws:SourceArn"])
        for name, kind, statement in statements_of(TEMPLATE)
        if kind == "trust" and "ArnLikeIfExists" in statement.get("Condition", {})
    }
    assert tasks == dict.fromkeys(
        ("ExecutionRole", "TaskRole", "ReducerRole", "PlannerRole"),
        f"arn:aws:ecs:{place}:*",
    )
    (trust,) = RESOURCES["ScheduleRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"] == {
        "StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}},
        "ArnLike": {"aws:SourceArn": {"Fn::GetAtt": ["Schedules", "Arn"]}},
    }


def test_every_rule_and_every_schedule_keeps_what_it_cannot_deliver() -> None:
    rules = {name: one for name, one in RESOURCES.items() if one["Type"] == "AWS::Events::Rule"}
    (statement,) = RESOURCES["DeadLettersPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    told = json.dumps(statement["Condition"]["ArnEquals"])
    for name, rule in rules.items():
        (target,) = rule["Properties"]["Targets"]
        assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["DeadLetters", "Arn"]}}
        assert f'"{name}"' in told
    assert ("ScheduleRole", ["sqs:SendMessage"]) in [(name, listed(one["Action"])) for name, one in GRANTS]


def test_nothing_of_uploads_is_there_with_events_off() -> None:
    conditional = {name for name, one in RESOURCES.items() if one.get("Condition") in ("HasEvents", "HasData")}
    assert conditional == {
        "IntakeMachine", "IntakeRole", "ScheduleRole", "Schedules", "SpecUploadRule", "DataUploadRule", "UploadReading"
    }  # fmt: skip
    assert RESOURCES["DataUploadRule"]["Condition"] == "HasData"
    assert RESOURCES["Bucket"]["Properties"]["NotificationConfiguration"]["Fn::If"][0] == "HasEvents"
    assert TEMPLATE["Parameters"]["Events"]["Default"] == "no"


def writes(role: str) -> list[str]:
    return sorted(
        resolve(resource).removeprefix(STORE)
        for name, statement in GRANTS
        if name == role and "s3:PutObject" in listed(statement["Action"])
        for resource in listed(statement["Resource"])
    )


def test_roles_write_below_their_own_keys_alone() -> None:
    assert writes("TaskRole") == ["runs/*/rounds/*/done/*", "runs/*/rounds/*/log/*"]
    assert writes("ReducerRole") == ["answers/*", "runs/*/rounds/*/all.parquet", "runs/*/views/*"]
    assert writes("PlannerRole") == [
        "answers/*", "books/*", "datasets/*", "runs/*/rounds/*/arrays/*", "runs/*/rounds/*/drafts/*",
        "runs/*/rounds/*/plan.json", "runs/*/space.json", "runs/*/spec.yaml", "sources/*", "uploads/*",
    ]  # fmt: skip
    assert writes("IntakeRole") == writes("ConcludeRole") == ["outcomes/*"]
    assert writes("SearchRole") == ["answers/*-spec.json", "outcomes/*"]
    assert writes("EventsPolicy") == ["templates/*"]
    assert not [name for name, statement in GRANTS if name == "InstanceRole"]
    deleting = {name for name, statement in GRANTS if "s3:DeleteObject" in listed(statement["Action"])}
    assert deleting == {"SubmitterPolicy"}


def test_who_reads_or_writes_objects_may_use_the_buckets_key() -> None:
    told = json.dumps(RESOURCES["KeyUse"]["Properties"]["Roles"])
    objects = {"s3:GetObject", "s3:PutObject"}
    roles = {
        name
        for name, statement in GRANTS
        if RESOURCES[name]["Type"] == "AWS::IAM::Role" and objects & set(listed(statement["Action"]))
    }
    assert roles == {role for role in RESOURCES if json.dumps({"Ref": role}) in told}


def test_policies_are_short_enough() -> None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html, with the longest names there are."""
    sizes: dict[str, int] = {}
    for name, kind, statement in statements_of(TEMPLATE):
        if kind == "grant":
            sizes[name] = sizes.get(name, len('{"Version":"2012-10-17","Statement":[]}')) + len(lengthen(statement)) + 1
    for policy in ("SubmitterPolicy", "EventsPolicy"):
        assert sizes.pop(policy) <= 6_144
    assert all(size < 8_000 for size in sizes.values()), sizes


def lengthen(statement: dict[str, Any]) -> str:
    """Return a statement as IAM counts it, of a stack whose every name is as long as it may be."""
    actual = {**statement, "Resource": [resolve(one) for one in listed(statement["Resource"])]}
    text = re.sub(r"(role/foldfleet-\w+)", r"\1-XXXXXXXXXXXX", json.dumps(actual, separators=(",", ":")))
    for short, long in (
        ("arn:aws:", "arn:aws-us-gov:"),
        ("us-east-1", "ap-southeast-2"),
        ("foldfleet", "s" * 32),
        ("BucketName", "b" * 63),
        ("StorePrefix", "foldfleet"),
    ):
        text = text.replace(short, long)
    return text


def test_results_are_created_and_never_overwritten() -> None:
    statements = {statement["Sid"]: statement for _, kind, statement in statements_of(TEMPLATE) if "Sid" in statement}
    once = statements["ResultsAreCreatedOnce"]
    assert once["Effect"] == "Deny"
    assert once["Condition"] == {
        "Null": {"s3:if-none-match": "true"},
        "Bool": {"s3:ObjectCreationOperation": "true"},
    }
    keys = {resolve(one).removeprefix(STORE) for one in once["Resource"]}
    assert {"datasets/*", "books/*", "runs/*/spec.yaml", "runs/*/space.json", "runs/*/rounds/*"} <= keys
    assert not [key for key in keys if "views" in key or "answers" in key]
    assert statements["OnlyEncryptedConnections"]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


# --- user data ----------------------------------------------------------------------------------------------------


@cache
def parts() -> dict[str, str]:
    """Return the parts of the user data by their type, as cloud-init takes them apart."""
    data = RESOURCES["LaunchTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]["Fn::Base64"]
    message = email.message_from_string(data)
    assert message.is_multipart()
    assert not message.defects
    return {part.get_content_type(): str(part.get_payload()) for part in message.get_payload()}  # type: ignore[union-attr]


def test_user_data_is_a_mime_archive_with_a_boothook_and_a_script() -> None:
    assert list(parts()) == ["text/cloud-boothook", "text/x-shellscript"]
    assert "ECS_IMAGE_PULL_BEHAVIOR=prefer-cached" in parts()["text/x-shellscript"]
    assert all(part.startswith("#!/bin/bash\n") for part in parts().values())


@pytest.mark.parametrize("kind", ["text/cloud-boothook", "text/x-shellscript"])
def test_user_data_is_clean_shell(kind: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(parts()[kind])
    subprocess.run(["bash", "-n", script], check=True)
    done = subprocess.run([BIN / "shellcheck", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


FAKES = {
    "lsblk": 'cat "$DISKS"',
    "mountpoint": '[ -e "$STATE/mounted" ]',
    "blkid": '[ -e "$STATE/formatted" ]',
    "mkfs.xfs": 'echo "mkfs $*" >> "$STATE/log"; touch "$STATE/formatted"',
    "mount": 'echo "mount $*" >> "$STATE/log"; [ ! -e "$STATE/broken" ] && touch "$STATE/mounted"',
    "chown": 'echo "chown $*" >> "$STATE/log"',
}
EBS = "/dev/nvme0n1 Amazon\\x20Elastic\\x20Block\\x20Store\n"
NVME = "/dev/nvme1n1 Amazon\\x20EC2\\x20NVMe\\x20Instance\\x20Storage\n"


class Host:
    """A host on which the boothook runs with programs that only take notes."""

    def __init__(self, folder: Path, disks: str) -> None:
        self.state, self.base, programs = folder / "state", folder / "base", folder / "bin"
        self.state.mkdir()
        programs.mkdir()
        for name, text in FAKES.items():
            (programs / name).write_text(f"#!/bin/bash\n{text}\n")
            (programs / name).chmod(0o755)
        (folder / "disks").write_text(disks)
        self.script = folder / "boothook"
        self.script.write_text(parts()["text/cloud-boothook"].replace("/var/lib/foldfleet", str(self.base)))
        self.env = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "STATE": str(self.state),
            "DISKS": str(folder / "disks"),
        }

    def boot(self) -> list[str]:
        """Run the boothook; return what was done to disks and owners."""
        (self.state / "log").write_text("")
        subprocess.run(["bash", self.script], env=self.env, check=True, capture_output=True)
        return (self.state / "log").read_text().splitlines()


def owners(host: Host) -> str:
    return f"chown 10001:10001 {host.base} {host.base}/cache {host.base}/tmp"


def test_a_host_without_an_instance_store_uses_its_root_volume(tmp_path: Path) -> None:
    host = Host(tmp_path, EBS)
    assert host.boot() == [owners(host)]
    assert (host.base / "cache").is_dir()
    assert (host.base / "tmp").is_dir()


def test_an_instance_store_is_formatted_once_and_mounted_at_every_boot(tmp_path: Path) -> None:
    host = Host(tmp_path, EBS + NVME + NVME.replace("nvme1", "nvme2"))
    mounted = f"mount -o noatime /dev/nvme1n1 {host.base}"
    assert host.boot() == ["mkfs -q -K /dev/nvme1n1", mounted, owners(host)]
    assert host.boot() == [owners(host)]  # cloud-init runs it again, and the disk is there
    (host.state / "mounted").unlink()
    assert host.boot() == [mounted, owners(host)]  # a reboot: what is on it stays


def test_a_broken_instance_store_leaves_the_root_volume(tmp_path: Path) -> None:
    host = Host(tmp_path, NVME)
    (host.state / "broken").touch()
    assert host.boot()[-1] == owners(host)
    assert (host.base / "cache").is_dir()


def test_the_cache_is_where_containers_look_for_it() -> None:
    text = (REPOSITORY / "submitter" / "cloud" / "definitions.py").read_text(encoding="utf-8")
    assert re.search(r"/var/lib/foldfleet", text)
