"""A world for the machines: a store, a queue whose jobs end as a test says, and everything that was told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from submitter.machines.messages import FORMAT_VERSION
from submitter.machines.names import Names
from tests.machines.interpreter import ACCOUNT, REGION, Call, Failure

NAMES = Names(
    partition="aws",
    region=REGION,
    account=ACCOUNT,
    stack="ff",
    bucket="bucket-1",
    store_prefix="store",
    queue_arn=f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/ff",
    max_vcpus="64",
    environments="1",
    instance_types="m6i,c6i",
    data_places="arn:aws:s3:::bucket-1/data/*",
    spec_prefix="incoming/",
    data_prefix="data/",
    topic_arn="",
    max_cells="100000",
    max_task_vcpus="16",
    max_task_memory_gib="64",
    max_hours="24",
    max_vcpu_hours="500",
    search_machine=f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:ff-search",
)
RUN = "digits-0123456789abcdef"
WORK, REDUCE = (f"arn:aws:batch:{REGION}:{ACCOUNT}:job-definition/ff-{step}-e1:3" for step in ("work", "reduce"))
PLAN_KEY = f"store/runs/{RUN}/rounds/000/plan.json"
CELLS = {"total": 12, "done": 12, "failed": 0, "lost": 0, "missing": 0, "nan": 0}


def order(next_: str, **changes: Any) -> dict[str, Any]:
    """Return an order as the planner answers it: every key is there."""
    whole: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "next": next_,
        "run_id": RUN,
        "round": 0,
        "bucket": "bucket-1",
        "plan": PLAN_KEY,
        "name": f"{RUN}-12345678-r0",
        "definitions": {"work": WORK, "reduce": REDUCE},
        "parameters": {
            "store": "s3://bucket-1/store",
            "run": RUN,
            "round": "0",
            "execution": "arn:x",
            "vcpus": "1",
            "memory_mib": "1884",
        },
        "overrides": {"ResourceRequirements": [{"Type": "VCPU", "Value": "1"}], "Environment": []},
        "tags": {"foldfleet:stack": "ff", "foldfleet:run": RUN},
        "timeout": {"AttemptDurationSeconds": 3600},
        "work_seconds": 7200,
        "step_seconds": 5000,
        "deadline": 1234.5,
        "num_tasks": 3,
        "num_cells": 12,
        "prepare": None,
        "owners": [],
        "summary": None,
        "message": "",
        "error": None,
    }
    assert not changes.keys() - whole.keys()
    return whole | changes


def summary(*, complete: bool = True, **changes: Any) -> dict[str, Any]:
    """Return what a reduce step answers."""
    cells = CELLS if complete else CELLS | {"done": 8, "missing": 4}
    best = {"candidate": 3, "params": {"C": 1.0, "name": 'a"b\n\u00e9'}, "mean_test_score": 0.9}
    files = {"best": f"s3://bucket-1/store/runs/{RUN}/views/best.json"}
    made = {"run_id": RUN, "complete": complete, "cells": cells, "best": best, "files": files, "missing": []}
    return made | changes


class World:
    """Serves requests.

    Args:
        orders: what the planner answers, one after the other.
        summaries: what the reduce step answers.
        arrays: the sizes of the arrays in the plan.
        jobs: how jobs end by their names, try for try; those that are not named succeed.
    """

    def __init__(
        self,
        orders: Iterable[dict[str, Any]] = (),
        summaries: Iterable[dict[str, Any]] = (),
        arrays: list[list[int]] | None = None,
        jobs: dict[str, list[Failure | None]] | None = None,
    ) -> None:
        self.orders, self.summaries = list(orders), list(summaries)
        self.jobs = jobs or {}
        self.objects: dict[str, str] = {PLAN_KEY: json.dumps({"arrays": arrays or [[0, 3]], "run_id": RUN})}
        self.calls: list[Call] = []
        self.events: list[dict[str, Any]] = []
        self.listed: dict[str, list[dict[str, Any]]] = {}
        self.statuses: dict[str, list[str]] = {}
        self.broken: dict[str, list[Failure]] = {}
        self.started: dict[str, Any] = {}

    def __call__(self, call: Call) -> Any:
        """Answer a request."""
        self.calls.append(call)
        if self.broken.get(call.integration):
            raise self.broken[call.integration].pop(0)
        action = call.integration.rpartition(":")[2].partition(".")[0]
        return getattr(self, f"_{action}")(call.parameters)

    def names(self, action: str) -> list[str]:
        """Return the names of jobs in the requests of one kind."""
        return [call.parameters["JobName"] for call in self.calls if action in call.integration]

    def of(self, action: str) -> list[dict[str, Any]]:
        """Return the parameters of all requests of one kind."""
        return [call.parameters for call in self.calls if call.integration.rpartition(":")[2] == action]

    def asks(self) -> list[dict[str, Any]]:
        """Return what the planner was asked."""
        jobs = self.of("submitJob.sync")
        return [json.loads(job["Parameters"]["ask"]) for job in jobs if job["JobDefinition"] == "ff-plan"]

    def outcomes(self) -> list[dict[str, Any]]:
        """Return the outcomes in the store."""
        return [json.loads(body) for key, body in self.objects.items() if key.startswith("store/outcomes/")]

    def count(self) -> Counter[str]:
        """Count requests."""
        return Counter(call.integration.rpartition(":")[2] for call in self.calls)

    def _submitJob(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as AWS calls it
        endings = self.jobs.get(given["JobName"], [])
        ending = endings.pop(0) if endings else None
        if ending is not None:
            raise ending
        answers = {"ff-plan": self.orders, REDUCE: self.summaries}.get(given["JobDefinition"])
        if answers is not None and answers:
            document = answers.pop(0)
            whole = document if "exit" in document else {"exit": 0, "answer": document, "error": None}
            self.objects[f"store/answers/{given['Parameters']['answer']}.json"] = json.dumps(whole)
        return {"JobId": "j-1", "Status": "SUCCEEDED", "Container": {"Environment": ["x" * 1000]}}

    def _getObject(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        if given["Key"] not in self.objects:
            raise Failure("S3.NoSuchKeyException", "The specified key does not exist. (Status Code: 404)")
        return {"Body": self.objects[given["Key"]], "ETag": '"e"', "Metadata": {}}

    def _putObject(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        if given.get("IfNoneMatch") == "*" and given["Key"] in self.objects:
            raise Failure("S3.S3Exception", "At least one of the pre-conditions... (Service: S3, Status Code: 412)")
        self.objects[given["Key"]] = json.dumps(given["Body"])
        return {"ETag": '"e"'}

    def _listJobs(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        wanted = given["ArrayJobId"] if "ArrayJobId" in given else given["Filters"][0]["Values"][0]
        return {"JobSummaryList": self.listed.get(wanted, [])}

    def _describeJobs(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"Jobs": [{"JobId": job, "Status": self._next(job)} for job in given["Jobs"] if job in self.statuses]}

    def _describeExecution(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        if given["ExecutionArn"] not in self.statuses:
            raise Failure("Sfn.ExecutionDoesNotExistException")
        return {"Status": self._next(given["ExecutionArn"])}

    def _terminateJob(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {}

    def _putEvents(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self.events.extend(given["Entries"])
        return {"FailedEntryCount": 0}

    def _publish(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"MessageId": "m"}

    def _putMetricData(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {}

    def _startExecution(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        if given["Name"] in self.started:
            raise Failure("StepFunctions.ExecutionAlreadyExistsException", "Execution Already Exists")
        self.started[given["Name"]] = given["Input"]
        return {"ExecutionArn": f"arn:execution:{given['Name']}", "StartDate": "x"}

    def _next(self, name: str) -> str:
        statuses = self.statuses[name]
        return statuses.pop(0) if len(statuses) > 1 else statuses[0]
