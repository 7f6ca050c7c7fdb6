"""The verdicts of the search machine: finished, another round, or why not, in words for people."""

from __future__ import annotations

from typing import Any, Final

from jobspec.errors import ExitCode
from submitter.machines.closing import FAILED, FINISHED, REFUSED, end, failure
from submitter.machines.following import REASONS
from submitter.machines.messages import ONE_VERSION
from submitter.machines.names import Names
from submitter.machines.states import JOB_FAILED, TIMEOUT, State, both, choice, compose, copy, join, put, request, when
from submitter.machines.stuck import decoding

ROUNDS: Final = 3
"""How many rounds one execution sends: the first, and two of what is unfinished then."""


OVERLONG: Final = "*verrides length*"
"""AWS Batch takes a request whose parameters make its command too long, and fails it then."""


def judging(names: Names) -> dict[str, State]:
    """Return the states from a summary, a failure or a refusal to what is told of it (``$.end``)."""
    return join(_late(names), _judging(), _explaining(), _failing(), _refusing())


def ask(run: str | None, deadline: str | int) -> State:
    """Return what the planner is asked: to go on with a run (a path) until a deadline (a path or a number)."""
    asked: dict[str, Any] = {"run": None} if run is None else {"run.$": run}
    until = {"deadline.$": deadline} if isinstance(deadline, str) else {"deadline": deadline}
    return {
        "execution.$": "$$.Execution.Id",
        "spec": None,
        "upload": None,
        "over.$": number("-1"),
        "prepared": None,
        **asked,
        **until,
    }


def number(text: str) -> str:
    """Return an expression: the hole of a number stands in a text, as all holes do."""
    return f"States.StringToJson('{text}')"


def _late(names: Names) -> dict[str, State]:
    """Return the states that ask why a step did not end in time: mostly, it never began."""
    find = request(
        names,
        "aws-sdk:batch:listJobs",
        {"JobQueue": names.queue_arn, "Filters": [{"Name": "JOB_NAME", "Values.$": "States.Array($.late.name)"}]},
        then="LateCause",
        failed="Explain",
        ResultSelector={"why.$": REASONS, "ids.$": "$.JobSummaryList[*].JobId"},
        ResultPath="$.late",
    )
    text = "States.Format('A step did not end in time. AWS Batch says: {}. `submit doctor --on aws` looks for what is "
    return {
        "PlanLate": compose({"name.$": "States.Format('plan-{}',$.n.answer)"}, "$.late", "FindLate"),
        "PrepareLate": copy("$.order.prepare", "$.late", "FindLate"),
        "ReduceLate": compose({"name.$": "States.Format('{}-reduce',$.order.name)"}, "$.late", "FindLate"),
        "FindLate": find,
        "LateCause": compose({"Error": TIMEOUT, "Cause.$": "$.late.why"}, "$.error", "LateJob"),
        # Nothing says that Step Functions ends what it no longer waits for.
        "LateJob": choice(when("$.late.ids[0]", "IsPresent", True, "EndLate"), default="Explain"),
        "EndLate": request(
            names,
            "aws-sdk:batch:terminateJob",
            {"JobId.$": "$.late.ids[0]", "Reason": "The execution was over its time"},
            then="Explain",
            failed="Explain",
        ),
        "TellLate": compose(failure("Stuck", f"{text}wrong.',$.error.Cause)"), "$.end", "Tell"),
    }


def _judging() -> dict[str, State]:
    """Return the states between the summary and the end: finished, another round, or why not."""
    done = "States.Format('{} is finished: {} of {} cells have scores.',$.order.run_id,$.summary.cells.done,"
    return {
        "Judge": choice(
            when("$.summary.complete", "BooleanEquals", True, "Finished"),
            when("$.ends.all", "StringMatches", '*"over *', "OverLimit"),
            when("$.ends.all", "StringMatches", "*MISCONFIGURATION:*", "Stuck"),
            both(when("$.n.sent", "NumericGreaterThan", 0), when("$.n.sent", "NumericLessThan", ROUNDS), "Retry"),
            default="Incomplete",
        ),
        "Finished": compose(end(FINISHED, "finished", f"{done}$.summary.cells.total)"), "$.end", "Tell"),
        "Retry": compose(ask("$.order.run_id", "$.order.deadline"), "$.ask", "Count"),
        "Stuck": _because("foldfleet.Stuck"),
        "OverLimit": _because("foldfleet.OverLimit"),
        "Incomplete": _because("foldfleet.Incomplete"),
    }


def _explaining() -> dict[str, State]:
    """Return the states that decode ``$.error``: what a desk knows of AWS Batch's reasons, then our own words."""
    failed = when("$.error.Error", "StringEquals", JOB_FAILED)
    return {
        **decoding("Cause", "Tell"),
        "Cause": choice(
            when("$.error.Error", "StringEquals", TIMEOUT, "TellLate"),
            both(failed, when("$.error.Cause", "StringMatches", OVERLONG), "Long"),
            both(failed, when("$.order.run_id", "StringEquals", ""), "TellUnplanned"),
            failed | {"Next": "TellKilled"},
            when("$.error.Error", "StringEquals", "foldfleet.OverLimit", "TellOver"),
            when("$.error.Error", "StringEquals", "foldfleet.Incomplete", "TellIncomplete"),
            # It names the definition that it is about.
            when("$.error.Cause", "StringMatches", "*not authorized*", "Broken"),
            both(
                when("$.error.Error", "StringMatches", "Batch.*"),
                when("$.error.Cause", "StringMatches", "*ob*efinition*"),
                "NoImage",
            ),
            default="Broken",
        ),
        **_wording(),
    }


