"""`make aws-demo`: the whole way to AWS Batch and back, on the stand-in, with two hosts reclaimed and an upload.

Every command is the one that a person types; only the environment leads to the stand-in. The containers, the registry
and S3 are real.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.aws.fixtures import STACK
from tests.aws.standin.cloud import Cloud, running_cloud

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = "foldfleet-base:bookworm"
SPEC = REPOSITORY / "examples" / "letters.yaml"

NUM_RECLAIMS = 2
MAX_VCPUS = 8
"""Two hosts of four: as many as a laptop stands."""

UPLOAD = """
name: upload
data: {builtin: iris}
cv: 2
candidates:
- estimator: sklearn.svm.SVC
  grid: {C: [0.1, 1]}
scoring: accuracy
resources: {vcpus: 2, memory_gib: 1}
"""

_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 300


def main() -> int:
    """Run the demo and return its exit code."""
    with tempfile.TemporaryDirectory(prefix="foldfleet-aws-demo-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        say("The stand-in for AWS starts: SeaweedFS as S3, a docker-registry as ECR, a Docker engine for the hosts.")
        with running_cloud(Path(folder) / "cloud") as cloud:
            show(cloud, home)
    return 0


def show(cloud: Cloud, home: Path) -> None:
    """Go the whole way."""
    admin = environment(home, cloud.admin)
    run(admin, "image", "build", *base_options())
    run(admin, "infra", "up", "--yes", "--max-vcpus", MAX_VCPUS)
    stack = outputs(cloud)
    cloud.client("iam").attach_user_policy(UserName="desk", PolicyArn=stack["SubmitterPolicyArn"])
    desk = environment(home, cloud.environment | {"FOLDFLEET_STORE": stack["StoreUrl"]})
    say("From here on as a user who has the stack's SubmitterPolicy and nothing else.")
    run(desk, "image", "push")
    with reclaims(cloud, NUM_RECLAIMS) as reclaimed:
        run(desk, "run", SPEC, "--on", "aws")
    run(desk, "results", "latest", "--top", 5)
    run(desk, "run", SPEC, "--on", "aws")
    run(admin, "events", "enable", "--yes")
    upload(cloud, desk)
    run(admin, "infra", "status")
    run(admin, "infra", "down", "--yes")
    if len(reclaimed) < NUM_RECLAIMS:
        raise SystemExit(f"only {len(reclaimed)} of {NUM_RECLAIMS} hosts were reclaimed on the way")


def upload(cloud: Cloud, desk: Mapping[str, str]) -> None:
    """Put a spec into the bucket as any S3 client does, and show what became of it.

    Raises:
        SystemExit: its search did not end well.
    """
    stack = outputs(cloud)
    cloud.client("iam").attach_user_policy(UserName="desk", PolicyArn=stack["EventsPolicyArn"])
    cloud.options(wait_scale=0.1)
    say("\nNobody runs anything now: a spec is put into the bucket, and EventBridge tells the state machines.")
    say(f"$ aws s3 cp upload.yaml s3://{stack['BucketName']}/incoming/")
    cloud.client("s3").put_object(Bucket=stack["BucketName"], Key="incoming/upload.yaml", Body=UPLOAD.encode())
    states = cloud.client("stepfunctions")
    status = ""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while status in {"", "RUNNING"} and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        for one in states.list_executions(stateMachineArn=stack["SearchMachineArn"])["executions"]:
            status = str(one["status"])
    run(desk, "events", "list")
    run(desk, "results", "latest")
    if status != "SUCCEEDED":
        raise SystemExit(f"the search of the upload ended as {status or 'nothing'}")


def environment(home: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with a home of its own and the way to the stand-in."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FOLDFLEET_"))}
    own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "FOLDFLEET_CACHE": str(home / "cache")}
    return {**clean, **own, "FOLDFLEET_STACK": STACK, **given}


def base_options() -> list[str]:
    """Return what names a base image that needs no registry, where there is one (`.ci/base-image`)."""
    found = subprocess.run(["docker", "image", "inspect", BASE], capture_output=True, check=False)
    return [] if found.returncode else ["--base", BASE]


def run(env: Mapping[str, str], *arguments: object) -> None:
    """Show a command and run it.

    Raises:
        SystemExit: it failed.
    """
    words = list(map(str, arguments))
    say(f"\n$ submit {' '.join(word.removeprefix(f'{REPOSITORY}/') for word in words)}")
    done = subprocess.run([sys.executable, "-m", "submitter", *words], env=dict(env), cwd=env["HOME"], check=False)
    if done.returncode:
        raise SystemExit(f"`submit {words[0]}` ended with exit code {done.returncode}")


def outputs(cloud: Cloud) -> dict[str, str]:
    """Return the outputs of the stack."""
    described: dict[str, Any] = cloud.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]
    return {one["OutputKey"]: one["OutputValue"] for one in described["Outputs"]}


@contextlib.contextmanager
def reclaims(cloud: Cloud, count: int) -> Iterator[list[str]]:
    """Take ``count`` hosts away while they work, each once something of the run is durable, until the block ends."""
    reclaimed: list[str] = []
    over = threading.Event()
    thread = threading.Thread(target=_reclaim, args=(cloud, count, reclaimed, over), daemon=True)
    thread.start()
    try:
        yield reclaimed
    finally:
        over.set()
        thread.join()


def _reclaim(cloud: Cloud, count: int, reclaimed: list[str], over: threading.Event) -> None:
    parts = 0
    while len(reclaimed) < count and not over.wait(_LOOK_SECONDS):
        written = sum(
            call.principal.startswith("role/") and call.action == "s3:PutObject" and "/log/" in call.resource
            for call in cloud.calls()
        )
        busy = [host["instance_id"] for host in cloud.hosts() if host["jobs"]]
        if busy and written >= parts + 2:
            cloud.reclaim(busy[0])
            reclaimed.append(busy[0])
            parts = written + 2
            say(f"  [the spot market takes {busy[0]} back]")


def say(text: str) -> None:
    """Write a line between the commands' own output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