def _wording() -> dict[str, State]:
    """Return the states that say in our own words what helps."""
    incomplete = (
        f"States.Format('{{}} is incomplete after {ROUNDS} rounds. `submit status {{}}` names what is missing, `submit "
        "resume {}` tries again. AWS Batch said: {}',$.order.run_id,$.order.run_id,$.order.run_id,$.error.Cause)"
    )
    over = (
        "States.Format('{} was over its time and was ended. What is finished stays: `submit resume {}` goes on. "
        "`submit events enable --max-hours H --max-vcpu-hours V` raises what uploads may take.',"
        "$.order.run_id,$.order.run_id)"
    )
    killed = (
        "States.Format('A step of {} ended on AWS Batch without an answer: it was killed, or had too little memory. "
        "Its log in CloudWatch tells. What is finished stays: `submit resume {}` goes on, or start it again.',"
        "$.order.run_id,$.order.run_id)"
    )
    unplanned = (
        "States.Format('The step that plans (plan-{} on AWS Batch) ended without an answer: it was killed, or could "
        "not reach the store. Its log in CloudWatch tells. Start the same again.',$.n.answer)"
    )
    long = (
        "The key of the upload and the places that specs may read are longer than a request to AWS Batch can be (8,192 "
        "characters). Give the object a shorter key, or the stack fewer places (`submit infra up --data`)."
    )
    return {
        # The cause of the first two is the whole of DescribeJobs.
        "TellKilled": compose(failure("Broken", killed), "$.end", "Tell"),
        "TellUnplanned": compose(failure("Broken", unplanned), "$.end", "Tell"),
        "Long": put({"exit": ExitCode.LIMIT.value, "message": long}, "$.order.error", "Refused"),
        "TellOver": compose(failure("OverLimit", over), "$.end", "Tell"),
        "TellIncomplete": compose(failure("Incomplete", incomplete), "$.end", "Tell"),
    }


def _because(error: str) -> State:
    return compose({"Error": error, "Cause.$": "$.ends.all"}, "$.error", "Explain")


def _failing() -> dict[str, State]:
    no_image = (
        "States.Format('No image of this stack can be started (`submit image build` and `submit image push` make one): "
        "{}',$.error.Cause)"
    )
    skewed = (
        "The state machine of the stack and the image that answered it are of different versions of foldfleet. To make "
        f"them one, {ONE_VERSION}. Then start the same again; what is finished stays."
    )
    return {
        "NoImage": compose(failure("NoImage", no_image), "$.end", "Tell"),
        "Broken": compose(failure("Broken", "States.Format('{}: {}',$.error.Error,$.error.Cause)"), "$.end", "Tell"),
        "Skewed": compose(failure("NoImage", skewed), "$.end", "Tell"),
        "Failing": compose(failure("Broken", "$.got.doc.error.message"), "$.end", "Tell"),
    }


def _refusing() -> dict[str, State]:
    refused = end(FAILED, "refused", "$.order.error.message", "foldfleet.Refused")
    unread = (
        'The input holds nothing to search. Give {"spec": "s3://BUCKET/KEY"}, {"spec": "TEXT"} with the text of a '
        'spec, {"spec": {...}} with the spec itself, or {"run": "RUN_ID"}.'
    )
    untrusted = (
        "The order in the input is none that a desk of this version makes for this stack. Type `submit run SPEC --on "
        f"stepfunctions`. Where that did it, desk and stack are of different versions: {ONE_VERSION}."
    )
    return {
        "Refused": choice(
            # What had begun is no upload that was refused: it was cancelled, or has used up what it may take.
            when("$.order.error.exit", "NumericEquals", ExitCode.INTERRUPTED.value, "Stopped"),
            when("$.n.sent", "NumericGreaterThan", 0, "Begun"),
            when("$.upload", "IsNull", True, "RefusedRun"),
            default="RefusedUpload",
        ),
        "Begun": choice(when("$.order.error.exit", "NumericEquals", ExitCode.LIMIT.value, "UsedUp"), default="Stopped"),
        "UsedUp": compose(failure("OverLimit", "$.order.error.message"), "$.end", "Tell"),
        "Stopped": compose(failure("Refused", "$.order.error.message"), "$.end", "Tell"),
        "RefusedRun": compose(refused, "$.end", "Tell"),
        "RefusedUpload": compose(refused | {"type": REFUSED}, "$.end", "Tell"),
        "Untrusted": compose(end(FAILED, "refused", untrusted, "foldfleet.Refused"), "$.end", "Tell"),
        "Unread": compose(end(FAILED, "refused", unread, "foldfleet.Refused"), "$.end", "Tell"),
    }
